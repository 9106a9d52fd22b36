//! The load measures steer tower's balancer.

mod support;

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Changes, Publisher};
use discovery_tower::{Endpoints, LoadMeasure};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use support::Slow;
use tower::balance::p2c::Balance;
use tower::load::TrackCompletion;
use tower::{BoxError, Service, ServiceExt as _};

const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

type SlowOnes = Endpoints<Changes<u32, u32>, u32, u32, fn(&u32, &Arc<u32>) -> Slow>;
type Call = BoxFuture<'static, Result<u32, BoxError>>;

/// Endpoint 0 answers in 200 ms, the others in 10 ms.
fn endpoints() -> SlowOnes {
    let mut publisher = Publisher::new();
    publisher.replace([(0, 200), (1, 10), (2, 10)], None);
    let changes = publisher.subscribe();
    publisher.freeze();
    Endpoints::new(changes, |key: &u32, delay: &Arc<u32>| {
        Slow(*key, Duration::from_millis(u64::from(**delay)))
    })
}

/// The share of the slow endpoint, in per cent, of 600 calls with so many at a time.
async fn share<S>(mut balance: S, at_a_time: usize) -> usize
where
    S: Service<(), Response = u32, Error = BoxError>,
    S::Future: Send + 'static,
{
    let (mut slow, mut flying) = (0, FuturesUnordered::<Call>::new());
    for _ in 0..600 {
        if flying.len() == at_a_time {
            slow += usize::from(flying.next().await.unwrap().unwrap() == 0);
        }
        flying.push(balance.ready().await.unwrap().call(()).boxed());
    }
    while let Some(answer) = flying.next().await {
        slow += usize::from(answer.unwrap() == 0);
    }
    slow * 100 / 600
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_gives_a_slow_endpoint_less_even_one_call_at_a_time() {
    let ewma = share(Balance::new(endpoints().peak_ewma(DEFAULT_RTT, DECAY)), 1).await;
    assert!(ewma <= 5, "{ewma} %");
    let chosen = LoadMeasure::PeakEwma { default_rtt: DEFAULT_RTT, decay: DECAY };
    let measured = share(Balance::new(endpoints().measured(chosen)), 1).await;
    assert!(measured <= 5, "{measured} %");
    // The other measure cannot see it: nothing is in flight when the choice is made.
    let pending = share(Balance::new(endpoints().pending_requests()), 1).await;
    assert!((20..=45).contains(&pending), "{pending} %");
}

#[tokio::test(start_paused = true)]
async fn pending_requests_gives_a_slow_endpoint_less_with_many_calls_in_flight() {
    let pending = share(Balance::new(endpoints().pending_requests()), 12).await;
    assert!(pending <= 15, "{pending} %");
    let chosen = LoadMeasure::PendingRequests;
    let measured = share(Balance::new(endpoints().measured(chosen)), 12).await;
    assert!(measured <= 15, "{measured} %");
}

/// A request is finished when its response is dropped.
#[derive(Clone, Copy)]
struct Held;

impl<H: Send + 'static> TrackCompletion<H, u32> for Held {
    type Output = (u32, Box<dyn Send>);

    fn track_completion(&self, handle: H, number: u32) -> Self::Output {
        (number, Box::new(handle))
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_of_ones_own_decides_when_a_request_is_finished() {
    let mut pending = Balance::new(endpoints().pending_requests_with(Held));
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(pending.ready().await.unwrap().call(()).await.unwrap());
    }
    for number in 0..3 {
        let count = held.iter().filter(|response| response.0 == number).count();
        assert!((90..=110).contains(&count), "held responses count as load: {count}");
    }
    let mut ewma = Balance::new(endpoints().peak_ewma_with(DEFAULT_RTT, DECAY, Held));
    assert!(ewma.ready().await.unwrap().call(()).await.unwrap().0 < 3);
}
