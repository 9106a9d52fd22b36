use rand::SeedableRng as _;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::fake::{Fake, FakeWire, Faults, for_each_seed};
use crate::link::Link;
use crate::rotation::Rotation;

const TTL: Duration = Duration::from_secs(15);

/// A shared lease, who keeps it, and the first use of it.
fn shared(etcd: &Fake, seed: u64) -> (Link<FakeWire>, Tenancy, JoinHandle<()>) {
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::seed_from_u64(seed));
    tokio::spawn(work);
    let (lease, tenancy) = SharedLease::new(link.join(), TTL, StdRng::seed_from_u64(!seed));
    let kept = tokio::spawn(lease.keep());
    (link, tenancy, kept)
}

impl Tenancy {
    /// The lease, once it is like this.
    async fn until(&mut self, within: Duration, like: impl Fn(&Home) -> bool) -> Home {
        let is = |home: &Option<Home>| home.as_ref().is_some_and(&like);
        let home = timeout(within, self.news.wait_for(is)).await;
        let home = home.unwrap_or_else(|_| panic!("not within {within:?}"));
        home.unwrap().unwrap()
    }

    async fn granted(&mut self) -> Home {
        self.until(Duration::from_secs(1), |_| true).await
    }
}

/// Becomes true while time passes.
async fn until(within: Duration, is: impl Fn() -> bool) {
    let from = Instant::now();
    while !is() {
        assert!(from.elapsed() < within, "not within {within:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

fn leases(etcd: &Fake) -> Vec<i64> {
    etcd.with(|store| store.leases())
}

#[test]
fn it_is_granted_at_once_and_renewed_at_a_third_of_its_time() {
    for_each_seed(20, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        let mut home = tenancy.granted().await;
        assert_eq!((home.granted, leases(&etcd)), (TTL, vec![home.id]));
        for _ in 0..10 {
            let before = home;
            home = tenancy.until(TTL / 2, |home| home.sent > before.sent).await;
            let after = home.sent - before.sent;
            let third = TTL / 3;
            assert!(after >= third.mul_f64(0.89) && after <= third.mul_f64(1.11), "{after:?}");
            assert!(home.over >= home.sent && home.over <= Instant::now());
            assert_eq!((home.id, home.granted), (before.id, TTL));
        }
        assert_eq!((leases(&etcd), etcd.load().0), (vec![home.id], 1));
    });
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_is_told_and_followed_by_another() {
    let etcd = Fake::new(1);
    let (_link, mut tenancy, _kept) = shared(&etcd, 1);
    let first = tenancy.granted().await;
    etcd.with(|store| store.revoke(first.id)).unwrap();
    let is_told = timeout(TTL / 2, tenancy.news.wait_for(Option::is_none)).await.is_ok();
    assert!(is_told, "nobody is told");
    let second = tenancy.granted().await;
    assert_ne!(first.id, second.id);
    assert_eq!(leases(&etcd), [second.id]);
}

#[test]
fn who_notices_that_the_lease_is_gone_has_it_replaced_at_once() {
    for_each_seed(20, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        let first = tenancy.granted().await;
        // A doubt without a reason costs a renewal, and many at once no more.
        for _ in 0..100 {
            tenancy.doubt();
        }
        let same = tenancy.until(Duration::from_secs(1), |home| home.sent > first.sent).await;
        assert_eq!((same.id, leases(&etcd)), (first.id, vec![first.id]));

        etcd.with(|store| store.revoke(first.id)).unwrap();
        tenancy.doubt();
        let second = tenancy.until(Duration::from_secs(1), |home| home.id != first.id).await;
        assert_eq!(leases(&etcd), [second.id], "seed {seed}");
    });
}

/// Nobody watches anything over this link, so nobody else would see that the connection hangs.
#[test]
fn over_a_connection_that_hangs_it_is_given_up_and_renewed_over_another() {
    for_each_seed(50, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        let first = tenancy.granted().await;
        etcd.stall();
        let renewed = tenancy.until(TTL, |home| home.sent > first.sent).await;
        assert_eq!(renewed.id, first.id);
        assert!(Instant::now() < first.sent + TTL, "seed {seed}: too late");
        assert_eq!(leases(&etcd), [first.id]);
        assert!(etcd.load().0 <= 2, "seed {seed}");
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_begins_with_a_renewal() {
    let etcd = Fake::new(1);
    let (_link, mut tenancy, _kept) = shared(&etcd, 1);
    let first = tenancy.granted().await;
    sleep(Duration::from_secs(1)).await;
    etcd.cut();
    let second = tenancy.until(Duration::from_secs(1), |home| home.sent > first.sent).await;
    assert_eq!((second.id, etcd.load().0), (first.id, 2));
}

/// It may have arrived, and then etcd counts from there.
#[test]
fn a_renewal_that_is_not_answered_is_told() {
    let told = std::cell::Cell::new(0);
    for_each_seed(20, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        let first = tenancy.granted().await;
        etcd.stall();
        let next = tenancy.until(TTL, |home| home.over > first.over).await;
        // Some connections go on before it is asked for, or before its answer is missed.
        told.set(told.get() + usize::from(next.sent == first.sent));
    });
    assert!(told.get() >= 5, "{told:?}");
}

#[test]
fn a_grant_whose_answer_is_lost_leaves_no_second_lease_and_is_counted_from_a_renewal() {
    let lost = std::cell::Cell::new(0);
    for_each_seed(50, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        until(Duration::from_secs(1), || !leases(&etcd).is_empty()).await;
        if tenancy.news.borrow().is_some() {
            return;
        }
        lost.set(lost.get() + 1);
        let granted = Instant::now();
        // Nothing can be reached for a time, and then the lease is nearly over.
        etcd.set(Faults { denied: 1.0, ..Faults::default() });
        etcd.cut();
        let ids = leases(&etcd);
        sleep(Duration::from_millis(100)).await;
        etcd.set(Faults::default());
        let home = tenancy.until(Duration::from_secs(13), |_| true).await;
        assert_eq!((vec![home.id], leases(&etcd)), (ids.clone(), ids), "seed {seed}");
        // What is said of its time is so.
        until(home.sent + TTL - Instant::now(), || {
            assert!(!leases(&etcd).is_empty(), "seed {seed}: gone before its time");
            tenancy.news.borrow().is_some_and(|later| later.sent > home.sent)
        })
        .await;
        assert!(home.sent > granted);
        assert_eq!(leases(&etcd), [home.id], "seed {seed}");
    });
    assert!(lost.get() >= 10, "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_while_it_is_used_and_then_revoked() {
    let etcd = Fake::new(1);
    let (link, mut first, kept) = shared(&etcd, 1);
    let place = Shared::of(&first);
    let home = first.granted().await;
    let second = place.tenancy().expect("it is in use");
    assert_eq!(*second.news.borrow(), Some(home));
    drop(first);
    let third = second.clone();
    drop(second);
    sleep(TTL * 3).await;
    assert_eq!(leases(&etcd), [home.id]);
    drop(third);
    assert!(place.tenancy().is_none());
    timeout(Duration::from_secs(1), kept).await.expect("its task ends").unwrap();
    assert!(leases(&etcd).is_empty());
    until(Duration::from_secs(1), || etcd.open() == 0).await;
    drop(link);
}

#[tokio::test(start_paused = true)]
async fn its_end_does_not_wait_for_an_etcd_that_is_away() {
    let etcd = Fake::new(1);
    let (_link, mut tenancy, kept) = shared(&etcd, 1);
    tenancy.granted().await;
    etcd.set(Faults { trouble: 1.0, ..Faults::default() });
    etcd.stall();
    drop(tenancy);
    timeout(ANSWER_WITHIN + Duration::from_secs(1), kept).await.expect("its task ends").unwrap();
}

/// What is denied can be mended within the lease's time, and should cost nothing then.
#[test]
fn what_is_denied_for_less_than_its_time_does_not_cost_the_lease() {
    for_each_seed(50, async |seed| {
        let etcd = Fake::new(seed);
        let (_link, mut tenancy, _kept) = shared(&etcd, seed);
        let first = tenancy.granted().await;
        etcd.set(Faults { denied: 1.0, ..Faults::default() });
        sleep(TTL * 2 / 3).await;
        assert_eq!(etcd.load().0, 1, "the connection is good");
        etcd.set(Faults::default());
        let renewed = tenancy.until(TTL / 3, |home| home.sent > first.sent).await;
        assert_eq!((renewed.id, leases(&etcd)), (first.id, vec![first.id]), "seed {seed}");
    });
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_is_full_is_asked_again_until_it_grants() {
    let etcd = Fake::new(1);
    etcd.set(Faults { busy: 1.0, ..Faults::default() });
    let (_link, mut tenancy, _kept) = shared(&etcd, 1);
    sleep(TTL).await;
    assert_eq!((*tenancy.news.borrow(), etcd.load().0), (None, 1));
    etcd.set(Faults::default());
    tenancy.until(Duration::from_secs(6), |_| true).await;
}

/// While all who use the lease leave, their link need not wait longer for the sake of the lease.
#[tokio::test(start_paused = true)]
async fn those_who_leave_are_not_held_up_by_the_lease_they_share() {
    let etcd = Fake::new(1);
    let (link, mut tenancy, _kept) = shared(&etcd, 1);
    let user = link.join();
    tenancy.granted().await;
    etcd.set(Faults { away: true, ..Faults::default() });
    etcd.cut();
    user.hurry(Instant::now() + Duration::from_secs(60));
    let before = etcd.attempts();
    sleep(Duration::from_secs(6)).await;
    let attempts = etcd.attempts() - before;
    assert!(attempts >= 5, "{attempts} in 6 s: each has more than a second");
}
