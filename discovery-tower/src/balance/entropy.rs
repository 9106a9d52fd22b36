//! Where random choices come from.
//!
//! They are given, so that a test or a simulation is exact. By default each thread has a generator of
//! its own, which no other waits for.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng as _;
use rand::rngs::SmallRng;

/// A source of random numbers that many threads share.
pub trait Entropy: Send + Sync + 'static {
    /// 64 bits, each as likely set as not.
    fn next_u64(&self) -> u64;
}

/// Random numbers that are the same for the same seed, as long as they are asked for in the same
/// order: for tests and simulations.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for Seeded {
    /// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    fn next_u64(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

thread_local! {
    static OF_THE_THREAD: RefCell<SmallRng> = RefCell::new(rand::make_rng());
}

/// The random numbers of a balancer.
#[derive(Clone, Default)]
pub(crate) enum Random {
    #[default]
    OfTheThread,
    Given(Arc<dyn Entropy>),
}

impl Random {
    pub(crate) fn next_u64(&self) -> u64 {
        match self {
            Self::OfTheThread => OF_THE_THREAD.with_borrow_mut(SmallRng::next_u64),
            Self::Given(entropy) => entropy.next_u64(),
        }
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OfTheThread => "OfTheThread",
            Self::Given(_) => "Given",
        })
    }
}
