//! What is known of one endpoint, in atomics that all who call it share.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::observe::Told;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The effective weight of weight 1 after the slow start.
pub(crate) const FULL: u16 = 1_024;

/// One endpoint of a balancer: what it is, and how its calls go.
///
/// All clones of a balancer share it: knowing everybody's calls is worth more than any policy.
#[repr(C)]
pub struct Member<K, E, L> {
    // What a call looks at comes first, so that it is on as few cache lines as can be.
    /// Finished calls in the upper half, which may wrap around, and pending ones in the lower: one
    /// write for both.
    counts: AtomicU64,
    /// Failures in a row: since the last success.
    streak: AtomicU32,
    gate: AtomicU8,
    /// Whether it is out at its first failure.
    suspect: AtomicBool,
    /// How far its slow start is: `FULL` at its end.
    ramp: AtomicU16,
    // Up to here for calls while all weights are the same: 16 bytes, never on two lines.
    weight: AtomicU32,
    /// Pending calls whose response is there.
    answered: AtomicU32,
    standing: AtomicU8,
    load: L,
    failures: AtomicU64,
    /// Calls that say nothing of it.
    unjudged: AtomicU64,
    /// All finished calls when they were last looked at. The lower half is that of `counts` then.
    history: AtomicU64,
    /// When it is to be used again, in nanoseconds; 0 if it is used.
    until: AtomicU64,
    told: Told,
    key: K,
    endpoint: ArcSwap<E>,
}

/// Whether calls may go to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Back after an ejection: one call at a time.
    Probation,
    /// It just became unusable, and readers have yet to be told.
    Closed,
}

/// Whether an endpoint gets requests, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It does not: it has not connected yet.
    Connecting,
    /// It does.
    Up,
    /// It does, one at a time: it comes back from an ejection.
    Probation,
    /// It does not: it failed too often, and is left out for a while.
    Ejected,
    /// It does not: it failed to connect, and is tried again now and then.
    Failed,
    /// It does not, as long as others are up: it is about to leave.
    LastResort,
    /// It does not: its weight is 0, or it says that it is out of service.
    Out,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connecting,
        Self::Up,
        Self::Probation,
        Self::Ejected,
        Self::Failed,
        Self::LastResort,
        Self::Out,
    ];

    fn of(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Out)
    }

    /// `connecting`, `up`, `probation`, `ejected`, `failed`, `last_resort` or `out`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Probation => "probation",
            Self::Ejected => "ejected",
            Self::Failed => "failed",
            Self::LastResort => "last_resort",
            Self::Out => "out",
        }
    }
}

const PENDING: u64 = u32::MAX as u64;
const ONE_FINISHED: u64 = 1 << 32;

impl<K, E, L> Member<K, E, L> {
    pub(crate) fn new(key: K, endpoint: Arc<E>, load: L, weight: u32) -> Self {
        Self {
            counts: AtomicU64::new(0),
            gate: AtomicU8::new(Gate::Open as u8),
            suspect: AtomicBool::new(false),
            ramp: AtomicU16::new(FULL),
            answered: AtomicU32::new(0),
            streak: AtomicU32::new(0),
            weight: AtomicU32::new(weight),
            load,
            failures: AtomicU64::new(0),
            unjudged: AtomicU64::new(0),
            history: AtomicU64::new(0),
            until: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::Connecting as u8),
            told: Told::default(),
            key,
            endpoint: ArcSwap::new(endpoint),
        }
    }

    /// Its key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// What it says of itself.
    pub fn endpoint(&self) -> Arc<E> {
        self.endpoint.load_full()
    }

    /// What the policy keeps of it.
    #[inline]
    pub fn load(&self) -> &L {
        &self.load
    }

    /// How many calls to it are under way.
    #[inline]
    pub fn pending(&self) -> u32 {
        (self.counts.load(Ordering::Relaxed) & PENDING) as u32
    }

    /// Its effective weight, which grows in its slow start: only the proportion to those of others has
    /// a meaning.
    #[inline]
    pub fn weight(&self) -> u64 {
        let (weight, ramp) = (self.own_weight(), self.ramp.load(Ordering::Relaxed));
        u64::from(weight) * u64::from(ramp)
    }

    /// The weight it says it has.
    pub fn own_weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// How many calls to it have ended, in whatever way, since it is there.
    pub fn finished(&self) -> u64 {
        // The count that is read next is no older than that which this was told of.
        let history = self.history.load(Ordering::Acquire);
        let counted = (self.counts.load(Ordering::Relaxed) >> 32) as u32;
        history + u64::from(counted.wrapping_sub(history as u32))
    }

    /// How many of them failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How many of them say nothing of it: they were cancelled, or to be ignored.
    pub fn unjudged(&self) -> u64 {
        self.unjudged.load(Ordering::Relaxed)
    }

    /// How many calls failed since the last success, apart from those it was overloaded for.
    pub fn failures_in_a_row(&self) -> u32 {
        self.streak.load(Ordering::Relaxed)
    }

    /// How many calls to it have no response yet: unlike those that are under way and have a part of
    /// it.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.pending().saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    /// A call begins: how many others have no response yet.
    #[inline]
    pub(crate) fn begin(&self) -> u32 {
        let pending = (self.counts.fetch_add(1, Ordering::Relaxed) & PENDING) as u32;
        pending.saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    /// A call has its response, and is still pending.
    pub(crate) fn answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that had its response ends.
    pub(crate) fn release(&self) {
        // In this order: a call that counts as answered and not as pending would hide another one.
        self.answered.fetch_sub(1, Ordering::Relaxed);
        self.end();
    }

    /// A call that was begun is none.
    pub(crate) fn unbegin(&self) {
        self.counts.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call ends: how many others are under way.
    #[inline]
    pub(crate) fn end(&self) -> u32 {
        let counts = self.counts.fetch_add(ONE_FINISHED - 1, Ordering::Relaxed);
        (counts & PENDING).saturating_sub(1) as u32
    }

    /// Counts a success.
    #[inline]
    pub(crate) fn succeeded(&self) {
        // Mostly there is nothing to write.
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure: how many there are in a row.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Counts a failure that is none in a row: the endpoint said that it has too much to do, for which
    /// it is left alone, not judged.
    pub(crate) fn refused(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that says nothing.
    pub(crate) fn unsaid(&self) {
        self.unjudged.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn forgive(&self) {
        self.set_failures_in_a_row(0);
    }

    pub(crate) fn set_failures_in_a_row(&self, count: u32) {
        self.streak.store(count, Ordering::Relaxed);
    }

    /// Looks at how many calls have ended, which is to be done before the count wraps around.
    pub(crate) fn look(&self) -> u64 {
        let finished = self.finished();
        self.history.store(finished, Ordering::Release);
        finished
    }

    #[inline]
    pub(crate) fn gate(&self) -> Gate {
        match self.gate.load(Ordering::Relaxed) {
            0 => Gate::Open,
            1 => Gate::Probation,
            _ => Gate::Closed,
        }
    }

    pub(crate) fn set_gate(&self, gate: Gate) {
        self.gate.store(gate as u8, Ordering::Relaxed);
    }

    /// Closes the gate: whether it was not closed before.
    pub(crate) fn close(&self) -> bool {
        self.gate.swap(Gate::Closed as u8, Ordering::Relaxed) != Gate::Closed as u8
    }

    #[inline]
    pub(crate) fn ramp(&self) -> u16 {
        self.ramp.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ramp(&self, ramp: u16) {
        self.ramp.store(ramp, Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(crate) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    pub(crate) fn set_endpoint(&self, endpoint: Arc<E>) {
        self.endpoint.store(endpoint);
    }

    /// When it is to be used again; 0 if it is used.
    pub(crate) fn until(&self) -> u64 {
        self.until.load(Ordering::Relaxed)
    }

    pub(crate) fn set_until(&self, until: u64) {
        self.until.store(until, Ordering::Relaxed);
    }

    /// Whether it gets requests, and if not, why.
    pub fn standing(&self) -> Standing {
        Standing::of(self.standing.load(Ordering::Relaxed))
    }

    /// Sets it and tells what it was.
    pub(crate) fn set_standing(&self, standing: Standing) -> Standing {
        Standing::of(self.standing.swap(standing as u8, Ordering::Relaxed))
    }

    /// What of its calls was told.
    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    /// What came before a new connection to the same endpoint.
    pub(crate) fn inherit(&self, former: &Self) {
        let finished = former.finished();
        self.history.store(finished, Ordering::Relaxed);
        self.counts.store((finished & PENDING) << 32, Ordering::Relaxed);
        let failures = former.failures();
        self.failures.store(failures, Ordering::Relaxed);
        self.unjudged.store(former.unjudged(), Ordering::Relaxed);
        // They are the former's to be told.
        self.told.skip(finished, failures);
    }
}

impl<K: fmt::Debug, E: fmt::Debug, L: fmt::Debug> fmt::Debug for Member<K, E, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("key", &self.key)
            .field("endpoint", &self.endpoint())
            .field("pending", &self.pending())
            .field("finished", &self.finished())
            .field("failures", &self.failures())
            .field("unjudged", &self.unjudged())
            .field("gate", &self.gate())
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}
