//! The fewest calls under way, and fewer still where calls take far longer than elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Candidates, Finished, Policy, SCAN, better_of_two, least};
use crate::balance::member::FULL;
use crate::balance::{Member, Outcome};

/// Sends a request to the endpoint with the fewest calls under way, for its weight, and avoids those
/// where calls take far longer than at the others: the default policy.
///
/// Of each endpoint it keeps a mean of how long calls take, in which older calls count for less and
/// less (an exponentially weighted moving average over time), and takes for it, while it is longer,
/// how long nothing has come back although calls are under way: an endpoint that hangs looks worse
/// the longer it hangs. As long as this is below twice the median of all endpoints it is not looked
/// at: what is left then is chance, and counting calls is nearly as good as one queue in front of all
/// endpoints. Above that it multiplies the cost of a call there. While an endpoint gets no calls, its
/// mean goes back to the median, so that it is tried again.
///
/// A failure counts as a call that took long, so failing fast is not being fast. A call that was
/// cancelled can only make the mean longer. An endpoint that is new starts with the median.
///
/// Among up to 32 endpoints of the same weight all are compared, else two that are drawn in proportion
/// to their weights.
#[derive(Debug)]
pub struct PeakEwma {
    decay: f64,
    /// Of the means of all endpoints, in nanoseconds; 0 while no call has ended.
    median: AtomicU64,
}

/// What [`PeakEwma`] keeps of an endpoint.
#[derive(Debug, Default)]
pub struct Latency {
    /// Nanoseconds; 0 while no call has ended.
    mean: AtomicU64,
    /// When it was told of a call last.
    at: AtomicU64,
    /// Since when nothing has come back, if calls are under way.
    silent_since: AtomicU64,
}

/// From which multiple of the median on a mean counts.
const SLOW: u64 = 2;
/// A failure counts as a call that took so many times the median.
const FAILURE: u64 = 10;
/// The longest time that is counted, so that nothing overflows: an hour.
const LONGEST: u64 = 3_600_000_000_000;

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

impl PeakEwma {
    /// The policy with means over 10 s.
    pub fn new() -> Self {
        Self::over(Duration::from_secs(10))
    }

    /// The policy with means over this time: what lies back as far counts for little more than a third.
    pub fn over(decay: Duration) -> Self {
        Self { decay: (decay.as_nanos() as f64).max(1.0), median: AtomicU64::new(0) }
    }

    /// How long a call takes there, if that is worth looking at: at least twice as long as elsewhere.
    #[inline]
    fn slow(&self, load: &Latency, pending: u32, median: u64, now: u64) -> Option<f64> {
        let mean = load.mean.load(Ordering::Relaxed);
        let silent = if pending > 0 {
            now.saturating_sub(load.silent_since.load(Ordering::Relaxed))
        } else {
            0
        };
        let bound = median.saturating_mul(SLOW);
        (median > 0 && (mean > bound || silent > bound))
            .then(|| self.latency(load, mean, silent, median, now))
            .filter(|latency| *latency > bound as f64)
    }

    #[cold]
    fn latency(&self, load: &Latency, mean: u64, silent: u64, median: u64, now: u64) -> f64 {
        let idle = now.saturating_sub(load.at.load(Ordering::Relaxed)) as f64;
        let (mean, median) = (mean as f64, median as f64);
        let relaxed = median + (mean - median) * (-idle / self.decay).exp();
        relaxed.max(silent as f64)
    }

    /// What a call costs: without weights.
    #[inline]
    fn plain_cost(&self, load: &Latency, pending: u32, now: u64) -> f64 {
        let median = self.median.load(Ordering::Relaxed);
        match self.slow(load, pending, median, now) {
            None => f64::from(pending),
            Some(latency) => (f64::from(pending) + 1.0) * latency / median as f64,
        }
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
        let now = among.now();
        let cost =
            |member: &Member<K, E, Latency>| self.plain_cost(member.load(), member.pending(), now);
        if among.is_even() && among.len() <= SCAN {
            least(among, cost)
        } else {
            better_of_two(among, |a, b| {
                cost(b) * (a.weight() as f64) < cost(a) * (b.weight() as f64)
            })
        }
    }

    #[inline]
    fn started(&self, load: &Latency, pending: u32, now: u64) {
        if pending == 0 {
            load.silent_since.store(now, Ordering::Relaxed);
        }
    }

    #[inline]
    fn finished(&self, load: &Latency, call: Finished) {
        load.silent_since.store(call.now, Ordering::Relaxed);
        let mean = load.mean.load(Ordering::Relaxed);
        let median = self.median.load(Ordering::Relaxed);
        let took = match call.outcome {
            Outcome::Success => call.elapsed,
            Outcome::Failure | Outcome::Overloaded { .. } => {
                call.elapsed.max(median.max(mean).saturating_mul(FAILURE))
            }
            Outcome::Cancelled if call.elapsed > mean => call.elapsed,
            Outcome::Cancelled | Outcome::Ignore => return,
        };
        let took = took.clamp(1, LONGEST);
        let since = call.now.saturating_sub(load.at.swap(call.now, Ordering::Relaxed)) as f64;
        let told = if mean == 0 {
            took
        } else {
            // About 1 - exp(-x), without the exponential.
            let part = since / (since + self.decay);
            let (mean, took) = (mean as f64, took as f64);
            (mean + (took - mean) * part).max(1.0) as u64
        };
        load.mean.store(told, Ordering::Relaxed);
    }

    fn review<'a>(&self, members: impl ExactSizeIterator<Item = &'a Member<K, E, Latency>>, _: u64)
    where
        K: 'a,
        E: 'a,
    {
        let means = members.map(|member| member.load().mean.load(Ordering::Relaxed));
        let mut means: Vec<u64> = means.filter(|mean| *mean > 0).collect();
        let middle = means.len().saturating_sub(1) / 2;
        if middle < means.len() {
            let (_, median, _) = means.select_nth_unstable(middle);
            self.median.store(*median, Ordering::Relaxed);
        }
    }

    fn cost(&self, member: &Member<K, E, Latency>, now: u64) -> f64 {
        let cost = self.plain_cost(member.load(), member.pending(), now);
        cost * f64::from(FULL) / member.weight().max(1) as f64
    }
}
