//! Our balancer beside pingora's, with the rounds and the floor of the benchmark `balance`.
//!
//! pingora's `select` only picks: it counts no calls, and is told of no outcome. Ours is a whole request,
//! from ready to the end.

#[path = "../benches/balance/floor.rs"]
mod floor;
#[path = "../benches/balance/subject.rs"]
#[allow(dead_code, reason = "tower's balancers have their turns elsewhere")]
mod subject;

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use discovery_benches::{Report, Row, Turns, is_measuring};
use discovery_tower::balance::{LeastPending, PeakEwma};
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::{Random, RoundRobin};
use tokio::runtime::Builder;
use tokio::task::yield_now;

use floor::Floor;
use subject::{ours, requests};

const ROUNDS: usize = 400;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut report = Report::new("One task, a request", "ours", "against");
    for count in [1, 10, 100, 1_000, 10_000] {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let times = if is_measuring() { 2_000.max(2 * u32::try_from(count)?) } else { 10 };
        let mut least = runtime.block_on(ours(count, LeastPending::new()));
        let mut ewma = runtime.block_on(ours(count, PeakEwma::new()));
        let round = LoadBalancer::<RoundRobin>::try_from_iter(addresses(count))?;
        let random = LoadBalancer::<Random>::try_from_iter(addresses(count))?;
        let mut floor = Floor::of(count);
        let turns = Turns::take(
            ROUNDS / if count > 1_000 { 4 } else { 1 },
            [
                Box::new(|| requests(&mut floor, times)),
                Box::new(|| {
                    runtime.block_on(async {
                        yield_now().await;
                        requests(&mut least, times)
                    })
                }),
                Box::new(|| {
                    runtime.block_on(async {
                        yield_now().await;
                        requests(&mut ewma, times)
                    })
                }),
                Box::new(|| selects(times, || round.select(b"", 16).is_some())),
                Box::new(|| selects(times, || random.select(b"", 16).is_some())),
            ],
        );
        let mut row = |what: &str, ours, against| {
            let what = format!("{count:>5} endpoints: {what}");
            report.add(Row::times(what, &turns.pairs(ours, against), None));
        };
        row("pingora RoundRobin / floor", 3, 0);
        row("pingora Random / floor", 4, 0);
        row("LeastPending / pingora RoundRobin", 1, 3);
        row("LeastPending / pingora Random", 1, 4);
        row("PeakEwma / pingora RoundRobin", 2, 3);
        row("PeakEwma / pingora Random", 2, 4);
    }
    Ok(report.finish(is_measuring()))
}

fn addresses(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("10.{}.{}.1:80", number / 250, number % 250))
}

/// So many picks, one after the other: how long each took.
fn selects(times: u32, mut select: impl FnMut() -> bool) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        assert!(black_box(select()), "all are ready");
    }
    start.elapsed().as_secs_f64() / f64::from(times)
}
