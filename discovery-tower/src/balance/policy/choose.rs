//! The ways to choose: look at all, or draw two.

use super::Candidates;
use crate::balance::Member;

/// Up to how many endpoints all are looked at. A bit for each fits a word.
pub(super) const SCAN: usize = 32;

/// How often a place that will not do is drawn again, before all are looked at in turn.
const DRAWS: usize = 4;

/// Those with the least cost, of at most [`SCAN`]: a bit for each place.
#[inline]
pub(super) fn least<K, E, L, C: PartialOrd + Copy>(
    among: &impl Candidates<K, E, L>,
    most: C,
    cost: impl Fn(&Member<K, E, L>) -> C,
) -> u32 {
    let (mut least, mut which) = (most, 0_u32);
    among.each_free(|place, member| {
        let (cost, bit) = (cost(member), 1_u32.wrapping_shl(place as u32));
        if cost < least {
            (least, which) = (cost, bit);
        } else if cost == least {
            which |= bit;
        }
    });
    which
}

/// Those with the fewest calls under way, of at most [`SCAN`]: a bit for each place.
#[inline]
pub(super) fn fewest<K, E, L>(among: &impl Candidates<K, E, L>) -> u32 {
    least(among, u32::MAX, Member::pending)
}

/// Any of these places, each as likely.
#[inline]
pub(super) fn one_of<K, E, L>(mut which: u32, among: &impl Candidates<K, E, L>) -> Option<usize> {
    let several = which.count_ones();
    if several > 1 {
        // Mostly nearly all are equal, and one that is drawn is one of them.
        for _ in 0..DRAWS {
            let place = among.below(among.len());
            if which.unbounded_shr(place as u32) & 1 == 1 {
                return Some(place);
            }
        }
        // The lowest bits that are set, away.
        for _ in 0..among.below(several as usize) {
            which &= which - 1;
        }
    }
    (which != 0).then_some(which.trailing_zeros() as usize)
}

/// The place of one of two that are drawn: the second if it is better than the first.
#[inline]
pub(super) fn better_of_two<K, E, L>(
    among: &impl Candidates<K, E, L>,
    second_is_better: impl Fn(&Member<K, E, L>, &Member<K, E, L>) -> bool,
) -> Option<usize> {
    let (first, a) = draw_free(among)?;
    let second = among.draw();
    match among.free(second) {
        Some(b) if first != second && second_is_better(a, b) => Some(second),
        _ => Some(first),
    }
}

type Drawn<'a, K, E, L> = (usize, &'a Member<K, E, L>);

#[inline]
fn draw_free<K, E, L>(among: &impl Candidates<K, E, L>) -> Option<Drawn<'_, K, E, L>> {
    for _ in 0..DRAWS {
        let place = among.draw();
        if let Some(member) = among.free(place) {
            return Some((place, member));
        }
    }
    any_free(among)
}

/// One that is free, from a random place on.
#[cold]
fn any_free<K, E, L>(among: &impl Candidates<K, E, L>) -> Option<Drawn<'_, K, E, L>> {
    let start = among.below(among.len());
    (start..among.len())
        .chain(0..start)
        .find_map(|place| among.free(place).map(|member| (place, member)))
}
