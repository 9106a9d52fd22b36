//! A policy says whether a call is timed: the clock is read for those only.

use std::sync::{Arc, Mutex};

use discovery_tower::balance::{Candidates, Finished, Member, Policy};

use crate::support::{Request, Rig, Spec, Use as _, all_up, spec};

/// Wants to know the time where there are several endpoints, and notes the times it is told.
#[derive(Debug, Default)]
struct AmongSeveral(Arc<Mutex<Vec<u64>>>);

impl AmongSeveral {
    fn note(&self, now: u64) {
        self.0.lock().unwrap().push(now);
    }
}

impl Policy<Request, u32, Spec> for AmongSeveral {
    type Load = ();
    type State = ();

    const TIMED: bool = true;

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()> {
        former.unwrap_or_default()
    }

    fn is_timed(&self, usable: usize) -> bool {
        usable > 1
    }

    fn pick(
        &self,
        _: &Request,
        among: &impl Candidates<u32, Spec, (), State = ()>,
    ) -> Option<usize> {
        self.note(among.now());
        let mut free = None;
        among.each_free(|place, _| free = Some(place));
        free
    }

    fn started(&self, (): &(), _: u32, now: u64) {
        self.note(now);
    }

    fn finished(&self, (): &(), call: Finished) {
        self.note(call.now);
        self.note(call.elapsed);
    }

    fn cost(&self, _: &Member<u32, Spec, ()>, _: u64) -> f64 {
        0.0
    }
}

async fn times_told(endpoints: impl IntoIterator<Item = Spec>) -> Vec<u64> {
    let policy = AmongSeveral::default();
    let told = policy.0.clone();
    let (rig, builder) = Rig::new();
    let balance = builder.policy(policy).spawn();
    let endpoints: Vec<_> = (0..).zip(endpoints).collect();
    let count = endpoints.len();
    rig.begin(endpoints);
    all_up(&balance, count).await;
    balance.load(1, 1).await.assert_no_errors();
    let told = told.lock().unwrap();
    told.clone()
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_read_for_calls_that_the_policy_wants_timed() {
    assert_eq!(times_told([spec(0)]).await, [0, 0, 0, 0]);
    let told = times_told([spec(0), spec(1)]).await;
    assert!(matches!(told[..], [(1..), (1..), (1..), _]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn how_long_a_suspect_takes_is_known_in_any_case() {
    let told = times_told([spec(0).suspect()]).await;
    assert!(matches!(told[..], [0, (1..), (1..), _]), "{told:?}");
}
