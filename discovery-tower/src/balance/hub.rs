//! What calls and the driver have in common, apart from the set itself: how a call is judged, and how
//! the driver hears of it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_channel::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::entropy::Random;
use super::error::SharedError;
use super::flight::{Endpoint, guarded};
use super::observe::Seen;
use super::parts::Parts;
use super::policy::Policy;
use super::shared::{Limits, Shared};
use crate::sync::AtomicWaker;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the driver is told of an endpoint. Each is rare: a call that goes well says nothing.
pub(crate) enum Event<T: Parts> {
    /// It failed, and is to be judged: it failed so often in a row, or else had something to prove.
    Struck(Arc<Endpoint<T>>, bool),
    /// It served a call while on probation.
    Passed(Arc<Endpoint<T>>),
    /// It asks to be left alone.
    Overloaded(Arc<Endpoint<T>>, Option<Duration>),
    /// Its service failed to become ready.
    Unready(Arc<Endpoint<T>>, SharedError),
}

/// So long after that moment; settings may be as long as they like.
pub(crate) fn later(moment: Instant, time: Duration) -> Instant {
    /// What clocks and timers take in any case.
    const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    moment + time.min(FAR)
}

pub(crate) struct Hub<T: Parts> {
    pub(crate) policy: T::Policy,
    pub(crate) protocol: T::Protocol,
    pub(crate) random: Random,
    /// How many failures in a row make an endpoint be judged; 0: none.
    pub(crate) strikes: u32,
    pub(crate) seen: Seen,
    events: UnboundedSender<Event<T>>,
    pub(crate) limits: Limits,
    /// What times count from.
    epoch: Instant,
    /// When the policy wants to look at the set again.
    review_at: AtomicU64,
    review: AtomicBool,
    closed: AtomicBool,
    driver: AtomicWaker,
    /// What the handles share, as long as there are any.
    shared: OnceLock<Weak<Shared<T>>>,
}

impl<T: Parts> Hub<T> {
    /// Whether the policy wants to know the time at all.
    pub(crate) const TIMED: bool = <T::Policy as Policy<T::Request, T::Key, T::Endpoint>>::TIMED;

    pub(crate) fn new(
        policy: T::Policy,
        protocol: T::Protocol,
        random: Random,
        strikes: u32,
        seen: Seen,
        events: UnboundedSender<Event<T>>,
        limits: Limits,
    ) -> Self {
        Self {
            policy,
            protocol,
            random,
            strikes,
            seen,
            events,
            limits,
            epoch: Instant::now(),
            review_at: AtomicU64::new(0),
            review: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            shared: OnceLock::new(),
        }
    }

    /// The time since the balancer was made, in nanoseconds: never 0.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    #[inline]
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch);
        // 64 bits last for 584 years.
        (since.as_nanos() as u64).max(1)
    }

    /// The time for a policy that wants to know it.
    #[inline]
    pub(crate) fn policy_now(&self) -> u64 {
        if Self::TIMED { self.now() } else { 0 }
    }

    /// The time for a call that begins while so many can be used, 0 if it is not timed; `None` if the
    /// policy panics.
    #[inline]
    pub(crate) fn now_of_call(&self, usable: usize) -> Option<u64> {
        let timed = Self::TIMED && guarded(|| self.policy.is_timed(usable))?;
        Some(if timed { self.now() } else { 0 })
    }

    /// The time for a call that began at `started`; 0 if it is not timed.
    #[inline]
    pub(crate) fn now_since(&self, started: u64) -> u64 {
        if Self::TIMED && started != 0 { self.now() } else { 0 }
    }

    pub(crate) fn tell(&self, event: Event<T>) {
        // Without a driver there is nobody who would act on it.
        drop(self.events.unbounded_send(event));
    }

    /// Has the policy look at the set, if it is time. `now` is the call's.
    #[inline]
    pub(crate) fn consider_review(&self, now: u64) {
        let Some(every) = <T::Policy as Policy<T::Request, T::Key, T::Endpoint>>::REVIEW else {
            return;
        };
        // Where calls do not read the clock, a review needs it all the same.
        let now = if Self::TIMED { now } else { self.now() };
        let at = self.review_at.load(Ordering::Relaxed);
        if now < at {
            return;
        }
        let next = now.saturating_add(u64::try_from(every.as_nanos()).unwrap_or(u64::MAX));
        if self.review_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.review.store(true, Ordering::Release);
            self.driver.wake();
        }
    }

    pub(crate) fn take_review(&self) -> bool {
        self.review.load(Ordering::Relaxed) && self.review.swap(false, Ordering::Acquire)
    }

    pub(crate) fn set_shared(&self, shared: &Arc<Shared<T>>) {
        drop(self.shared.set(Arc::downgrade(shared)));
    }

    /// What the handles share, unless they are all gone.
    pub(crate) fn shared(&self) -> Option<Arc<Shared<T>>> {
        self.shared.get()?.upgrade()
    }

    /// The balancer's name, if it has one and is not gone.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.shared()?.name.clone()
    }

    /// The last handle is gone.
    pub(crate) fn close(&self) {
        self.seen.leave();
        self.closed.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn register_driver(&self, waker: &std::task::Waker) {
        self.driver.register(waker);
    }
}
