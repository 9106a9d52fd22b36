//! The failure rows about registering, against real etcd.

use std::time::Duration;

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance, key, registry, value};
use discovery_core::{
    InstanceStatus, Registrar as _, Registration, RegistrationState, Source as _,
};
use discovery_etcd::{EtcdConfig, EtcdRegistry, OnConflict, RegisterOptions};
use discovery_test_support::{
    Etcd, Kv, Proxy, Truth, Version, eventually, eventually_eq, long, on_each_version, slack,
};

async fn started(version: Version) -> (Etcd, Truth) {
    let etcd = Etcd::start(version).await;
    let truth = Truth::new(etcd.client_addr());
    (etcd, truth)
}

async fn registered(registration: &Registration, within: Duration) {
    tokio::time::timeout(slack(within), registration.registered())
        .await
        .unwrap_or_else(|_| panic!("not registered: {:?}", registration.status()))
        .unwrap();
}

async fn there(truth: &Truth, id: &str) -> Kv {
    truth.get(key("orders", id)).await.unwrap().expect("the key is in etcd")
}

async fn until_there(truth: &Truth, id: &str, within: Duration) -> Kv {
    let get = async || truth.get(key("orders", id)).await.ok().flatten();
    eventually(within, "the key is in etcd", get).await
}

/// The value is the documented one; what is registered can be changed, announced and taken away.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_put_updated_drained_and_taken_away() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registry = registry(etcd.url());
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        let kv = there(&truth, "1").await;
        let json: serde_json::Value = serde_json::from_slice(&kv.value).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"id":"1","name":"orders","address":"http://127.0.0.1:1","weight":1,
                "zone":null,"status":"up","metadata":{}})
        );
        assert_eq!(truth.lease(kv.lease).await.unwrap().unwrap().granted, 5);
        assert!(registration.status().remaining().unwrap() > Duration::from_secs(3));

        registration.update(|instance| instance.weight = discovery_core::Weight::new(7)).unwrap();
        registered(&registration, NOW).await;
        let kv = there(&truth, "1").await;
        assert!(String::from_utf8_lossy(&kv.value).contains(r#""weight":7"#));
        registration.drain();
        registered(&registration, NOW).await;
        let kv = there(&truth, "1").await;
        assert!(String::from_utf8_lossy(&kv.value).contains(r#""status":"draining""#));
        assert_eq!(registration.instance().status, InstanceStatus::Draining);

        registration.deregister().await.unwrap();
        assert_eq!(truth.get(key("orders", "1")).await.unwrap(), None);
        assert_eq!(truth.leases().await.unwrap(), Vec::<i64>::new());
        view.until_true(&truth, PREFIX, NOW).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_registration_is_taken_away() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registration = registry(etcd.url()).register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        drop(registration);
        eventually_eq(NOW, "the key", None, async || truth.get(key("orders", "1")).await.unwrap())
            .await;
    })
    .await;
}

/// Row 1, registering: the same lease goes on.
#[tokio::test(flavor = "multi_thread")]
async fn row_1_a_quick_restart_keeps_the_lease() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registry = registry(etcd.url());
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        view.until_true(&truth, PREFIX, NOW).await;
        let (before, changes) = (there(&truth, "1").await, view.changes());
        etcd.kill();
        tokio::time::sleep(Duration::from_secs(2)).await; // the row's own time
        etcd.restart().await;
        view.until_true(&truth, PREFIX, NOW_AFTER_OUTAGE).await;
        // Longer than the lease lives without renewal.
        let until = tokio::time::Instant::now() + Duration::from_secs(8);
        while tokio::time::Instant::now() < until {
            assert_eq!(there(&truth, "1").await, before, "the same lease, never put again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(view.changes(), changes, "readers see nothing");
        registration.deregister().await.unwrap();
    })
    .await;
}

/// Row 2, registering: however long etcd is away.
#[tokio::test(flavor = "multi_thread")]
async fn row_2_a_long_outage_ends_with_the_instance_registered() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registration = registry(etcd.url()).register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        etcd.kill();
        let away = if long() { 30 } else { 12 };
        tokio::time::sleep(Duration::from_secs(away)).await; // the row's own time
        assert!(
            matches!(registration.status().state, RegistrationState::Registering(Some(_))),
            "its lease's time is over: {:?}",
            registration.status()
        );
        etcd.restart().await;
        until_there(&truth, "1", NOW_AFTER_OUTAGE).await;
        registered(&registration, NOW_AFTER_OUTAGE).await;
        // And again with the store's data gone: the lease is unknown and the key is put anew.
        etcd.wipe().await;
        until_there(&truth, "1", NOW_AFTER_OUTAGE).await;
        registered(&registration, NOW_AFTER_OUTAGE).await;
    })
    .await;
}

/// Row 5: the lease is revoked under us.
#[tokio::test(flavor = "multi_thread")]
async fn row_5_a_revoked_lease_is_replaced_at_once() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registry = registry(etcd.url());
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        for _ in 0..5 {
            registered(&registration, NOW).await;
            view.until_true(&truth, PREFIX, NOW).await;
            let lease = there(&truth, "1").await.lease;
            truth.revoke(lease).await.unwrap();
            let kv = until_there(&truth, "1", NOW).await;
            assert_ne!(kv.lease, lease);
        }
        registration.deregister().await.unwrap();
        assert_eq!(truth.leases().await.unwrap(), Vec::<i64>::new());
    })
    .await;
}

/// Row 6: our key is deleted, the lease is intact.
#[tokio::test(flavor = "multi_thread")]
async fn row_6_a_deleted_key_is_put_again_unless_we_are_leaving() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let registration = registry(etcd.url()).register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        let lease = there(&truth, "1").await.lease;
        for _ in 0..5 {
            assert!(truth.delete(key("orders", "1")).await.unwrap());
            let kv = until_there(&truth, "1", NOW).await;
            assert_eq!(kv.lease, lease, "the same lease");
            registered(&registration, NOW).await;
        }
        registration.deregister().await.unwrap();
        assert_eq!(truth.get(key("orders", "1")).await.unwrap(), None);
    })
    .await;
}

/// Row 8: a time to live too short to be granted.
#[tokio::test(flavor = "multi_thread")]
async fn row_8_the_granted_time_drives_the_schedule() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let config = EtcdConfig::new([etcd.url()]).ttl(Duration::from_secs(1));
        let registration = EtcdRegistry::new(config).unwrap().register(instance("orders", "1", 1));
        registered(&registration, NOW).await;
        let before = there(&truth, "1").await;
        assert_eq!(truth.lease(before.lease).await.unwrap().unwrap().granted, 2);
        let remaining = registration.status().remaining().unwrap();
        assert!(remaining > Duration::from_secs(1), "{remaining:?}");
        let until = tokio::time::Instant::now() + Duration::from_secs(7);
        while tokio::time::Instant::now() < until {
            assert_eq!(there(&truth, "1").await, before, "renewed in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Row 23, registering: etcd comes later.
#[tokio::test(flavor = "multi_thread")]
async fn row_23_a_registration_waits_for_etcd_and_says_why() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        etcd.kill();
        let registration = registry(etcd.url()).register(instance("orders", "1", 1));
        eventually(NOW, "the status says why", async || match registration.status().state {
            RegistrationState::Registering(Some(error))
                if error.to_string().contains("refused") =>
            {
                Ok(())
            }
            other => Err(other),
        })
        .await;
        etcd.restart().await;
        registered(&registration, NOW_AFTER_OUTAGE).await;
        there(&truth, "1").await;
        // Leaving while etcd is away ends at its deadline, honestly.
        etcd.kill();
        let started = tokio::time::Instant::now();
        let error = registration.deregister().await.unwrap_err();
        assert!(started.elapsed() < slack(Duration::from_secs(4)));
        assert!(error.gone_within.is_some_and(|time| time <= Duration::from_secs(5)), "{error}");
    })
    .await;
}

/// A client of its own that asks for the id that all want, at an address of its own.
fn claims(url: String, port: u16, options: RegisterOptions) -> Registration {
    let options = options.ttl(Duration::from_secs(2));
    registry(url).register_with(instance("orders", "1", port), options)
}

/// Waits until a registration has been told that who listens on `port` holds its id.
async fn told_of(registration: &Registration, port: u16, within: Duration) {
    let holder = format!("orders/1 is held by http://127.0.0.1:{port}");
    eventually(within, &holder, async || match registration.status().state {
        RegistrationState::Conflict(conflict) if conflict.to_string() == holder => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn holds(truth: &Truth, port: u16) -> bool {
    let kv = truth.get(key("orders", "1")).await.unwrap();
    kv.is_some_and(|kv| String::from_utf8_lossy(&kv.value).contains(&format!("127.0.0.1:{port}\"")))
}

/// Row 26: two processes claim one id.
#[tokio::test(flavor = "multi_thread")]
async fn row_26_the_second_to_claim_an_id_is_told_who_holds_it_and_follows() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        let (wait, fail) =
            (RegisterOptions::new(), RegisterOptions::new().on_conflict(OnConflict::Fail));
        let first = claims(etcd.url(), 1, wait.clone());
        registered(&first, NOW).await;
        let second = claims(proxy.url(), 2, wait.clone());
        let refused = claims(etcd.url(), 3, fail);
        told_of(&second, 1, NOW).await;
        let error = tokio::time::timeout(slack(NOW), refused.registered()).await.unwrap();
        assert_eq!(error.unwrap_err().to_string(), "orders/1 is held by http://127.0.0.1:1");
        // For longer than a lease lives: nobody takes it by force.
        let until = tokio::time::Instant::now() + Duration::from_secs(4);
        while tokio::time::Instant::now() < until {
            assert!(holds(&truth, 1).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        first.deregister().await.unwrap();
        registered(&second, NOW).await;
        assert!(holds(&truth, 2).await);
        told_of(&refused, 1, NOW).await; // it has ended

        // The holder goes without a word, and comes back when another has followed.
        let third = claims(etcd.url(), 4, wait);
        told_of(&third, 2, NOW).await;
        proxy.black_hole();
        registered(&third, Duration::from_secs(5)).await;
        assert!(holds(&truth, 4).await);
        proxy.pass();
        told_of(&second, 4, NOW_AFTER_OUTAGE).await;
        assert!(holds(&truth, 4).await);
        second.deregister().await.unwrap();
        assert!(holds(&truth, 4).await, "it was not the second's any more");
        third.deregister().await.unwrap();
        eventually_eq(NOW, "leases", Vec::new(), async || truth.leases().await.unwrap()).await;
    })
    .await;
}

/// Row 26: of many who claim one id at the same moment, one has it and the others know who.
#[tokio::test(flavor = "multi_thread")]
async fn row_26_of_many_who_claim_an_id_at_once_one_has_it() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let claim = |port| claims(etcd.url(), port, RegisterOptions::new());
        let mut all: Vec<_> = (1..=10).map(claim).collect();
        // Each has it in turn, as the one before leaves.
        while !all.is_empty() {
            let holder = eventually(NOW, "one has it", async || {
                let is_registered = |one: &Registration| {
                    matches!(one.status().state, RegistrationState::Registered)
                };
                all.iter().position(is_registered)
            })
            .await;
            let holder = all.swap_remove(holder);
            let port = holder.instance().address.port().unwrap();
            assert!(holds(&truth, port).await);
            for other in &all {
                told_of(other, port, NOW).await;
            }
            holder.deregister().await.unwrap();
        }
        assert_eq!(truth.get(key("orders", "1")).await.unwrap(), None);
    })
    .await;
}

/// Row 26: the holder is no registration of ours. Reported with its address, never taken by force.
#[tokio::test(flavor = "multi_thread")]
async fn row_26_a_taken_id_is_a_conflict_until_its_holder_is_gone() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        truth.put(key("orders", "1"), value(9)).await.unwrap();
        let registry = registry(etcd.url());

        let fails = RegisterOptions::new().on_conflict(OnConflict::Fail);
        let refused = registry.register_with(instance("orders", "1", 1), fails);
        let error = tokio::time::timeout(slack(NOW), refused.registered()).await.unwrap();
        assert_eq!(error.unwrap_err().to_string(), "orders/1 is held by http://127.0.0.1:9");

        let waits = registry.register(instance("orders", "1", 1));
        eventually(NOW, "the conflict", async || match waits.status().state {
            RegistrationState::Conflict(conflict) if conflict.waiting => Ok(()),
            other => Err(other),
        })
        .await;
        assert!(String::from_utf8_lossy(&there(&truth, "1").await.value).contains(":9"));
        truth.delete(key("orders", "1")).await.unwrap();
        registered(&waits, NOW).await;

        // Taken later: a conflict too.
        truth.put(key("orders", "1"), value(8)).await.unwrap();
        eventually(NOW, "the conflict", async || match waits.status().state {
            RegistrationState::Conflict(_) => Ok(()),
            other => Err(other),
        })
        .await;
        assert!(String::from_utf8_lossy(&there(&truth, "1").await.value).contains(":8"));
        waits.deregister().await.unwrap();
        assert!(truth.get(key("orders", "1")).await.unwrap().is_some(), "it was not ours");
    })
    .await;
}

/// A holder at exactly our address is our dead predecessor.
#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_at_our_address_is_replaced_when_asked_to() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        truth.put(key("orders", "1"), value(1)).await.unwrap();
        let options = RegisterOptions::new().replace_same_address(true);
        let registry = registry(etcd.url());
        let registration = registry.register_with(instance("orders", "1", 1), options.clone());
        registered(&registration, NOW).await;
        assert_ne!(there(&truth, "1").await.lease, 0);
        let other = registry.register_with(instance("orders", "1", 2), options);
        eventually(NOW, "the conflict", async || match other.status().state {
            RegistrationState::Conflict(_) => Ok(()),
            other => Err(other),
        })
        .await;
    })
    .await;
}

/// The net is cut while registering anew: leaving in the middle of it leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_during_a_recovery_is_final() {
    on_each_version(async |version| {
        let (etcd, truth) = started(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        for round in 0..if long() { 200 } else { 20 } {
            let registration = registry(proxy.url()).register(instance("orders", "1", 1));
            registered(&registration, NOW_AFTER_OUTAGE).await;
            truth.revoke(there(&truth, "1").await.lease).await.unwrap();
            if round % 2 == 0 {
                proxy.cut_once();
            }
            // Somewhere in the recovery, at another place each time.
            tokio::time::sleep(Duration::from_micros(300 * (round % 20))).await;
            registration.deregister().await.unwrap();
            for _ in 0..5 {
                assert_eq!(truth.get(key("orders", "1")).await.unwrap(), None, "round {round}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
}
