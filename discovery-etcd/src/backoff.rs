//! How long to wait before trying again.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The first wait is at most this …
const BASE: Duration = Duration::from_millis(50);
/// … and no wait is longer than this.
const CAP: Duration = Duration::from_secs(5);
/// Denied access is for people to mend: it is tried this often, more or less a fifth.
const DENIED: Duration = Duration::from_secs(10);

/// Each wait is up to so many times longer than the one before.
const GROWTH: u32 = 3;

/// Exponential, with full jitter, so that many clients of a server that comes back spread over the
/// time. At the cap no wait is shorter than half of it: over a long outage a client makes one attempt in
/// 3.75 s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait after a further failure.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let most = BASE.saturating_mul(GROWTH.saturating_pow(self.attempts)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        let least = if most < CAP { 0.0 } else { 0.5 };
        most.mul_f64(rng.random_range(least..=1.0))
    }

    /// After a quiet time, failures start from the beginning again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The wait after access was denied.
pub(crate) fn denied(rng: &mut impl Rng) -> Duration {
    DENIED.mul_f64(rng.random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_to_the_cap_with_jitter_and_start_anew_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        for (attempts, least_ms, most_ms) in
            [(0, 0, 50), (1, 0, 150), (4, 0, 4_050), (5, 2_500, 5_000), (60, 2_500, 5_000)]
        {
            let waits: Vec<_> =
                (0..1_000).map(|_| Backoff { attempts }.next(&mut rng).as_millis()).collect();
            let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(most <= most_ms && most > most_ms * 9 / 10, "{attempts}: {most}");
            assert!(least >= least_ms && least < least_ms + most_ms / 10, "{attempts}: {least}");
        }
        let mut backoff = Backoff { attempts: 9 };
        backoff.reset();
        assert!(backoff.next(&mut rng) <= BASE);
    }
}
