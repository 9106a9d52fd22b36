//! Endpoints come, go, and say other things of themselves at random: each stands where it should, once,
//! and calls reach those that are up.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use discovery_core::Change;
use discovery_tower::balance::{
    Attributes, Availability, Builder, Ejection, LeastPending, SlowStart, Standing,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, Service, ServiceExt as _};

/// Those with such keys never become ready.
const BROKEN: u32 = 7;

#[derive(Clone)]
struct Endpoint(u32);

impl Service<()> for Endpoint {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.is_multiple_of(BROKEN) {
            return Poll::Ready(Err("broken".into()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

fn standing(key: u32, said: Attributes, others: bool) -> Standing {
    match said.availability {
        _ if key.is_multiple_of(BROKEN) => Standing::Failed,
        _ if said.weight == 0 => Standing::Out,
        Availability::Up => Standing::Up,
        Availability::LastResort if !others => Standing::Up,
        Availability::LastResort => Standing::LastResort,
        _ => Standing::Out,
    }
}

fn expected(said: &BTreeMap<u32, Attributes>) -> BTreeMap<u32, Standing> {
    let others = said.iter().any(|(key, said)| standing(*key, *said, true) == Standing::Up);
    said.iter().map(|(key, said)| (*key, standing(*key, *said, others))).collect()
}

#[tokio::test(start_paused = true)]
async fn after_any_changes_each_endpoint_is_there_once_and_stands_as_it_should() {
    let mut rng = StdRng::seed_from_u64(5);
    let (tell, changes) = tokio::sync::mpsc::unbounded_channel();
    let changes = UnboundedReceiverStream::new(changes);
    let make = |key: &u32, _: &std::sync::Arc<Attributes>| Endpoint(*key);
    let balance = Builder::described_by(changes, make, |_, said: &Attributes| *said)
        .policy(LeastPending::new())
        .ejection(Ejection::never())
        .slow_start(SlowStart::none())
        .spawn::<_, (), Attributes>();
    let mut said = BTreeMap::new();
    for round in 0..600 {
        for _ in 0..rng.random_range(1..8) {
            let key = rng.random_range(0..if round < 300 { 600 } else { 12 });
            if rng.random_bool(if round % 100 < 80 { 0.7 } else { 0.2 }) {
                let availability = match rng.random_range(0..10) {
                    0 => Availability::Out,
                    1 | 2 => Availability::LastResort,
                    _ => Availability::Up,
                };
                let weight = rng.random_range(0..4);
                let attributes = Attributes::default().weight(weight).availability(availability);
                said.insert(key, attributes);
                tell.send(Change::Insert(key, attributes)).unwrap();
            } else if said.remove(&key).is_some() {
                tell.send(Change::Remove(key)).unwrap();
            }
        }
        if round == 300 {
            for key in std::mem::take(&mut said).into_keys() {
                tell.send(Change::Remove(key)).unwrap();
            }
        }
        tell.send(Change::Synced).unwrap();
        let expected = expected(&said);
        let mut seen = BTreeMap::new();
        for _ in 0..50 {
            tokio::task::yield_now().await;
            let endpoints = balance.endpoints();
            seen = endpoints.iter().map(|one| (one.key, one.standing)).collect();
            assert_eq!(seen.len(), endpoints.len(), "each is there once");
            if seen == expected {
                break;
            }
        }
        assert_eq!(seen, expected, "round {round}");
        let up: BTreeSet<_> =
            seen.iter().filter(|(_, to)| **to == Standing::Up).map(|(key, _)| *key).collect();
        for _ in 0..if up.is_empty() { 0 } else { 20 } {
            let served = balance.clone().oneshot(()).await.unwrap().into_inner();
            assert!(up.contains(&served), "round {round}: {served} is not up");
        }
    }
}
