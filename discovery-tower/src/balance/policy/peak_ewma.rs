//! The fewest calls under way, and fewer still where calls take far longer than elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latency::{LONGEST, Latency, float, growth};
use super::{Candidates, Finished, Policy, SCAN, better_of_two, fewest, least, one_of};
use crate::balance::member::FULL;
use crate::balance::{Member, Outcome};

/// Sends a request to the endpoint with the fewest calls under way, for its weight, and avoids those
/// where calls take far longer than at the others: the default policy.
///
/// Of each endpoint it keeps the root of the mean of squares of how long calls take, in which older
/// calls count for less and less (exponentially, over time). Squares let a few very long calls be seen
/// among many short ones. It takes for it, while that is longer, for how long nothing has come back
/// although calls are under way: an endpoint that hangs looks worse the longer it hangs.
///
/// As long as this is below twice the median of all endpoints it is not looked at: what is left then is
/// chance, and counting calls is nearly as good as one queue in front of all endpoints. Above that it
/// multiplies the cost of a call there. While an endpoint gets no calls, what is held against it fades,
/// so that it is tried again.
///
/// A failure counts as a call that took ten times the median, so failing fast is not being fast. A call
/// that was cancelled can only make it look slower. An endpoint that is new starts at the median.
///
/// Among up to 32 endpoints of the same weight all are compared, else two that are drawn in proportion
/// to their weights.
///
/// Its numbers are those that did best in a simulation, which is in `benches`.
#[derive(Debug)]
pub struct PeakEwma {
    /// One over the times, in nanoseconds.
    decay: f64,
    fade: f64,
    /// The square of the median of all endpoints, in square nanoseconds, as the bits of a float;
    /// infinite while no call has ended, so that nothing is above it.
    median: AtomicU64,
}

/// From which multiple of the median on an endpoint is slow.
const SLOW: f64 = 2.0;
/// A failure counts as a call that took so many times the median.
const FAILURE: f64 = 10.0;
/// The part of the mean of squares that a failure makes up at least: failing fast takes no time, so that
/// means over time would hardly see it.
const ONE_FAILURE: f64 = 0.1;

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

impl PeakEwma {
    /// Means over 7 s; what is held against an endpoint that gets no calls fades over 20 s.
    pub fn new() -> Self {
        Self::over(Duration::from_secs(7), Duration::from_secs(20))
    }

    /// Means over `decay`: what lies back as far counts for little more than a third. Over `fade`, as
    /// much is left of what is held against an endpoint that gets no calls.
    pub fn over(decay: Duration, fade: Duration) -> Self {
        let rate = |time: Duration| 1.0 / (time.as_nanos() as f64).max(1.0);
        let median = AtomicU64::new(f64::INFINITY.to_bits());
        Self { decay: rate(decay), fade: rate(fade), median }
    }

    /// The square of the median.
    #[inline]
    fn median(&self) -> f64 {
        f64::from_bits(self.median.load(Ordering::Relaxed))
    }

    /// Whether calls take so long there that it is held against the endpoint. While they do not, one
    /// costs as much as there are calls under way.
    #[inline]
    fn is_slow<K, E>(&self, member: &Member<K, E, Latency>, now: u64) -> bool {
        let (load, median) = (member.load(), self.median());
        let silent = load.silent(member.waiting(), now);
        silent * silent >= median * (SLOW * SLOW)
            || load.square() >= median * (SLOW * SLOW) && self.is_still_slow(load, median, now)
    }

    /// Whether its mean is too high, although what it exceeds the median by has been fading.
    fn is_still_slow(&self, load: &Latency, median: f64, now: u64) -> bool {
        let bound = 1.0 + (SLOW - 1.0) * self.fading(load, now);
        load.square() >= median * bound * bound
    }

    /// What is held against an endpoint is divided by this, which grows while there are no calls.
    fn fading(&self, load: &Latency, now: u64) -> f64 {
        1.0 + growth(load.idle(now) * self.fade)
    }

    /// What a call costs, without weights: no less than there are calls under way.
    #[cold]
    fn plain_cost<K, E>(&self, member: &Member<K, E, Latency>, now: u64) -> f64 {
        let calls = f64::from(member.pending());
        if !self.is_slow(member, now) {
            return calls;
        }
        let (load, median) = (member.load(), self.median().sqrt());
        let took = median + (load.square().sqrt() - median) / self.fading(load, now);
        (calls + 1.0) * took.max(load.silent(member.waiting(), now)) / median
    }

    /// Whether a call costs less at the second one, for weights like these.
    #[inline]
    fn is_second_better<K, E>(
        &self,
        first: &Member<K, E, Latency>,
        second: &Member<K, E, Latency>,
        [of_first, of_second]: [f64; 2],
        now: u64,
    ) -> bool {
        // No endpoint costs less than its calls, so that mostly one need be looked at closely.
        let least = f64::from(first.pending()) * of_second;
        let better = f64::from(second.pending()) * of_first < least;
        if !self.is_slow(if better { second } else { first }, now) {
            return better;
        }
        self.plain_cost(second, now) * of_first < self.plain_cost(first, now) * of_second
    }

    /// Any of those, of at most [`SCAN`], that cost least.
    #[inline]
    fn of_all<K, E>(
        &self,
        among: &impl Candidates<K, E, Latency, State = ()>,
        now: u64,
    ) -> Option<usize> {
        let mut which = fewest(among);
        // No endpoint costs less than its calls, so that mostly one need be looked at closely.
        while let Some(place) = one_of(which, among) {
            if !among.get(place).is_some_and(|member| self.is_slow(member, now)) {
                return Some(place);
            }
            which &= !1_u32.unbounded_shl(place as u32);
        }
        one_of(least(among, f64::INFINITY, |member| self.plain_cost(member, now)), among)
    }
}

impl<Req, K: 'static, E: 'static> Policy<Req, K, E> for PeakEwma {
    type Load = Latency;
    type State = ();

    const TIMED: bool = true;
    const REVIEW: Option<Duration> = Some(Duration::from_millis(100));

    fn load(&self) -> Latency {
        Latency::default()
    }

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<K, E, Latency>>,
        former: Option<Arc<()>>,
    ) -> Arc<()>
    where
        K: 'a,
        E: 'a,
    {
        former.unwrap_or_default()
    }

    /// One that is alone is compared with nobody.
    #[inline]
    fn is_timed(&self, usable: usize) -> bool {
        usable > 1
    }

    #[inline]
    fn pick(&self, _: &Req, among: &impl Candidates<K, E, Latency, State = ()>) -> Option<usize> {
        let now = among.now();
        if !among.is_even() {
            better_of_two(among, |a, b| {
                self.is_second_better(a, b, [a.weight() as f64, b.weight() as f64], now)
            })
        } else if among.len() <= SCAN {
            self.of_all(among, now)
        } else {
            better_of_two(among, |a, b| self.is_second_better(a, b, [1.0, 1.0], now))
        }
    }

    #[inline]
    fn started(&self, load: &Latency, waiting: u32, now: u64) {
        if waiting == 0 {
            load.heard(now);
        }
    }

    fn answered(&self, load: &Latency, now: u64) {
        load.heard(now);
    }

    #[inline]
    fn finished(&self, load: &Latency, call: Finished) {
        // Nothing came back of a call that was cancelled.
        if call.outcome != Outcome::Cancelled {
            load.heard(call.now);
        }
        if call.now == 0 {
            return;
        }
        let (took, median) = (float(call.elapsed.clamp(1, LONGEST)), self.median());
        let took = took * took;
        match call.outcome {
            Outcome::Success => load.add(took, call.now, self.decay, 0.0, median),
            Outcome::Failure | Outcome::Overloaded { .. } => {
                let took =
                    if median.is_finite() { took.max(median * (FAILURE * FAILURE)) } else { took };
                load.add(took, call.now, self.decay, ONE_FAILURE, median);
            }
            Outcome::Cancelled if took > load.square() => {
                load.add(took, call.now, self.decay, 0.0, median);
            }
            Outcome::Cancelled | Outcome::Ignore => {}
        }
    }

    fn review<'a>(&self, members: impl ExactSizeIterator<Item = &'a Member<K, E, Latency>>, _: u64)
    where
        K: 'a,
        E: 'a,
    {
        // Of numbers that are not below 0, the bits are in the same order.
        let squares = members.map(|member| member.load().square.load(Ordering::Relaxed));
        let mut squares: Vec<u64> = squares.filter(|square| *square > 0).collect();
        let middle = squares.len().saturating_sub(1) / 2;
        if middle < squares.len() {
            let (_, median, _) = squares.select_nth_unstable(middle);
            self.median.store(*median, Ordering::Relaxed);
        }
    }

    fn cost(&self, member: &Member<K, E, Latency>, now: u64) -> f64 {
        let cost = self.plain_cost(member, now);
        cost * f64::from(FULL) / member.weight().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::balance::entropy::{Random, Seeded};

    type Endpoint = Member<usize, (), Latency>;

    const NOW: u64 = 1_000_000_000_000;

    /// All of them are free.
    struct All(Vec<Endpoint>, Random);

    impl All {
        /// Some are slow, some were, some are silent, and all have a few calls.
        fn by_chance(count: usize, rng: &mut StdRng) -> Self {
            let member = |key| {
                let took = 10.0_f64.powf(rng.random_range(5.0..8.0));
                let load = Latency {
                    square: AtomicU64::new((took * took).to_bits()),
                    silent_since: AtomicU64::new(NOW - rng.random_range(0..40_000_000)),
                    at: AtomicU64::new(NOW - rng.random_range(0..60_000_000_000)),
                    calls: AtomicU32::new(1),
                };
                let member = Member::new(key, Arc::new(()), load, rng.random_range(1..4));
                for _ in 0..rng.random_range(0..3) {
                    member.begin();
                }
                member
            };
            Self((0..count).map(member).collect(), Random::Given(Arc::new(Seeded::new(1))))
        }
    }

    impl Candidates<usize, (), Latency> for All {
        type State = ();

        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, place: usize) -> Option<&Endpoint> {
            self.0.get(place)
        }

        fn is_free(&self, place: usize) -> bool {
            place < self.len()
        }

        fn draw(&self) -> usize {
            self.below(self.len())
        }

        fn is_even(&self) -> bool {
            true
        }

        fn below(&self, bound: usize) -> usize {
            self.1.below(bound as u64) as usize
        }

        fn state(&self) -> &() {
            &()
        }

        fn now(&self) -> u64 {
            NOW
        }
    }

    fn of_median(nanos: f64) -> PeakEwma {
        let policy = PeakEwma::new();
        policy.median.store((nanos * nanos).to_bits(), Ordering::Relaxed);
        policy
    }

    #[test]
    fn of_few_one_that_costs_least_is_picked_and_each_of_these() {
        let mut rng = StdRng::seed_from_u64(1);
        let policy = of_median(1_000_000.0);
        for _ in 0..2_000 {
            let all = All::by_chance(rng.random_range(1..=8), &mut rng);
            let cost = |place: usize| policy.plain_cost(&all.0[place], NOW);
            let least = (0..all.len()).map(cost).fold(f64::INFINITY, f64::min);
            let mut wanted: Vec<_> = (0..all.len()).filter(|&i| cost(i) <= least).collect();
            for _ in 0..200 {
                let picked = policy.pick(&(), &all);
                assert!(picked.is_some_and(|place| cost(place) <= least), "{picked:?}: {least}");
                wanted.retain(|&place| Some(place) != picked);
            }
            assert!(wanted.is_empty(), "never picked: {wanted:?}");
        }
    }

    #[test]
    fn of_two_the_second_is_better_if_it_costs_less_for_its_weight() {
        let mut rng = StdRng::seed_from_u64(2);
        let policy = of_median(1_000_000.0);
        for _ in 0..20_000 {
            let pair = All::by_chance(2, &mut rng).0;
            let [a, b] = [&pair[0], &pair[1]];
            let weights = [a.weight() as f64, b.weight() as f64];
            let costs = [policy.plain_cost(a, NOW), policy.plain_cost(b, NOW)];
            let better = costs[1] * weights[0] < costs[0] * weights[1];
            assert_eq!(policy.is_second_better(a, b, weights, NOW), better, "{costs:?}");
        }
    }

    #[test]
    fn calls_that_are_not_timed_say_nothing_of_latencies_and_hide_no_others() {
        let (policy, load) = (of_median(1_000_000.0), Latency::default());
        let finished = |load: &Latency, call| {
            Policy::<(), usize, ()>::finished(&policy, load, call);
        };
        let outcome = Outcome::Success;
        finished(&load, Finished { outcome, elapsed: 5_000_000, now: NOW, pending: 0 });
        let square = load.square();
        assert!(square > 0.0);
        Policy::<(), usize, ()>::started(&policy, &load, 0, 0);
        finished(&load, Finished { outcome, elapsed: 0, now: 0, pending: 1 });
        assert!((load.square() - square).abs() <= 0.0);
        // Another one is under way, nobody knows since when: that it has not come back is not held
        // against the endpoint before it could have been.
        let member: Endpoint = Member::new(0, Arc::new(()), load, 1);
        assert!(member.load().silent(1, NOW) <= 0.0);
        Policy::<(), usize, ()>::answered(&policy, member.load(), NOW);
        assert!(member.load().silent(1, NOW + 7) >= 7.0);
    }
}
