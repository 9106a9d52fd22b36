//! A connection is lost, some of the instances change meanwhile, and it comes back: how long until the
//! reader knows, beside a first sync of the same.
//!
//! Both count from when the connection is there, so that the wait before it, which is by chance, is no
//! part of either.

use std::time::{Duration, Instant};

use discovery_benches::etcd::{DEADLINE, Result, fill, put_all, start, synced, watch};
use discovery_benches::{Pairs, Report, Row, is_measuring, number};
use discovery_core::Status;
use discovery_test_support::Proxy;
use etcd_client::Client;
use tokio::time::{sleep, timeout};

const COUNT: usize = 100_000;
const ROUNDS: usize = 7;
/// One of so many changes meanwhile.
const CHANGED: usize = 100;

pub(crate) async fn run() -> Result<Report> {
    let (count, rounds) = if is_measuring() { (COUNT, ROUNDS) } else { (1_000, 1) };
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, "/resync/orders/", 0..count).await?;
    let title = format!("etcd {}: resync of {count} instances", etcd.version());
    let mut report = Report::new(title, "resync", "first sync");
    let proxy = Proxy::start(etcd.client_addr());
    let changed: Vec<usize> = (0..count).step_by(CHANGED).collect();
    let (mut pairs, mut batches) = (Pairs::default(), 0.0_f64);
    for round in 1..=rounds {
        let mut changes = watch(proxy.url(), "/resync")?;
        let connected = connected(&proxy);
        let (start, told) = tokio::try_join!(connected, synced(&mut changes))?;
        let first = start.elapsed();
        assert_eq!(told, count);

        proxy.refuse();
        let mut status = changes.status();
        timeout(DEADLINE, status.wait_for(Status::is_stale)).await??;
        put_all(&mut client, "/resync/orders/", &changed, round).await?;
        proxy.pass();
        let start = self::connected(&proxy).await?;
        let (mut told, mut synceds) = (0, 0.0);
        while told < changed.len() {
            told += synced(&mut changes).await?;
            synceds += 1.0;
        }
        let resync = start.elapsed();
        assert_eq!(told, changed.len());
        assert!(status.get().is_fresh());
        pairs.push(resync.as_secs_f64(), first.as_secs_f64());
        batches = batches.max(synceds);
        drop(changes);
        // The connection is closed a moment after its last user.
        while proxy.open() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let what = format!("{} changed meanwhile, {rounds} rounds", changed.len());
    report.add(Row::times(what, &pairs, Some(1.0)));
    report.add(Row::numbers("batches that told it", batches, 1.0, number, Some(1.0)));
    Ok(report)
}

/// Waits for a connection; returns when it came.
async fn connected(proxy: &Proxy) -> Result<Instant> {
    let looking = async {
        while proxy.open() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    };
    Ok(timeout(DEADLINE, looking).await?)
}
