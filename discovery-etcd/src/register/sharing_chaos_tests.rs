//! Registrations that share a lease, through the same courses of faults.

use super::*;
use crate::register::{Shared, SharedLease};

/// The same where a registration moves its key between its own lease and a shared one.
fn no_stranger_was_robbed(etcd: &Fake) {
    nobody_lost(etcd, |old, _| old > 0);
}

/// Several registrations of one process on one lease, each of its own id; one of them leaves.
async fn sharing(seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let etcd = Fake::new(seed);
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::from_rng(&mut rng));
    tokio::spawn(work);
    let (lease, tenancy) = SharedLease::new(link.join(), TTL, StdRng::from_rng(&mut rng));
    let shared = Shared::of(&tenancy);
    let owner = tokio::spawn(lease.keep());
    let node = register_over(&etcd, &link, Some(tenancy), 1, &mut rng, |_| ());
    let other = register_over(&etcd, &link, shared.tenancy(), 2, &mut rng, other);
    node.suffers(&mut rng).await;
    if seed.is_multiple_of(2) {
        // In the middle of it, while the lease lives on.
        node.leaves(&mut rng, |rng| mishap(&etcd, rng)).await;
        calm(&etcd);
        other.until_there(OTHER, Duration::from_secs(20)).await;
    } else {
        calm(&etcd);
        clear(&etcd);
        node.until_right(Duration::from_secs(20)).await;
        other.until_there(OTHER, Duration::from_secs(20)).await;
        sleep(Duration::from_secs(20)).await;
        let leases = etcd.with(|store| {
            let key = |key: &[u8]| store.key(key).map(|entry| entry.lease);
            assert_eq!(key(KEY), key(OTHER), "they share it");
            store.leases().len()
        });
        assert_eq!(leases, 1, "and have no other");
        node.leaves(&mut rng, |_| ()).await;
        assert!(other.is_there(OTHER));
    }
    no_stranger_was_robbed(&etcd);
    drop(other.registration);
    timeout(Duration::from_secs(4), owner).await.expect("nobody uses the lease").unwrap();
    assert!(shared.tenancy().is_none());
    sleep(TTL + LATEST + EXPIRY).await;
    assert_eq!(etcd.with(|store| store.leases().len()), 0);
}

#[test]
fn those_who_share_a_lease_come_and_go_as_those_who_do_not() {
    for_each_seed(300, sharing);
}

/// Others use the shared lease, so the key does not go by itself.
#[tokio::test(start_paused = true)]
async fn a_key_under_a_shared_lease_goes_though_its_registration_had_to_give_up() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::seed_from_u64(2));
    tokio::spawn(work);
    let (lease, others) = SharedLease::new(link.join(), TTL, StdRng::seed_from_u64(3));
    tokio::spawn(lease.keep());
    let home = Shared::of(&others).tenancy();
    let node = register_over(&etcd, &link, home, 1, &mut rng, |_| ());
    node.until_right(Duration::from_secs(1)).await;
    // Only the shared lease is left.
    let from = Instant::now();
    while etcd.with(|store| store.leases().len()) > 1 {
        assert!(from.elapsed() < Duration::from_secs(1), "it does not move");
        sleep(Duration::from_millis(10)).await;
    }
    etcd.set(Faults { denied: 1.0, ..Faults::default() });
    let error = node.registration.deregister().await.unwrap_err();
    assert!(error.gone_within.is_some());
    etcd.set(Faults::default());
    // The longest wait after a denial.
    timeout(Duration::from_secs(13), node.task).await.expect("the task ends").unwrap();
    etcd.with(|store| {
        assert!(store.key(KEY).is_none());
        assert_eq!(store.leases().len(), 1, "the others keep their lease");
    });
    drop(others);
}

/// It would be kept for as long as its delete is denied.
#[tokio::test(start_paused = true)]
async fn a_shared_lease_is_not_kept_for_a_registration_that_had_to_give_up() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::seed_from_u64(2));
    tokio::spawn(work);
    let (lease, tenancy) = SharedLease::new(link.join(), TTL, StdRng::seed_from_u64(3));
    let kept = tokio::spawn(lease.keep());
    let node = register_over(&etcd, &link, Some(tenancy), 1, &mut rng, |_| ());
    node.until_right(Duration::from_secs(1)).await;
    sleep(TTL).await;
    etcd.set(Faults { denied: 1.0, ..Faults::default() });
    node.registration.deregister().await.unwrap_err();
    timeout(Duration::from_secs(1), kept).await.expect("nobody uses it").unwrap();
    // Nor does what had to give up go on without it.
    timeout(Duration::from_secs(1), node.task).await.expect("the task ends").unwrap();
}

/// Those who had to give up go on only while somebody else keeps the lease alive.
#[tokio::test(start_paused = true)]
async fn with_the_last_user_of_a_shared_lease_all_ends_though_etcd_is_gone_for_good() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::seed_from_u64(2));
    tokio::spawn(work);
    let (lease, tenancy) = SharedLease::new(link.join(), TTL, StdRng::seed_from_u64(3));
    let kept = tokio::spawn(lease.keep());
    let last = tenancy.clone();
    let node = register_over(&etcd, &link, Some(tenancy), 1, &mut rng, |_| ());
    node.until_right(Duration::from_secs(1)).await;
    sleep(TTL).await;
    etcd.set(Faults { away: true, ..Faults::default() });
    etcd.cut();
    node.registration.deregister().await.unwrap_err();
    sleep(TTL * 10).await;
    assert!(!node.task.is_finished() && !kept.is_finished(), "the lease may live on");
    drop(last);
    timeout(Registration::DEREGISTER_WITHIN + Duration::from_secs(1), kept)
        .await
        .expect("nobody uses it")
        .unwrap();
    timeout(Duration::from_secs(1), node.task).await.expect("the task ends").unwrap();
    // And with them the attempts to reach it.
    let attempts = etcd.attempts();
    sleep(TTL * 10).await;
    assert_eq!((etcd.attempts(), etcd.open()), (attempts, 0));
}
