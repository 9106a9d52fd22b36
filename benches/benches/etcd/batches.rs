//! Many changes at once: transactions of 100 puts by several writers, as fast as etcd takes them. Does
//! our side keep up with a bare watch, and how long does a processor work for an event, from the wire
//! to the table and a reader?
//!
//! Each watch has a thread and a runtime of its own on it, with all that belongs to it: the connection,
//! and in ours the decoding, the table and the reader. What the kernel says that this thread has run is
//! what the events took.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use discovery_benches::etcd::{
    DEADLINE, Result, TXN, fill, key, put_all, start, synced, watch, watch_bare,
};
use discovery_benches::{Pairs, Report, Row, cpu, is_measuring, percentile, time};
use discovery_core::Change;
use etcd_client::Client;
use futures::StreamExt as _;
use tokio::task::JoinSet;

const OURS: &str = "/ours/orders/";
const BARE: &str = "/bare/orders/";
const WRITERS: usize = 8;
/// Transactions of each writer in a round; each has keys of its own.
const TXNS: usize = 50;
const EVENTS: usize = WRITERS * TXNS * TXN;
const ROUNDS: usize = 10;
/// Against a bare watch: as many events a second, less a twentieth.
const GOAL: f64 = 1.0 / 0.95;
/// Of a processor, for an event.
const CPU: f64 = 2e-6;

/// When the last put of a round was seen.
type Seen = mpsc::Receiver<Instant>;

pub(crate) async fn run() -> Result<Report> {
    let rounds = if is_measuring() { ROUNDS } else { 1 };
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    for prefix in [OURS, BARE] {
        // One more: what comes last.
        fill(&mut client, prefix, 0..EVENTS + 1).await?;
    }
    let url = etcd.url();
    let ours = on_thread("ours", async move |tell| follow_ours(url, tell).await)?;
    let url = etcd.url();
    let bare = on_thread("bare", async move |tell| follow_bare(url, tell).await)?;
    for seen in [&ours, &bare] {
        seen.recv_timeout(DEADLINE)?;
    }

    let (mut taken, mut worked) = (Pairs::default(), Pairs::default());
    let mut each = Vec::new();
    // The first round warms up.
    for round in 0..=rounds {
        let [of_ours, of_bare] = if round % 2 == 0 {
            let of_ours = write(&client, OURS, "ours", &ours, round + 1).await?;
            [of_ours, write(&client, BARE, "bare", &bare, round + 1).await?]
        } else {
            let of_bare = write(&client, BARE, "bare", &bare, round + 1).await?;
            [write(&client, OURS, "ours", &ours, round + 1).await?, of_bare]
        };
        if round > 0 {
            taken.push(of_ours.0, of_bare.0);
            worked.push(of_ours.1, of_bare.1);
            each.push(of_ours.1);
        }
    }
    let title = format!(
        "etcd {}: {EVENTS} events a round in transactions of {TXN}, {rounds} rounds",
        etcd.version()
    );
    let mut report = Report::new(title, "ours", "against");
    report.add(Row::times("time an event, beside a bare watch", &taken, Some(GOAL)));
    let each = percentile(&each, 50);
    report.add(Row::numbers("processor an event / the bound", each, CPU, time, Some(1.0)));
    report.add(Row::times("processor an event, beside a bare watch", &worked, None));
    Ok(report)
}

/// Runs `follow` on a thread of this name, and a runtime on it alone.
fn on_thread<F: Future<Output = Result<()>>>(
    name: &str,
    follow: impl FnOnce(mpsc::Sender<Instant>) -> F + Send + 'static,
) -> Result<Seen> {
    let (tell, seen) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Should it fail, its end of the channel is gone, and that is an error at ours.
    let work = move || drop(runtime.block_on(follow(tell)));
    std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(seen)
}

/// Has a round written; returns the time until all was seen and the time that the thread worked, in
/// seconds for an event.
async fn write(
    client: &Client,
    prefix: &'static str,
    thread: &str,
    seen: &Seen,
    version: usize,
) -> Result<(f64, f64)> {
    let worked = cpu::thread(thread)?;
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut client = client.clone();
        writers.spawn(async move {
            let first = writer * TXNS * TXN;
            let numbers: Vec<usize> = (first..first + TXNS * TXN).collect();
            put_all(&mut client, prefix, &numbers, version).await
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    put_all(&mut client.clone(), prefix, &[EVENTS], version).await?;
    let at = tokio::task::block_in_place(|| seen.recv_timeout(DEADLINE))?;
    // What the thread does after that is short, and counted once it waits.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let worked = cpu::thread(thread)?.saturating_sub(worked);
    let events = f64::from(u32::try_from(EVENTS)?);
    Ok((at.duration_since(start).as_secs_f64() / events, worked.as_secs_f64() / events))
}

async fn follow_ours(url: String, tell: mpsc::Sender<Instant>) -> Result<()> {
    let mut changes = watch(url, "/ours")?;
    assert_eq!(synced(&mut changes).await?, EVENTS + 1);
    tell.send(Instant::now())?;
    let last = format!("orders-{EVENTS:06}");
    while let Some(change) = changes.next().await {
        if let Change::Insert(_, instance) = change
            && instance.id.as_str() == last
        {
            tell.send(Instant::now())?;
        }
    }
    Ok(())
}

async fn follow_bare(url: String, tell: mpsc::Sender<Instant>) -> Result<()> {
    let mut stream = watch_bare(url, BARE).await?;
    tell.send(Instant::now())?;
    let last = key(BARE, EVENTS);
    while let Some(message) = stream.message().await? {
        for event in message.events() {
            if event.kv().is_some_and(|kv| kv.key() == last.as_bytes()) {
                tell.send(Instant::now())?;
            }
        }
    }
    Ok(())
}
