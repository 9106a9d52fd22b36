//! How long an instance that cannot be connected to is left alone.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The first wait is at most this …
const BASE: Duration = Duration::from_millis(50);
/// … and no wait is longer than this.
const CAP: Duration = Duration::from_secs(5);
/// Each wait is up to so many times longer than the one before.
const GROWTH: u32 = 2;

/// Exponential, with full jitter, so that the many clients of an instance do not come back all at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a further failure.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let most = BASE.saturating_mul(GROWTH.saturating_pow(self.failures)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// The next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_to_the_cap_with_jitter_and_start_anew_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        for (failures, most_ms) in [(0, 50), (1, 100), (6, 3_200), (7, 5_000), (60, 5_000)] {
            let waits: Vec<_> =
                (0..1_000).map(|_| Backoff { failures }.next(&mut rng).as_millis()).collect();
            let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(most <= most_ms && most > most_ms * 9 / 10, "{failures}: {most}");
            assert!(least < most_ms / 10, "{failures}: {least}");
        }
        let mut backoff = Backoff { failures: 9 };
        backoff.reset();
        assert!(backoff.next(&mut rng) <= BASE);
    }
}
