//! What the tests of the balancer stand on: endpoint services that do as they are told, a source that
//! says what the test says, and ways to load a balancer and to wait on the paused clock.

mod host;
mod policies;
mod protocol;
mod rig;

use std::fmt::Debug;
use std::time::Duration;

use discovery_tower::balance::{Balance, CallError, EndpointView, Policy, Protocol, Served};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

pub(crate) use host::{Answer, HostError, Ready, Request, Scripted, Told, World};
pub(crate) use policies::{At, Insists, Panics};
pub(crate) use protocol::{Kind, ReadsAll};
pub(crate) use rig::{Rig, Spec, all_up, spec};

pub(crate) type Bal<P, C = ReadsAll> = Balance<u32, Spec, Scripted, Request, P, C>;
/// A source that says this and ends.
pub(crate) type Once =
    futures::stream::Iter<std::array::IntoIter<discovery_core::Change<u32, Spec>, 2>>;
pub(crate) type Result = std::result::Result<Served<u32, u32>, CallError<u32>>;

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Waits on the paused clock until this holds: a step of it lets everything run that can.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{caller}: {what}: not within 20 s");
            sleep(MS).await;
        }
    }
}

/// Lets everything run that can, on the paused clock.
pub(crate) async fn rest() {
    sleep(MS).await;
}

/// What the tests do with a balancer.
pub(crate) trait Use: Clone {
    async fn ask(&self, request: Request) -> Result;

    fn all(&self) -> Vec<EndpointView<u32, Spec>>;

    fn view(&self, key: u32) -> EndpointView<u32, Spec> {
        let all = self.all();
        all.into_iter().find(|view| view.key == key).expect("an endpoint of this key")
    }

    async fn get(&self) -> Result {
        self.ask(Request::plain()).await
    }

    /// So many calls, so many at a time, and who served how many.
    async fn load(&self, in_flight: usize, calls: usize) -> Tally {
        let mut results = futures::stream::iter(0..calls)
            .map(|_| async {
                // The driver has a turn, as it has in a program.
                tokio::task::yield_now().await;
                self.get().await
            })
            .buffer_unordered(in_flight);
        let mut tally = Tally::default();
        while let Some(result) = results.next().await {
            match result {
                Ok(served) => {
                    assert_eq!(served.endpoint(), served.get_ref(), "who served and who says so");
                    tally.count(*served.endpoint());
                }
                Err(error) => {
                    tally.errors.push(error);
                }
            }
        }
        tally
    }
}

impl<P, C> Use for Bal<P, C>
where
    P: Policy<Request, u32, Spec>,
    C: Protocol<Request, u32, HostError, u32, Response = Served<u32, u32>>,
{
    async fn ask(&self, request: Request) -> Result {
        self.clone().oneshot(request).await
    }

    fn all(&self) -> Vec<EndpointView<u32, Spec>> {
        self.endpoints()
    }
}

/// Who served how many calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    served: std::collections::BTreeMap<u32, usize>,
    pub(crate) errors: Vec<CallError<u32>>,
}

impl Tally {
    fn count(&mut self, key: u32) {
        *self.served.entry(key).or_default() += 1;
    }

    pub(crate) fn of(&self, key: u32) -> usize {
        self.served.get(&key).copied().unwrap_or(0)
    }

    pub(crate) fn all(&self) -> usize {
        self.served.values().sum()
    }

    /// Its part of the calls that were served.
    pub(crate) fn share(&self, key: u32) -> f64 {
        self.of(key) as f64 / self.all().max(1) as f64
    }

    #[track_caller]
    pub(crate) fn assert_no_errors(&self) {
        assert!(self.errors.is_empty(), "{:?}", self.errors.first());
    }

    #[track_caller]
    pub(crate) fn assert_shares(&self, wanted: &[f64], tolerance: f64) {
        let shares: Vec<f64> = (0..).take(wanted.len()).map(|key| self.share(key)).collect();
        for (share, wanted) in shares.iter().zip(wanted) {
            assert!((share - wanted).abs() <= tolerance, "{shares:.3?}, not {wanted:.3?}");
        }
    }
}

#[track_caller]
pub(crate) fn assert_near(what: &str, is: Duration, wanted: Duration, tolerance: Duration) {
    assert!(is.abs_diff(wanted) <= tolerance, "{what}: {is:?}, not {wanted:?}");
}

#[track_caller]
pub(crate) fn failure<T: Debug>(result: std::result::Result<T, CallError<u32>>) -> CallError<u32> {
    result.expect_err("a call that cannot go well")
}
