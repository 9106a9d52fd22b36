//! What a balancer keeps of an endpoint, beside its service: bytes asked of the allocator, so the same
//! on every machine.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_benches::{Report, Row, bytes, is_measuring};
use discovery_core::Change;
use discovery_tower::balance::{Balance, Builder, LeastPending, PeakEwma, Policy};
use futures::StreamExt as _;
use futures::stream::{iter, pending};
use peak_alloc::PeakAlloc;
use tokio::runtime;
use tokio::task::yield_now;
use tower::Service;
use tower::balance::p2c;
use tower::discover;
use tower::load::{CompleteOnResponse, PendingRequests};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const GOAL: f64 = 250.0;

#[derive(Clone)]
struct NoOp;

impl Service<u64> for NoOp {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        ready(Ok(()))
    }
}

fn main() -> std::io::Result<ExitCode> {
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    let count = if is_measuring() { 100_000 } else { 1_000 };
    let title = format!("Memory of a balancer, bytes for each of {count} endpoints");
    let mut report = Report::new(title, "ours", "against");
    let mut row = |what: &str, ours, against, goal| {
        report.add(Row::numbers(what, ours, against, bytes, goal));
    };
    runtime.block_on(async {
        let number = ours(count, |key| key, LeastPending::new()).await;
        let ewma = ours(count, |key| key, PeakEwma::new()).await;
        let text = ours(count, address, LeastPending::new()).await;
        let text_ewma = ours(count, address, PeakEwma::new()).await;
        row("LeastPending, keys that are numbers / the goal", number, GOAL, Some(1.0));
        row("PeakEwma, the same / the goal", ewma, GOAL, Some(1.0));
        row("LeastPending, keys that are texts, with them / the goal", text, GOAL, Some(1.0));
        row("PeakEwma, the same / the goal", text_ewma, GOAL, Some(1.0));
        row("  LeastPending / tower PendingRequests", text, tower(count), None);
    });
    Ok(report.finish(true))
}

fn address(number: usize) -> String {
    format!("10.0.{}.{}:8080", number / 250, number % 250)
}

/// What a balancer of so many keeps for each, once all can be picked.
async fn ours<K, P>(count: usize, key: impl Fn(usize) -> K + 'static, policy: P) -> f64
where
    K: Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    K: discovery_tower::balance::Describe,
    P: Policy<u64, K, ()>,
{
    let one = Arc::new(());
    let before = HEAP.current_usage();
    let endpoints = (0..count).map(move |number| Change::Insert(key(number), one.clone()));
    let changes = iter(endpoints.chain([Change::Synced])).chain(pending());
    let (balance, driver) =
        Builder::new(changes, |_: &K, _: &Arc<()>| NoOp).policy(policy).build::<_, u64>();
    let mut driver = Box::pin(driver);
    while !balance.is_loaded() {
        assert!(futures::poll!(&mut driver).is_pending());
        yield_now().await;
    }
    let taken = HEAP.current_usage() - before;
    let all: Balance<_, _, _, _, _> = balance.clone();
    assert_eq!(all.endpoints().len(), count);
    per(count, taken)
}

fn tower(count: usize) -> f64 {
    let before = HEAP.current_usage();
    let endpoint = |number| {
        let service = PendingRequests::new(NoOp, CompleteOnResponse::default());
        Ok::<_, Infallible>(discover::Change::Insert(address(number), service))
    };
    let source = iter((0..count).map(endpoint)).chain(pending());
    let mut balance = p2c::Balance::new(Box::pin(source));
    let polled = balance.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready());
    per(count, HEAP.current_usage() - before)
}

fn per(count: usize, bytes: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).expect("all here is below 4 GiB"));
    number(bytes) / number(count)
}
