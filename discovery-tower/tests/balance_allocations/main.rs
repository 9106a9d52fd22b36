//! A call through a balancer allocates nothing of its own. Alone in its binary, because the allocator
//! that measures is that of all threads.

use std::convert::Infallible;
use std::future::{Future, Pending, Ready, pending, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use discovery_core::Change;
use discovery_tower::balance::{
    Attributes, Balance, Builder, LeastPending, PeakEwma, Policy, SlowStart,
};
use futures_util::stream;
use peak_alloc::PeakAlloc;
use tower::Service;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const WARM_UP: u32 = 1_000;
const CALLS: u32 = 20_000;

/// Makes the future of a call.
trait Answer: Clone + Send + Sync + 'static {
    type Future: Future<Output = Result<u32, Infallible>> + Send + 'static;

    fn answer(request: u32) -> Self::Future;
}

#[derive(Clone)]
struct AtOnce;

impl Answer for AtOnce {
    type Future = Ready<Result<u32, Infallible>>;

    fn answer(request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

#[derive(Clone)]
struct Never;

impl Answer for Never {
    type Future = Pending<Result<u32, Infallible>>;

    fn answer(_: u32) -> Self::Future {
        pending()
    }
}

#[derive(Clone)]
struct Boxed;

impl Answer for Boxed {
    type Future = Pin<Box<dyn Future<Output = Result<u32, Infallible>> + Send>>;

    fn answer(request: u32) -> Self::Future {
        Box::pin(async move { Ok(request) })
    }
}

#[derive(Clone)]
struct Endpoint<A>(A);

impl<A: Answer> Service<u32> for Endpoint<A> {
    type Response = u32;
    type Error = Infallible;
    type Future = A::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> A::Future {
        A::answer(request)
    }
}

/// How many warm calls allocate, of [`CALLS`] that are begun, polled and dropped.
fn allocating<A, P>(answer: A, policy: P, weights: &[u32]) -> usize
where
    A: Answer,
    P: Policy<u32, usize, u32>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let changes = weights.iter().copied().enumerate();
    let changes = changes.map(|(key, weight)| Change::Insert(key, weight));
    let changes = stream::iter(changes.chain([Change::Synced]).collect::<Vec<_>>());
    let maker = move |_: &usize, _: &Arc<u32>| Endpoint(answer.clone());
    let describe = |_: &usize, weight: &u32| Attributes::default().weight(*weight);
    let (balance, driver) = Builder::described_by(changes, maker, describe)
        .policy(policy)
        .slow_start(SlowStart::none())
        .build::<Endpoint<A>, u32>();
    let mut driver = pin!(driver);
    let mut cx = Context::from_waker(Waker::noop());
    // It takes so many changes at a time.
    while !balance.is_loaded() {
        assert!(driver.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(balance.endpoints().len(), weights.len());

    for request in 0..WARM_UP {
        call(&balance, request);
    }
    assert!(driver.as_mut().poll(&mut cx).is_pending());
    let allocates = |request: &u32| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        call(&balance, *request);
        MEMORY.peak_usage() != before || MEMORY.current_usage() != before
    };
    (0..CALLS).filter(allocates).count()
}

fn call<A, P>(balance: &Balance<usize, u32, Endpoint<A>, u32, P>, request: u32)
where
    A: Answer,
    P: Policy<u32, usize, u32>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut handle = balance.clone();
    assert!(handle.poll_ready(&mut cx).is_ready());
    let call = pin!(handle.call(request));
    if let Poll::Ready(served) = call.poll(&mut cx) {
        assert_eq!(
            served.ok().map(|served| (*served.get_ref(), *served.endpoint())).unwrap().0,
            request
        );
    }
    black_box(&handle);
}

// Not under the test harness, whose main thread may allocate meanwhile.
fn main() {
    warm_calls_allocate_nothing_whether_they_end_or_are_cancelled();
}

fn warm_calls_allocate_nothing_whether_they_end_or_are_cancelled() {
    // All are looked at; two are drawn; two are drawn by weight.
    let (few, many) = ([1; 8], [1; 500]);
    let weighted: Vec<u32> = (0..500).map(|i| 1 + i % 7).collect();
    for weights in [&few[..], &many, &weighted] {
        let n = weights.len();
        assert_eq!(allocating(AtOnce, LeastPending::new(), weights), 0, "LeastPending, {n}");
        assert_eq!(allocating(AtOnce, PeakEwma::new(), weights), 0, "PeakEwma, {n}");
        assert_eq!(allocating(Never, LeastPending::new(), weights), 0, "LeastPending, {n}");
        assert_eq!(allocating(Never, PeakEwma::new(), weights), 0, "PeakEwma, {n}");
    }
    // It would be seen.
    assert_eq!(allocating(Boxed, LeastPending::new(), &few), CALLS as usize);
}
