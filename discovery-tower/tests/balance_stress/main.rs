//! A balancer under random steps, each seed with a naive model of it beside.
#![allow(unreachable_pub, reason = "nobody reaches into a test")]

mod model;
mod polling;
mod rig;
mod threads;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use discovery_tower::balance::{LeastPending, PeakEwma, Policy};
use rig::{Ran, run};
use world::{Request, Value, Watched, World};

const STEPS: u64 = 10_000;

/// A million steps in all, or ten if `DISCOVERY_TEST_LONG` is set. `DISCOVERY_TEST_SEED`: from which on.
fn seeds() -> std::ops::Range<u64> {
    let long = std::env::var("DISCOVERY_TEST_LONG").is_ok_and(|it| !it.is_empty() && it != "0");
    let from =
        std::env::var("DISCOVERY_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    from..from + if long { 1_000 } else { 100 }
}

fn stress<P>(
    seeds: impl Iterator<Item = u64>,
    policy: impl Fn(Arc<World>) -> P,
    watched: bool,
) -> Ran
where
    P: Policy<Request, u32, Value>,
{
    let mut all = Ran::default();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let run = tokio::task::unconstrained(run(seed, STEPS, &policy, watched));
        let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
        let ran = ran.unwrap_or_else(|_| panic!("seed {seed}"));
        all.picks += ran.picks;
        all.ended += ran.ended;
        all.errors.iter_mut().zip(ran.errors).for_each(|(all, ran)| *all += ran);
    }
    all
}

fn has_seen_all(ran: Ran) {
    assert!(ran.picks > 1_000 && ran.ended > 1_000, "{ran:?}");
    assert!(ran.errors[..3].iter().all(|&errors| errors > 0), "{ran:?}");
}

#[test]
fn whatever_happens_picks_counts_and_errors_are_those_of_the_model() {
    let seeds = seeds().filter(|seed| seed % 2 == 1);
    has_seen_all(stress(seeds, Watched, true));
}

#[test]
fn whatever_happens_with_least_pending() {
    let seeds = seeds().filter(|seed| seed % 4 == 2);
    has_seen_all(stress(seeds, |_| LeastPending::new(), false));
}

#[test]
fn whatever_happens_with_peak_ewma() {
    let seeds = seeds().filter(|seed| seed % 4 == 0);
    has_seen_all(stress(seeds, |_| PeakEwma::new(), false));
}
