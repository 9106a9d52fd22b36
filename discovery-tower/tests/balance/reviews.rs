//! A policy looks at the whole set as often as it wants to, whether or not it is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use discovery_tower::balance::{Candidates, Member, Policy};

use crate::support::{Request, Rig, Spec, Use as _, ms, rest};

/// Counts its reviews, of which it wants one every 100 ms.
#[derive(Debug, Default)]
struct Reviews<const TIMED: bool>(Arc<AtomicUsize>);

impl<const TIMED: bool> Policy<Request, u32, Spec> for Reviews<TIMED> {
    type Load = ();
    type State = ();

    const TIMED: bool = TIMED;
    const REVIEW: Option<Duration> = Some(Duration::from_millis(100));

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()> {
        former.unwrap_or_default()
    }

    fn pick(
        &self,
        _: &Request,
        among: &impl Candidates<u32, Spec, (), State = ()>,
    ) -> Option<usize> {
        (0..among.len()).find(|&place| among.is_free(place))
    }

    fn review<'a>(&self, _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>, _: u64) {
        self.0.fetch_add(1, SeqCst);
    }

    fn cost(&self, _: &Member<u32, Spec, ()>, _: u64) -> f64 {
        0.0
    }
}

async fn is_reviewed_every_100_ms<const TIMED: bool>() {
    let policy = Reviews::<TIMED>::default();
    let count = policy.0.clone();
    let (_rig, balance) = Rig::serving_as(2, |b| b.policy(policy)).await;
    for wanted in 1..=5 {
        for _ in 0..3 {
            balance.load(1, 10).await.assert_no_errors();
            rest().await;
            assert_eq!(count.load(SeqCst), wanted, "timed: {TIMED}");
        }
        tokio::time::sleep(ms(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_reviewed_as_often_as_it_wants_whether_or_not_it_is_told_the_time() {
    is_reviewed_every_100_ms::<true>().await;
    is_reviewed_every_100_ms::<false>().await;
}
