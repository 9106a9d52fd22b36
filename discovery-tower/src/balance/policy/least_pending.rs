//! The endpoint with the fewest calls under way, for its weight.

use std::sync::Arc;

use super::{Candidates, Policy, SCAN, better_of_two, fewest, one_of};
use crate::balance::Member;
use crate::balance::member::FULL;

/// Sends a request to the endpoint with the fewest calls under way, for its weight.
///
/// Among up to 32 endpoints of the same weight all are compared, which is nearly as good as one queue
/// in front of all of them; else two that are drawn in proportion to their weights, with replacement,
/// by `pending / weight`, where the first drawn wins a tie: of the known rules for two choices the one
/// that keeps the shares at every load. (Mitzenmacher, "The Power of Two Choices in Randomized Load
/// Balancing", 2001.)
///
/// It does not look at the time that calls take, so it reads no clock, and a slow endpoint has its
/// share until calls queue up there. Use [`PeakEwma`](super::PeakEwma) unless all endpoints are alike
/// or calls take all kinds of times for reasons of their own.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastPending;

impl LeastPending {
    /// The policy.
    pub fn new() -> Self {
        Self
    }
}

impl<Req, K: 'static, E: 'static> Policy<Req, K, E> for LeastPending {
    type Load = ();
    type State = ();

    const TIMED: bool = false;

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<K, E, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()>
    where
        K: 'a,
        E: 'a,
    {
        former.unwrap_or_default()
    }

    #[inline]
    fn pick(&self, _: &Req, among: &impl Candidates<K, E, (), State = ()>) -> Option<usize> {
        if !among.is_even() {
            better_of_two(among, |a, b| {
                // a / weight of a > b / weight of b, without a division.
                let (a, b) = (
                    u64::from(a.pending()).saturating_mul(b.weight()),
                    u64::from(b.pending()).saturating_mul(a.weight()),
                );
                b < a
            })
        } else if among.len() <= SCAN {
            one_of(fewest(among), among)
        } else {
            better_of_two(among, |a, b| b.pending() < a.pending())
        }
    }

    fn cost(&self, member: &Member<K, E, ()>, _: u64) -> f64 {
        f64::from(member.pending()) * f64::from(FULL) / member.weight().max(1) as f64
    }
}
