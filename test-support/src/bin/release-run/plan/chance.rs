//! Chance that a seed repeats, now and after every update of a library: `SplitMix64`.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
    time::Duration,
};

/// A seed that nobody had before, short enough to be typed.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000_000
}

#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`, which must not be empty.
    pub(crate) const fn number(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A position in something of that length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.number(0..length as u64)).expect("it is below a usize")
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(crate) const fn percent(&mut self, percent: u64) -> bool {
        self.number(0..100) < percent
    }

    /// A time between so many milliseconds.
    pub(crate) const fn time(&mut self, millis: Range<u64>) -> Duration {
        Duration::from_millis(self.number(millis))
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
