//! How long to wait before trying again.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The first wait is at most this …
const BASE: Duration = Duration::from_millis(50);
/// … and no wait is longer than this.
const CAP: Duration = Duration::from_secs(5);
/// Denied access is for people to mend: it is tried this often, more or less a fifth.
const DENIED: Duration = Duration::from_secs(10);

/// Exponential, with full jitter: many clients of a server that comes back spread over the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait after a further failure.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let most = BASE.saturating_mul(1 << self.attempts.min(16)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        most.mul_f64(rng.random())
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
    fn waits_grow_to_the_cap_with_full_jitter_and_start_anew_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        for (attempts, most_ms) in [(0, 50), (1, 100), (6, 3_200), (7, 5_000), (60, 5_000)] {
            let waits: Vec<_> =
                (0..1_000).map(|_| Backoff { attempts }.next(&mut rng).as_millis()).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most <= most_ms && *most > most_ms * 9 / 10, "{attempts}: {most}");
            assert!(*least < most_ms / 10, "{attempts}: {least}");
        }
        let mut backoff = Backoff { attempts: 9 };
        backoff.reset();
        assert!(backoff.next(&mut rng) <= BASE);
    }
}
