//! What stock tower makes of the adapter: `tower::balance::p2c::Balance` fed with changes.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use discovery_core::{Change, Changes, Instance, Publisher, SourceError, Update};
use discovery_tower::{Endpoints, MakeEndpoint};
use futures::task::{ArcWake, noop_waker, waker};
use futures::{FutureExt as _, Stream, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::{Alive, Tracked};
use tower::balance::p2c::Balance;
use tower::discover::{Change as TowerChange, Discover};
use tower::{BoxError, Service, ServiceExt as _};

type Maker = Box<dyn FnMut(&u32, &Arc<u32>) -> Tracked + Send>;

fn tracked(alive: &Alive) -> Maker {
    let alive = alive.clone();
    Box::new(move |key, value| alive.service(*key, **value))
}

/// One poll of a balancer; `true` when it is ready.
fn poll<S: Service<(), Error = BoxError>>(balance: &mut S) -> bool {
    match balance.poll_ready(&mut Context::from_waker(&noop_waker())) {
        Poll::Ready(ready) => {
            ready.expect("a balancer fed by the adapter has no error");
            true
        }
        Poll::Pending => false,
    }
}

fn trouble() -> SourceError {
    SourceError::new("the registry is away")
}

#[test]
fn a_random_history_leaves_the_balancer_with_the_set_of_the_source() {
    let mut random = StdRng::seed_from_u64(7);
    let mut publisher = Publisher::new();
    let mut model = HashMap::<u32, u32>::new();
    let alive = Alive::default();
    let endpoints = Endpoints::new(publisher.subscribe(), tracked(&alive)).pending_requests();
    let mut balance = Balance::<_, ()>::new(endpoints);
    for step in 0..30_000 {
        match random.random_range(0..100) {
            0..60 => {
                let mut batch = Vec::new();
                for _ in 0..random.random_range(1..4) {
                    let key = random.random_range(0..12);
                    if random.random_bool(0.5) {
                        let value = random.random_range(0..4);
                        model.insert(key, value);
                        batch.push(Update::Insert(key, value));
                    } else {
                        model.remove(&key);
                        batch.push(Update::Remove(key));
                    }
                }
                publisher.apply(batch, None);
            }
            // A resync: whatever changed meanwhile is learnt from the whole set.
            60..75 => {
                model = (0..12)
                    .map(|key| (key, random.random_range(0..10)))
                    .filter(|(_, value)| *value < 4)
                    .collect();
                publisher.replace(model.clone(), None);
            }
            75..80 => publisher.trouble(trouble()),
            // The reader lags behind.
            80..90 => continue,
            _ => {}
        }
        let ready = poll(&mut balance);
        let mut expected: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
        expected.sort_unstable();
        assert_eq!(alive.set(), expected, "step {step}");
        assert_eq!(balance.len(), expected.len(), "step {step}");
        assert_eq!(ready, !expected.is_empty(), "step {step}");
        let mut unseen: BTreeSet<_> = expected.iter().copied().collect();
        for _ in 0..if step % 100 == 0 { 10_000 } else { 1 } {
            if unseen.is_empty() || !poll(&mut balance) {
                break;
            }
            let answer = balance.call(()).now_or_never().unwrap().unwrap();
            assert!(expected.contains(&answer), "step {step}: {answer:?} is not there");
            unseen.remove(&answer);
        }
        assert!(step % 100 != 0 || unseen.is_empty(), "step {step}: {unseen:?} get nothing");
    }
}

#[test]
fn closed_stale_or_abandoned_the_balancer_keeps_its_last_set() {
    for end in ["close", "drop", "stale", "freeze"] {
        let mut publisher = Publisher::new();
        publisher.replace([(1, 1), (2, 2)], None);
        let alive = Alive::default();
        let changes = publisher.subscribe();
        let endpoints = Endpoints::new(changes, tracked(&alive)).pending_requests();
        let mut balance = Balance::<_, ()>::new(endpoints);
        assert!(poll(&mut balance));
        publisher.apply([Update::Insert(3, 3)], None);
        match end {
            "close" => publisher.close(),
            "drop" => drop(publisher),
            "freeze" => publisher.freeze(),
            _ => {
                publisher.trouble(trouble());
                std::mem::forget(publisher);
            }
        }
        for _ in 0..100 {
            assert!(poll(&mut balance), "{end}");
            balance.call(()).now_or_never().unwrap().unwrap();
        }
        assert_eq!(alive.set(), [(1, 1), (2, 2), (3, 3)], "{end}");
    }
}

/// Ends, and must not be polled again.
struct Once(Option<Change<u32, Arc<u32>>>, bool);

impl Stream for Once {
    type Item = Change<u32, Arc<u32>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        assert!(!self.1, "polled after its end");
        let next = self.0.take();
        self.1 = next.is_none();
        Poll::Ready(next)
    }
}

#[test]
fn the_end_of_the_source_is_no_end_and_is_not_polled_past() {
    let stream = Once(Some(Change::Insert(1, Arc::new(1))), false);
    let mut endpoints = Endpoints::new(stream, |key: &u32, _: &Arc<u32>| *key);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(endpoints.poll_next_unpin(&mut cx).is_ready());
    for _ in 0..10 {
        assert!(endpoints.poll_next_unpin(&mut cx).is_pending());
    }
}

/// Compiles only for what tower's balancers take.
fn is_discover<D: Discover>(_: &D)
where
    D::Error: Into<BoxError>,
{
}

/// The keys that are made anew by each poll.
fn made<M>(endpoints: &mut Endpoints<Changes<u32, Instance>, u32, Instance, M>) -> Vec<u32>
where
    M: MakeEndpoint<u32, Instance>,
{
    is_discover(endpoints);
    let mut made = Vec::new();
    while let Some(Some(change)) = endpoints.next().now_or_never() {
        match change {
            Ok(TowerChange::Insert(key, _)) => made.push(key),
            Ok(TowerChange::Remove(_)) => {}
            Err(never) => match never {},
        }
    }
    made
}

fn instance(address: &str) -> Instance {
    Instance::parse("orders", "7", address).unwrap()
}

#[test]
fn a_service_is_kept_until_the_address_changes() {
    let mut publisher = Publisher::new();
    let mut kept = Endpoints::of_instances(publisher.subscribe(), |_: &u32, _: &Arc<Instance>| ());
    let mut made_anew = Endpoints::new(publisher.subscribe(), |_: &u32, _: &Arc<Instance>| ());
    let mut told = |instance: Instance| {
        publisher.apply([Update::Insert(1, instance)], None);
        (made(&mut kept), made(&mut made_anew))
    };
    assert_eq!(told(instance("10.0.0.1:80")), (vec![1], vec![1]));
    let mut heavier = instance("10.0.0.1:80");
    heavier.weight = "9".parse().unwrap();
    assert_eq!(told(heavier.clone()), (vec![], vec![1]));
    heavier.metadata.insert("version".into(), "2".into());
    assert_eq!(told(heavier), (vec![], vec![1]));
    assert_eq!(told(instance("10.0.0.2:80")), (vec![1], vec![1]));
    publisher.apply([Update::<_, Instance>::Remove(1)], None);
    assert_eq!((made(&mut kept), made(&mut made_anew)), (vec![], vec![]));
    publisher.apply([Update::Insert(1, instance("10.0.0.2:80"))], None);
    assert_eq!((made(&mut kept), made(&mut made_anew)), (vec![1], vec![1]), "it was removed");
}

#[test]
fn a_kept_service_is_compared_with_what_it_was_made_for_under_every_measure() {
    let alive = Alive::default();
    let mut publisher = Publisher::new();
    publisher.replace([(1, 10)], None);
    let close = |_: &u32, old: &u32, new: &u32| new.abs_diff(*old) < 2;
    let mut balances: [Box<dyn Service<(), Response = _, Error = BoxError, Future = _>>; 2] = [
        Box::new(boxed(Balance::new(
            Endpoints::new(publisher.subscribe(), tracked(&alive))
                .keep_if(close)
                .peak_ewma(std::time::Duration::ZERO, std::time::Duration::ZERO),
        ))),
        Box::new(boxed(Balance::new(
            Endpoints::new(publisher.subscribe(), tracked(&alive))
                .keep_if(close)
                .measured(discovery_tower::LoadMeasure::PendingRequests),
        ))),
    ];
    for (value, made_for) in [(10, 10), (11, 10), (12, 12), (13, 12), (10, 10)] {
        publisher.apply([Update::Insert(1, value)], None);
        assert!(balances.iter_mut().all(poll));
        assert_eq!(alive.set(), [(1, made_for); 2]);
    }
}

type Answer = futures::future::BoxFuture<'static, Result<(u32, u32), BoxError>>;

fn boxed<S>(
    service: S,
) -> impl Service<(), Response = (u32, u32), Error = BoxError, Future = Answer>
where
    S: Service<(), Response = (u32, u32), Error = BoxError>,
    S::Future: Send + 'static,
{
    service.map_future(futures::FutureExt::boxed)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stream_that_never_pauses_does_not_hold_the_task() {
    let busy = |synced_every: u32| {
        futures::stream::iter(0_u32..).map(move |n| {
            if n % synced_every == synced_every - 1 {
                Change::Synced
            } else {
                Change::Insert(n % 10, Arc::new(n))
            }
        })
    };
    for synced_every in [7, u32::MAX] {
        for keep in [false, true] {
            let alive = Alive::default();
            let made = Arc::new(AtomicUsize::new(0));
            let counted = {
                let (alive, made) = (alive.clone(), made.clone());
                move |key: &u32, value: &Arc<u32>| {
                    made.fetch_add(1, Ordering::SeqCst);
                    alive.service(*key, **value)
                }
            };
            let endpoints = Endpoints::new(busy(synced_every), counted)
                .keep_if(move |_, _, _| keep)
                .pending_requests();
            let mut balance = Balance::<_, ()>::new(endpoints);
            let woken = Arc::new(Woken::default());
            let waker = waker(woken.clone());
            assert!(balance.poll_ready(&mut Context::from_waker(&waker)).is_ready());
            assert_eq!(alive.set().len(), if keep { 10 } else { balance.len() });
            assert!(woken.0.load(Ordering::SeqCst) > 0, "the rest must not be forgotten");
            let first = made.load(Ordering::SeqCst);
            assert!(synced_every > 7 || first < 2_000, "{first}: it stops between batches");
            assert!(balance.poll_ready(&mut Context::from_waker(&waker)).is_ready());
            assert_eq!(made.load(Ordering::SeqCst) > first, !keep, "it goes on where it stopped");
        }
    }
}

#[test]
fn what_changed_at_once_is_seen_at_once_however_much_it_is() {
    let mut publisher = Publisher::new();
    let alive = Alive::default();
    let endpoints = Endpoints::new(publisher.subscribe(), tracked(&alive)).pending_requests();
    let mut balance = Balance::<_, ()>::new(endpoints);
    publisher.replace((0..5_000).map(|key| (key, 0)), None);
    assert!(poll(&mut balance));
    assert_eq!(balance.len(), 5_000);
    publisher.replace((5_000..5_001).map(|key| (key, 0)), None);
    assert!(poll(&mut balance));
    assert_eq!(alive.set(), [(5_000, 0)]);
}

#[tokio::test]
async fn a_balancer_that_waits_is_woken_by_the_first_endpoint() {
    let mut publisher = Publisher::new();
    let alive = Alive::default();
    let endpoints = Endpoints::new(publisher.subscribe(), tracked(&alive)).pending_requests();
    let waiting = tokio::spawn(Balance::new(endpoints).oneshot(()));
    tokio::task::yield_now().await;
    publisher.replace([(4, 2)], None);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
    assert_eq!(answer.unwrap().unwrap().unwrap(), (4, 2));
}
