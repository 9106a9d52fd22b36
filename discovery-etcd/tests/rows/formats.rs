//! Formats on a real etcd: what is written, what is refused, and one that is not ours.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{NOW, View, instance_key, registry};
use discovery_core::{
    Instance, InstanceStatus, Registrar as _, Registration, RegistrationError, RegistrationState,
    ServiceName, Source as _, Weight,
};
use discovery_etcd::format::{
    Decoded, Encoded, Entry, Format, FormatName, Record, Undecodable, Unencodable,
};
use discovery_etcd::{EtcdConfig, EtcdRegistry, RegisterOptions};
use discovery_test_support::{Etcd, eventually, on_all_versions, slack};
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(2);

fn heartbeats(url: String) -> EtcdRegistry {
    let config = EtcdConfig::new([url]).suspects_for(Duration::ZERO);
    EtcdRegistry::new(config.format(FormatName::Heartbeat)).unwrap()
}

fn worker(port: u16) -> Instance {
    let url = format!("http://127.0.0.1:{port}");
    Instance::parse("worker", &url, &url).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_are_written_seen_and_taken_away() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = heartbeats(etcd.url());
        let view = View::new(registry.watch(&"worker".parse().unwrap()));
        let registration = registry.register(worker(1));
        registration.registered().await.unwrap();
        let key = "heartbeat|worker|http://127.0.0.1:1";
        let entry = etcd.truth().get(key).await.unwrap().unwrap();
        assert_eq!(entry.value, b"http://127.0.0.1:1");
        assert_ne!(entry.lease, 0);
        // By hand, another service and a value that cannot be read among them.
        let by_hand = [
            ("heartbeat|worker|http://127.0.0.1:2", "http://127.0.0.1:2"),
            ("heartbeat|worker|b", "http://127.0.0.1:3"),
            ("heartbeat|worker|http://127.0.0.1:4", ""),
            ("heartbeat|workers|http://127.0.0.1:5", "http://127.0.0.1:5"),
        ];
        for (key, value) in by_hand {
            etcd.truth().put(key, value).await.unwrap();
        }
        let expect = async |ids: &[(&str, &str)]| {
            let expected: crate::support::Set = ids
                .iter()
                .map(|(id, address)| (instance_key("worker", id), (*address).to_owned()))
                .collect();
            eventually(NOW, "the heartbeats are seen", async || {
                let set = view.set();
                if set == expected { Ok(()) } else { Err(set) }
            })
            .await;
        };
        let (one, two) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
        expect(&[(one, one), (two, two), ("b", "http://127.0.0.1:3")]).await;
        // An empty value leaves the last good one; a delete does not.
        etcd.truth().put("heartbeat|worker|b", "").await.unwrap();
        etcd.truth().delete("heartbeat|worker|http://127.0.0.1:2").await.unwrap();
        expect(&[(one, one), ("b", "http://127.0.0.1:3")]).await;
        registration.deregister().await.unwrap();
        expect(&[("b", "http://127.0.0.1:3")]).await;
        assert_eq!(etcd.truth().get(key).await.unwrap(), None);
    })
    .await;
}

/// The format cannot say "draining", so an instance that drains is not listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_drains_is_taken_away_and_can_come_back() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = heartbeats(etcd.url());
        let truth = etcd.truth();
        let listed = async || truth.count("heartbeat|").await.unwrap();
        for options in [RegisterOptions::new(), RegisterOptions::new().share_lease(true)] {
            let settled = async |registration: &Registration| {
                let settled = tokio::time::timeout(slack(NOW), registration.registered()).await;
                settled.unwrap_or_else(|_| panic!("{:?}", registration.status())).unwrap();
            };
            let registration = registry.register_with(worker(1), options.ttl(TTL));
            settled(&registration).await;
            for _ in 0..3 {
                assert_eq!(listed().await, 1);
                registration.drain();
                settled(&registration).await;
                assert_eq!(listed().await, 0);
                let status = registration.status();
                assert!(matches!(status.state, RegistrationState::Registered), "{status:?}");
                registration.update(|instance| instance.status = InstanceStatus::Up).unwrap();
                settled(&registration).await;
            }
            // What came and went in one go leaves what was wanted last.
            registration.drain();
            registration.update(|instance| instance.status = InstanceStatus::Up).unwrap();
            registration.drain();
            settled(&registration).await;
            // It stays away for longer than a lease lives, and what others delete is no news.
            let until = Instant::now() + 2 * TTL;
            while Instant::now() < until {
                assert_eq!(listed().await, 0);
                sleep(Duration::from_millis(50)).await;
            }
            settled(&registration).await;
            registration.deregister().await.unwrap();
            assert_eq!(listed().await, 0);
            eventually(NOW, "leases", async || truth.leases().await.unwrap().is_empty()).await;
            // One that never was listed can leave, too.
            let mut drains = worker(2);
            drains.status = InstanceStatus::Draining;
            let drains = registry.register(drains);
            settled(&drains).await;
            assert_eq!(listed().await, 0);
            drains.deregister().await.unwrap();
        }
    })
    .await;
}

/// Whether the refusal was told by then or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_refused_update_health_and_draining_go_on_from_what_was_before() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = heartbeats(etcd.url());
        let listed = async || etcd.truth().count("heartbeat|").await.unwrap();
        for waits in [true, false] {
            let well = Arc::new(AtomicBool::new(true));
            let is_well = well.clone();
            let options = RegisterOptions::new()
                .health_every(Duration::from_millis(50), move || {
                    ready(is_well.load(Ordering::Relaxed))
                });
            let registration = registry.register_with(worker(1), options);
            registration.registered().await.unwrap();
            let elsewhere = "127.0.0.1:2".parse().unwrap();
            registration.update(|instance| instance.address = elsewhere).unwrap();
            if waits {
                registration.registered().await.unwrap_err();
                well.store(false, Ordering::Relaxed);
                eventually(NOW, "not listed while it is not well", async || listed().await == 0)
                    .await;
                well.store(true, Ordering::Relaxed);
                eventually(NOW, "listed again", async || listed().await == 1).await;
            }
            registration.drain();
            registration.registered().await.unwrap();
            assert_eq!(registration.instance().address, worker(1).address);
            assert_eq!(listed().await, 0, "who drains is not listed");
            registration.deregister().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_would_move_the_key_is_refused_and_the_old_one_stays() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let registry = heartbeats(etcd.url());
        let registration = registry.register(worker(1));
        registration.registered().await.unwrap();
        registration.update(|instance| instance.address = "127.0.0.1:2".parse().unwrap()).unwrap();
        let error = registration.registered().await.unwrap_err();
        assert!(matches!(error, RegistrationError::Refused(_)));
        assert!(error.to_string().contains("http://127.0.0.1:2"), "{error}");
        let status = registration.status();
        assert!(matches!(status.state, RegistrationState::Registered));
        assert_eq!((status.applied, status.refused.unwrap().version), (1, 2));
        assert!(status.last_error.unwrap().to_string().contains("http://127.0.0.1:2"));
        let keys = etcd.truth().range("heartbeat|").await.unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(
            keys[b"heartbeat|worker|http://127.0.0.1:1".as_slice()].value,
            b"http://127.0.0.1:1"
        );
        // One that fits is taken again.
        registration
            .update(|instance| {
                instance.address = "127.0.0.1:1".parse().unwrap();
                instance.weight = Weight::new(2);
            })
            .unwrap();
        registration.registered().await.unwrap();
        registration.deregister().await.unwrap();
        assert_eq!(etcd.truth().count("heartbeat|").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_the_format_cannot_hold_is_refused_at_once_without_etcd() {
    let registry = registry("http://127.0.0.1:1");
    let registration = registry.register(Instance::parse("orders", "a/b", "a:1").unwrap());
    let RegistrationState::Refused(error) = registration.status().state else { panic!() };
    assert!(error.to_string().starts_with(r#"instance id "a/b": "#), "{error}");
    let error = registration.registered().await.unwrap_err();
    assert!(matches!(error, RegistrationError::Refused(_)));
    // It never was there.
    registration.update(|instance| instance.status = InstanceStatus::Draining).unwrap();
    registration.deregister().await.unwrap();
}

/// Keys `TYPE.ID`, values `ADDRESS ADDRESS …`; the first address has the id, others have it with a
/// number behind it.
#[derive(Debug)]
struct Dotted;

impl Format for Dotted {
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        service.map_or_else(Vec::new, |service| format!("{service}.").into_bytes())
    }

    fn record<'k>(&self, _: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        Ok(Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(Undecodable::value);
        let key = text(entries[0].key)?;
        let (service, id) = key.split_once('.').ok_or_else(|| Undecodable::key("TYPE.ID"))?;
        let addresses = text(entries[0].value)?.split(' ').enumerate();
        let instance = |(number, address): (usize, &str)| match number {
            0 => Ok(Instance::parse(service, id, address)?),
            _ => Ok(Instance::parse(service, &format!("{id}#{number}"), address)?),
        };
        addresses.map(instance).collect()
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let key = format!("{}.{}", instance.service, instance.id).into_bytes();
        Ok(Encoded { key, value: Some(instance.address.to_string().into_bytes()) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_format_of_ones_own_is_followed_and_written() {
    on_all_versions(async |version| {
        let etcd = Etcd::start(version).await;
        let config = EtcdConfig::new([etcd.url()]).suspects_for(Duration::ZERO);
        let registry = EtcdRegistry::with_format(config, Arc::new(Dotted)).unwrap();
        let view = View::new(registry.watch_all());
        let registration = registry.register(worker(1));
        registration.registered().await.unwrap();
        let entry = etcd.truth().get("worker.http://127.0.0.1:1").await.unwrap().unwrap();
        assert_eq!(entry.value, b"http://127.0.0.1:1");
        let ids = async |expected: &[&str]| {
            eventually(NOW, "the instances are seen", async || {
                let ids: Vec<_> = view.set().into_keys().map(|key| key.id.to_string()).collect();
                if ids == expected { Ok(()) } else { Err(ids) }
            })
            .await;
        };
        etcd.truth().put("worker.a", "b:1 b:2 b:3").await.unwrap();
        ids(&["a", "a#1", "a#2", "http://127.0.0.1:1"]).await;
        etcd.truth().put("worker.a", "b:1 b:3").await.unwrap();
        ids(&["a", "a#1", "http://127.0.0.1:1"]).await;
        etcd.truth().delete("worker.a").await.unwrap();
        ids(&["http://127.0.0.1:1"]).await;
        registration.deregister().await.unwrap();
        ids(&[]).await;
    })
    .await;
}
