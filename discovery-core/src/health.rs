//! Asking the application whether it is well, so that what is registered of it stays true.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A function of the application that says whether it is well, and how often it is asked. Clones ask
/// the same function.
#[derive(Clone)]
pub struct Health {
    ask: Arc<dyn Fn() -> Answer + Send + Sync>,
    every: Duration,
}

impl Health {
    /// How often the application is asked, unless it says otherwise.
    pub const EVERY: Duration = Duration::from_secs(5);

    /// Asks `ask` every 5 s.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self { ask: Arc::new(move || Box::pin(ask())), every: Self::EVERY }
    }

    /// Another interval, at least 10 ms. It is also how long an answer may take.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(10));
        self
    }

    /// Asks for ever, within a runtime; tells `tell` the first answer and each change of it. No answer
    /// within the interval is a no; a function that panics is too. Dropped, it no longer asks.
    pub async fn follow(self, mut tell: impl FnMut(bool)) {
        let mut beat = interval(self.every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            beat.tick().await;
            // All of it on a task of its own: what the application's function does is not ours to die of.
            let mut asked = JoinSet::new();
            let ask = self.ask.clone();
            asked.spawn(async move { (*ask)().await });
            let well = matches!(timeout(self.every, asked.join_next()).await, Ok(Some(Ok(true))));
            match (last.replace(well), well) {
                (Some(true) | None, false) => {
                    tracing::warn!("the application is not well: out of service");
                }
                (Some(false), true) => tracing::info!("the application is well again"),
                (None, true) => {}
                (Some(_), _) => continue,
            }
            tell(well);
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("every", &self.every).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_answer_and_a_panic_are_a_no() {
        let mood = Arc::new(AtomicU8::new(0));
        let asked = mood.clone();
        let every = Duration::from_secs(1);
        let health = Health::new(move || {
            let mood = asked.load(Ordering::Relaxed);
            assert_ne!(mood, 4, "a fault of the test, before there is anything to await");
            async move {
                match mood {
                    0 => true,
                    1 => std::future::pending().await,
                    2 => panic!("a fault of the test"),
                    _ => false,
                }
            }
        });
        let (healthy, mut said) = watch::channel(true);
        let follow = health.every(every).follow(move |well| {
            healthy.send_replace(well);
        });
        let task = tokio::spawn(follow);
        for bad in 1..=4 {
            mood.store(bad, Ordering::Relaxed);
            assert!(timeout(3 * every, said.wait_for(|well| !well)).await.is_ok(), "{bad}");
            mood.store(0, Ordering::Relaxed);
            assert!(timeout(3 * every, said.wait_for(|well| *well)).await.is_ok());
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_is_told_and_then_changes_alone() {
        let asked = Arc::new(AtomicU8::new(0));
        let number = asked.clone();
        let health = Health::new(move || {
            let number = number.fetch_add(1, Ordering::Relaxed);
            std::future::ready(!(2..4).contains(&number))
        });
        let mut told = Vec::new();
        let enough = 6 * Health::EVERY + Duration::from_millis(1);
        let _ = timeout(enough, health.follow(|well| told.push(well))).await;
        assert_eq!(asked.load(Ordering::Relaxed), 7);
        assert_eq!(told, [true, false, true]);
    }
}
