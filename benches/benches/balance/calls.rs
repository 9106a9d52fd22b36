//! Requests one after the other on one task: ready, call, answer, end.

use discovery_benches::{Report, Row, Side, Turns, is_measuring};
use discovery_tower::balance::{LeastPending, PeakEwma, Policy};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::floor::Floor;
use crate::subject::{Ours, ours, requests, tower_ewma, tower_pending};
use crate::{Outcome, SIZES};

/// Many and short: what comes in between hits few of them.
const ROUNDS: usize = 400;

pub(crate) fn run() -> Outcome<Report> {
    let mut report = Report::new("One task, a request", "ours", "against");
    for count in SIZES {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        // Long enough to have the endpoints in the processor's cache, where those before are not.
        let times = if is_measuring() { 2_000.max(2 * u32::try_from(count)?) } else { 10 };
        let least = runtime.block_on(ours(count, LeastPending::new()));
        let ewma = runtime.block_on(ours(count, PeakEwma::new()));
        let (mut pending, mut peak) = (tower_pending(count), tower_ewma(count));
        let mut floor = Floor::of(count);
        let turns = Turns::take(
            ROUNDS / if count > 1_000 { 4 } else { 1 },
            [
                Box::new(|| requests(&mut floor, times)),
                of_ours(&runtime, least, times),
                of_ours(&runtime, ewma, times),
                Box::new(|| requests(&mut pending, times)),
                Box::new(|| requests(&mut peak, times)),
            ],
        );
        let mut row = |what: &str, ours, against, goal| {
            let what = format!("{count:>5} endpoints: {what}");
            report.add(Row::times(what, &turns.pairs(ours, against), Some(goal)));
        };
        row("LeastPending / floor", 1, 0, 1.8);
        row("LeastPending / tower PendingRequests", 1, 3, 0.4);
        row("PeakEwma / floor", 2, 0, 3.5);
        row("PeakEwma / tower PeakEwma", 2, 4, 0.3);
    }
    Ok(report)
}

/// The driver has its turns between the requests, as on a runtime of one thread.
fn of_ours<P>(runtime: &Runtime, mut balance: Ours<P>, times: u32) -> Side<'_>
where
    P: Policy<u64, usize, ()>,
{
    Box::new(move || {
        runtime.block_on(async {
            yield_now().await;
            requests(&mut balance, times)
        })
    })
}
