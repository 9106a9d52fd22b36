//! The failure rows about much at a time: a reader that lags, a long absence, a huge prefix.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, key, registry, value};
use discovery_core::{Change, Source as _};
use discovery_test_support::{Etcd, Op, Proxy, Truth, eventually, long, on_each_version};
use futures::{FutureExt as _, StreamExt as _};

/// The JSON of an instance with a kilobyte of metadata.
fn large(port: u16) -> String {
    let text = "x".repeat(1000);
    format!(r#"{{"address":"http://127.0.0.1:{port}","metadata":{{"text":"{text}"}}}}"#)
}

/// Row 15: a reader that does not look is owed one change for each key, and disturbs nobody.
#[tokio::test(flavor = "multi_thread")]
async fn row_15_a_reader_that_does_not_look_is_owed_no_more_than_there_is() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let registry = registry(etcd.url());
        let mut lazy = registry.watch_all();
        let view = View::new(registry.watch_all());
        view.until_fresh(NOW).await;
        while lazy.next().now_or_never().is_some() {}
        let rounds = if long() { 1_000 } else { 100 };
        for round in 1..=rounds {
            let ops = (0..100).map(|n| Op::put(key("orders", &n.to_string()), value(round)));
            truth.txn(ops).await.unwrap();
        }
        view.until_true(&truth, PREFIX, NOW).await;
        let mut owed = Vec::new();
        while let Some(change) = lazy.next().now_or_never() {
            owed.push(change.unwrap());
        }
        assert_eq!(owed.len(), 101, "{rounds} rounds of 100 keys, each told once, and Synced");
        assert_eq!(owed.last(), Some(&Change::Synced));
    })
    .await;
}

/// Row 16: much has happened, with large values.
#[tokio::test(flavor = "multi_thread")]
async fn row_16_a_long_absence_is_caught_up_with() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let proxy = Proxy::start(etcd.client_addr());
        let view = View::new(registry(proxy.url()).watch_all());
        view.until_fresh(NOW).await;
        proxy.refuse();
        view.until_stale(NOW).await;
        for round in 0..200 {
            let ops = (0..100).map(|n| {
                Op::put(key("orders", &format!("{}", (round * 37 + n) % 3_000)), large(round + 1))
            });
            truth.txn(ops).await.unwrap();
        }
        proxy.pass();
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
    })
    .await;
}

/// Row 17: 100 000 instances, in pages of one revision, while they change.
#[tokio::test(flavor = "multi_thread")]
async fn row_17_a_huge_prefix_is_one_set() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let count = if long() { 100_000 } else { 25_000 };
        let puts = (0..count).map(|n| Op::put(key("orders", &n.to_string()), value(1)));
        truth.txn_all(puts).await.unwrap();
        // A pair that always changes together: the first page has one, the last the other.
        let pair = ["0", "99999"];
        truth.txn(pair.map(|id| Op::put(key("orders", id), value(1)))).await.unwrap();
        let write = truth.clone();
        let writer = tokio::spawn(async move {
            for port in 2..u16::MAX {
                let ops = pair.map(|id| Op::put(key("orders", id), value(port)));
                write.txn(ops).await.unwrap();
            }
        });
        let mut changes = registry(etcd.url()).watch_all();
        let mut pairs = [None, None];
        let mut synced = 0;
        let seen = async {
            while synced < 20 {
                match changes.next().await.unwrap() {
                    Change::Insert(key, instance) => {
                        if let Some(place) = pair.iter().position(|id| key.id.as_str() == *id) {
                            pairs[place] = instance.address.port();
                        }
                    }
                    Change::Synced => {
                        synced += 1;
                        assert_eq!(pairs[0], pairs[1], "half of a change");
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let limit = discovery_test_support::slack(Duration::from_secs(20));
        tokio::time::timeout(limit, seen).await.unwrap();
        writer.abort();
        let status = changes.status();
        eventually(NOW, "all of them", async || status.get().endpoints >= count).await;
    })
    .await;
}
