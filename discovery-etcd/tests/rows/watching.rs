//! The failure rows about watching, against real etcd.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance_key, key, registry, value};
use discovery_core::{Change, Source as _};
use discovery_test_support::{
    Etcd, Op, Proxy, Truth, eventually, eventually_eq, long, on_all_versions,
};

fn service() -> discovery_core::ServiceName {
    "orders".parse().unwrap()
}

async fn started(version: discovery_test_support::Version) -> (Etcd, Truth) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    (etcd, truth)
}

async fn fill(truth: &Truth, count: u16) {
    for port in 1..=count {
        truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
    }
}

/// Row 1, watching: etcd restarts quickly.
#[tokio::test(flavor = "multi_thread")]
async fn row_1_a_quick_restart_is_not_seen_in_the_stream() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        fill(&truth, 5).await;
        let view = View::new(registry(etcd.url()).watch(&service()));
        view.until_true(&truth, PREFIX, NOW).await;
        let changes = view.changes();

        etcd.kill();
        let stale = view.until_stale(NOW).await;
        assert!(stale.state.error().is_some());
        assert_eq!(view.set().len(), 5, "the last set is served");
        tokio::time::sleep(Duration::from_secs(2)).await; // the row's own time
        etcd.restart().await;

        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        assert_eq!(view.changes(), changes, "no duplicate insert, no empty window");
    })
    .await;
}

/// Row 2, watching: etcd is away for long.
#[tokio::test(flavor = "multi_thread")]
async fn row_2_the_last_set_is_served_while_etcd_is_away() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        fill(&truth, 3).await;
        let view = View::new(registry(etcd.url()).watch(&service()));
        view.until_true(&truth, PREFIX, NOW).await;

        etcd.kill();
        let stale = view.until_stale(NOW).await;
        let away = if long() { 30 } else { 12 };
        tokio::time::sleep(Duration::from_secs(away)).await; // the row's own time
        let status = view.status();
        assert!(status.is_stale());
        assert_eq!(status.since, stale.since, "stale since it was lost, not since the last try");
        let cause = status.state.error().unwrap().to_string();
        assert!(cause.contains("refused") && cause.contains(&etcd.url()), "{cause}");
        assert_eq!(view.set().len(), 3);

        etcd.restart().await;
        truth.put(key("orders", "4"), value(4)).await.unwrap();
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        assert!(!view.was_emptied());
    })
    .await;
}

/// Row 9: compaction while cut off.
#[tokio::test(flavor = "multi_thread")]
async fn row_9_compaction_while_cut_off_leaves_no_ghost() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        for round in 0..if long() { 100 } else { 20 } {
            fill(&truth, 6).await;
            let proxy = Proxy::start(etcd.client_addr());
            let view = View::new(registry(proxy.url()).watch(&service()));
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            let before = view.changes();
            let connections = proxy.accepted();

            proxy.refuse();
            view.until_stale(NOW).await;
            truth.put(key("orders", "1"), value(100 + round)).await.unwrap();
            truth.put(key("orders", "2"), value(2)).await.unwrap(); // the same again
            truth.put(key("orders", "7"), value(7)).await.unwrap();
            truth.delete(key("orders", "3")).await.unwrap();
            truth.put(key("orders", "8"), value(8)).await.unwrap();
            truth.delete(key("orders", "8")).await.unwrap();
            truth.compact(truth.revision().await.unwrap(), true).await.unwrap();
            proxy.pass();

            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            assert_eq!(view.changes() - before, 3, "net changes only: 1, 7 and 3");
            assert_eq!(proxy.accepted() - connections, 1, "one reconnect, one relist");
            truth.delete(key("orders", "7")).await.unwrap();
        }
    })
    .await;
}

/// Row 10: a delete exactly at the compacted revision.
#[tokio::test(flavor = "multi_thread")]
async fn row_10_a_delete_at_the_compacted_revision_is_not_lost() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        fill(&truth, 1).await;
        for _ in 0..if long() { 100 } else { 20 } {
            let proxy = Proxy::start(etcd.client_addr());
            let view = View::new(registry(proxy.url()).watch(&service()));
            truth.put(key("orders", "d"), value(9)).await.unwrap();
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            proxy.refuse();
            view.until_stale(NOW).await;
            truth.delete(key("orders", "d")).await.unwrap();
            truth.compact(truth.revision().await.unwrap(), true).await.unwrap();
            proxy.pass();
            view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
            assert!(!view.set().contains_key(&instance_key("orders", "d")), "a ghost");
        }
    })
    .await;
}

/// Row 18: one service's name is the beginning of another's.
#[tokio::test(flavor = "multi_thread")]
async fn row_18_services_with_a_common_beginning_are_not_mixed() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let registry = registry(etcd.url());
        let order = View::new(registry.watch(&"order".parse().unwrap()));
        let orders = View::new(registry.watch(&service()));
        let all = View::new(registry.watch_all());
        truth
            .txn([
                Op::put(key("order", "1"), value(1)),
                Op::put(key("orders", "1"), value(2)),
                Op::put(key("orders", "2"), value(3)),
            ])
            .await
            .unwrap();
        order.until_true(&truth, "/services/order/", NOW).await;
        orders.until_true(&truth, "/services/orders/", NOW).await;
        all.until_true(&truth, PREFIX, NOW).await;
        truth.delete_prefix("/services/order/").await.unwrap();
        order.until_true(&truth, "/services/order/", NOW).await;
        all.until_true(&truth, PREFIX, NOW).await;
        assert_eq!((order.set().len(), orders.set().len(), all.set().len()), (0, 2, 2));
        assert_eq!(orders.changes(), 2, "the other service's changes are not ours");
    })
    .await;
}

/// Row 23: nothing to connect to at start.
#[tokio::test(flavor = "multi_thread")]
async fn row_23_a_source_that_starts_before_etcd_loads_when_it_comes() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        fill(&truth, 2).await;
        etcd.kill();
        let hole = Proxy::start(etcd.client_addr());
        hole.black_hole();
        let refused = View::new(registry(etcd.url()).watch(&service()));
        let swallowed = View::new(registry(hole.url()).watch(&service()));
        for (view, why) in [(&refused, "refused"), (&swallowed, "no answer within")] {
            eventually(Duration::from_secs(5), "the status says why", async || {
                let status = view.status();
                let error = status.state.error().map(ToString::to_string).unwrap_or_default();
                if !status.loaded && error.contains(why) { Ok(()) } else { Err(error) }
            })
            .await;
            assert!(view.told().is_empty(), "not even an empty set is known");
        }
        etcd.restart().await;
        hole.cut_once();
        hole.pass();
        refused.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        swallowed.until_true(&truth, PREFIX, Duration::from_secs(10)).await;
    })
    .await;
}

/// Row 24: poison values.
#[tokio::test(flavor = "multi_thread")]
async fn row_24_values_that_cannot_be_read_disturb_nobody() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        fill(&truth, 3).await;
        let view = View::new(registry(proxy.url()).watch(&service()));
        view.until_true(&truth, PREFIX, NOW).await;
        let poison: [Vec<u8>; 10] = [
            b"{\"address\":\"a:1\",\"status\":\"up\nERROR forged\"}".to_vec(),
            b"{".to_vec(),
            b"".to_vec(),
            b"\xff\xfe\x00".to_vec(),
            vec![b'x'; 1_000_000],
            br#"{"address":7}"#.to_vec(),
            br#"{"name":"orders"}"#.to_vec(),
            br#"{"address":"http://a/b c"}"#.to_vec(),
            br#"{"address":"http://127.0.0.1:1","weight":-5}"#.to_vec(),
            br#"[["address"]]"#.to_vec(),
        ];
        for bad in &poison {
            truth.put(key("orders", "1"), bad).await.unwrap();
            truth.put(key("orders", "new"), bad).await.unwrap();
        }
        for bad in [&b"/services/orders/a\0b"[..], b"/services/orders/", b"/services/orders/a/b"] {
            truth.put(bad, value(9)).await.unwrap();
        }
        // Together more than one message may hold.
        for number in 0..70 {
            truth.put(key("orders", &format!("large{number}")), &poison[4]).await.unwrap();
        }
        truth.put(key("orders", "2"), value(20)).await.unwrap();
        let expected = [("1", 1), ("2", 20), ("3", 3)]
            .map(|(id, port)| (instance_key("orders", id), format!("http://127.0.0.1:{port}")));
        let expected: crate::support::Set = expected.into_iter().collect();
        eventually_eq(
            NOW,
            "the good ones, and the last good value",
            expected.clone(),
            async || view.set(),
        )
        .await;

        // The same after a new list.
        let changes = view.changes();
        let list = async |view: &View| {
            let before = proxy.accepted();
            proxy.cut_once();
            eventually(NOW, "reconnected", async || proxy.accepted() > before).await;
            view.until_fresh(NOW_AFTER_OUTAGE).await;
        };
        list(&view).await;
        assert_eq!((view.set(), view.changes()), (expected, changes));

        truth.delete_prefix(PREFIX).await.unwrap();
        fill(&truth, 2).await;
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

/// Row 25, without stabilise: the last instance leaves.
#[tokio::test(flavor = "multi_thread")]
async fn row_25_the_last_one_to_leave_leaves_an_explicit_empty_set() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        fill(&truth, 3).await;
        let view = View::new(registry(etcd.url()).watch(&service()));
        view.until_true(&truth, PREFIX, NOW).await;
        truth.delete_prefix(PREFIX).await.unwrap();
        view.until_true(&truth, PREFIX, NOW).await;
        let told = view.told();
        assert!(matches!(told.last(), Some(Change::Synced)), "{told:?}");
        assert_eq!(view.status().endpoints, 0);
        assert!(view.status().is_fresh());
    })
    .await;
}

/// Dropping the last reader ends the watch, and readers of one service share one.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_service_share_a_watch_that_ends_with_the_last_of_them() {
    on_all_versions(async |version| {
        let (etcd, truth) = started(version).await;
        let watchers = async || truth.metric("etcd_debugging_mvcc_watcher_total").await.unwrap();
        let registry = registry(etcd.url());
        let one = View::new(registry.watch(&service()));
        let two = View::new(registry.clone().watch(&service()));
        one.until_fresh(NOW).await;
        two.until_fresh(NOW).await;
        eventually_eq(NOW, "one watch", Some(1.0), watchers).await;
        drop(one);
        truth.put(key("orders", "1"), value(1)).await.unwrap();
        two.until_true(&truth, PREFIX, NOW).await;
        drop(two);
        eventually_eq(NOW, "no watch", Some(0.0), watchers).await;
        let again = View::new(registry.watch(&service()));
        again.until_true(&truth, PREFIX, NOW).await;
        registry.close();
        eventually(NOW, "closed", async || {
            matches!(again.status().state, discovery_core::State::Closed)
        })
        .await;
    })
    .await;
}
