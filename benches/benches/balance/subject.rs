//! Balancers as their users make them, of endpoints that are ready at once and do nothing: what is left
//! is the balancer's own work.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use discovery_core::Change;
use discovery_tower::balance::{Balance, Builder, Policy, Standing};
use futures::StreamExt as _;
use futures::stream::{iter, pending};
use tokio::task::yield_now;
use tower::Service;
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};

/// An endpoint that does nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoOp;

pub(crate) type Nothing = Infallible;
pub(crate) type Answer = Ready<Result<u64, Nothing>>;

impl Service<u64> for NoOp {
    type Response = u64;
    type Error = Nothing;
    type Future = Answer;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Nothing>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: u64) -> Answer {
        ready(Ok(request))
    }
}

pub(crate) type Ours<P> = Balance<usize, (), NoOp, u64, P>;

/// Our balancer with its driver on this runtime, when it knows all endpoints.
pub(crate) async fn ours<P: Policy<u64, usize, ()>>(count: usize, policy: P) -> Ours<P> {
    let endpoints = (0..count).map(|key| Change::Insert(key, ()));
    let changes = iter(endpoints.chain([Change::Synced])).chain(pending());
    let balance =
        Builder::new(changes, |_: &usize, _: &Arc<()>| NoOp).policy(policy).spawn::<_, u64, ()>();
    while usable(&balance) < count || !balance.is_loaded() {
        yield_now().await;
    }
    balance
}

/// How many endpoints can be picked.
pub(crate) fn usable<P: Policy<u64, usize, ()>>(balance: &Ours<P>) -> usize {
    balance.endpoints().iter().filter(|endpoint| endpoint.standing == Standing::Up).count()
}

pub(crate) type Pending = PendingRequests<NoOp>;

pub(crate) fn with_pending() -> Pending {
    PendingRequests::new(NoOp, CompleteOnResponse::default())
}

/// tower's balancer by calls under way, of a list: the source that costs least.
pub(crate) fn tower_pending(
    count: usize,
) -> p2c::Balance<ServiceList<std::vec::IntoIter<Pending>>, u64> {
    let endpoints: Vec<_> = (0..count).map(|_| with_pending()).collect();
    p2c::Balance::new(ServiceList::new::<u64>(endpoints.into_iter()))
}

/// tower's balancer by latency, of a list.
pub(crate) fn tower_ewma(
    count: usize,
) -> p2c::Balance<ServiceList<std::vec::IntoIter<PeakEwma<NoOp>>>, u64> {
    let (rtt, decay) = (Duration::from_millis(1), 10e9);
    let endpoint = || PeakEwma::new(NoOp, rtt, decay, CompleteOnResponse::default());
    let endpoints: Vec<_> = (0..count).map(|_| endpoint()).collect();
    p2c::Balance::new(ServiceList::new::<u64>(endpoints.into_iter()))
}

/// One request: until the balancer is ready, until it is answered, and until nothing is left of it.
#[inline]
pub(crate) fn request<S: Service<u64>>(service: &mut S, number: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "all are ready");
    let response = pin!(service.call(number)).poll(&mut cx);
    assert!(matches!(black_box(response), Poll::Ready(Ok(_))), "all answer at once");
}

/// So many requests, one after the other: how long each took.
pub(crate) fn requests<S: Service<u64>>(service: &mut S, times: u32) -> f64 {
    let start = Instant::now();
    for number in 0..times {
        request(service, number.into());
    }
    start.elapsed().as_secs_f64() / f64::from(times)
}
