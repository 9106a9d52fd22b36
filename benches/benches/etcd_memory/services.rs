//! What each of many watches of one client takes of the heap, once all are loaded and idle.

use discovery_benches::etcd::{DEADLINE, Result, registry, start, synced};
use discovery_benches::{Report, Row, bytes, is_measuring};
use discovery_core::{Instance, InstanceChanges, Source as _};
use discovery_etcd::EtcdRegistry;
use etcd_client::Client;
use tokio::time::timeout;

use crate::HEAP;
use crate::measured::{Measured, say, settled};

const SERVICES: usize = 500;
const EACH: f64 = 4000.0;

pub(crate) async fn run() -> Result<Report> {
    let count = if is_measuring() { SERVICES } else { 10 };
    let etcd = start().await;
    let url = etcd.url();
    let without = Measured::start("services", count, &url)?.numbers()?;
    let mut client = Client::connect([url.clone()], None).await?;
    for service in 0..count {
        let (key, value) = instance(service)?;
        client.put(key, value, None).await?;
    }
    let with_one = Measured::start("services", count, &url)?.numbers()?;

    let title = format!("etcd {}: heap for each of {count} watched services", etcd.version());
    let mut report = Report::new(title, "ours", "bound");
    for (what, numbers) in [("with one instance", &with_one), ("without instances", &without)] {
        let row = |part, number: f64, goal| {
            Row::numbers(format!("{what}{part}"), number, EACH, bytes, goal)
        };
        report.add(row("", numbers["all"], Some(1.0)));
        report.add(row(", without its reader", numbers["all"] - numbers["reader"], None));
        report.add(row(", a further reader", numbers["reader"], None));
        report.add(row(", the connection and the first watch", numbers["first"], None));
    }
    Ok(report)
}

fn instance(service: usize) -> Result<(String, Vec<u8>)> {
    let instance = Instance::parse(&format!("s-{service}"), "1", "http://10.0.0.1:80")?;
    Ok((format!("/many/s-{service}/1"), serde_json::to_vec(&instance)?))
}

pub(crate) async fn measure(count: usize, url: String) -> Result<()> {
    // What a runtime makes once is made before.
    settled().await;
    let before = HEAP.current_usage();
    // Readers stand in it, and count.
    let mut all = Vec::with_capacity(count);
    let registry = registry(url, "/many")?;
    all.push(loaded(&registry, 0).await?);
    say("first", settled().await - before)?;
    for service in 1..count {
        all.push(registry.watch(&format!("s-{service}").parse()?));
    }
    for changes in &mut all[1..] {
        timeout(DEADLINE, synced(changes)).await??;
    }
    let loaded = settled().await;
    say("all", (loaded - before) / count)?;
    let mut further = Vec::with_capacity(count);
    for service in 0..count {
        further.push(self::loaded(&registry, service).await?);
    }
    say("reader", (settled().await - loaded) / count)
}

async fn loaded(registry: &EtcdRegistry, service: usize) -> Result<InstanceChanges> {
    let mut changes = registry.watch(&format!("s-{service}").parse()?);
    timeout(DEADLINE, synced(&mut changes)).await??;
    Ok(changes)
}
