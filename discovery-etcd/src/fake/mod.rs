//! An etcd for tests, in the process and on the paused clock: a store with revisions, leases,
//! compaction and watches, behind a network that loses, delays and breaks whatever it is told to.
//! It draws all chance from a seed, so that a course of faults can be had again.

mod net;
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use net::{Fake, FakeWire, Faults, LATEST};
pub(crate) use store::{Moment, Store};

/// Runs a course once for each seed, each on a clock of its own. A failure names the seed; with that
/// number in `DISCOVERY_SEED` it alone is run.
pub(crate) fn for_each_seed<F: Future<Output = ()>>(seeds: u64, course: impl Fn(u64) -> F) {
    let only = std::env::var("DISCOVERY_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let run = catch_unwind(AssertUnwindSafe(|| runtime.block_on(course(seed))));
        assert!(run.is_ok(), "the course with seed {seed} failed");
    }
}
