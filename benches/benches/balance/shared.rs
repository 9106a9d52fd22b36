//! One balancer shared by several tasks on two threads: requests a second of all of them.

use std::error::Error;
use std::time::Instant;

use discovery_benches::{Report, Row, Turns, is_measuring};
use discovery_tower::balance::LeastPending;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tower::buffer::Buffer;
use tower::{Service, ServiceExt as _};

use crate::floor::Floor;
use crate::subject::{ours, tower_pending};
use crate::{Outcome, SIZES};

const ROUNDS: usize = 40;
const TASKS: [u32; 4] = [1, 2, 8, 64];
/// How many requests may wait for tower's balancer.
const BOUND: usize = 1024;
/// How many requests a task makes before it lets others run.
const TURN: u32 = 64;

pub(crate) fn run() -> Outcome<Report> {
    let mut report = Report::new("2 threads, time of all for a request", "ours", "against");
    let (many, few) = if is_measuring() { (60_000, 15_000) } else { (128, 128) };
    for count in SIZES {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
        let least = runtime.block_on(ours(count, LeastPending::new()));
        let floor = Floor::of(count);
        let (buffer, worker) = Buffer::pair(tower_pending(count), BOUND);
        runtime.spawn(worker);
        for tasks in TASKS {
            let turns = Turns::take(
                ROUNDS,
                [
                    Box::new(|| of_all(&runtime, &floor, tasks, many)),
                    Box::new(|| of_all(&runtime, &least, tasks, many)),
                    Box::new(|| of_all(&runtime, &buffer, tasks, few)),
                ],
            );
            let mut row = |what: &str, against, goal| {
                let what = format!("{count:>5} endpoints, {tasks:>2} tasks: {what}");
                report.add(Row::times(what, &turns.pairs(1, against), Some(goal)));
            };
            row("LeastPending / floor", 0, 1.5);
            let goal = if count >= 100 { 1.0 / 8.0 } else { 1.0 / 5.0 };
            row("LeastPending / Buffer<Balance<PendingRequests>>", 2, goal);
        }
    }
    Ok(report)
}

/// How long `tasks` tasks take for so many requests together, for each of these.
fn of_all<S>(runtime: &Runtime, service: &S, tasks: u32, requests: u32) -> f64
where
    S: Service<u64, Error: Into<Box<dyn Error + Send + Sync>>, Future: Send> + Clone,
    S: Send + 'static,
{
    runtime.block_on(async {
        let start = Instant::now();
        let run = |mut service: S| async move {
            for number in 0..requests / tasks {
                let ready = service.ready().await.map_err(Into::into)?;
                ready.call(number.into()).await.map_err(Into::into)?;
                // As tasks do that wait for answers; else one thread may run all of them.
                if number % TURN == 0 {
                    yield_now().await;
                }
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        };
        let all: Vec<_> = (0..tasks).map(|_| tokio::spawn(run(service.clone()))).collect();
        for one in all {
            assert!(matches!(one.await, Ok(Ok(()))), "all requests are answered");
        }
        start.elapsed().as_secs_f64() / f64::from(requests)
    })
}
