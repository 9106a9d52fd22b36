//! How long the calls to an endpoint take, in atomics: they end at the same time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What [`PeakEwma`](super::PeakEwma) keeps of an endpoint.
#[derive(Debug, Default)]
pub struct Latency {
    /// The mean of squares, in square nanoseconds, as the bits of a float; 0 while no call has ended.
    /// Means are compared as squares: a root would take longer than all the rest.
    pub(super) square: AtomicU64,
    /// Since when nothing has come back, if calls are under way; `u64::MAX` if that is not known.
    pub(super) silent_since: AtomicU64,
    /// When it was told of a call last.
    pub(super) at: AtomicU64,
    /// How many calls the mean is of.
    pub(super) calls: AtomicU32,
}

/// A new endpoint is taken for one that has served so many calls in the median time.
const PRIOR: u32 = 4;
/// The longest time that is counted, so that nothing overflows: an hour.
pub(super) const LONGEST: u64 = 3_600_000_000_000;

/// Of times, which are far from using the last bit: processors convert numbers with a sign at once.
#[inline]
#[allow(clippy::cast_possible_wrap, reason = "these do not use the last bit")]
pub(super) fn float(nanos: u64) -> f64 {
    nanos as i64 as f64
}

/// exp(x) - 1 for x >= 0, about: the first terms of its series, in a tenth of the time.
#[inline]
pub(super) fn growth(x: f64) -> f64 {
    x * (1.0 + x * (0.5 + x * (1.0 / 6.0)))
}

/// The larger one of two that are numbers: `f64::max` has more to ask.
#[inline]
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

impl Latency {
    #[inline]
    pub(super) fn square(&self) -> f64 {
        f64::from_bits(self.square.load(Ordering::Relaxed))
    }

    /// For how long nothing has come back of so many calls that wait, in nanoseconds.
    #[inline]
    pub(super) fn silent(&self, waiting: u32, now: u64) -> f64 {
        if waiting == 0 {
            return 0.0;
        }
        float(now.saturating_sub(self.silent_since.load(Ordering::Relaxed)))
    }

    /// How long ago it was told of a call last, in nanoseconds.
    #[inline]
    pub(super) fn idle(&self, now: u64) -> f64 {
        float(now.saturating_sub(self.at.load(Ordering::Relaxed)))
    }

    /// Nothing has been missing until now, which is 0 if the time is not known.
    #[inline]
    pub(super) fn heard(&self, now: u64) {
        let since = if now == 0 { u64::MAX } else { now };
        self.silent_since.store(since, Ordering::Relaxed);
    }

    /// Takes a call into account that ended now, by the squares of the time it took and of the median.
    #[inline]
    pub(super) fn add(&self, took: f64, now: u64, rate: f64, least: f64, median: f64) {
        // Two calls that end at the same time may count the time before them twice: a swap would take
        // longer than all the rest, and the mean may lose one of them anyway.
        let mut since = self.idle(now) * rate;
        self.at.store(now, Ordering::Relaxed);
        let (mut square, mut calls) = (self.square(), self.calls.load(Ordering::Relaxed));
        if calls == 0 {
            since = 0.0;
            if median.is_finite() {
                // One is new among others: a first call that took long, over a new connection, is not
                // held against it as if it had always been so.
                (square, calls) = (median, PRIOR);
            }
        }
        calls = calls.saturating_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        // 1 - exp(-x), which for small ones is x.
        let part = if since < 0.001 { since } else { growth(since) / (1.0 + growth(since)) };
        let part = larger(larger(part, 1.0 / f64::from(calls)), least);
        self.square.store((square + (took - square) * part).to_bits(), Ordering::Relaxed);
    }
}
