//! The heap in a resync after a disconnection: what has not changed must not be there twice, neither
//! during it nor after.

use discovery_benches::etcd::{Result, fill, put_all, start, synced, watch};
use discovery_benches::{Report, Row, is_measuring, megabytes};
use discovery_core::Status;
use discovery_test_support::Proxy;
use etcd_client::Client;

use crate::HEAP;
use crate::measured::{Measured, say, say_ready, settled};

const COUNT: usize = 100_000;
/// One of so many changes meanwhile.
const CHANGED: usize = 100;
/// A second copy of all would be 2, and a few pages are needed to read it.
const PEAK: f64 = 1.5;
const AFTER: f64 = 1.02;

pub(crate) async fn run() -> Result<Report> {
    let count = if is_measuring() { COUNT } else { 1_000 };
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, "/resync/orders/", 0..count).await?;
    // It has a thread of its own, so waiting for the other process does no harm.
    let proxy = Proxy::start(etcd.client_addr());
    let mut other = Measured::start("resync", count, &proxy.url())?;
    other.ready()?;
    proxy.refuse();
    let changed: Vec<usize> = (0..count).step_by(CHANGED).collect();
    put_all(&mut client, "/resync/orders/", &changed, 1).await?;
    other.ready()?;
    proxy.pass();
    let numbers = other.numbers()?;

    let title = format!(
        "etcd {}: heap in a resync of {count} instances, {} changed meanwhile",
        etcd.version(),
        changed.len()
    );
    let mut report = Report::new(title, "ours", "before it");
    let row = |what, number: &str, goal| {
        Row::numbers(what, numbers[number], numbers["before"], megabytes, Some(goal))
    };
    report.add(row("at its peak", "peak", PEAK));
    report.add(row("after it", "after", AFTER));
    Ok(report)
}

pub(crate) async fn measure(count: usize, url: String) -> Result<()> {
    let empty = HEAP.current_usage();
    let mut changes = watch(url, "/resync")?;
    assert_eq!(synced(&mut changes).await?, count);
    let before = settled().await - empty;
    say_ready()?;
    changes.status().wait_for(Status::is_stale).await?;
    HEAP.reset_peak_usage();
    say_ready()?;
    let mut told = 0;
    while told < count / CHANGED {
        told += synced(&mut changes).await?;
    }
    say("peak", HEAP.peak_usage() - empty)?;
    say("after", settled().await - empty)?;
    say("before", before)
}
