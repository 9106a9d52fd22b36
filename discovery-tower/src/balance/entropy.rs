//! Where random choices come from.
//!
//! They are given, so that a test or a simulation is exact. By default each thread has a generator of
//! its own, which no other waits for.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
/// A state goes up by this, and is mixed.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Entropy for Seeded {
    fn next_u64(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }
}

thread_local! {
    /// 0 until it is seeded: what needs no code to begin with needs no look at whether it has begun.
    static OF_THE_THREAD: Cell<u64> = const { Cell::new(0) };
}

#[inline]
fn of_the_thread() -> u64 {
    OF_THE_THREAD.with(|state| {
        let former = state.get();
        let next = if former == 0 { seed() } else { former.wrapping_add(GAMMA) };
        state.set(next);
        mix(next)
    })
}

#[cold]
fn seed() -> u64 {
    rand::random()
}

/// The random numbers of a balancer.
#[derive(Clone, Default)]
pub(crate) enum Random {
    #[default]
    OfTheThread,
    Given(Arc<dyn Entropy>),
}

impl Random {
    #[inline]
    pub(crate) fn next_u64(&self) -> u64 {
        match self {
            Self::OfTheThread => of_the_thread(),
            Self::Given(entropy) => entropy.next_u64(),
        }
    }

    /// A number below `bound`, or 0 if that is 0.
    #[inline]
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
