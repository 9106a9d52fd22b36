//! How long after a put a change is yielded, beside a bare `etcd-client` watch on the same etcd.
//!
//! Not with criterion: what is measured is a moment in another task, and what counts are the
//! percentiles of single puts. Both watches stand all the time, each on a prefix of its own with the
//! same number of keys, and the puts go to one and the other in turns. So each put wakes one of them
//! only, neither is ever the second to be woken, and whatever else the machine does hits both alike.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use discovery_benches::{Pairs, Report, Row, is_measuring, json, percentile};
use discovery_core::{Change, Source as _, Status};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, versions};
use etcd_client::{Client, WatchOptions};
use futures::StreamExt as _;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const OURS: &str = "/ours/orders/";
const BARE: &str = "/bare/orders/";
/// How many instances each watch has.
const KEYS: usize = 100;
const ROUNDS: usize = 20;
const PUTS: usize = 300;
/// More than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);
const GOAL: f64 = 1.15;

/// When a watch told of a change.
type Seen = UnboundedReceiver<Instant>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let version = versions()[0];
    let etcd = Etcd::start(version).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    for number in 0..KEYS {
        for prefix in [OURS, BARE] {
            client.put(key(prefix, number), json(number, 0), None).await?;
        }
    }
    let mut ours = watch_ours(&etcd).await?;
    let mut bare = watch_bare(&etcd).await?;

    let rounds = if is_measuring() { ROUNDS } else { 1 };
    let (mut p50, mut p99) = (Pairs::default(), Pairs::default());
    let mut puts = 0;
    // The first round warms up.
    for round in 0..=rounds {
        let (mut of_ours, mut of_bare) = (Vec::new(), Vec::new());
        for _ in 0..PUTS {
            puts += 1;
            of_ours.push(put(&mut client, OURS, puts, &mut ours).await?);
            of_bare.push(put(&mut client, BARE, puts, &mut bare).await?);
        }
        if round > 0 {
            p50.push(percentile(&of_ours, 50), percentile(&of_bare, 50));
            p99.push(percentile(&of_ours, 99), percentile(&of_bare, 99));
        }
    }

    let title = format!("etcd {version}, {rounds} rounds of {PUTS} puts to each, one at a time");
    let mut report = Report::new(title, "ours", "bare watch");
    report.add(Row::times("put -> change yielded, p50", &p50, Some(GOAL)));
    report.add(Row::times("put -> change yielded, p99", &p99, None));
    Ok(report.finish(is_measuring()))
}

fn key(prefix: &str, number: usize) -> String {
    format!("{prefix}orders-{number:06}")
}

/// Puts a new value and waits until it was seen; returns the seconds from the start of the put until
/// then. The put's own answer comes later than the change and is waited for, too, so that nothing of
/// it is left over for the next.
async fn put(client: &mut Client, prefix: &str, version: usize, seen: &mut Seen) -> Result<f64> {
    let number = version % KEYS;
    let (key, value) = (key(prefix, number), json(number, version));
    let start = Instant::now();
    client.put(key, value, None).await?;
    let at = timeout(DEADLINE, seen.recv()).await?.ok_or("the watch ended")?;
    Ok(at.duration_since(start).as_secs_f64())
}

async fn watch_ours(etcd: &Etcd) -> Result<Seen> {
    let registry = EtcdRegistry::new(EtcdConfig::new([etcd.url()]).prefix("/ours"))?;
    let mut changes = registry.watch(&"orders".parse()?);
    timeout(DEADLINE, changes.status().wait_for(Status::is_fresh)).await??;
    let mut told = 0;
    while changes.next().await.is_some_and(|change| !matches!(change, Change::Synced)) {
        told += 1;
    }
    assert_eq!(told, KEYS);
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(change) = changes.next().await {
            if let Change::Insert(..) = change {
                note(&tell);
            }
        }
    });
    Ok(seen)
}

async fn watch_bare(etcd: &Etcd) -> Result<Seen> {
    let mut client = Client::connect([etcd.url()], None).await?;
    let mut stream = client.watch(BARE, Some(WatchOptions::new().with_prefix())).await?;
    let created = timeout(DEADLINE, stream.message()).await??;
    assert!(created.is_some_and(|message| message.created()));
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            for _ in message.events() {
                note(&tell);
            }
        }
    });
    Ok(seen)
}

fn note(tell: &UnboundedSender<Instant>) {
    // Nobody waits any more once the last round is over.
    let _ = tell.send(Instant::now());
}
