//! Asking the application whether it is well.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::options::Health;

/// Tells `healthy` what the application says, until nobody wants to know any more. No answer within the
/// interval is a no; a function that panics is too.
pub(crate) async fn ask(health: Health, every: Duration, healthy: watch::Sender<bool>) {
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = healthy.closed() => return,
            _ = beat.tick() => {}
        }
        // All of it on a task of its own: what the application's function does is not ours to die of.
        let mut asked = tokio::task::JoinSet::new();
        let ask = health.clone();
        asked.spawn(async move { (*ask)().await });
        let well = matches!(timeout(every, asked.join_next()).await, Ok(Some(Ok(true))));
        let changed = healthy.send_if_modified(|healthy| std::mem::replace(healthy, well) != well);
        match (changed, well) {
            (true, true) => tracing::info!("the application is well again"),
            (true, false) => tracing::warn!("the application is not well: out of service"),
            (false, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_answer_and_a_panic_are_a_no() {
        let mood = Arc::new(AtomicU8::new(0));
        let asked = mood.clone();
        let health: Health = Arc::new(move || {
            let mood = asked.load(Ordering::Relaxed);
            assert_ne!(mood, 4, "a fault of the test, before there is anything to await");
            Box::pin(async move {
                match mood {
                    0 => true,
                    1 => std::future::pending().await,
                    2 => panic!("a fault of the test"),
                    _ => false,
                }
            })
        });
        let every = Duration::from_secs(1);
        let (healthy, mut said) = watch::channel(true);
        let task = tokio::spawn(ask(health, every, healthy));
        for bad in 1..=4 {
            mood.store(bad, Ordering::Relaxed);
            assert!(timeout(3 * every, said.wait_for(|well| !well)).await.is_ok(), "{bad}");
            mood.store(0, Ordering::Relaxed);
            assert!(timeout(3 * every, said.wait_for(|well| *well)).await.is_ok());
        }
        drop(said);
        timeout(3 * every, task).await.expect("nobody wants to know any more").unwrap();
    }
}
