//! What we compare with: tower's balancer with both of its loads, the two that know nothing, and the
//! ideal that nobody can reach.

use std::fmt;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::{Discover, ServiceList};
use tower::load::{CompleteOnResponse, Load, PeakEwmaDiscover, PendingRequestsDiscover};
use tower::util::rng::Rng as TowerRng;

use crate::endpoint::{Request, SimEndpoint};
use crate::load::stream;
use crate::subject::{Call, Role, Subject};
use crate::world::Failed;

/// What `PeakEwma` starts from, and how long it remembers.
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

/// All of them.
pub(crate) fn peers() -> Vec<Subject> {
    vec![
        Subject::new("random", Role::Peer, |backends, seed| {
            let (mut endpoints, mut random) = (backends.endpoints(), stream(seed, 0));
            move |request| {
                let chosen = random.random_range(0..endpoints.len());
                boxed(&mut endpoints[chosen], request)
            }
        }),
        Subject::new("round robin", Role::Peer, |backends, seed| {
            let mut endpoints = backends.endpoints();
            // Clients that all begin with the first would all be in step.
            let mut next = stream(seed, 0).random_range(0..endpoints.len());
            move |request| {
                next = (next + 1) % endpoints.len();
                boxed(&mut endpoints[next], request)
            }
        }),
        Subject::new("tower PendingRequests", Role::Tower, |backends, seed| {
            let list = ServiceList::new::<Request>(backends.endpoints());
            let loaded =
                PendingRequestsDiscover::new::<Request>(list, CompleteOnResponse::default());
            tower_client(loaded, seed)
        }),
        Subject::new("tower PeakEwma", Role::Tower, |backends, seed| {
            let list = ServiceList::new::<Request>(backends.endpoints());
            let complete = CompleteOnResponse::default();
            tower_client(PeakEwmaDiscover::new::<Request>(list, DEFAULT_RTT, DECAY, complete), seed)
        }),
        Subject::new("ideal central queue", Role::Ideal, |backends, _| {
            let mut central = backends.central();
            move |request| boxed(&mut central, request)
        }),
    ]
}

fn boxed(endpoint: &mut SimEndpoint, request: Request) -> Call {
    let call = endpoint.call(request);
    Box::pin(async move { call.await.map_err(Into::into) })
}

/// Tower's balancer takes a source of random numbers, so it can be repeated.
struct Seeded(SmallRng);

impl TowerRng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

fn tower_client<D>(discover: D, seed: u64) -> impl FnMut(Request) -> Call + use<D>
where
    D: Discover<Key = usize> + Unpin + 'static,
    D::Error: Into<tower::BoxError>,
    D::Service: Service<Request, Response = (), Error = Failed> + Load,
    <D::Service as Service<Request>>::Future: 'static,
    <D::Service as Load>::Metric: fmt::Debug,
{
    let mut balance = Balance::from_rng(discover, Seeded(stream(seed, 0)));
    move |request| {
        // All endpoints are always ready, and so is the balancer.
        match balance.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Box::pin(balance.call(request)),
            Poll::Ready(Err(error)) => Box::pin(std::future::ready(Err(error))),
            Poll::Pending => Box::pin(std::future::ready(Err("not ready".into()))),
        }
    }
}
