//! Registrations that share a connection: what is slow for one takes it from no other, and a dead one is
//! left as soon as an answer is late.

use super::*;
use crate::register::{SharedLease, Tenancy};

const MOMENT: Duration = Duration::from_secs(1);

/// Two registrations over one link.
struct Two {
    etcd: Fake,
    node: Node,
    other: Node,
}

impl Two {
    async fn new(home: impl FnOnce(&Fake, &Link<FakeWire>) -> Option<Tenancy>) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let etcd = Fake::new(1);
        let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
        let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::seed_from_u64(2));
        tokio::spawn(work);
        let home = home(&etcd, &link);
        let node = register_over(&etcd, &link, home.clone(), 1, &mut rng, |_| ());
        let other = register_over(&etcd, &link, home, 2, &mut rng, other);
        node.until_right(MOMENT).await;
        other.until_there(OTHER, MOMENT).await;
        // Nothing is left to be moved, and the server is known to answer probes.
        sleep(MOMENT * 7).await;
        Self { etcd, node, other }
    }

    async fn with_leases_of_their_own() -> Self {
        Self::new(|_, _| None).await
    }

    fn slow(&self, slow: bool) {
        self.etcd.set(Faults { slow, ..Faults::default() });
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_slowly_takes_the_connection_from_nobody() {
    let Two { etcd, node, other } = Two::with_leases_of_their_own().await;
    etcd.set(Faults { slow: true, ..Faults::default() });
    let mut leaving = std::pin::pin!(node.registration.deregister());
    let slow = Duration::from_millis(2_900);
    timeout(slow, &mut leaving).await.expect_err("nothing was answered yet");
    etcd.set(Faults::default());
    leaving.await.unwrap();
    assert_eq!(etcd.load().0, 1, "the connection was given up");
    assert!(other.is_there(OTHER));
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_slow_takes_the_connection_from_nobody() {
    let two = Two::with_leases_of_their_own().await;
    two.slow(true);
    two.node.registration.update(|instance| instance.weight = Weight::new(7)).unwrap();
    // Longer than an answer usually takes at most with these leases.
    sleep(Duration::from_millis(1_900)).await;
    two.slow(false);
    two.node.until_right(MOMENT).await;
    assert_eq!(two.etcd.load().0, 1, "the connection was given up");
    assert!(two.other.is_there(OTHER));
}

#[tokio::test(start_paused = true)]
async fn a_shared_renewal_that_is_slow_takes_the_connection_from_nobody() {
    let lease = |_: &Fake, link: &Link<FakeWire>| {
        let (lease, tenancy) = SharedLease::new(link.join(), TTL, StdRng::seed_from_u64(3));
        tokio::spawn(lease.keep());
        Some(tenancy)
    };
    let two = Two::new(lease).await;
    let renewed = two.node.registration.status().expires;
    while two.node.registration.status().expires == renewed {
        sleep(Duration::from_millis(1)).await;
    }
    // From before the next renewal to later than its answer usually comes.
    sleep(TTL.mul_f64(0.29)).await;
    two.slow(true);
    sleep(TTL.mul_f64(0.36)).await;
    two.slow(false);
    sleep(TTL).await;
    assert_eq!(two.etcd.load().0, 1, "the connection was given up");
    assert!(two.node.is_right() && two.other.is_there(OTHER));
}

/// Whoever notices it first.
#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_left_as_soon_as_an_answer_is_late() {
    let Two { etcd, node, other } = Two::with_leases_of_their_own().await;
    etcd.hang();
    let hung = Instant::now();
    node.registration.deregister().await.unwrap();
    let took = hung.elapsed();
    assert!(took >= MOMENT && took < MOMENT + Duration::from_millis(200), "{took:?}");
    other.until_there(OTHER, MOMENT).await;
    assert_eq!(etcd.load().0, 2);

    let Two { etcd, node, other } = Two::with_leases_of_their_own().await;
    etcd.hang();
    let hung = Instant::now();
    node.registration.update(|instance| instance.weight = Weight::new(7)).unwrap();
    node.until_right(Duration::from_secs(2)).await;
    let took = hung.elapsed();
    assert!(took >= TTL / 4 && took < TTL / 4 + Duration::from_millis(200), "{took:?}");
    other.until_there(OTHER, MOMENT).await;
    assert_eq!(etcd.load().0, 2);
}
