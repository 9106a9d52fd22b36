//! Many services watched by one client: how long until all are fresh, beside the same with bare
//! `etcd-client` on one stream, and how many connections it takes.

use std::time::{Duration, Instant};

use discovery_benches::etcd::{DEADLINE, Result, registry, start};
use discovery_benches::{Pairs, Report, Row, is_measuring, number};
use discovery_core::{Source as _, Status};
use discovery_test_support::Proxy;
use etcd_client::{Client, GetOptions, WatchOptions};
use futures::future::try_join_all;
use tokio::time::timeout;

const SERVICES: usize = 500;
const ROUNDS: usize = 10;

pub(crate) async fn run() -> Result<Report> {
    let (services, rounds) = if is_measuring() { (SERVICES, ROUNDS) } else { (10, 1) };
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    for service in 0..services {
        let value = format!(r#"{{"id":"1","name":"s-{service}","address":"http://10.0.0.1:80"}}"#);
        client.put(format!("/many/s-{service}/1"), value, None).await?;
    }
    let mut pairs = Pairs::default();
    // The first round warms up.
    for round in 0..=rounds {
        let ours = ours(etcd.url(), services).await?;
        let bare = bare(etcd.url(), services).await?;
        if round > 0 {
            pairs.push(ours.as_secs_f64(), bare.as_secs_f64());
        }
    }
    let proxy = Proxy::start(etcd.client_addr());
    ours(proxy.url(), services).await?;
    let connections = f64::from(u32::try_from(proxy.accepted())?);

    let title =
        format!("etcd {}: {services} services, one client, {rounds} rounds", etcd.version());
    let mut report = Report::new(title, "ours", "against");
    report.add(Row::times("until all are fresh, beside a bare stream and gets", &pairs, None));
    report.add(Row::numbers("connections for all", connections, 1.0, number, Some(1.0)));
    Ok(report)
}

async fn ours(url: String, services: usize) -> Result<Duration> {
    let start = Instant::now();
    let registry = registry(url, "/many")?;
    let mut all = Vec::new();
    for service in 0..services {
        all.push(registry.watch(&format!("s-{service}").parse()?));
    }
    for changes in &all {
        timeout(DEADLINE, changes.status().wait_for(Status::is_fresh)).await??;
    }
    Ok(start.elapsed())
}

/// Watches on one stream, each asked for without waiting for the one before, and all gets at once.
async fn bare(url: String, services: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut client = Client::connect([url], None).await?;
    let prefix = |service: usize| format!("/many/s-{service}/");
    let options = || Some(WatchOptions::new().with_prefix());
    let mut stream = client.watch(prefix(0), options()).await?;
    let mut created = 0;
    for service in 1..services {
        stream.watch(prefix(service), options()).await?;
        // Its queue of requests is short.
        if service % 50 == 0 {
            created += usize::from(stream.message().await?.is_some());
        }
    }
    while created < services {
        let message = timeout(DEADLINE, stream.message()).await??;
        created += usize::from(message.ok_or("the stream ended")?.created());
    }
    try_join_all((0..services).map(|service| {
        let mut client = client.clone();
        async move { client.get(prefix(service), Some(GetOptions::new().with_prefix())).await }
    }))
    .await?;
    Ok(start.elapsed())
}
