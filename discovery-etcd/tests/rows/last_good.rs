//! The last good set on disk over etcd: programs that start while etcd is away.

use std::path::Path;
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance_key, key, registry, value};
use discovery_core::disk::{FromDisk, LastGood, LastGoodOptions};
use discovery_core::{Change, ServiceName, Source as _, State};
use discovery_etcd::EtcdRegistry;
use discovery_test_support::{Etcd, Proxy, Truth, eventually, long, on_all_versions};

/// When the saved set is told at the latest: after the grace that etcd has to answer.
const AFTER_GRACE: Duration = Duration::from_secs(2);

fn service() -> ServiceName {
    "orders".parse().unwrap()
}

/// What a program that starts now makes.
fn program(url: &str, directory: &Path) -> LastGood<EtcdRegistry> {
    let options = LastGoodOptions::new(directory).source_name("etcd /services");
    LastGood::new(registry(url), options).unwrap()
}

async fn fill(truth: &Truth, ports: impl IntoIterator<Item = u16>) {
    for port in ports {
        truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
    }
}

/// A program that looks at etcd, saves what it sees, and ends.
async fn earlier_run(etcd: &Etcd, url: &str, directory: &Path, file: &str) {
    let source = program(url, directory);
    let changes = if file == "all" { source.watch_all() } else { source.watch(&service()) };
    let view = View::new(changes);
    view.until_true(etcd.truth(), PREFIX, NOW).await;
    let path = directory.join(format!("{file}.last-good"));
    eventually(NOW, "the set is saved", async || path.exists()).await;
}

/// What a status says of a set from disk.
fn from_disk(view: &View) -> Result<(FromDisk, String), State> {
    let status = view.status();
    let error = status.state.error().filter(|_| status.is_stale());
    let from = error.and_then(|error| error.get_ref().downcast_ref::<FromDisk>());
    match (from, error) {
        (Some(from), Some(error)) => Ok((from.clone(), error.to_string())),
        _ => Err(status.state),
    }
}

/// Rows 2 and 23 together, watching: a program starts while etcd is away for long, and etcd comes back
/// with another set.
#[tokio::test(flavor = "multi_thread")]
async fn row_2_a_start_during_a_long_outage_serves_the_saved_set_as_stale() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        let directory = tempfile::tempdir().unwrap();
        // Of each program, so that etcd can be changed before it is seen again.
        let proxy = Proxy::start(etcd.client_addr());
        fill(truth, 1..=5).await;
        earlier_run(&etcd, &proxy.url(), directory.path(), "service.orders").await;
        earlier_run(&etcd, &proxy.url(), directory.path(), "all").await;

        etcd.kill();
        proxy.refuse();
        let source = program(&proxy.url(), directory.path());
        let views = [View::new(source.watch(&service())), View::new(source.watch_all())];
        for view in &views {
            let (from, text) =
                eventually(AFTER_GRACE, "the saved set is served", async || from_disk(view)).await;
            assert!(text.starts_with("from disk, saved ") && text.contains(" s ago: "), "{text}");
            let status = view.status();
            assert!(status.loaded && status.since == from.saved());
            eventually(NOW, "it is told", async || view.set().len() == 5).await;
        }
        let away = if long() { 30 } else { 12 };
        tokio::time::sleep(Duration::from_secs(away)).await; // the row's own time
        for view in &views {
            let (from, text) = from_disk(view).unwrap();
            assert!(from.age() >= Duration::from_secs(away) && from.cause().is_some(), "{text}");
            assert!(text.contains(&proxy.url()), "it says what the trouble with etcd is: {text}");
            assert_eq!((view.set().len(), view.changes()), (5, 5));
        }

        etcd.restart().await;
        truth.put(key("orders", "1"), value(101)).await.unwrap(); // changed
        truth.put(key("orders", "2"), value(2)).await.unwrap(); // the same again
        truth.delete(key("orders", "3")).await.unwrap();
        fill(truth, [6]).await;
        proxy.pass();
        for view in &views {
            view.until_true(truth, PREFIX, NOW_AFTER_OUTAGE).await;
            let news = &view.told()[6..];
            assert_eq!(news.len(), 4, "three changes in one batch: {news:?}");
            assert!(matches!(news[3], Change::Synced));
            let gone = instance_key("orders", "3");
            assert!(news.iter().any(|c| matches!(c, Change::Remove(key) if *key == gone)));
            assert!(!view.was_emptied());
            // From now on it is as if nothing had been saved.
            assert!(view.status().revision.is_some());
        }
        etcd.kill();
        let status = views[0].until_stale(NOW).await;
        assert!(from_disk(&views[0]).is_err(), "{status:?}");
        assert_eq!(views[0].set().len(), 5);
    })
    .await;
}

/// Row 23, watching: nothing to connect to at start, or a black hole; what was saved is there soon.
#[tokio::test(flavor = "multi_thread")]
async fn row_23_a_start_before_etcd_has_the_saved_set_and_then_etcds() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        let directory = tempfile::tempdir().unwrap();
        fill(truth, 1..=2).await;
        earlier_run(&etcd, &etcd.url(), directory.path(), "service.orders").await;

        etcd.kill();
        let hole = Proxy::start(etcd.client_addr());
        hole.black_hole();
        for url in [etcd.url(), hole.url()] {
            let view = View::new(program(&url, directory.path()).watch(&service()));
            eventually(AFTER_GRACE, "the saved set", async || view.set().len() == 2).await;
            assert!(from_disk(&view).is_ok());
        }
        // What nobody saved is not known, and says so.
        let source = program(&etcd.url(), directory.path());
        let other = View::new(source.watch(&"users".parse().unwrap()));
        eventually(NOW, "the status says why", async || {
            let status = other.status();
            let error = status.state.error().map(ToString::to_string).unwrap_or_default();
            if !status.loaded && error.contains("refused") { Ok(()) } else { Err(error) }
        })
        .await;

        let view = View::new(program(&hole.url(), directory.path()).watch(&service()));
        eventually(AFTER_GRACE, "the saved set", async || view.set().len() == 2).await;
        etcd.restart().await;
        fill(truth, [3]).await;
        hole.cut_once();
        hole.pass();
        view.until_true(truth, PREFIX, Duration::from_secs(10)).await;
        assert!(!view.was_emptied());
        other.until_fresh(NOW_AFTER_OUTAGE).await;
        assert!(other.told().iter().all(|change| change.key().is_none()));
        // And what etcd has now is what the next start would find.
        drop(view);
        eventually(NOW, "the new set is saved", async || {
            let path = directory.path().join("service.orders.last-good");
            let text = std::fs::read_to_string(path).unwrap();
            if text.contains("127.0.0.1:3\"") { Ok(()) } else { Err(text) }
        })
        .await;
    })
    .await;
}
