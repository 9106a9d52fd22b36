//! The two ways to choose: look at all, or draw two.

use super::Candidates;
use crate::balance::Member;

/// Up to how many endpoints all are looked at. A bit for each fits a word.
pub(super) const SCAN: usize = 32;

/// How often a drawn place that is not free is drawn again, before all are looked at in turn.
const DRAWS: usize = 4;

/// The place of the one with the least cost, of at most [`SCAN`]; any of those that are equal.
#[inline]
pub(super) fn least<K, E, L, C: PartialOrd>(
    among: &impl Candidates<K, E, L>,
    cost: impl Fn(&Member<K, E, L>) -> C,
) -> Option<usize> {
    let (mut best, mut which): (Option<C>, u32) = (None, 0);
    for place in 0..among.len().min(SCAN) {
        let Some(member) = among.get(place).filter(|_| among.is_free(place)) else { continue };
        let cost = cost(member);
        match &best {
            Some(least) if *least < cost => {}
            Some(least) if *least == cost => which |= 1 << place,
            _ => (best, which) = (Some(cost), 1 << place),
        }
    }
    let several = which.count_ones();
    if several > 1 {
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
    let first = draw_free(among)?;
    let second = among.draw();
    if first == second || !among.is_free(second) {
        return Some(first);
    }
    match (among.get(first), among.get(second)) {
        (Some(a), Some(b)) if second_is_better(a, b) => Some(second),
        _ => Some(first),
    }
}

#[inline]
fn draw_free<K, E, L>(among: &impl Candidates<K, E, L>) -> Option<usize> {
    for _ in 0..DRAWS {
        let place = among.draw();
        if among.is_free(place) {
            return Some(place);
        }
    }
    any_free(among)
}

/// One that is free, from a random place on.
#[cold]
fn any_free<K, E, L>(among: &impl Candidates<K, E, L>) -> Option<usize> {
    let start = among.below(among.len());
    (start..among.len()).chain(0..start).find(|&place| among.is_free(place))
}
