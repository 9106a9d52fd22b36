//! One balancer shared by many tasks.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use discovery_core::{Changes, Publisher, SourceError, StatusReader, Update};
use discovery_tower::{BalanceError, Endpoints, Limits, LoadMeasure, MeasuredMaker, SharedBalance};
use futures::{FutureExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::{Alive, Limited, Places, Tracked};
use tokio::time::Instant;
use tower::balance::p2c::Balance;
use tower::{BoxError, Service};

type Make<S> = Box<dyn FnMut(&u32, &Arc<u32>) -> S + Send>;
type Maker<S> = MeasuredMaker<Make<S>>;
type Shared<S, Req> =
    SharedBalance<Balance<Endpoints<Changes<u32, u32>, u32, u32, Maker<S>>, Req>, Req>;

fn shared<S, Req>(
    changes: Changes<u32, u32>,
    make: impl FnMut(&u32, &Arc<u32>) -> S + Send + 'static,
) -> Shared<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    let status = changes.status();
    let make: Make<S> = Box::new(make);
    let endpoints = Endpoints::new(changes, make).measured(LoadMeasure::PendingRequests);
    SharedBalance::new(Balance::new(endpoints), status)
}

fn tracked(changes: Changes<u32, u32>) -> Shared<Tracked, ()> {
    let alive = Alive::default();
    shared(changes, move |key, value| alive.service(*key, **value))
}

/// A balancer over one endpoint with so many places.
fn limited(publisher: &mut Publisher<u32, u32>, places: &Places) -> Shared<Limited, Duration> {
    publisher.replace([(1, 1)], None);
    let places = places.clone();
    shared(publisher.subscribe(), move |_, _| Limited::new(places.clone()))
}

fn error<T>(result: Result<T, BalanceError>) -> BalanceError {
    result.err().expect("an error")
}

#[test]
fn handle_and_calls_go_to_any_thread() {
    fn any_thread<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn sent<T: Send>(_: &T) {}
    let mut balance = tracked(Publisher::new().subscribe());
    any_thread(&balance);
    sent(&balance.call(()));
}

#[tokio::test(start_paused = true)]
async fn not_loaded_within_five_seconds_it_says_so_with_the_error_of_the_source() {
    let mut publisher = Publisher::new();
    let mut balance = tracked(publisher.subscribe());
    let started = Instant::now();
    let silent = error(balance.call(()).await);
    assert!(matches!(&silent, BalanceError::NotLoaded { cause: None, .. }), "{silent:?}");
    assert_eq!(started.elapsed().as_secs(), 5);

    publisher.trouble(SourceError::new("connection refused"));
    let started = Instant::now();
    let told = error(balance.call(()).await);
    assert!(matches!(&told, BalanceError::NotLoaded { cause: Some(_), .. }), "{told:?}");
    let text = told.clone().to_string();
    assert_eq!(text, "the instances are not known yet after 5.0s: connection refused");
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_loads_while_a_call_waits_serves_it() {
    for derived in [false, true] {
        let mut publisher = Publisher::new();
        let changes = if derived {
            // Counts its endpoints only when it is polled.
            publisher.subscribe().filter_endpoints(|_, value| *value > 0)
        } else {
            publisher.subscribe()
        };
        let mut balance = tracked(changes);
        let waiting = tokio::spawn(balance.call(()));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!waiting.is_finished());
        publisher.replace([(1, 5)], None);
        let started = Instant::now();
        assert_eq!(waiting.await.unwrap().unwrap(), (1, 5));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn empty_is_told_at_once_also_when_stale() {
    let mut publisher = Publisher::new();
    publisher.replace([(1, 0)], None);
    let filtered = publisher.subscribe().filter_endpoints(|_, value| *value > 0);
    let mut nothing_wanted = tracked(filtered);
    let mut balance = tracked(publisher.subscribe());
    let started = Instant::now();
    assert!(balance.call(()).await.is_ok());
    assert!(matches!(error(nothing_wanted.call(()).await), BalanceError::NoInstances { .. }));
    publisher.apply([Update::<_, u32>::Remove(1)], None);
    assert!(matches!(error(balance.call(()).await), BalanceError::NoInstances { .. }));
    publisher.trouble(SourceError::new("connection refused"));
    assert!(matches!(error(balance.call(()).await), BalanceError::NoInstances { .. }));
    assert_eq!(started.elapsed(), Duration::ZERO);

    publisher.apply([Update::Insert(1, 1)], None);
    assert_eq!(balance.call(()).await.unwrap(), (1, 1), "it heals");
    assert_eq!(nothing_wanted.call(()).await.unwrap(), (1, 1));
    publisher.close();
    assert_eq!(balance.call(()).await.unwrap(), (1, 1), "closed, the last set stays");
}

#[tokio::test(start_paused = true)]
async fn errors_name_the_service_if_they_know_it() {
    let limits = Limits::default().load(Duration::from_secs(1)).ready(Duration::from_secs(2));
    let mut publisher = Publisher::new();
    let places = Places::new(0);
    let of = places.clone();
    let unnamed = shared(publisher.subscribe(), move |_, _| Limited::new(of.clone()));
    let unnamed = unnamed.limits(limits);
    let named = unnamed.clone().named("orders");
    let both = async || {
        let calls = [&unnamed, &named].map(|balance| balance.clone().call(Duration::ZERO));
        let ends = futures::future::join_all(calls).await.into_iter();
        ends.map(|end| error(end).clone().to_string()).collect::<Vec<_>>()
    };
    let expected =
        ["", " of orders"].map(|of| format!("the instances{of} are not known yet after 1.0s"));
    assert_eq!(both().await, expected);
    publisher.replace([(1, 1), (2, 2)], None);
    let expected =
        ["", " of orders"].map(|of| format!("none of 2 instances{of} was ready within 2.0s"));
    assert_eq!(both().await, expected);
    publisher.replace::<u32>([], None);
    assert_eq!(both().await, ["there are no instances", "no instances of orders"]);
}

#[tokio::test(start_paused = true)]
async fn closed_before_it_loaded_is_told_at_once() {
    let publisher = Publisher::new();
    let mut balance = tracked(publisher.subscribe());
    publisher.close();
    let started = Instant::now();
    assert!(matches!(error(balance.call(()).await), BalanceError::NotLoaded { .. }));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn with_nobody_ready_it_gives_up_after_the_limit_and_heals_after() {
    let mut publisher = Publisher::new();
    let places = Places::new(0);
    let mut balance = limited(&mut publisher, &places);
    let started = Instant::now();
    let gave_up = error(balance.call(Duration::ZERO).await);
    assert!(matches!(gave_up, BalanceError::NotReady { endpoints: 1, .. }), "{gave_up:?}");
    assert_eq!(gave_up.to_string(), "none of 1 instances was ready within 5.0s");
    assert_eq!(started.elapsed().as_secs(), 5);
    places.add();
    balance.call(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn emptied_while_calls_wait_they_are_told_at_once() {
    let mut publisher = Publisher::new();
    let places = Places::new(0);
    let balance = limited(&mut publisher, &places);
    let waiting: Vec<_> =
        (0..8).map(|_| tokio::spawn(balance.clone().call(Duration::ZERO))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    publisher.apply([Update::<_, u32>::Remove(1)], None);
    let started = Instant::now();
    for call in waiting {
        assert!(matches!(error(call.await.unwrap()), BalanceError::NoInstances { .. }));
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    publisher.apply([Update::Insert(2, 2)], None);
    places.add();
    balance.clone().call(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_place_after_the_other_serves_all_who_wait() {
    let mut publisher = Publisher::new();
    let places = Places::new(1);
    let balance = limited(&mut publisher, &places);
    let started = Instant::now();
    let calls: Vec<_> =
        (0..64).map(|_| tokio::spawn(balance.clone().call(Duration::from_millis(10)))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(started.elapsed(), Duration::from_millis(640));
    // The balancer itself holds the place of an endpoint that it found ready.
    assert!(places.free() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_polled_holds_up_nobody() {
    let mut publisher = Publisher::new();
    let places = Places::new(0);
    let mut balance = limited(&mut publisher, &places);
    let mut idle = balance.call(Duration::ZERO);
    assert!((&mut idle).now_or_never().is_none());
    let other = tokio::spawn(balance.call(Duration::ZERO));
    tokio::time::sleep(Duration::from_secs(1)).await;
    places.add();
    let started = Instant::now();
    other.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    idle.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_from_64_tasks_dropped_at_random_points_leave_nothing_behind() {
    let mut publisher = Publisher::new();
    let places = [Places::new(3), Places::new(3)];
    publisher.replace([(0, 0), (1, 0)], None);
    let of = places.clone();
    let balance: Shared<Limited, Duration> = shared(publisher.subscribe(), move |key, _| {
        Limited::new(of[usize::from(*key != 0)].clone())
    });
    // Turns are not kept, so that a call may wait long where so many want so few places.
    let balance = balance.limits(Limits::default().ready(Duration::from_secs(60)));
    let (served, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..64).map(|seed| {
        let (mut balance, served, dropped) = (balance.clone(), served.clone(), dropped.clone());
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..200 {
                let mut call = balance.call(Duration::from_micros(random.random_range(0..50)));
                // Some are not dropped.
                let mut polls = match random.random_range(0..10) {
                    7.. => u32::MAX,
                    polls => polls,
                };
                let end = std::future::poll_fn(|cx| {
                    if polls == 0 {
                        return Poll::Ready(None);
                    }
                    if polls < u32::MAX {
                        polls -= 1;
                        // Polled again whether woken or not.
                        cx.waker().wake_by_ref();
                    }
                    call.poll_unpin(cx).map(Some)
                });
                match end.await {
                    Some(result) => {
                        result.unwrap();
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                    None => {
                        dropped.fetch_add(1, Ordering::SeqCst);
                    }
                }
                drop(call);
                tokio::task::yield_now().await;
            }
        })
    });
    let churn = async {
        for value in 1..200 {
            publisher.apply([Update::Insert(value % 2, value)], None);
            tokio::task::yield_now().await;
        }
    };
    futures::join!(futures::future::join_all(tasks), churn);
    let (served, dropped) = (served.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
    assert_eq!(served + dropped, 64 * 200);
    assert!(served > 2_000 && dropped > 2_000, "{served} served, {dropped} dropped");
    // Nothing is stuck: as many calls as there are places are served one after the other…
    for _ in 0..100 {
        balance.clone().call(Duration::ZERO).await.unwrap();
    }
    // …and without the balancer all places are free.
    drop((balance, publisher));
    assert_eq!(places.map(|places| places.free()), [3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_64_tasks_gets_its_own_answers() {
    let mut publisher = Publisher::new();
    publisher.replace((0..10).map(|key| (key, key)), None);
    let balance = tracked(publisher.subscribe());
    let calls = (0..64).map(|_| {
        let mut balance = balance.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                let (key, value) = balance.call(()).await.unwrap();
                assert_eq!(key, value);
            }
        })
    });
    futures::stream::iter(calls).buffer_unordered(64).for_each(async |r| r.unwrap()).await;
}

/// Fails once in `poll_ready`, once in `call`, and is fine from then on.
struct Recovers(u32);

impl Service<()> for Recovers {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0 += 1;
        Poll::Ready(if self.0 == 1 { Err("first".into()) } else { Ok(()) })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(if self.0 == 2 { Err(Box::new(Second)) } else { Ok(()) })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("second")]
struct Second;

fn status() -> StatusReader {
    Publisher::<u32, Infallible>::new().status()
}

#[tokio::test]
async fn no_error_is_final_and_the_type_of_an_error_is_kept() {
    let mut balance = SharedBalance::new(Recovers(0), status());
    let first = error(balance.call(()).await);
    assert_eq!(first.to_string(), "first");
    assert!(first.downcast_ref::<Second>().is_none());
    let second = error(balance.clone().call(()).await);
    assert!(second.clone().downcast_ref::<Second>().is_some());
    balance.call(()).await.unwrap();
}

/// Is ready when a function of how often it was polled says so.
struct Scripted<F>(usize, F);

impl<F: FnMut(usize, &Context<'_>) -> bool> Service<()> for Scripted<F> {
    type Response = usize;
    type Error = Infallible;
    type Future = std::future::Ready<Result<usize, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0 += 1;
        if (self.1)(self.0, cx) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(self.0))
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_wakes_while_it_is_polled_is_heard() {
    let mut publisher = Publisher::new();
    publisher.replace([(1, 1)], None);
    let scripted = Scripted(0, |polls, cx: &Context<'_>| {
        cx.waker().wake_by_ref();
        polls == 5
    });
    let started = Instant::now();
    let answer = SharedBalance::new(scripted, publisher.status()).call(()).await;
    assert_eq!(answer.unwrap(), 5);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_status_alone_ends_the_wait() {
    let mut publisher = Publisher::<u32, u32>::new();
    let never = Scripted(0, |_, _: &Context<'_>| false);
    let mut balance = SharedBalance::new(never, publisher.status());
    let waiting = tokio::spawn(balance.call(()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    publisher.replace::<u32>([], None);
    assert!(matches!(error(waiting.await.unwrap()), BalanceError::NoInstances { .. }));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_loads_right_after_the_balancer_was_polled_is_not_taken_for_empty() {
    let mut publisher = Publisher::new();
    let changes = publisher.subscribe().filter_endpoints(|_, _| true);
    let status = changes.status();
    let alive = Alive::default();
    let endpoints =
        Endpoints::new(changes, move |key: &u32, value: &Arc<u32>| alive.service(*key, **value));
    let mut inner = Balance::<_, ()>::new(endpoints.pending_requests());
    let scripted = Scripted(0, move |polls, cx: &Context<'_>| {
        let ready = inner.poll_ready(&mut Context::from_waker(cx.waker())).is_ready();
        if polls == 2 {
            publisher.replace([(1, 1)], None);
        }
        ready
    });
    assert_eq!(SharedBalance::new(scripted, status).call(()).await.unwrap(), 3);
}
