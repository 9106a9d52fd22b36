//! What callers of the gateway see of instances that die, hang, are slow, fail, or go: one test for
//! each thing that can happen. All of them are processes, and so is etcd.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::load::{Load, Tally};
use crate::support::nodes::{gateway, lists, node, ready};
use crate::support::{Http, Program, SOON};
use discovery_test_support::{
    Etcd, eventually, eventually_eq, long, on_all_versions, slack, versions,
};
use http::{Method, StatusCode};
use serde_json::json;

/// By turns.
const GET_POST: &[Method] = &[Method::GET, Method::POST];
/// What is never sent twice.
const POST: &[Method] = &[Method::POST];

/// Judges who takes long, or fails, by itself: who does is hardly asked, and so hardly ever tried
/// often enough to be left out.
const P2C: &str = "--policy=p2c";
/// Asks all alike, until they are left out.
const LEAST_PENDING: &str = "--policy=least-pending";

/// An etcd for what does not depend on its version: it tells who is there.
async fn etcd() -> Etcd {
    Etcd::start(versions()[0]).await
}

/// Nodes of these ids, alive for half a minute without a word, and a gateway that knows them.
async fn site(etcd: &Etcd, ids: &[&str], node: &[&str], own: &[&str]) -> Site {
    let (gateway, address) = gateway(etcd, own).await;
    let mut nodes = Vec::new();
    for id in ids {
        nodes.push(ready(etcd, id, &[&["--ttl=30"], node].concat()).await);
    }
    let http = Http::new();
    let expected: Vec<_> = ids.iter().map(|id| format!("{id} up")).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    lists(&http, &address, SOON, &expected).await;
    Site { http, gateway, address, nodes }
}

struct Site {
    http: Http,
    gateway: Program,
    address: String,
    /// Each with its address.
    nodes: Vec<(Program, String)>,
}

impl Site {
    fn load(&self, callers: usize, rate: u32, methods: &'static [Method]) -> Load {
        Load::start(&self.address, callers, rate, methods)
    }

    /// Tells a node how to behave.
    async fn control(&self, node: usize, body: &'static str) {
        let answer = self.http.post(format!("{}/control", self.nodes[node].1), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }

    /// How many times the gateway has said this.
    fn said(&self, text: &str) -> usize {
        self.gateway.stderr().lines().filter(|line| line.contains(text)).count()
    }

    /// How often an instance was asked that only fails: what it answered, and what then another did.
    async fn asked(&self, tally: &Tally, id: &str) -> usize {
        let retried = self.figure("gateway_retries_total{service=\"orders\"}").await;
        tally.count(id) + usize::try_from(retried).unwrap()
    }

    /// A figure of the gateway.
    async fn figure(&self, name: &str) -> u64 {
        let page = self.http.get(format!("{}/metrics", self.address)).await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_25_the_last_instance_leaves() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let mut site = site(&etcd, &["a", "b"], &[], &["--suspect-s=2"]).await;
        let address = site.address.clone();
        let none = json!({ "error": "no instances of orders" });
        // Whatever is asked has its answer: at first of an instance, from some moment on that there is none.
        let becomes_empty = async |site: &Site, limit: Duration| {
            eventually(limit, "there is no instance", async || {
                let started = Instant::now();
                let answer = site.http.get(format!("{address}/send/orders")).await;
                assert!(started.elapsed() < slack(Duration::from_secs(2)), "{answer:?}");
                if answer.status == StatusCode::OK {
                    return false;
                }
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
                answer.json() == none || panic!("{answer:?}")
            })
            .await;
            lists(&site.http, &address, SOON, &[]).await;
            // To the next caller at once, whatever the method.
            let started = Instant::now();
            let answer = site.http.post(format!("{address}/send/orders"), "body").await;
            assert_eq!(
                (answer.status, answer.json()),
                (StatusCode::SERVICE_UNAVAILABLE, none.clone())
            );
            let all = site.http.get(format!("{address}/send")).await.json();
            let error = "no instances of orders";
            let empty = json!({ "status": 503, "served_by": null, "error": error });
            assert_eq!(all["orders"], empty);
            assert!(started.elapsed() < slack(Duration::from_millis(500)));
        };
        let serves = async |site: &Site, id: &str| {
            let expected = format!("{id} up");
            lists(&site.http, &address, SOON, &[&expected]).await;
            let answer = site.http.post(format!("{address}/send/orders"), "body").await;
            assert_eq!((answer.status, answer.served_by()), (StatusCode::OK, id), "{answer:?}");
        };

        // Announced, one after the other: at once.
        for (node, _) in site.nodes.drain(..) {
            assert_eq!(node.stop().await, Some(0));
        }
        becomes_empty(&site, Duration::from_secs(1)).await;

        // Alone and without a word: its key goes while it lives.
        let (node, _) = ready(&etcd, "c", &["--ttl=600"]).await;
        serves(&site, "c").await;
        node.process.kill();
        let (node, _) = ready(&etcd, "d", &["--ttl=600"]).await;
        lists(&site.http, &address, SOON, &["c up", "d up"]).await;
        assert!(etcd.truth().delete("/services/orders/c").await.unwrap());
        serves(&site, "d").await;
        // It lives, but does not see that its key is gone.
        node.process.pause();
        let deleted = Instant::now();
        assert!(etcd.truth().delete("/services/orders/d").await.unwrap());
        eventually(Duration::from_secs(1), "it is listed no longer", async || {
            site.http.get(format!("{address}/services")).await.json()["services"]["orders"]
                == json!([])
        })
        .await;
        assert!(deleted.elapsed() >= Duration::from_millis(500), "it did not wait for company");
        becomes_empty(&site, Duration::from_secs(1)).await;
        node.process.kill();

        // Several alive ones together: they serve as suspects for as long as told.
        let (e, _) = ready(&etcd, "e", &["--ttl=600"]).await;
        let (f, _) = ready(&etcd, "f", &["--ttl=600"]).await;
        lists(&site.http, &address, SOON, &["e up", "f up"]).await;
        e.process.pause();
        f.process.pause();
        etcd.truth().delete_prefix("/services/orders/").await.unwrap();
        lists(&site.http, &address, Duration::from_secs(4), &[]).await;
        becomes_empty(&site, Duration::from_secs(1)).await;
        e.process.kill();
        f.process.kill();

        let (_node, _) = ready(&etcd, "g", &[]).await;
        serves(&site, "g").await;
        assert_eq!(site.gateway.stop().await, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_27_instances_that_come_and_go_all_the_time() {
    let etcd = etcd().await;
    let site = site(&etcd, &["a", "b"], &[], &[]).await;
    // Two that live elsewhere, and here by another hand.
    let mut guests = Vec::new();
    for (id, fail_rate) in [("good", "--fail-rate=0"), ("bad", "--fail-rate=1")] {
        let guest = node(&etcd, id, &["--prefix=/elsewhere", fail_rate]);
        guest.line(&["ready "]).await;
        let address = guest.address().await;
        guests.push((id, held(&guest), guest, address));
    }
    let put = async |status: &str| {
        for (id, _, _, address) in &guests {
            let value = json!({ "address": address, "status": status }).to_string();
            etcd.truth().put(format!("/services/orders/{id}"), value).await.unwrap();
        }
    };
    let load = site.load(16, 600, GET_POST);
    load.goes_on(300).await;
    let mut turn = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..if long() { 300 } else { 25 } {
        turn.tick().await;
        put("up").await;
        turn.tick().await;
        // Announced, so that the gateway does not wait for company.
        put("draining").await;
        for (id, ..) in &guests {
            assert!(etcd.truth().delete(format!("/services/orders/{id}")).await.unwrap());
        }
    }
    lists(&site.http, &site.address, SOON, &["a up", "b up"]).await;
    load.goes_on(300).await;
    for (id, before, guest, _) in &guests {
        eventually_eq(SOON, format!("files that {id} has open"), *before, async || held(guest))
            .await;
    }
    put("up").await;
    lists(&site.http, &site.address, SOON, &["a up", "b up", "bad up", "good up"]).await;
    assert_eq!(site.figure("gateway_endpoints{service=\"orders\"}").await, 4);
    let all = load.finish().await;
    assert!(all.count("good") > 0, "{:?}", all.by);
    for failed in &all.failures {
        assert_eq!(
            (&failed.method, failed.status, &*failed.by),
            (&Method::POST, 500, "bad"),
            "{failed:?}"
        );
    }
    // Five in a row over all its visits, one on probation, and what was under way then.
    let asked = site.asked(&all, "bad").await;
    assert!((5..=16).contains(&asked), "asked {asked} times: {:?}", all.by);
}

/// How many files a program has open, connections among them.
fn held(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.process.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_an_instance_is_dead_and_still_registered() {
    let etcd = etcd().await;
    dead(&etcd, P2C).await;
    etcd.truth().delete_prefix("/services/").await.unwrap();
    dead(&etcd, LEAST_PENDING).await;
}

async fn dead(etcd: &Etcd, policy: &str) {
    let site = site(etcd, &["a", "b", "c"], &["--delay-ms=2"], &[policy]).await;
    let load = site.load(32, 500, GET_POST);
    load.goes_on(500).await;
    let kill = Instant::now();
    site.nodes[1].0.process.kill();
    let dead = Instant::now();
    if policy == LEAST_PENDING {
        // It cannot be connected to; or so many had asked it when it died that it counts as failing.
        eventually(Duration::from_secs(2), "it is out of rotation", async || {
            let said = [site.said("endpoint cannot be used"), site.said("is left out for failing")];
            if said == [0, 0] { Err(site.gateway.stderr()) } else { Ok(()) }
        })
        .await;
    }
    load.during(Duration::from_secs(if long() { 15 } else { 2 })).await;
    // All the time etcd has said that it is there.
    lists(&site.http, &site.address, SOON, &["a up", "b up", "c up"]).await;
    let after = load.begun(dead..Instant::now());
    let all = load.finish().await;
    // Once it was dead nothing could be sent to it: nobody notices, or waits.
    after.none_failed(500);
    assert_eq!(after.count("b"), 0);
    assert!(after.slowest < slack(Duration::from_secs(1)), "{:?}", after.slowest);
    // Of what it had, the gateway tries again what may be done twice.
    for failed in &all.failures {
        assert!(failed.started < dead && failed.started + failed.took > kill, "{failed:?}");
        assert_eq!((&failed.method, failed.status), (&Method::POST, 502), "{failed:?}");
    }
    assert!(all.count("b") > 0);
    // It is said once, however often it is tried.
    assert!(site.said("endpoint cannot be used") < 2, "{}", site.gateway.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_an_instance_hangs() {
    let etcd = etcd().await;
    let site = site(&etcd, &["a", "b", "c", "d"], &["--delay-ms=20"], &["--timeout-ms=400"]).await;
    let load = site.load(48, 600, GET_POST);
    load.goes_on(600).await;
    site.nodes[1].0.process.pause();
    let second = async || load.during(Duration::from_secs(1)).await;
    second().await;
    // Whoever waits there in vain makes it look worse, so that hardly anyone else has to.
    for _ in 0..if long() { 30 } else { 3 } {
        let tally = second().await;
        assert!(tally.all > 200 && tally.failures.len() * 20 < tally.all, "{tally:?}");
        assert!(tally.failures.iter().all(|failed| failed.status == 504), "{tally:?}");
        assert_eq!(tally.count("b"), 0);
    }
    site.nodes[1].0.process.resume();
    let first = eventually(SOON * 3, "it is back", async || {
        let tally = load.during(Duration::from_millis(500)).await;
        if tally.count("b") > 1 { Ok(tally) } else { Err(tally.by) }
    })
    .await;
    assert!(first.percent("b") < 15, "not little by little: {:?}", first.by);
    let back = Instant::now();
    if long() {
        eventually(SOON * 6, "it has its share", async || {
            let tally = second().await;
            if tally.percent("b") >= 20 { Ok(()) } else { Err(tally.by) }
        })
        .await;
    }
    let after = load.begun(back..Instant::now());
    load.finish().await;
    after.none_failed(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_an_instance_is_slow() {
    let etcd = etcd().await;
    let site = site(&etcd, &["a", "b", "c", "d"], &["--delay-ms=20"], &[]).await;
    let load = site.load(32, 400, GET_POST);
    let share = async |time| load.during(Duration::from_millis(time)).await;
    eventually(SOON, "it has its share", async || {
        let percent = share(500).await.percent("b");
        if percent >= 15 { Ok(()) } else { Err(percent) }
    })
    .await;
    let slow = Duration::from_millis(200);
    site.control(1, r#"{"delay_ms":200}"#).await;
    // What it had already is over.
    share(500).await;
    let tally = share(if long() { 30_000 } else { 3000 }).await;
    assert!(tally.all > 300 && tally.count("b") * 20 < tally.all, "{tally:?}");
    // It holds up hardly anybody, and those no longer than it takes. On a machine that is busy they may be
    // more than one of a hundred, so that its own time is among what 99 take.
    assert!(tally.within(95) < slow && tally.within(99) < slow * 2, "{tally:?}");
    load.finish().await.none_failed(600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_an_instance_fails_at_once() {
    let etcd = etcd().await;
    failing(&etcd, P2C).await;
    etcd.truth().delete_prefix("/services/").await.unwrap();
    failing(&etcd, LEAST_PENDING).await;
}

async fn failing(etcd: &Etcd, policy: &str) {
    let site = site(etcd, &["a", "b", "c", "d"], &["--delay-ms=5"], &[policy]).await;
    let load = site.load(16, 400, GET_POST);
    load.goes_on(400).await;
    site.control(1, r#"{"fail_rate":1}"#).await;
    let told = Instant::now();
    if policy == LEAST_PENDING {
        eventually(Duration::from_secs(2), "it is left out", async || {
            site.said("endpoint is left out for failing") > 0
        })
        .await;
    }
    // For longer than it is left out at first.
    load.during(Duration::from_secs(if long() { 60 } else { 3 })).await;
    let after = load.begun(told..Instant::now());
    // Some were under way when it was told, and failed.
    let shortly = told.checked_sub(Duration::from_millis(100)).unwrap();
    let before = load.begun(shortly..told);
    let all = load.finish().await;
    // Nobody tries again what may not be done twice; of the rest nobody hears.
    for failed in &all.failures {
        assert_eq!((&failed.method, failed.status, &*failed.by), (&Method::POST, 500, "b"));
    }
    let asked = site.asked(&after, "b").await;
    assert!(asked * 50 < after.all, "{asked} of {after:?}");
    let asked = asked + site.asked(&before, "b").await;
    assert!(asked >= 5 || policy == P2C, "{asked} of {after:?}");
    assert_eq!(site.said("so many endpoints fail that all are used"), 0);
}

/// Nobody may have noticed anything.
fn unnoticed(site: &Site, all: &Tally, of: usize) {
    all.none_failed(of);
    assert!(all.slowest < slack(Duration::from_secs(2)), "one took {:?}", all.slowest);
    assert_eq!(site.said("panic"), 0, "{}", site.gateway.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_an_instance_stops_in_good_order_under_load() {
    let etcd = etcd().await;
    let mut site = site(&etcd, &["a", "b", "c"], &["--delay-ms=2"], &[]).await;
    let load = site.load(64, 1000, GET_POST);
    let rounds = if long() { 15 } else { 2 };
    for round in 0..rounds {
        load.goes_on(500).await;
        let (node, _) = site.nodes.remove(0);
        assert_eq!(node.stop().await, Some(0));
        assert!(node.stdout().contains("\nstopped id="), "{}", node.stdout());
        assert!(!node.stderr().contains("cut off"), "{}", node.stderr());
        load.goes_on(500).await;
        if round + 2 < rounds {
            site.nodes.push(ready(&etcd, &format!("d{round}"), &["--delay-ms=2"]).await);
        }
    }
    let all = load.finish().await;
    assert!(all.count("a") > 0 && all.count("b") > 0, "{:?}", all.by);
    unnoticed(&site, &all, 1000 * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_all_instances_are_replaced_one_after_the_other() {
    let etcd = etcd().await;
    let mut site = site(&etcd, &["a0", "b0", "c0", "d0", "e0"], &["--delay-ms=2"], &[]).await;
    let load = site.load(64, 1000, GET_POST);
    let (rounds, least) = if long() { (5, 20_000) } else { (1, 2000) };
    let mut last = Vec::new();
    for round in 1..=rounds {
        for name in ["a", "b", "c", "d", "e"] {
            let (node, _) = site.nodes.remove(0);
            assert_eq!(node.stop().await, Some(0));
            let id = format!("{name}{round}");
            site.nodes.push(ready(&etcd, &id, &["--delay-ms=2"]).await);
            last.push(id);
        }
    }
    eventually(SOON, "the last ones serve", async || {
        let by = load.during(Duration::from_millis(300)).await.by;
        let is_left = by.len() == 5 && by.keys().all(|id| last[last.len() - 5..].contains(id));
        if is_left { Ok(()) } else { Err(by) }
    })
    .await;
    if long() {
        load.goes_on(least).await;
    }
    unnoticed(&site, &load.finish().await, least);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_34_all_instances_fail() {
    let etcd = etcd().await;
    let site = site(&etcd, &["a", "b", "c"], &["--fail-rate=1"], &[]).await;
    let load = site.load(16, 400, POST);
    let time = Duration::from_secs(if long() { 60 } else { 4 });
    let tally = load.during(time).await;
    // Each answer is that of an instance, and none of them has it all.
    assert!(tally.failures.iter().all(|failed| failed.status == 500), "{tally:?}");
    assert_eq!((tally.by.len(), tally.failures.len()), (3, tally.all), "{:?}", tally.by);
    for id in ["a", "b", "c"] {
        assert!(tally.percent(id) >= 20, "{:?}", tally.by);
    }
    // Well again, all of them are used.
    for node in 0..3 {
        site.control(node, r#"{"fail_rate":0}"#).await;
    }
    let tally = load.during(Duration::from_secs(1)).await;
    tally.none_failed(100);
    for id in ["a", "b", "c"] {
        assert!(tally.percent(id) >= 10, "{:?}", tally.by);
    }
    load.finish().await;
}
