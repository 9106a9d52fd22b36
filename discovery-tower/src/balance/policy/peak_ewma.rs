//! The fewest calls under way, and fewer still where calls take far longer than elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Candidates, Finished, Policy, SCAN, better_of_two, least};
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
/// A new endpoint is taken for one that has served so many calls in the median time.
const PRIOR: u32 = 4;
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
    /// Of all endpoints, in nanoseconds; 0 while no call has ended.
    median: AtomicU64,
}

/// What [`PeakEwma`] keeps of an endpoint.
#[derive(Debug, Default)]
pub struct Latency {
    /// The mean of squares, in square nanoseconds, as the bits of a float; and of how many calls.
    square: AtomicU64,
    calls: AtomicU32,
    /// Its root, in nanoseconds; 0 while no call has ended.
    root: AtomicU64,
    /// When it was told of a call last.
    at: AtomicU64,
    /// Since when nothing has come back, if calls are under way.
    silent_since: AtomicU64,
}

/// From which multiple of the median on an endpoint is slow.
const SLOW: u64 = 2;
/// A failure counts as a call that took so many times the median.
const FAILURE: u64 = 10;
/// The part of the mean of squares that a failure makes up at least: failing fast takes no time, so that
/// means over time would hardly see it.
const ONE_FAILURE: f64 = 0.1;
/// The longest time that is counted, so that nothing overflows: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Of times, which are far from using the last bit: processors convert numbers with a sign at once.
#[inline]
#[allow(clippy::cast_possible_wrap, reason = "these do not use the last bit")]
fn float(nanos: u64) -> f64 {
    nanos as i64 as f64
}

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
        Self { decay: rate(decay), fade: rate(fade), median: AtomicU64::new(0) }
    }

    /// What a call costs, without weights. What is more than `least` need not be exact.
    #[inline]
    fn plain_cost<K, E>(
        &self,
        member: &Member<K, E, Latency>,
        median: u64,
        now: u64,
        least: f64,
    ) -> f64 {
        let load = member.load();
        let calls = f64::from(member.pending());
        let root = load.root.load(Ordering::Relaxed);
        let silent = if member.waiting() > 0 {
            now.saturating_sub(load.silent_since.load(Ordering::Relaxed))
        } else {
            0
        };
        let bound = median.saturating_mul(SLOW);
        if median == 0 || (root < bound && silent < bound) {
            return calls;
        }
        // What the root exceeds the median by is divided by exp(x) while there are no calls: about
        // that, by the first terms of its series, in a tenth of the time.
        let x = float(now.saturating_sub(load.at.load(Ordering::Relaxed))) * self.fade;
        let fading = 1.0 + x * (1.0 + x * (0.5 + x / 6.0));
        let (excess, median) = (float(root) - float(median), float(median));
        if silent < bound && excess < (float(bound) - median) * fading {
            return calls;
        }
        let at_least = (calls + 1.0) * float(SLOW);
        if at_least > least {
            return at_least;
        }
        let took = (median + excess / fading).max(float(silent));
        (calls + 1.0) * took / median
    }
}

impl Latency {
    /// Takes a call into account that ended now.
    fn add(&self, took: u64, now: u64, rate: f64, least: f64, median: u64) {
        let took = float(took.clamp(1, LONGEST));
        // Two calls that end at the same time may count the time before them twice: a swap would take
        // longer than all the rest, and the mean may lose one of them anyway.
        let mut since = float(now.saturating_sub(self.at.load(Ordering::Relaxed))) * rate;
        self.at.store(now, Ordering::Relaxed);
        let mut square = f64::from_bits(self.square.load(Ordering::Relaxed));
        let mut calls = self.calls.load(Ordering::Relaxed);
        if calls == 0 {
            since = 0.0;
            if median > 0 {
                // One is new among others: a first call that took long, over a new connection, is not
                // held against it as if it had always been so.
                (square, calls) = (float(median) * float(median), PRIOR);
            }
        }
        calls = calls.saturating_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        // For small ones, 1 - exp(-x) is x.
        let part = if since < 0.001 { since } else { -(-since).exp_m1() };
        let part = part.max(1.0 / f64::from(calls)).max(least);
        square += (took * took - square) * part;
        self.square.store(square.to_bits(), Ordering::Relaxed);
        self.root.store(square.sqrt().max(1.0) as i64 as u64, Ordering::Relaxed);
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

    #[inline]
    fn pick(&self, _: &Req, among: &impl Candidates<K, E, Latency, State = ()>) -> Option<usize> {
        let (median, now) = (self.median.load(Ordering::Relaxed), among.now());
        let cost =
            |member: &Member<K, E, Latency>, least| self.plain_cost(member, median, now, least);
        if among.is_even() && among.len() <= SCAN {
            return least(among, f64::INFINITY, cost);
        }
        let cost = |member: &Member<K, E, Latency>| cost(member, f64::INFINITY);
        if among.is_even() {
            better_of_two(among, |a, b| cost(b) < cost(a))
        } else {
            better_of_two(among, |a, b| {
                cost(b) * (a.weight() as f64) < cost(a) * (b.weight() as f64)
            })
        }
    }

    #[inline]
    fn started(&self, load: &Latency, waiting: u32, now: u64) {
        if waiting == 0 {
            load.silent_since.store(now, Ordering::Relaxed);
        }
    }

    fn answered(&self, load: &Latency, now: u64) {
        load.silent_since.store(now, Ordering::Relaxed);
    }

    #[inline]
    fn finished(&self, load: &Latency, call: Finished) {
        // Nothing came back of a call that was cancelled.
        if call.outcome != Outcome::Cancelled {
            load.silent_since.store(call.now, Ordering::Relaxed);
        }
        let took = match call.outcome {
            Outcome::Success => call.elapsed,
            Outcome::Failure | Outcome::Overloaded { .. } => {
                let median = self.median.load(Ordering::Relaxed);
                call.elapsed.max(median.saturating_mul(FAILURE))
            }
            Outcome::Cancelled if call.elapsed > load.root.load(Ordering::Relaxed) => call.elapsed,
            Outcome::Cancelled | Outcome::Ignore => return,
        };
        let least = if call.outcome.is_failure() { ONE_FAILURE } else { 0.0 };
        let median = self.median.load(Ordering::Relaxed);
        load.add(took, call.now, self.decay, least, median);
    }

    fn review<'a>(&self, members: impl ExactSizeIterator<Item = &'a Member<K, E, Latency>>, _: u64)
    where
        K: 'a,
        E: 'a,
    {
        let roots = members.map(|member| member.load().root.load(Ordering::Relaxed));
        let mut roots: Vec<u64> = roots.filter(|root| *root > 0).collect();
        let middle = roots.len().saturating_sub(1) / 2;
        if middle < roots.len() {
            let (_, median, _) = roots.select_nth_unstable(middle);
            self.median.store(*median, Ordering::Relaxed);
        }
    }

    fn cost(&self, member: &Member<K, E, Latency>, now: u64) -> f64 {
        let median = self.median.load(Ordering::Relaxed);
        let cost = self.plain_cost(member, median, now, f64::INFINITY);
        cost * f64::from(FULL) / member.weight().max(1) as f64
    }
}
