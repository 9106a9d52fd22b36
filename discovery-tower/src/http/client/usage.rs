//! Whether somebody uses a balancer, and for how long nobody has.
//!
//! A call counts itself in and out, without a lock. Who sweeps closes a balancer in one step with seeing
//! that nobody has come since it looked, so that no call is let into one that is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Nobody is let in any more.
const CLOSED: u64 = 1;
/// One that is in. There is room for 2³¹ of them.
const INSIDE: u64 = 2;
/// One that has come. The count of these begins anew when it is full: only a look at exactly 2³² calls
/// after another one sees the same.
const CAME: u64 = 1 << 32;

/// How a balancer is used.
#[derive(Debug)]
pub(super) struct Usage {
    state: AtomicU64,
    made: Instant,
    /// When somebody last went, in nanoseconds since it was made.
    left: AtomicU64,
}

/// Somebody who uses a balancer. Nobody any more when this is dropped.
#[derive(Debug)]
pub(super) struct InUse(Arc<Usage>);

impl Usage {
    /// Unused from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self { state: AtomicU64::new(0), made: now, left: AtomicU64::new(0) }
    }

    /// Lets somebody in, unless it is closed.
    pub(super) fn enter(self: &Arc<Self>) -> Option<InUse> {
        // Once it is closed, the counts have no meaning.
        let before = self.state.fetch_add(CAME + INSIDE, Ordering::AcqRel);
        (before & CLOSED == 0).then(|| InUse(self.clone()))
    }

    /// For how long nobody has used it, if nobody does.
    pub(super) fn unused(&self, now: Instant) -> Option<Duration> {
        let state = self.state.load(Ordering::Acquire);
        is_empty(state).then(|| self.since_left(now))
    }

    /// Closes it if nobody has used it for so long: whether it is closed now.
    pub(super) fn close_after(&self, idle: Duration, now: Instant) -> bool {
        let state = self.state.load(Ordering::Acquire);
        is_empty(state)
            && self.since_left(now) >= idle
            && self
                .state
                .compare_exchange(state, state | CLOSED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    fn since_left(&self, now: Instant) -> Duration {
        let left = Duration::from_nanos(self.left.load(Ordering::Relaxed));
        now.saturating_duration_since(self.made).saturating_sub(left)
    }
}

fn is_empty(state: u64) -> bool {
    (state % CAME) / INSIDE == 0
}

impl Drop for InUse {
    fn drop(&mut self) {
        let since = self.0.made.elapsed().as_nanos();
        self.0.left.fetch_max(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.state.fetch_sub(INSIDE, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    async fn pass(seconds: u64) -> Instant {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_closed_when_nobody_has_used_it_for_so_long_and_lets_nobody_in_then() {
        let usage = Arc::new(Usage::new(Instant::now()));
        assert!(!usage.close_after(IDLE, pass(59).await));
        drop(usage.enter().unwrap());
        assert!(!usage.close_after(IDLE, pass(59).await));
        assert!(usage.close_after(IDLE, pass(1).await));
        assert!(usage.enter().is_none() && usage.enter().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_closed_while_somebody_is_in() {
        let usage = Arc::new(Usage::new(Instant::now()));
        let (first, second) = (usage.enter().unwrap(), usage.enter().unwrap());
        assert!(!usage.close_after(IDLE, pass(1000).await));
        drop(first);
        assert!(!usage.close_after(IDLE, pass(1000).await));
        assert_eq!(usage.unused(Instant::now()), None);
        drop(second);
        assert!(!usage.close_after(IDLE, pass(59).await));
        assert_eq!(usage.unused(Instant::now()), Some(Duration::from_secs(59)));
        assert!(usage.close_after(IDLE, pass(1).await));
    }

    #[test]
    fn many_calls_do_not_close_it() {
        let usage = Arc::new(Usage::new(Instant::now()));
        usage.state.store(u64::MAX / CAME * CAME, Ordering::SeqCst);
        drop(usage.enter().unwrap());
        let inside = usage.enter().unwrap();
        assert_eq!(usage.unused(Instant::now()), None);
        drop(inside);
        assert!(usage.unused(Instant::now()).is_some());
    }
}
