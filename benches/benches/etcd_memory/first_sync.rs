//! The heap at its peak during a first sync, over what the table takes in the end: so many pages.
//!
//! A page is what bare `etcd-client` holds of it, decoded from the wire.

use discovery_benches::etcd::{PAGE, Result, fill, key, read_bare, start, synced, watch};
use discovery_benches::{Report, Row, is_measuring, megabytes};
use etcd_client::{Client, GetOptions};

use crate::HEAP;
use crate::measured::{Measured, say, settled};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const PREFIX: &str = "/sync/orders/";
const PAGES: f64 = 2.0;

pub(crate) async fn run() -> Result<Report> {
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    let title = format!("etcd {}: heap in a first sync", etcd.version());
    let mut report = Report::new(title, "ours", "against");
    let mut filled = 0;
    for count in if is_measuring() { SIZES.to_vec() } else { vec![100] } {
        fill(&mut client, PREFIX, filled..count).await?;
        filled = count;
        let ours = Measured::start("first-sync", count, &etcd.url())?.numbers()?;
        let page = Measured::start("page", count, &etcd.url())?.numbers()?;
        let over = ours["peak"] - ours["table"];
        let two = page["page"] * PAGES;
        let row = |what, against, goal| {
            let what = format!("{count} instances: peak over the table / {what}");
            Row::numbers(what, over, against, megabytes, goal)
        };
        report.add(row("2 pages", two, Some(1.0)));
        report.add(row("the same of a bare range over its instances", page["over"], None));
        report.add(row("the table", ours["table"], None));
    }
    Ok(report)
}

pub(crate) async fn measure(count: usize, url: String) -> Result<()> {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut changes = watch(url, "/sync")?;
    assert_eq!(synced(&mut changes).await?, count);
    let peak = HEAP.peak_usage() - before;
    say("table", settled().await - before)?;
    say("peak", peak)
}

pub(crate) async fn measure_page(count: usize, url: String) -> Result<()> {
    let mut client = Client::connect([url.clone()], None).await?;
    client.get(key(PREFIX, 0), None).await?;
    let before = settled().await;
    let options = GetOptions::new().with_prefix().with_limit(i64::try_from(PAGE)?);
    let page = client.get(PREFIX, Some(options)).await?;
    say("page", settled().await - before)?;
    drop(page);

    let before = settled().await;
    HEAP.reset_peak_usage();
    let read = read_bare(url, PREFIX, |_| {}).await?;
    let peak = HEAP.peak_usage() - before;
    assert_eq!(read.len(), count);
    say("over", peak - (settled().await - before))
}
