//! Callers, cancellations, changes and the driver on several threads at once. What is left at the end
//! is right.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use discovery_core::Change;
use discovery_tower::MakeEndpoint;
use discovery_tower::balance::{
    Balance, Builder, CallError, Completion, Ejection, LeastPending, Origin, Outcome, PeakEwma,
    Policy, Protocol,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{Service, ServiceExt as _};

const CALLERS: u64 = 8;
const CALLS: u64 = 4_000;
const CHANGES: u64 = 6_000;
/// These endpoints are never removed and never move.
const STAYING: u32 = 3;
const KEYS: u32 = 12;
/// Far more than it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was done to an endpoint, as it sees it.
#[derive(Debug, Default)]
struct Tally {
    called: AtomicU64,
    failed: AtomicU64,
}

#[derive(Clone)]
struct Counting {
    tally: Arc<Tally>,
    /// All clones of all services.
    _alive: Arc<()>,
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

/// What an endpoint is to do.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Succeed,
    Fail,
    /// A response that says later how it went.
    Open,
    Hang,
}

#[derive(Debug)]
struct Reply(bool);

impl Service<Todo> for Counting {
    type Response = Reply;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, todo: Todo) -> Self::Future {
        let service = self.clone();
        service.tally.called.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::task::yield_now().await;
            match todo {
                Todo::Succeed => Ok(Reply(true)),
                Todo::Open => Ok(Reply(false)),
                Todo::Fail => {
                    service.tally.failed.fetch_add(1, Ordering::SeqCst);
                    Err(Refused)
                }
                Todo::Hang => std::future::pending().await,
            }
        })
    }
}

struct Maker {
    tallies: Vec<Arc<Tally>>,
    alive: Arc<()>,
}

impl MakeEndpoint<u32, u32> for Maker {
    type Service = Counting;

    fn make(&mut self, key: &u32, _: &Arc<u32>) -> Counting {
        let tally = self.tallies[*key as usize].clone();
        Counting { tally, _alive: self.alive.clone() }
    }

    fn still_serves(&mut self, _: &u32, old: &Arc<u32>, new: &Arc<u32>) -> bool {
        old == new
    }
}

struct Later;

enum Given {
    Over,
    Open(Completion<u32>),
}

impl Protocol<Todo, Reply, Refused, u32> for Later {
    type Response = Given;

    fn outcome(&self, response: &Reply) -> Option<Outcome> {
        response.0.then_some(Outcome::Success)
    }

    fn respond(_: Reply, _: Origin<u32>) -> Given {
        Given::Over
    }

    fn follow(&self, _: Reply, call: Completion<u32>) -> Given {
        Given::Open(call)
    }
}

type Handle<P> = Balance<u32, u32, Counting, Todo, P, Later>;

async fn call_many<P: Policy<Todo, u32, u32>>(
    handle: Handle<P>,
    seed: u64,
    tallies: Vec<Arc<Tally>>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..CALLS {
        let todo = match rng.random_range(0..10) {
            0..5 => Todo::Succeed,
            5..7 => Todo::Fail,
            7..9 => Todo::Open,
            _ => Todo::Hang,
        };
        // The caller gives up after so many polls, maybe before the first.
        let patience = match todo {
            Todo::Hang => rng.random_range(0..4),
            _ if rng.random_bool(0.2) => rng.random_range(0..3),
            _ => u32::MAX,
        };
        let call = handle.clone().oneshot(todo);
        let Some(result) = for_so_long(patience, call).await else { continue };
        match result {
            // Some endpoints are always there, so that no call finds nobody.
            Ok(Given::Over) | Err(CallError::Failed { .. }) => {}
            Ok(Given::Open(completion)) => {
                let (ends, fails) = (rng.random_bool(0.7), rng.random_bool(0.5));
                let tally = tallies[*completion.endpoint() as usize].clone();
                tokio::spawn(async move {
                    match (ends, fails) {
                        (false, _) => drop(completion),
                        (true, false) => drop(completion.end(Outcome::Success)),
                        (true, true) => {
                            tally.failed.fetch_add(1, Ordering::SeqCst);
                            completion.end(Outcome::Failure);
                        }
                    }
                });
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// The future's output, if it is there after so many polls; `u32::MAX`: however many.
async fn for_so_long<F: Future>(mut polls: u32, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        if polls == u32::MAX {
            // It is woken by whoever answers.
            return future.as_mut().poll(cx).map(Some);
        }
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => {
                // What hangs wakes nobody.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

async fn change_many(tell: UnboundedSender<Change<u32, u32>>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for step in 0..CHANGES {
        let key = rng.random_range(0..KEYS);
        let change = match rng.random_range(0..3) {
            _ if key < STAYING => Change::Insert(key, 0),
            0 => Change::Remove(key),
            _ => Change::Insert(key, rng.random_range(0..3)),
        };
        tell.send(change).unwrap();
        if step % 4 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn holds(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, holds).await.is_ok(), "{what}");
}

async fn all_at_once<P: Policy<Todo, u32, u32>>(policy: P, seed: u64) {
    let tallies: Vec<Arc<Tally>> = (0..KEYS).map(|_| Arc::default()).collect();
    let alive = Arc::new(());
    let (tell, changes) = unbounded_channel();
    for key in 0..STAYING {
        tell.send(Change::Insert(key, 0)).unwrap();
    }
    tell.send(Change::Synced).unwrap();
    let maker = Maker { tallies: tallies.clone(), alive: alive.clone() };
    let (balance, driver) = Builder::new(UnboundedReceiverStream::new(changes), maker)
        .policy(policy)
        .protocol(Later)
        .ejection(Ejection::never())
        .build::<Counting, Todo>();
    let driver = tokio::spawn(driver);
    let changing = tokio::spawn(change_many(tell.clone(), seed));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let seed = seed * CALLERS + caller;
            tokio::spawn(call_many(balance.clone(), seed, tallies.clone()))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    changing.await.unwrap();
    // A last change that all others come before.
    tell.send(Change::Insert(0, 0)).unwrap();
    tell.send(Change::Remove(KEYS - 1)).unwrap();
    tell.send(Change::Insert(KEYS - 1, 77)).unwrap();
    let is_last = |view: &discovery_tower::balance::EndpointView<u32, u32>| *view.endpoint == 77;
    holds("the last change is seen", || balance.endpoints().iter().any(is_last)).await;
    holds("no call is counted", || balance.endpoints().iter().all(|it| it.pending == 0)).await;
    // All that is left is what the set holds, this test and its maker.
    holds("no service is left over", || Arc::strong_count(&alive) == balance.endpoints().len() + 2)
        .await;
    for view in balance.endpoints().into_iter().filter(|view| view.key < STAYING) {
        let tally = &tallies[view.key as usize];
        let (called, failed) =
            (tally.called.load(Ordering::SeqCst), tally.failed.load(Ordering::SeqCst));
        assert!(called > 0);
        assert_eq!(
            (view.successes + view.failures + view.unjudged, view.failures),
            (called, failed),
            "{}",
            view.key
        );
    }
    drop(balance);
    assert!(tokio::time::timeout(DEADLINE, driver).await.is_ok(), "the driver goes on for nobody");
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_several_threads_all_counts_are_right_at_the_end() {
    all_at_once(LeastPending::new(), 1).await;
    all_at_once(PeakEwma::new(), 2).await;
}
