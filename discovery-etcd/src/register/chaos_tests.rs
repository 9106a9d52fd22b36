//! Registrations over a scripted etcd, through random courses of faults.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{
    Desired, Instance, Registration, RegistrationState, RegistrationStatus, ServiceName, Weight,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Keeper, Machine, OnConflict, Plan, Tenancy, Told};
use crate::fake::{Fake, FakeWire, Faults, LATEST, Store, for_each_seed};
use crate::format::{Decoded, Encoded, Entry, Format, Native, Record, Undecodable, Unencodable};
use crate::link::Link;
use crate::rotation::Rotation;
use crate::wire::KeyValue;

const KEY: &[u8] = b"/services/a/1";
const OTHER: &[u8] = b"/services/a/other";
const TTL: Duration = Duration::from_secs(6);
/// etcd takes this long at most to drop a lease whose time is over.
const EXPIRY: Duration = Duration::from_millis(500);

/// The native format for another key.
#[derive(Debug)]
struct Other;

impl Format for Other {
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        Native::new("/services").prefix(service)
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        Native::new("/services").record(key)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        Native::new("/services").decode(entries)
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let encoded = Native::new("/services").encode(instance)?;
        Ok(Encoded { key: OTHER.to_vec(), ..encoded })
    }
}

/// For a registration beside the one of `KEY`.
fn other(plan: &mut Plan) {
    plan.raw_key = OTHER.to_vec();
    plan.format = Arc::new(Other);
}

struct Node {
    etcd: Fake,
    registration: Registration,
    task: JoinHandle<()>,
    shares: bool,
}

/// Registers instance 1 of service `a` at this port.
fn register(etcd: &Fake, port: u16, rng: &mut StdRng) -> Node {
    register_with(etcd, port, rng, |_| ())
}

fn register_with(etcd: &Fake, port: u16, rng: &mut StdRng, change: fn(&mut Plan)) -> Node {
    let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 0);
    let (link, work) = Link::new(etcd.clone(), rotation, false, StdRng::from_rng(rng));
    tokio::spawn(work);
    register_over(etcd, &link, None, port, rng, change)
}

fn register_over(
    etcd: &Fake,
    link: &Link<FakeWire>,
    home: Option<Tenancy>,
    port: u16,
    rng: &mut StdRng,
    change: fn(&mut Plan),
) -> Node {
    let instance = Arc::new(Instance::parse("a", "1", &format!("10.0.0.1:{port}")).unwrap());
    let mut plan = Plan {
        key: instance.key(),
        raw_key: KEY.to_vec(),
        ttl: TTL,
        on_conflict: OnConflict::Wait,
        replace_same_address: false,
        share_lease: home.is_some(),
        verify_every: Duration::from_secs(10),
        format: Arc::new(Native::new("/services")),
    };
    change(&mut plan);
    let first = Desired::Present { instance: instance.clone(), version: 1 };
    let (desired, wishes) = watch::channel(first);
    let (status, statuses) = watch::channel(RegistrationStatus::new());
    let wanted = plan.wanted(&instance, 1, 1).unwrap();
    let machine = Machine::new(plan, wanted, StdRng::from_rng(rng), Instant::now());
    let shares = home.is_some();
    let told = Told { desired: wishes, home, healthy: None, watched: None };
    let task = tokio::spawn(Box::new(Keeper::new(link.join(), machine, told, status)).keep());
    let registration = Registration::new(instance, statuses, move |wish| {
        desired.send_if_modified(|desired| {
            let keeps = matches!(desired, Desired::Absent { .. });
            if !keeps {
                *desired = wish;
            }
            !keeps
        });
    });
    Node { etcd: etcd.clone(), registration, task, shares }
}

impl Node {
    /// The store has what is wanted, and the status says so.
    fn is_right(&self) -> bool {
        assert!(!self.task.is_finished());
        let encoded = Native::new("/services").encode(&self.registration.instance());
        let wanted = encoded.unwrap().value.unwrap();
        let status = self.registration.status();
        matches!(status.state, RegistrationState::Registered)
            && self.etcd.with(|store| {
                store.key(KEY).is_some_and(|entry| {
                    entry.value == wanted && store.leases().contains(&entry.lease)
                })
            })
    }

    async fn until_right(&self, within: Duration) {
        let from = Instant::now();
        while !self.is_right() {
            let there = self.etcd.with(|store| store.key(KEY).cloned());
            let status = self.registration.status();
            assert!(from.elapsed() < within, "after {within:?} {status:?}\n{there:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_there(&self, key: &[u8]) -> bool {
        let registered = matches!(self.registration.status().state, RegistrationState::Registered);
        let there = self.etcd.with(|store| store.key(key).map(|entry| entry.lease));
        registered
            && there.is_some_and(|lease| self.etcd.with(|store| store.leases().contains(&lease)))
    }

    async fn until_there(&self, key: &[u8], within: Duration) {
        let from = Instant::now();
        while !self.is_there(key) {
            assert!(from.elapsed() < within, "after {within:?} {:?}", self.registration.status());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// It is updated while bad things happen.
    async fn suffers(&self, rng: &mut StdRng) {
        for _ in 0..rng.random_range(5..40) {
            match rng.random_range(0..8) {
                0 => {
                    let weight = Weight::new(rng.random_range(1..9));
                    self.registration.update(|instance| instance.weight = weight).unwrap();
                }
                1 => self.etcd.restart(),
                _ => mishap(&self.etcd, rng),
            }
            pause(rng).await;
        }
    }

    fn conflict(&self) -> bool {
        matches!(self.registration.status().state, RegistrationState::Conflict(_))
    }

    /// Takes the instance away and holds what is said of it against what happens then.
    async fn leaves(self, rng: &mut StdRng, mut meanwhile: impl FnMut(&mut StdRng)) {
        let Self { etcd, registration, task, shares } = self;
        let address = registration.instance().address.clone();
        let is_of = |entry: &KeyValue| {
            let entries = [Entry { key: &entry.key, value: &entry.value }];
            // What cannot be read is of somebody else.
            let decoded = Native::new("/services").decode(&entries);
            decoded.is_ok_and(|decoded| {
                decoded.instances().any(|instance| instance.address == address)
            })
        };
        let begun = Instant::now();
        let mut leaving = std::pin::pin!(registration.deregister());
        let result = loop {
            let pause = Duration::from_millis(rng.random_range(1..400));
            match timeout(pause, &mut leaving).await {
                Ok(result) => break result,
                Err(_) => meanwhile(rng),
            }
        };
        assert!(begun.elapsed() <= Registration::DEREGISTER_WITHIN, "{:?}", begun.elapsed());
        let gone_within = match result {
            Ok(()) => Some(Duration::ZERO),
            // A request that was on its way may still arrive.
            Err(error) => error.gone_within.map(|within| within + LATEST + EXPIRY),
        };
        let mut within = Duration::from_secs(1);
        if shares && gone_within != Some(Duration::ZERO) {
            // Others keep the lease: it goes on until the key is known to be gone.
            calm(&etcd);
            within = Duration::from_secs(20);
        }
        timeout(within, task).await.expect("the task ends").unwrap();
        sleep(gone_within.unwrap_or(TTL + LATEST + EXPIRY)).await;
        etcd.with(|store| {
            let there = store.key(KEY).filter(|entry| is_of(entry));
            assert!(there.is_none(), "{there:?} is still there after {gone_within:?}");
        });
        let gone = etcd.with(|store| store.log.len());
        sleep(TTL * 3).await;
        let again = etcd.with(|store| {
            let later = store.log[gone..].iter().flat_map(|moment| moment.writes.clone());
            let mut puts = later.filter_map(|(_, entry)| entry);
            puts.find(|entry| is_of(entry))
        });
        assert!(again.is_none(), "{again:?} came back");
    }
}

/// No put of a registration (their leases are positive) went over a key of somebody else.
fn nobody_was_robbed(etcd: &Fake) {
    nobody_lost(etcd, |old, new| new == old);
}

fn nobody_lost(etcd: &Fake, is_ours: fn(i64, i64) -> bool) {
    etcd.with(|store| {
        for (old, new) in store.log.iter().flat_map(|moment| &moment.writes) {
            if let (Some(old), Some(new)) = (old, new) {
                let fair = new.lease <= 0 || is_ours(old.lease, new.lease);
                assert!(fair, "{new:?} over {old:?}");
            }
        }
    });
}

/// Something bad happens to the store, the network or the keys.
fn mishap(etcd: &Fake, rng: &mut StdRng) {
    match rng.random_range(0..100) {
        0..12 => etcd.cut(),
        12..20 => etcd.stall(),
        20..28 => etcd.with(Store::end_a_watch),
        28..40 => etcd.with(|store| {
            for lease in store.leases() {
                let _ = store.revoke(lease);
            }
        }),
        40..55 => etcd.with(|store| store.write(vec![(KEY.to_vec(), None)])),
        55..60 => {
            // Somebody who takes it without asking, by a lease that never ends or by none.
            let (value, lease) = if rng.random() { (&b"{"[..], 0) } else { (&b"{}"[..], -7) };
            let take = vec![(KEY.to_vec(), Some((value.to_vec(), lease)))];
            etcd.with(|store| store.write(take));
        }
        60..65 => {
            // Somebody who changes the value and leaves the lease.
            etcd.with(|store| {
                if let Some(lease) = store.key(KEY).map(|entry| entry.lease) {
                    store.write(vec![(KEY.to_vec(), Some((b"{".to_vec(), lease)))]);
                }
            });
        }
        65..70 => etcd.wipe(),
        70..75 => etcd.with(Store::compact),
        75..82 => {
            let lag = Duration::from_millis(rng.random_range(0..2_000));
            etcd.with(|store| store.lag = lag);
        }
        _ => etcd.set(Faults {
            trouble: rng.random_range(0.0..0.6),
            denied: if rng.random_bool(0.2) { 0.3 } else { 0.0 },
            busy: if rng.random_bool(0.2) { 0.3 } else { 0.0 },
            ..Faults::default()
        }),
    }
}

fn calm(etcd: &Fake) {
    etcd.set(Faults::default());
    etcd.with(|store| store.lag = Duration::ZERO);
}

/// Those who took the key without a lease of a registration go.
fn clear(etcd: &Fake) {
    etcd.with(|store| {
        if store.key(KEY).is_some_and(|entry| entry.lease <= 0) {
            store.write(vec![(KEY.to_vec(), None)]);
        }
    });
}

async fn pause(rng: &mut StdRng) {
    if rng.random_bool(0.7) {
        sleep(Duration::from_secs(4).mul_f64(rng.random::<f64>().powi(3))).await;
    }
}

async fn one(seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let etcd = Fake::new(seed);
    let node = register(&etcd, 1, &mut rng);
    node.suffers(&mut rng).await;
    if seed.is_multiple_of(2) {
        // In the middle of it.
        let still: bool = rng.random();
        node.leaves(&mut rng, |rng| {
            if !still {
                mishap(&etcd, rng);
            }
        })
        .await;
        nobody_was_robbed(&etcd);
        return;
    }
    calm(&etcd);
    clear(&etcd);
    // The longest of it: 15 s until a stalled connection is found dead, 12 s after a denial.
    node.until_right(Duration::from_secs(20)).await;
    sleep(Duration::from_secs(20)).await;
    // Well again, nothing more has to be written.
    let (writes, connections) = (etcd.with(|store| store.log.len()), etcd.load().0);
    for _ in 0..100 {
        sleep(Duration::from_millis(999)).await;
        assert!(node.is_right());
    }
    assert_eq!((writes, connections), (etcd.with(|store| store.log.len()), etcd.load().0));
    // And what is done to it is undone at once.
    for _ in 0..5 {
        match rng.random_range(0..3) {
            0 => etcd.with(|store| store.write(vec![(KEY.to_vec(), None)])),
            1 => etcd.with(|store| {
                store.leases().into_iter().for_each(|lease| drop(store.revoke(lease)));
            }),
            _ => {
                // A connection that broke a moment ago is made again with more patience.
                sleep(Duration::from_secs(11)).await;
                etcd.wipe();
            }
        }
        // A lease that is gone is missed by the next put.
        node.until_right(Duration::from_secs(1)).await;
    }
    nobody_was_robbed(&etcd);
    node.leaves(&mut rng, |_| ()).await;
}

#[test]
fn whatever_happens_an_instance_becomes_registered_and_one_that_left_does_not_come_back() {
    for_each_seed(300, one);
}

async fn two(seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let etcd = Fake::new(seed);
    let mut nodes = vec![register(&etcd, 1, &mut rng), register(&etcd, 2, &mut rng)];
    for _ in 0..rng.random_range(5..40) {
        mishap(&etcd, &mut rng);
        pause(&mut rng).await;
    }
    calm(&etcd);
    clear(&etcd);
    sleep(Duration::from_secs(20)).await;
    let holds = |node: &Node| node.is_right();
    let from = Instant::now();
    while nodes.iter().filter(|node| holds(node)).count() != 1
        || nodes.iter().filter(|node| node.conflict()).count() != 1
    {
        assert!(from.elapsed() < Duration::from_secs(5), "{:?}", nodes[0].registration);
        sleep(Duration::from_millis(50)).await;
    }
    let holder = nodes.iter().position(holds).unwrap();
    let holder = nodes.swap_remove(holder);
    sleep(Duration::from_secs(60)).await;
    assert!(holder.is_right() && nodes[0].conflict());
    holder.leaves(&mut rng, |_| ()).await;
    nodes[0].until_right(Duration::from_secs(1)).await;
    nobody_was_robbed(&etcd);
}

#[test]
fn two_registrations_of_one_id_never_take_from_each_other() {
    for_each_seed(200, two);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_takes_the_instance_away_and_ends_the_task() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    for done in [false, true] {
        let node = register(&etcd, 1, &mut rng);
        if done {
            node.until_right(Duration::from_secs(1)).await;
        }
        drop(node.registration);
        timeout(Duration::from_secs(4), node.task).await.expect("the task ends").unwrap();
        sleep(LATEST).await;
        assert!(etcd.with(|store| store.key(KEY).is_none() && store.leases().is_empty()));
        assert_eq!(etcd.open(), 0);
    }
    // Also if etcd does not answer any more.
    let node = register(&etcd, 1, &mut rng);
    node.until_right(Duration::from_secs(1)).await;
    etcd.set(Faults { trouble: 1.0, ..Faults::default() });
    etcd.stall();
    drop(node.registration);
    timeout(Duration::from_secs(4), node.task).await.expect("the task ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leave_goes_on_though_its_future_is_dropped() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let node = register(&etcd, 1, &mut rng);
    node.until_right(Duration::from_secs(1)).await;
    {
        let mut leave = std::pin::pin!(node.registration.deregister());
        assert!(futures::poll!(leave.as_mut()).is_pending());
    }
    timeout(Duration::from_secs(4), node.task).await.expect("the task ends").unwrap();
    assert!(etcd.with(|store| store.key(KEY).is_none()));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_in_a_conflict_ends_and_leaves_no_lease() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let holder = register(&etcd, 1, &mut rng);
    holder.until_right(Duration::from_secs(1)).await;
    let second = register_with(&etcd, 2, &mut rng, |plan| plan.on_conflict = OnConflict::Fail);
    let error = second.registration.registered().await.unwrap_err().to_string();
    assert!(error.contains("10.0.0.1:1"), "{error}");
    timeout(Duration::from_secs(1), second.task).await.expect("the task ends").unwrap();
    assert_eq!(etcd.with(|store| store.leases().len()), 1);
    assert!(holder.is_right());
}

#[tokio::test(start_paused = true)]
async fn a_predecessor_at_the_same_address_is_replaced() {
    let mut rng = StdRng::seed_from_u64(1);
    let etcd = Fake::new(1);
    let dead = register(&etcd, 1, &mut rng);
    dead.until_right(Duration::from_secs(1)).await;
    let lease = etcd.with(|store| store.key(KEY).unwrap().lease);
    dead.task.abort();
    let next = register_with(&etcd, 1, &mut rng, |plan| plan.replace_same_address = true);
    next.until_right(Duration::from_secs(1)).await;
    assert_ne!(etcd.with(|store| store.key(KEY).unwrap().lease), lease);
    // The end of the old lease is not the end of the key.
    sleep(TTL * 2).await;
    assert!(next.is_right());
    assert_eq!(etcd.with(|store| store.leases().len()), 1);
}

/// Else a seed that failed could not be had again.
#[test]
fn a_seed_always_gives_the_same_course() {
    let told = || {
        let told = std::cell::RefCell::new(Vec::new());
        for_each_seed(20, async |seed| {
            let mut rng = StdRng::seed_from_u64(!seed);
            let etcd = Fake::new(seed);
            let _node = register(&etcd, 1, &mut rng);
            for _ in 0..20 {
                mishap(&etcd, &mut rng);
                pause(&mut rng).await;
            }
            let writes = etcd.with(|store| format!("{:?}", store.log));
            told.borrow_mut().push((etcd.load(), writes));
        });
        told.into_inner()
    };
    assert!(told() == told());
}

#[path = "patience_tests.rs"]
mod patience;
#[path = "sharing_chaos_tests.rs"]
mod sharing;
