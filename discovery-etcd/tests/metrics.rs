//! The figures, as a recorder gets them, against real etcd. The recorder is the process's, so each test
//! has a prefix of its own, and those that register do so one after the other.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

mod support;

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use discovery_core::{Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, Truth, eventually, eventually_eq, on_each_version};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use support::{NOW, NOW_AFTER_OUTAGE, View, instance, key, value};
use tokio::sync::Mutex;

static RECORDER: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// Held by the test that registers.
static REGISTERS: Mutex<()> = Mutex::const_new(());

const FAST_AUDIT: Duration = Duration::from_secs(1);
/// An audit is due every second or so and gives events 2 s to explain what differs.
const AUDITED: Duration = Duration::from_secs(6);
/// A lease of 5 s is renewed in a third of that.
const RENEWED: Duration = Duration::from_secs(4);

fn config(etcd: &Etcd) -> EtcdConfig {
    LazyLock::force(&RECORDER);
    EtcdConfig::new([etcd.url()])
        .ttl(Duration::from_secs(5))
        .suspects_for(Duration::ZERO)
        .audit_every(FAST_AUDIT)
}

/// The value of a figure with these labels; `None` if there is no such figure.
fn figure(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = RECORDER.render();
    let mut values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let rest = series.strip_prefix(name)?;
        let is = rest.is_empty() || rest.starts_with('{');
        let has = |(key, value): &(&str, &str)| rest.contains(&format!("{key}=\"{value}\""));
        (is && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap())
    });
    let first = values.next();
    assert_eq!(values.next(), None, "{name} with {labels:?} is more than one series");
    first
}

fn total(name: &str, labels: &[(&str, &str)]) -> f64 {
    figure(name, labels).unwrap_or(0.0)
}

fn connects(link: &str, outcome: &str) -> f64 {
    total("discovery_etcd_connects_total", &[("link", link), ("outcome", outcome)])
}

fn renewals(outcome: &str) -> f64 {
    total("discovery_etcd_renewals_total", &[("outcome", outcome)])
}

fn registrations(state: &str) -> Option<f64> {
    figure("discovery_etcd_registrations", &[("state", state)])
}

/// The names and kinds in the README are those that a program exports, with a meaning for each.
#[tokio::test(flavor = "multi_thread")]
async fn the_readme_names_what_is_exported() {
    let _alone = REGISTERS.lock().await;
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = EtcdRegistry::new(config(&etcd).prefix("/readme/")).unwrap();
        let view = View::new(registry.watch_all());
        view.until_fresh(NOW).await;
        let registration = registry.register(instance("orders", "1", 1));
        registration.registered().await.unwrap();
        let documented: BTreeSet<(String, String)> = include_str!("../README.md")
            .lines()
            .filter(|line| line.starts_with("| `discovery_etcd_"))
            .map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let name = cells.next().unwrap().trim_matches('`').to_owned();
                let kind = cells.next().unwrap().split(',').next().unwrap().to_owned();
                (name, kind)
            })
            .collect();
        let text = RECORDER.render();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let types = types.filter_map(|line| line.split_once(' '));
        let exported: BTreeSet<_> =
            types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
        assert_eq!(exported, documented);
        for (name, _) in exported {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} means nothing");
        }
        registration.deregister().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_is_counted_and_what_has_ended_is_zero() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let registry = EtcdRegistry::new(config(&etcd)).unwrap();
        let prefix = "/services/orders/";
        let of = |name: &str| figure(&format!("discovery_etcd_{name}"), &[("prefix", prefix)]);
        let (lists, events) = (of("lists_total"), of("events_total"));
        let since =
            |before: Option<f64>, name: &str| of(name).map(|now| now - before.unwrap_or(0.0));
        let unreadable = of("undecodable_total");
        let connected = connects("watches", "ok");
        for port in 1..=2 {
            truth.put(key("orders", &port.to_string()), value(port)).await.unwrap();
        }

        let view = View::new(registry.watch(&"orders".parse().unwrap()));
        let instances = async || of("instances");
        eventually_eq(NOW, "instances", Some(2.0), instances).await;
        eventually_eq(NOW, "not stale", Some(0.0), async || of("stale_seconds")).await;
        assert_eq!(since(lists, "lists_total"), Some(1.0));
        assert_eq!(since(events, "events_total"), Some(0.0), "they were listed");
        assert!(connects("watches", "ok") > connected);

        truth.put(key("orders", "3"), value(3)).await.unwrap();
        truth.put(key("orders", "poison"), "no instance").await.unwrap();
        truth.put(key("orders", "poison"), "no instance").await.unwrap();
        truth.put(key("orders", "4"), value(4)).await.unwrap();
        eventually_eq(NOW, "instances", Some(4.0), instances).await;
        assert_eq!(since(events, "events_total"), Some(4.0));
        assert_eq!(since(unreadable, "undecodable_total"), Some(1.0), "once for each value");
        truth.put(key("orders", "poison"), "another").await.unwrap();
        eventually_eq(NOW, "unreadable", Some(2.0), async || {
            since(unreadable, "undecodable_total")
        })
        .await;

        let audits = of("audits_total");
        eventually(AUDITED, "audits go on", async || of("audits_total") > audits).await;
        assert_eq!(of("repairs_total"), Some(0.0), "nothing was missed");

        let failed = connects("watches", "failed");
        etcd.kill();
        view.until_stale(NOW).await;
        eventually(NOW, "stale", async || of("stale_seconds") > Some(0.0)).await;
        let grows = |than: f64| async move || of("stale_seconds") > Some(than);
        eventually(Duration::from_secs(4), "stale for longer", grows(2.0)).await;
        eventually(Duration::from_secs(4), "stale for longer", grows(4.0)).await;
        assert!(connects("watches", "failed") > failed);
        assert_eq!(of("instances"), Some(4.0), "the last set is served");

        etcd.restart().await;
        truth.delete(key("orders", "3")).await.unwrap();
        truth.compact(truth.revision().await.unwrap(), true).await.unwrap();
        eventually_eq(NOW_AFTER_OUTAGE, "instances", Some(3.0), instances).await;
        eventually_eq(NOW, "not stale", Some(0.0), async || of("stale_seconds")).await;
        assert!(since(lists, "lists_total") >= Some(2.0));

        // Two watches of one prefix, in two registries.
        let other = EtcdRegistry::new(config(&etcd)).unwrap();
        let twin = View::new(other.watch(&"orders".parse().unwrap()));
        eventually_eq(NOW, "instances of both", Some(6.0), instances).await;
        drop(twin);
        eventually_eq(NOW, "instances of one", Some(3.0), instances).await;

        etcd.kill();
        eventually(NOW, "stale", async || of("stale_seconds") > Some(0.0)).await;
        drop(view);
        eventually_eq(NOW, "no watch, no instances", Some(0.0), instances).await;
        eventually_eq(NOW, "nobody minds", Some(0.0), async || of("stale_seconds")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_is_counted() {
    let _alone = REGISTERS.lock().await;
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let again = async || total("discovery_etcd_reregistrations_total", &[]);
        let (connected, renewed) = (connects("registrations", "ok"), renewals("ok"));
        let anew = again().await;
        let one = EtcdRegistry::new(config(&etcd)).unwrap().register(instance("orders", "1", 1));
        let in_state = async |state, count| {
            eventually_eq(NOW, state, Some(count), async || registrations(state)).await;
        };
        in_state("registered", 1.0).await;
        in_state("registering", 0.0).await;
        assert!(connects("registrations", "ok") > connected);
        eventually(RENEWED, "renewals", async || renewals("ok") > renewed).await;
        assert_eq!(again().await, anew, "nothing was lost");

        let lease = truth.get(key("orders", "1")).await.unwrap().unwrap().lease;
        truth.revoke(lease).await.unwrap();
        eventually_eq(NOW, "registered anew", anew + 1.0, again).await;

        let conflicts = total("discovery_etcd_conflicts_total", &[]);
        let two = EtcdRegistry::new(config(&etcd)).unwrap().register(instance("orders", "1", 2));
        in_state("conflict", 1.0).await;
        assert_eq!(total("discovery_etcd_conflicts_total", &[]), conflicts + 1.0);
        one.deregister().await.unwrap();
        in_state("conflict", 0.0).await;
        in_state("registered", 1.0).await;
        assert_eq!(again().await, anew + 1.0, "who waited for another had nothing to lose");

        let failed = async || renewals("unanswered") + renewals("failed");
        let before = failed().await;
        etcd.pause();
        eventually(RENEWED + RENEWED, "no renewal", async || failed().await > before).await;
        etcd.resume();
        let registered = async || registrations("registered");
        eventually_eq(NOW_AFTER_OUTAGE, "registered", Some(1.0), registered).await;
        two.deregister().await.unwrap();
        for state in ["registering", "registered", "conflict", "deregistering", "abandoned"] {
            in_state(state, 0.0).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_told_from_what_fails() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        truth.auth().enable("secret").await.unwrap();
        let denied = connects("watches", "denied");
        let config = config(&etcd).prefix("/denied/").credentials("root", "wrong");
        let registry = EtcdRegistry::new(config).unwrap();
        let view = View::new(registry.watch_all());
        eventually(NOW_AFTER_OUTAGE, "denied", async || connects("watches", "denied") > denied)
            .await;
        assert!(!view.status().loaded);
        let stale = || figure("discovery_etcd_stale_seconds", &[("prefix", "/denied/")]);
        eventually(NOW_AFTER_OUTAGE, "no set is as of now", async || stale() > Some(1.0)).await;
        drop(view);
        eventually_eq(NOW, "nobody minds", Some(0.0), async || stale()).await;
    })
    .await;
}
