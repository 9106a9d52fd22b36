//! etcd dies and comes back: how long until a watch is fresh again, from the attempt to connect that
//! finds it serving.
//!
//! When that attempt is made is by chance, since clients of a server that was away spread out. A
//! connection counts from when it is tried, or from when etcd first answers a bare client's
//! linearizable read, whichever is later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use discovery_benches::etcd::{DEADLINE, Result, fill, start, synced};
use discovery_benches::{Report, Row, is_measuring, percentile, time};
use discovery_core::{Source as _, Status};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use etcd_client::{Client, ConnectOptions};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;

const COUNT: usize = 1_000;
const ROUNDS: usize = 10;
const GOAL: f64 = 0.1;

pub(crate) async fn run() -> Result<Report> {
    let (count, rounds) = if is_measuring() { (COUNT, ROUNDS) } else { (10, 1) };
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, "/restart/orders/", 0..count).await?;

    let tries: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let tried = tries.clone();
    let builder = EtcdRegistry::builder().channel(move |endpoint| {
        tried.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        async move { Endpoint::from_shared(endpoint)?.connect().await }
    });
    let config = EtcdConfig::new([etcd.url()]).prefix("/restart");
    let registry = builder.build(config)?;
    let mut changes = registry.watch(&"orders".parse()?);
    assert_eq!(synced(&mut changes).await?, count);

    let mut status = changes.status();
    let (mut fresh, mut after_serving) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        etcd.kill();
        timeout(DEADLINE, status.wait_for(Status::is_stale)).await??;
        etcd.start_again_without_waiting();
        let serves = tokio::spawn(serves(etcd.url()));
        timeout(DEADLINE, status.wait_for(Status::is_fresh)).await??;
        let now = Instant::now();
        let serves = serves.await??;
        let last = tries.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
        let tried = last.ok_or("fresh without a connection")?;
        fresh.push(now.saturating_duration_since(tried.max(serves)).as_secs_f64());
        after_serving.push(now.saturating_duration_since(serves).as_secs_f64());
        // The next failure shall be a new one.
        sleep(Duration::from_secs(if is_measuring() { 11 } else { 0 })).await;
    }
    let title = format!("etcd {}: killed and started again, {rounds} times", etcd.version());
    let mut report = Report::new(title, "ours", "bound");
    for (what, samples, goal) in
        [("attempt -> fresh", &fresh, Some(1.0)), ("etcd serves -> fresh", &after_serving, None)]
    {
        for (name, at) in [("median", 50), ("longest", 100)] {
            let what = format!("{what}, {name}");
            report.add(Row::numbers(what, percentile(samples, at), GOAL, time, goal));
        }
    }
    Ok(report)
}

/// When etcd first answers a linearizable read.
async fn serves(url: String) -> Result<Instant> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_millis(100));
    let asking = async {
        loop {
            if let Ok(mut client) = Client::connect([url.clone()], Some(options.clone())).await {
                let answer = timeout(Duration::from_secs(1), client.get("a", None)).await;
                if let Ok(Ok(_)) = answer {
                    return Instant::now();
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    Ok(timeout(DEADLINE, asking).await?)
}
