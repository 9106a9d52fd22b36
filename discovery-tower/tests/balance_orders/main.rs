//! The balancer's own protocol between threads, in the orders that a scheduler tries: counts of calls,
//! publication and those who wait for it, and what the driver is told.
//!
//! These are the library's own files, compiled with another [`sync`] under them. A thread can be
//! interrupted at each atomic of a member and of the hub, and around each load, store and notification
//! of the set. What is inside of `ArcSwap`, `Notify`, channels and wakers is taken as right. The clock
//! stands still, so that no limit ends a wait: a wake-up that is lost is a test that does not end, which is found.
//! Orders are sequentially consistent: this says nothing of `Ordering`s that are too weak.

#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part of it is used here")]
#[path = "../../src/balance/mod.rs"]
mod balance;
mod scenarios;
mod sync;

use discovery_tower::{KeepIf, MakeEndpoint};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// How many orders of each are tried, by each of two schedulers.
const ORDERS: usize = 1_500;

fn main() {
    // Filters are for the tests of others.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Timers are made in it, and none of them fires.
    let _entered = runtime.enter();
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    // It warns that orders are sequentially consistent.
    config.silence_warnings = true;
    for (name, scenario) in scenarios::ALL {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(scenario);
        Runner::new(PctScheduler::new(3, ORDERS), config.clone()).run(scenario);
    }
}
