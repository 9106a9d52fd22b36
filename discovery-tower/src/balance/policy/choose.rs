//! The two ways to choose: look at all, or draw two.

use super::Candidates;
use crate::balance::Member;

/// Up to how many endpoints all are looked at. A bit for each fits a word.
pub(super) const SCAN: usize = 32;

/// How often a place that will not do is drawn again, before all are looked at in turn.
const DRAWS: usize = 4;

/// The place of the one with the least cost, of at most [`SCAN`]; any of those that are equal. `cost` is
/// told the least one so far, to begin with `most`: what is above that need not be exact.
#[inline]
pub(super) fn least<K, E, L, C: PartialOrd + Copy>(
    among: &impl Candidates<K, E, L>,
    most: C,
    cost: impl Fn(&Member<K, E, L>, C) -> C,
) -> Option<usize> {
    let (mut least, mut which) = (most, 0_u32);
    let len = among.len().min(SCAN);
    for place in 0..len {
        let Some(member) = among.free(place) else { continue };
        let cost = cost(member, least);
        if cost < least {
            (least, which) = (cost, 1 << place);
        } else if cost == least {
            which |= 1 << place;
        }
    }
    let several = which.count_ones();
    if several > 1 {
        // Mostly nearly all are equal, and one that is drawn is one of them.
        for _ in 0..DRAWS {
            let place = among.below(len);
            if which >> place & 1 == 1 {
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
