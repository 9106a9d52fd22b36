//! What is read and written past the library is what etcd holds, on every version.

use std::time::Duration;

use discovery_test_support::{Etcd, Op, eventually, on_each_version};

const SOON: Duration = Duration::from_secs(10);

/// Keys and values that no text can hold.
const ODD: [&[u8]; 4] = [b"odd/\0", b"odd/\xff", b"odd/\xff\xff", b"odd/\xc3\x28"];

#[tokio::test]
async fn keys_are_written_read_and_deleted() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        assert_eq!(truth.get("a").await.unwrap(), None);
        assert_eq!(truth.revision().await.unwrap(), 1);

        assert_eq!(truth.put("a", "1").await.unwrap(), 2);
        assert_eq!(truth.put("a", "2").await.unwrap(), 3);
        let kv = truth.get("a").await.unwrap().expect("it was put");
        assert_eq!(kv.value, b"2");
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 3, 2, 0));

        assert!(truth.delete("a").await.unwrap());
        assert!(!truth.delete("a").await.unwrap());
        assert_eq!(truth.get("a").await.unwrap(), None);
        assert_eq!(truth.revision().await.unwrap(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_prefix_is_all_keys_that_start_with_it_and_no_other() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        for key in ["order", "order/1", "order/2", "orders/1"] {
            truth.put(key, key).await.unwrap();
        }
        for key in ODD {
            truth.put(key, key).await.unwrap();
        }
        let found = truth.range("order/").await.unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [b"order/1", b"order/2"]);

        let found = truth.range("odd/").await.unwrap();
        assert_eq!(found.len(), ODD.len());
        assert!(ODD.iter().all(|key| found[*key].value == *key));
        assert_eq!(truth.range(b"odd/\xff").await.unwrap().len(), 2);
        assert_eq!(truth.range("").await.unwrap().len(), 8);
        assert_eq!(truth.count("order").await.unwrap(), 4);

        assert_eq!(truth.delete_prefix("order/").await.unwrap(), 2);
        assert_eq!(truth.count("").await.unwrap(), 6);
    })
    .await;
}

#[tokio::test]
async fn many_keys_are_read_in_pages() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        let key = |number: u32| format!("many/{number:05}");
        let last = truth.txn_all((0..5001).map(|number| Op::put(key(number), "x"))).await.unwrap();
        assert_eq!(last, 1 + 5001_i64.div_euclid(128) + 1);

        let snapshot = truth.snapshot("many/").await.unwrap();
        assert_eq!(snapshot.revision, last);
        let wanted = (0..5001).map(|number| key(number).into_bytes());
        assert!(snapshot.kvs.keys().cloned().eq(wanted));
    })
    .await;
}

#[tokio::test]
async fn pages_are_of_one_revision_while_others_write() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        truth.txn_all((0..5000).map(|number| Op::put(format!("p/{number:05}"), ""))).await.unwrap();
        let ends = |round: u32| ["p/", "p/99999"].map(|key| Op::put(key, round.to_string()));
        truth.txn(ends(0)).await.unwrap();

        let writer = truth.clone();
        let writing = tokio::spawn(async move {
            for round in 1.. {
                writer.txn(ends(round)).await.unwrap();
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 10 {
            let snapshot = truth.snapshot("p/").await.unwrap();
            let [first, last] = ["p/", "p/99999"].map(|key| &snapshot.kvs[key.as_bytes()].value);
            assert_eq!(first, last);
            seen.insert(first.clone());
        }
        writing.abort();
    })
    .await;
}

#[tokio::test]
async fn a_transaction_is_one_revision() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        truth.put("gone/1", "").await.unwrap();
        truth.put("gone/2", "").await.unwrap();
        let before = truth.put("out", "").await.unwrap();
        let ops =
            [Op::put("a", "1"), Op::put("b", "2"), Op::delete("out"), Op::delete_prefix("gone/")];
        let revision = truth.txn(ops).await.unwrap();
        assert_eq!(revision, before + 1);
        let left = truth.range("").await.unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(left.values().all(|kv| kv.mod_revision == revision));

        let twice = truth.txn([Op::put("a", "1"), Op::put("a", "2")]).await.unwrap_err();
        assert!(twice.to_string().contains("duplicate key"), "{twice}");
        assert_eq!(twice.code(), Some(3));
    })
    .await;
}

#[tokio::test]
async fn compaction_is_possible_once() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        truth.put("a", "1").await.unwrap();
        let revision = truth.put("a", "2").await.unwrap();
        truth.compact(revision, true).await.unwrap();
        let again = truth.compact(revision, false).await.unwrap_err();
        assert!(again.to_string().contains("has been compacted"), "{again}");
        let future = truth.compact(revision + 1, false).await.unwrap_err();
        assert!(future.to_string().contains("future revision"), "{future}");
    })
    .await;
}

#[tokio::test]
async fn leases_are_granted_renewed_and_revoked() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        let (short, long) = (truth.grant(1).await.unwrap(), truth.grant(600).await.unwrap());
        let mut both = [short, long];
        both.sort_unstable();
        assert_eq!(truth.leases().await.unwrap(), both);

        truth.put_leased("short", "", short).await.unwrap();
        truth.txn([Op::put_leased("long", "", long)]).await.unwrap();
        assert_eq!(truth.get("long").await.unwrap().expect("it was put").lease, long);
        let known = truth.lease(long).await.unwrap().expect("it was granted");
        assert_eq!((known.granted, known.keys), (600, vec![b"long".to_vec()]));
        assert!(matches!(truth.lease_ttl(long).await.unwrap(), Some(590..=600)));
        assert_eq!(truth.renew(long).await.unwrap(), Some(600));

        eventually(SOON, "the short lease is over", async || {
            truth.get("short").await.unwrap().is_none()
        })
        .await;
        assert_eq!(truth.lease(short).await.unwrap(), None);
        assert_eq!(truth.renew(short).await.unwrap(), None);

        truth.revoke(long).await.unwrap();
        assert_eq!(truth.get("long").await.unwrap(), None);
        assert_eq!(truth.leases().await.unwrap(), [0_i64; 0]);
        assert_eq!(truth.revoke(long).await.unwrap_err().code(), Some(5));
    })
    .await;
}

#[tokio::test]
async fn metrics_are_found_by_their_whole_name() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = etcd.truth();
        assert_eq!(truth.metric("etcd_debugging_mvcc_watcher_total").await.unwrap(), Some(0.0));
        assert_eq!(truth.metric("etcd_server_has_leader").await.unwrap(), Some(1.0));
        assert_eq!(truth.metric("etcd_server_has").await.unwrap(), None);
        truth.put("key", "value").await.unwrap();
        let puts = truth.metric("etcd_mvcc_put_total").await.unwrap();
        assert_eq!(puts, Some(1.0));
    })
    .await;
}

#[tokio::test]
async fn with_auth_on_only_those_who_may_are_served() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).flag("auth-token-ttl", 2).start().await;
        let root = etcd.truth().auth().enable("secret").await.unwrap();
        assert_eq!(etcd.truth().get("a").await.unwrap_err().code(), Some(3));
        root.put("a/1", "1").await.unwrap();
        root.put("b/1", "1").await.unwrap();

        root.auth().add_user("me", "mine").await.unwrap();
        root.auth().add_role("reader").await.unwrap();
        root.auth().allow("reader", "a/").await.unwrap();
        root.auth().grant_role("me", "reader").await.unwrap();
        let me = etcd.truth().login("me", "mine");
        assert_eq!(me.range("a/").await.unwrap().len(), 1);
        assert_eq!(me.range("b/").await.unwrap_err().code(), Some(7));

        // It stands a restart, which a waiting test must see through, and a token that is forgotten by it.
        etcd.restart().await;
        assert_eq!(me.range("a/").await.unwrap().len(), 1);

        root.auth().forbid("reader", "a/").await.unwrap();
        assert_eq!(me.range("a/").await.unwrap_err().code(), Some(7));
        root.auth().allow("reader", "a/").await.unwrap();
        root.auth().revoke_role("me", "reader").await.unwrap();
        assert_eq!(me.range("a/").await.unwrap_err().code(), Some(7));

        root.auth().change_password("me", "other").await.unwrap();
        let wrong = etcd.truth().login("me", "mine").get("a/1").await.unwrap_err();
        assert!(wrong.to_string().contains("authentication failed"), "{wrong}");
        root.auth().remove_role("reader").await.unwrap();
        root.auth().remove_user("me").await.unwrap();
        root.auth().disable().await.unwrap();
        assert!(etcd.truth().get("a/1").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_until_there_is_space() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).quota(2 << 20).start().await;
        let truth = etcd.truth();
        let value = vec![b'x'; 64 << 10];
        let full = eventually(SOON, "etcd is full", async || {
            truth.put("big", &value).await.err().ok_or("it still takes writes")
        })
        .await;
        assert_eq!(full.code(), Some(8), "{full}");
        assert!(truth.has_space_alarm().await.unwrap());
        // Full is not down: it serves reads and a test may restart it.
        etcd.restart().await;

        truth.compact(truth.revision().await.unwrap(), true).await.unwrap();
        truth.defragment().await.unwrap();
        truth.clear_space_alarm().await.unwrap();
        assert!(!truth.has_space_alarm().await.unwrap());
        truth.put("small", "").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn more_writes_than_ports_need_no_more_connections() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let proxy = discovery_test_support::Proxy::start(etcd.client_addr());
        let truth = discovery_test_support::Truth::new(proxy.addr());
        for number in 0..200 {
            truth.put("key", number.to_string()).await.unwrap();
        }
        assert_eq!(proxy.accepted(), 1);
        // A connection that ended meanwhile is replaced, and what was asked is not asked twice.
        proxy.cut_once();
        truth.put("key", "again").await.unwrap();
        assert_eq!(proxy.accepted(), 2);
        assert_eq!(truth.get("key").await.unwrap().expect("it was put").version, 201);
    })
    .await;
}

#[tokio::test]
async fn outdated_json_web_tokens_are_replaced() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).jwt(Duration::from_secs(3)).start().await;
        let root = etcd.truth().auth().enable("root").await.unwrap();
        root.put("key", "value").await.unwrap();
        // Its token is outdated now, and this gets another.
        root.auth().add_user("somebody", "secret").await.unwrap();
        assert!(root.get("key").await.unwrap().is_some());
        assert!(etcd.truth().get("key").await.is_err(), "nobody may read without a token");
    })
    .await;
}
