//! Who is left out for failing, and for how long: gRFC A50 (outlier detection) and Envoy's consecutive
//! failures. Decisions only; the driver carries them out.

use std::time::Duration;

/// When endpoints that fail are left out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ejection {
    /// After so many failures in a row: 5. 0: never for that.
    pub consecutive: u32,
    /// How long the first time; each further ejection lasts as much longer: 30 s.
    pub base: Duration,
    /// How long at most: 300 s.
    pub max: Duration,
    /// What part of all endpoints may be out at a time, in percent: 10, and at least one of them.
    pub max_percent: u32,
    /// How often success rates are compared, and a past ejection is forgotten: 10 s.
    pub interval: Duration,
    /// Leaves those out whose success rate is far below that of the others: on.
    pub success_rate: Option<SuccessRate>,
    /// How many calls an endpoint that comes back has to serve, one at a time, before it is used like
    /// the others: 3. A failure among them puts it out again.
    pub probation: u32,
    /// If more than this part of the endpoints is out, or would be but for `max_percent`, all are used,
    /// in percent: 50. So they are if that is all of them, or nobody else can be used, whatever part
    /// they are. Above 100: never.
    pub panic_percent: u32,
    /// How long an endpoint that says it is overloaded is left alone at most, whatever it says: 10 s.
    pub max_retry_after: Duration,
}

/// Which success rate is far below that of the others, in an interval.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// So many standard deviations below the mean, in thousandths: 1900.
    pub stdev_factor: u32,
    /// Only if so many endpoints have enough calls: 5.
    pub min_endpoints: usize,
    /// How many calls are enough: 100.
    pub min_calls: u64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: 5,
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            max_percent: 10,
            interval: Duration::from_secs(10),
            success_rate: Some(SuccessRate::default()),
            probation: 3,
            panic_percent: 50,
            max_retry_after: Duration::from_secs(10),
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1_900, min_endpoints: 5, min_calls: 100 }
    }
}

impl Ejection {
    /// Nobody is ever left out for failing.
    #[must_use]
    pub fn never() -> Self {
        Self { consecutive: 0, success_rate: None, ..Self::default() }
    }

    /// Sets after how many failures in a row an endpoint is left out; 0: never for that.
    #[must_use]
    pub fn consecutive(self, consecutive: u32) -> Self {
        Self { consecutive, ..self }
    }

    /// Sets how long the first ejection lasts, and any at most.
    #[must_use]
    pub fn lasting(self, base: Duration, max: Duration) -> Self {
        Self { base, max, ..self }
    }

    /// Sets what part may be out at a time, in percent.
    #[must_use]
    pub fn max_percent(self, max_percent: u32) -> Self {
        Self { max_percent, ..self }
    }

    /// Sets how often success rates are compared.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Sets how success rates are compared; `None`: not.
    #[must_use]
    pub fn success_rate(self, success_rate: Option<SuccessRate>) -> Self {
        Self { success_rate, ..self }
    }

    /// Sets how many calls an endpoint that comes back has to serve one at a time.
    #[must_use]
    pub fn probation(self, probation: u32) -> Self {
        Self { probation, ..self }
    }

    /// Sets of which part more has to be bad for all to be used, in percent.
    #[must_use]
    pub fn panic_percent(self, panic_percent: u32) -> Self {
        Self { panic_percent, ..self }
    }

    /// How long the `times`th ejection lasts.
    pub(crate) fn time(&self, times: u32) -> Duration {
        self.base.saturating_mul(times.max(1)).min(self.max.max(self.base))
    }

    /// Whether one more may be put out, when `out` of `all` are.
    pub(crate) fn may_eject(&self, out: usize, all: usize) -> bool {
        let part = (all as u64).saturating_mul(self.max_percent.into()) / 100;
        self.max_percent > 0 && (out as u64) < part.max(1)
    }

    /// Whether `bad` of `all` are so many that all have to be used.
    pub(crate) fn is_panic(&self, bad: usize, all: usize) -> bool {
        let part = (all as u64).saturating_mul(self.panic_percent.into());
        // Half of a pair is no reason to use the bad one.
        let many = bad >= all || (bad as u64).saturating_mul(100) > part;
        bad > 0 && many && self.panic_percent <= 100
    }
}

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It failed so often in a row.
    Consecutive,
    /// Its success rate is far below that of the others.
    SuccessRate,
    /// It failed on probation.
    Probation,
    /// It failed once, and may be gone.
    Suspect,
    /// It asks to be left alone.
    Overloaded,
}

impl Why {
    /// Whether it is left out however many others are.
    pub(crate) fn is_certain(self) -> bool {
        matches!(self, Self::Probation | Self::Suspect)
    }
}

/// How an endpoint's calls went in an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<I> {
    pub(crate) id: I,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
}

impl SuccessRate {
    /// Those whose success rate is far below that of the others, the worst first.
    pub(crate) fn outliers<I: Copy>(&self, tallies: &[Tally<I>]) -> Vec<I> {
        let rates: Vec<(I, f64)> = tallies
            .iter()
            .filter(|tally| tally.calls >= self.min_calls.max(1))
            .map(|tally| {
                let succeeded = tally.calls.saturating_sub(tally.failures);
                (tally.id, succeeded as f64 / tally.calls as f64)
            })
            .collect();
        if rates.len() < self.min_endpoints.max(2) {
            return Vec::new();
        }
        let n = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / n;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / n;
        let bound = mean - variance.sqrt() * f64::from(self.stdev_factor) / 1_000.0;
        let mut below: Vec<_> = rates.into_iter().filter(|(_, rate)| *rate < bound).collect();
        below.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        below.into_iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_last_longer_each_time_up_to_the_maximum() {
        let ejection = Ejection::default();
        let times = [0, 1, 2, 9, 10, 11, u32::MAX].map(|n| ejection.time(n).as_secs());
        assert_eq!(times, [30, 30, 60, 270, 300, 300, 300]);
    }

    #[test]
    fn a_tenth_may_be_out_and_at_least_one() {
        let ejection = Ejection::default();
        assert!(ejection.may_eject(0, 2));
        assert!(!ejection.may_eject(1, 19));
        assert!(ejection.may_eject(1, 20));
        assert!(!ejection.may_eject(2, 29));
        assert!(!ejection.clone().max_percent(0).may_eject(0, 100));
    }

    #[test]
    fn more_than_half_of_them_bad_is_panic() {
        let ejection = Ejection::default();
        for (bad, all) in [(0, 0), (0, 1), (1, 3), (1, 2), (2, 4), (3, 6), (500, 1_000)] {
            assert!(!ejection.is_panic(bad, all), "{bad} of {all}");
        }
        for (bad, all) in [(1, 1), (2, 3), (2, 2), (3, 4), (4, 6), (501, 1_000)] {
            assert!(ejection.is_panic(bad, all), "{bad} of {all}");
        }
        let (none, all) = (ejection.clone().panic_percent(0), ejection.clone().panic_percent(100));
        assert!(none.is_panic(1, 10) && !none.is_panic(0, 10));
        assert!(all.is_panic(3, 3) && !all.is_panic(2, 3));
        assert!(!ejection.panic_percent(101).is_panic(3, 3));
    }

    #[test]
    fn the_one_far_below_the_others_is_told() {
        let tally = |id, calls, failures| Tally { id, calls, failures };
        let good: Vec<_> = (0..9_u32).map(|id| tally(id, 200, u64::from(id % 3))).collect();
        let with = |bad| [good.clone(), bad].concat();
        let rate = SuccessRate::default();
        assert_eq!(rate.outliers(&with(vec![tally(9, 200, 60)])), [9]);
        assert!(rate.outliers(&with(vec![tally(9, 99, 99)])).is_empty(), "too few calls");
        assert!(rate.outliers(&good).len() <= 3);
        assert!(rate.outliers(&[tally(0, 500, 0), tally(1, 500, 500)]).is_empty(), "too few");
        let all_bad: Vec<_> = (0..9_u32).map(|id| tally(id, 200, 200)).collect();
        assert!(rate.outliers(&all_bad).is_empty(), "all alike");
    }
}
