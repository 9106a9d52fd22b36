//! The stabilised stream.
#![cfg(feature = "testkit")]

use std::time::Duration;

use discovery_core::stabilise::Stabilise;
use discovery_core::testkit::Checked;
use discovery_core::{Change, Instance, MemoryRegistry, Source as _};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};

fn instances(count: u16) -> impl Iterator<Item = Instance> {
    (1..=count)
        .map(|port| Instance::parse("a", &port.to_string(), &format!("127.0.0.1:{port}")).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_only_read_goes_on_by_itself() {
    let registry = MemoryRegistry::new();
    registry.replace(instances(5));
    let changes = registry.watch_all().stabilise(Stabilise::new());
    let mut changes = Checked::new(changes);
    while changes.set().len() < 5 || !changes.is_synced() {
        changes.next().await;
    }
    let start = Instant::now();
    registry.replace([]);
    let mut suspects = 0;
    while suspects < 5 {
        if let Some(Change::Insert(_, instance)) = changes.next().await {
            suspects += usize::from(instance.suspect);
        }
    }
    assert_eq!(start.elapsed().as_millis(), 500);
    assert_eq!(changes.set().len(), 5);
    while !changes.set().is_empty() {
        changes.next().await;
    }
    assert_eq!(start.elapsed().as_millis(), 10_500);
    assert_eq!(changes.next().await, Some(Change::Synced));
    let nothing = timeout(Duration::from_secs(60), changes.next()).await;
    assert!(nothing.is_err());
}
