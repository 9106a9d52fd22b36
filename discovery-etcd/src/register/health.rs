//! Asking the application whether it is well, for as long as its registration lives.

use discovery_core::Health;
use tokio::sync::watch;

/// Tells `healthy` what the application says, until nobody wants to know any more.
pub(crate) async fn ask(health: Health, healthy: watch::Sender<bool>) {
    tokio::select! {
        () = healthy.closed() => {}
        () = health.follow(|well| {
            healthy.send_if_modified(|healthy| std::mem::replace(healthy, well) != well);
        }) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_tells_and_ends_when_nobody_wants_to_know() {
        let (healthy, mut said) = watch::channel(true);
        let task = tokio::spawn(ask(Health::new(async || false), healthy));
        let soon = 3 * Health::EVERY;
        timeout(soon, said.wait_for(|well| !well)).await.unwrap().unwrap();
        drop(said);
        timeout(soon + Duration::from_secs(1), task).await.unwrap().unwrap();
    }
}
