//! The failure row about a cluster that loses its leader again and again.

use std::convert::Infallible;
use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, instance_key, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Cluster, Proxy, Snapshot, Truth, Version, eventually, long, on_all_versions,
};
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

const CLIENTS: u64 = 6;
const EVERY: Duration = Duration::from_millis(3_500);
/// The default: an election takes longer than the answer to a renewal may take with much less.
const TTL: i64 = 15;
/// A member without a leader leaves a question open for longer.
const QUESTION: Duration = Duration::from_millis(500);

/// One who registers and watches, and the ways to each member that nobody else takes.
struct Client {
    registration: Registration,
    view: View,
    ways: Vec<Proxy>,
}

impl Client {
    async fn start(cluster: &Cluster, number: u64) -> Self {
        let members = cluster.members().iter();
        let ways: Vec<_> = members.map(|member| Proxy::start(member.client_addr())).collect();
        let config = EtcdConfig::new(ways.iter().map(Proxy::url)).suspects_for(Duration::ZERO);
        let registry = EtcdRegistry::new(config).unwrap();
        let registration = registry.register(instance("orders", &number.to_string(), 1));
        registration.registered().await.unwrap();
        Self { registration, view: View::new(registry.watch_all()), ways }
    }
}

/// How many connections each of them has made so far.
fn connections(clients: &[Client]) -> Vec<u64> {
    clients.iter().map(|client| client.ways.iter().map(Proxy::accepted).sum()).collect()
}

/// Row 22: the leader is killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn row_22_leaders_killed_one_after_the_other_cost_one_reconnect_each() {
    on_all_versions(async |version| leaders_die(version, if long() { 9 } else { 3 }).await).await;
}

async fn leaders_die(version: Version, times: u64) {
    let cluster = Cluster::start(version, 3).await;
    let truth = cluster.member(0).truth();
    let clients = join_all((1..=CLIENTS).map(|number| Client::start(&cluster, number))).await;
    for client in &clients {
        client.view.until_true(truth, PREFIX, NOW).await;
    }
    let registered = truth.snapshot(PREFIX).await.unwrap();
    let leases = truth.leases().await.unwrap();
    let changes: Vec<_> = clients.iter().map(|client| client.view.changes()).collect();
    // Of each client, before the first change and after each.
    let mut connections = vec![connections(&clients)];

    let kills = async {
        for _ in 0..times {
            let next = Instant::now() + EVERY;
            let leader = cluster.member(cluster.leader().await);
            leader.kill();
            cluster.leader().await;
            leader.restart().await;
            sleep_until(next).await;
            connections.push(self::connections(&clients));
        }
        join_all(leases.iter().map(|lease| renewed(truth, *lease))).await;
    };
    tokio::select! {
        () = kills => {}
        never = look(&cluster, &registered) => match never {},
    }

    for (number, client) in clients.iter().enumerate() {
        client.view.until_true(truth, PREFIX, NOW_AFTER_OUTAGE).await;
        assert_eq!(client.view.changes(), changes[number], "nothing that readers could see");
        assert!(matches!(client.registration.status().state, RegistrationState::Registered));
    }
    assert_eq!(truth.snapshot(PREFIX).await.unwrap(), registered, "no write at all");
    assert_eq!(truth.leases().await.unwrap(), leases, "no lease was granted");
    for change in connections.windows(2) {
        let made: Vec<_> = change[1].iter().zip(&change[0]).map(|(now, then)| now - then).collect();
        // One to watch by and one to register by.
        assert!(made.iter().all(|made| *made <= 2), "at one change, by client: {made:?}");
    }

    // It goes on as before.
    truth.put(key("orders", "new"), value(9)).await.unwrap();
    for client in &clients {
        client.view.until_true(truth, PREFIX, NOW).await;
        assert!(client.view.set().contains_key(&instance_key("orders", "new")));
    }
    for client in clients {
        client.registration.deregister().await.unwrap();
    }
    eventually(NOW, "no lease is left", async || truth.leases().await.unwrap().is_empty()).await;
}

/// Waits until a lease has been renewed, and not by a new leader, who does so once for all.
async fn renewed(truth: &Truth, lease: i64) {
    let left = async || truth.lease_ttl(lease).await.unwrap().expect("the lease is alive");
    let within = Duration::from_secs(8); // a third of its time, and a margin
    eventually(within, "some of its time is over", async || left().await < TTL - 2).await;
    eventually(within, "it has all of its time", async || left().await >= TTL - 1).await;
}

/// Looks at every member all the time: whoever answers shows what was registered, as it was.
async fn look(cluster: &Cluster, registered: &Snapshot) -> Infallible {
    let mut members = cluster.members().iter().cycle();
    loop {
        let truth = members.next().expect("a cycle has no end").truth();
        // Without a leader nobody answers.
        if let Ok(seen) = truth.clone().deadline(QUESTION).snapshot(PREFIX).await {
            assert_eq!(seen, *registered, "never missing, never put again");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
