//! Signs of life of the application. A registration is kept by a thread of its own, so that a blocked
//! runtime does not lose it; an application that hangs for good would stay listed for ever. Where that
//! is not wanted, it gives signs of life, and without them its lease is left to expire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// How often a runtime that is watched shows that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// So many times to live without a sign of life are too long.
const PATIENCE: u32 = 3;

/// By which an application shows that it is alive; clones are the same. For
/// [`RegisterOptions::watchdog`](super::RegisterOptions::watchdog).
///
/// An application without a sign of life for three times the time to live is taken for dead: its lease
/// is not renewed any more and its instances go when that is over. At the next sign of life they are
/// registered anew.
#[derive(Clone, Debug)]
pub struct Watchdog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// Milliseconds from the start to the last sign of life.
    last: AtomicU64,
    sign: Notify,
}

impl Watchdog {
    /// A watchdog of an application that is alive now and will call [`alive`](Self::alive).
    pub fn new() -> Self {
        let started = Instant::now();
        Self(Arc::new(Inner { started, last: AtomicU64::new(0), sign: Notify::new() }))
    }

    /// A watchdog of the runtime within which this is called: it is alive as long as its tasks run.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn of_this_runtime() -> Self {
        let watchdog = Self::new();
        let inner = Arc::downgrade(&watchdog.0);
        tokio::spawn(async move {
            while let Some(inner) = inner.upgrade() {
                Self(inner).alive();
                sleep(BEAT).await;
            }
        });
        watchdog
    }

    /// The application is alive. Cheap: it may be called for each request.
    pub fn alive(&self) {
        let since = self.0.started.elapsed().as_millis();
        self.0.last.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.sign.notify_waiters();
    }

    /// How a registration with this time to live looks at it.
    pub(crate) fn watched(&self, ttl: Duration) -> Watched {
        Watched { watchdog: self.clone(), patience: ttl * PATIENCE, alive: true }
    }

    fn last(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.last.load(Ordering::Relaxed))
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

/// A registration's view of its application.
#[derive(Debug)]
pub(crate) struct Watched {
    watchdog: Watchdog,
    patience: Duration,
    /// What was said last.
    alive: bool,
}

impl Watched {
    /// Waits until the application is taken for dead, or is alive again. Cancel safe. Without an
    /// application to watch there is never any news.
    pub(crate) async fn news(watched: Option<&mut Self>) -> bool {
        let Some(watched) = watched else { return std::future::pending().await };
        loop {
            let sign = watched.watchdog.0.sign.notified();
            let until = watched.watchdog.last() + watched.patience;
            let is_alive = Instant::now() < until;
            if is_alive != watched.alive {
                watched.alive = is_alive;
                return is_alive;
            }
            if is_alive {
                sleep_until(until).await;
            } else {
                sign.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_dead_after_three_times_to_live_and_alive_at_the_next_sign() {
        let (watchdog, from) = (Watchdog::new(), Instant::now());
        let mut watched = watchdog.watched(Duration::from_secs(5));
        sleep(Duration::from_secs(7)).await;
        watchdog.alive();
        assert!(!Watched::news(Some(&mut watched)).await);
        assert_eq!(from.elapsed(), Duration::from_secs(22));
        assert_eq!(Watched::news(Some(&mut watched)).now_or_never(), None);
        watchdog.alive();
        assert!(Watched::news(Some(&mut watched)).await);
        assert_eq!(from.elapsed(), Duration::from_secs(22));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_is_alive() {
        let watchdog = Watchdog::of_this_runtime();
        let mut watched = watchdog.watched(Duration::from_secs(2));
        let quiet =
            tokio::time::timeout(Duration::from_secs(60), Watched::news(Some(&mut watched)));
        assert!(quiet.await.is_err());
    }
}
