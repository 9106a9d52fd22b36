//! How long the first sync of a service takes, beside reading the same range in the same pages with
//! bare `etcd-client` and decoding it with serde. Connecting is a part of both, and ours ends when a
//! reader has been told everything.

use std::time::{Duration, Instant};

use discovery_benches::etcd::{Result, fill, read_bare, start, synced, watch};
use discovery_benches::{Pairs, Report, Row, is_measuring};
use etcd_client::Client;

const GOAL: f64 = 1.15;
/// How many instances, and how many rounds.
const SIZES: [(usize, usize); 3] = [(1_000, 60), (10_000, 30), (100_000, 15)];

pub(crate) async fn run() -> Result<Report> {
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    let title = format!("etcd {}: first sync of a service, values of 200 bytes", etcd.version());
    let mut report = Report::new(title, "ours", "bare range");
    let mut filled = 0;
    let sizes = if is_measuring() { &SIZES[..] } else { &[(100, 1)] };
    for &(count, rounds) in sizes {
        fill(&mut client, "/sync/orders/", filled..count).await?;
        filled = count;
        let mut pairs = Pairs::default();
        // The first round warms up.
        for round in 0..=rounds {
            let (ours, bare);
            if round % 2 == 0 {
                ours = sync(etcd.url(), count).await?;
                bare = read(etcd.url(), count).await?;
            } else {
                bare = read(etcd.url(), count).await?;
                ours = sync(etcd.url(), count).await?;
            }
            if round > 0 {
                pairs.push(ours.as_secs_f64(), bare.as_secs_f64());
            }
        }
        report.add(Row::times(format!("{count} instances, {rounds} rounds"), &pairs, Some(GOAL)));
    }
    Ok(report)
}

async fn sync(url: String, count: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut changes = watch(url, "/sync")?;
    let told = synced(&mut changes).await?;
    let taken = start.elapsed();
    assert_eq!(told, count);
    Ok(taken)
}

async fn read(url: String, count: usize) -> Result<Duration> {
    let start = Instant::now();
    let read = read_bare(url, "/sync/orders/", |_| {}).await?;
    let taken = start.elapsed();
    assert_eq!(read.len(), count);
    Ok(taken)
}
