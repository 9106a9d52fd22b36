//! What happens at the same time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use discovery_core::Change;
use futures_channel::mpsc::{UnboundedSender, unbounded};
use shuttle::future::block_on;
use shuttle::thread::{JoinHandle, spawn, yield_now};
use tower::{Service, ServiceExt as _};

use crate::balance::{
    Balance, Builder, Candidates, Completion, Ejection, Finished, LeastPending, Member, Origin,
    Outcome, Policy, Protocol, Seeded, Standing,
};
use crate::sync::Step;

pub(crate) const ALL: [(&str, fn()); 5] = [
    ("counts", counts),
    ("waits", waits),
    ("strikes", strikes),
    ("reviews", reviews),
    ("closes", closes),
];

/// What is asked of an endpoint.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Succeed,
    Fail,
    /// A response that says later how it went.
    Open,
}

#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

#[derive(Clone)]
struct Endpoint(Arc<AtomicU64>, Arc<Step>);

impl Service<Todo> for Endpoint {
    type Response = Todo;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Todo, Failed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.1.take();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, todo: Todo) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut polled = false;
        Box::pin(std::future::poll_fn(move |cx| {
            if !std::mem::replace(&mut polled, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(if matches!(todo, Todo::Fail) { Err(Failed) } else { Ok(todo) })
        }))
    }
}

struct Later;

enum Given {
    Over,
    Open(Completion<u32>),
}

impl Protocol<Todo, Todo, Failed, u32> for Later {
    type Response = Given;

    fn outcome(&self, response: &Todo) -> Option<Outcome> {
        (!matches!(response, Todo::Open)).then_some(Outcome::Success)
    }

    fn respond(_: Todo, _: Origin<u32>) -> Given {
        Given::Over
    }

    fn follow(&self, _: Todo, call: Completion<u32>) -> Given {
        Given::Open(call)
    }
}

type Handle<P = LeastPending> = Balance<u32, u32, Endpoint, Todo, P, Later>;

/// A balancer, its driver on a thread, who tells it of changes, and how many calls endpoints got.
struct Rig<P: Policy<Todo, u32, u32>> {
    balance: Handle<P>,
    driver: JoinHandle<()>,
    tell: UnboundedSender<Change<u32, u32>>,
    called: Arc<AtomicU64>,
}

fn rig<P: Policy<Todo, u32, u32>>(policy: P) -> Rig<P> {
    let (tell, changes) = unbounded();
    let called = Arc::new(AtomicU64::new(0));
    let (for_services, step) = (called.clone(), Arc::new(Step::default()));
    let (balance, driver) = Builder::new(changes, move |_: &u32, _: &Arc<u32>| {
        Endpoint(for_services.clone(), step.clone())
    })
    .policy(policy)
    .protocol(Later)
    .entropy(Seeded::new(1))
    .ejection(Ejection::default().consecutive(1).max_percent(100).panic_percent(101))
    .build::<Endpoint, Todo>();
    let driver = spawn(move || block_on(driver));
    Rig { balance, driver, tell, called }
}

impl<P: Policy<Todo, u32, u32>> Rig<P> {
    fn tell(&self, change: Change<u32, u32>) {
        self.tell.unbounded_send(change).unwrap();
    }

    /// The last handle goes, and the driver has to see it.
    fn end(self) {
        drop(self.balance);
        self.driver.join().unwrap();
    }
}

fn call<P: Policy<Todo, u32, u32>>(balance: &Handle<P>, todo: Todo) -> Option<Given> {
    block_on(balance.clone().oneshot(todo)).ok()
}

/// However calls end, none is counted twice and none is left.
fn counts() {
    let rig = rig(LeastPending::new());
    rig.tell(Change::Insert(1, 0));
    rig.tell(Change::Synced);
    let callers: Vec<_> = (0..2)
        .map(|caller| {
            let balance = rig.balance.clone();
            spawn(move || {
                assert!(call(&balance, Todo::Succeed).is_some());
                // Given up after it was sent, or before.
                let mut cancelled = Box::pin(balance.clone().oneshot(Todo::Succeed));
                if caller == 0 {
                    block_on(std::future::poll_fn(|cx| {
                        drop(cancelled.as_mut().poll(cx));
                        Poll::Ready(())
                    }));
                }
                drop(cancelled);
                let Some(Given::Open(completion)) = call(&balance, Todo::Open) else {
                    panic!("no response")
                };
                let other = spawn(move || {
                    if caller == 0 {
                        drop(completion);
                    } else {
                        completion.end(Outcome::Success);
                    }
                });
                // A handle of a call that was picked and never polled.
                let mut handle = balance.clone();
                drop(handle.call(Todo::Succeed));
                other.join().unwrap();
            })
        })
        .collect();
    rig.tell(Change::Insert(2, 0));
    rig.tell(Change::Remove(2));
    rig.tell(Change::Insert(1, 0));
    for caller in callers {
        caller.join().unwrap();
    }
    assert!(rig.balance.endpoints().iter().all(|view| view.pending == 0));
    rig.end();
}

/// A call that waits is woken by the publication that ends its wait: the clock stands still.
fn waits() {
    let rig = rig(LeastPending::new());
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let balance = rig.balance.clone();
            spawn(move || assert!(call(&balance, Todo::Succeed).is_some()))
        })
        .collect();
    rig.tell(Change::Insert(1, 0));
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!(rig.called.load(Ordering::Relaxed), 2);
    let views = rig.balance.endpoints();
    assert_eq!((views[0].pending, views[0].successes, views[0].failures), (0, 2, 0));
    rig.end();
}

/// The driver hears of each failure that it has to judge.
fn strikes() {
    let rig = rig(LeastPending::new());
    rig.tell(Change::Insert(1, 0));
    rig.tell(Change::Insert(2, 0));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let balance = rig.balance.clone();
            spawn(move || assert!(call(&balance, Todo::Fail).is_none()))
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    let bad = || rig.balance.endpoints().into_iter().filter(|view| view.failures > 0);
    assert!(bad().next().is_some());
    while !bad().all(|view| view.standing == Standing::Ejected) {
        yield_now();
    }
    rig.end();
}

/// Counts how many calls had ended when it was last asked to look.
#[derive(Default)]
struct Reviewed {
    ended: AtomicU64,
    seen: Arc<AtomicU64>,
}

impl Policy<Todo, u32, u32> for Reviewed {
    type Load = ();
    type State = ();

    const TIMED: bool = true;
    const REVIEW: Option<std::time::Duration> = Some(std::time::Duration::ZERO);

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<u32, u32, ()>>,
        _: Option<Arc<()>>,
    ) -> Arc<()> {
        Arc::new(())
    }

    fn pick(&self, _: &Todo, among: &impl Candidates<u32, u32, (), State = ()>) -> Option<usize> {
        (0..among.len()).find(|&place| among.is_free(place))
    }

    fn finished(&self, (): &(), _: Finished) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn review<'a>(&self, _: impl ExactSizeIterator<Item = &'a Member<u32, u32, ()>>, _: u64) {
        self.seen.store(self.ended.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn cost(&self, _: &Member<u32, u32, ()>, _: u64) -> f64 {
        0.0
    }
}

/// A review comes after the last call that ended.
fn reviews() {
    let seen = Arc::new(AtomicU64::new(0));
    let rig = rig(Reviewed { seen: seen.clone(), ..Reviewed::default() });
    rig.tell(Change::Insert(1, 0));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let balance = rig.balance.clone();
            spawn(move || {
                call(&balance, Todo::Succeed);
                call(&balance, Todo::Succeed);
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    while seen.load(Ordering::Relaxed) < 4 {
        yield_now();
    }
    rig.end();
}

/// The driver ends with the last handle, wherever that is dropped; calls on their way end as they would.
fn closes() {
    let Rig { balance, driver, tell, called } = rig(LeastPending::new());
    tell.unbounded_send(Change::Insert(1, 0)).unwrap();
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let balance = balance.clone();
            spawn(move || {
                let call = balance.oneshot(Todo::Succeed);
                assert!(block_on(call).is_ok());
            })
        })
        .collect();
    drop(balance);
    driver.join().unwrap();
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!(called.load(Ordering::Relaxed), 2);
}
