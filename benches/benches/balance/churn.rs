//! Requests while very many endpoints come at once. tower takes them all in inside one request; ours
//! beside the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use discovery_benches::{Pairs, Report, Row, is_measuring, percentile};
use discovery_core::Change;
use discovery_tower::balance::{Builder, LeastPending};
use futures::channel::oneshot;
use futures::stream::{iter, once, pending};
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime;
use tokio::task::yield_now;
use tower::Service;
use tower::balance::p2c;
use tower::discover;

use crate::Outcome;
use crate::subject::{NoOp, Nothing, request, usable, with_pending};

const ROUNDS: usize = 9;

/// What requests took while nothing changed, while endpoints came, and with all of them, in seconds.
struct Took {
    quiet: Vec<f64>,
    during: Vec<f64>,
    after: Vec<f64>,
}

pub(crate) fn run() -> Outcome<Report> {
    let (before, more, rounds) =
        if is_measuring() { (10_000, 100_000, ROUNDS) } else { (10, 1_000, 1) };
    let [mut p999, mut with_all, mut longest, mut peer, mut peer_with_all] =
        std::array::from_fn(|_| Pairs::default());
    for _ in 0..rounds {
        let ours = ours(before, more)?;
        let tower = tower(before, more);
        let tail = |took: &[f64]| {
            let mut sorted = took.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() * 999 / 1_000).copied().unwrap_or_default()
        };
        p999.push(tail(&ours.during), tail(&ours.quiet));
        with_all.push(tail(&ours.during), tail(&ours.after));
        peer_with_all.push(tail(&ours.after), tail(&tower.after));
        longest.push(percentile(&ours.during, 100), percentile(&ours.quiet, 100));
        peer.push(percentile(&ours.during, 100), percentile(&tower.during, 100));
    }
    let title = format!("{more} endpoints come at once among {before}, requests meanwhile");
    let mut report = Report::new(title, "meanwhile", "against");
    report.add(Row::times("p99.9 / quiet", &p999, Some(2.0)));
    report.add(Row::times("p99.9 / quiet, with all of them", &with_all, None));
    report.add(Row::times("p99.9 with all of them / tower", &peer_with_all, None));
    report.add(Row::times("longest / quiet", &longest, None));
    report.add(Row::times("longest / tower's longest", &peer, None));
    Ok(report)
}

fn ours(before: usize, more: usize) -> Outcome<Took> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let (come, they_come) = oneshot::channel::<Vec<Change<usize, Arc<()>>>>();
    let endpoints = |from: usize, to: usize| {
        let one = Arc::new(());
        (from..to).map(move |key| Change::Insert(key, one.clone()))
    };
    let later = once(they_come).flat_map(|all| iter(all.unwrap_or_default()));
    let first = iter(endpoints(0, before).chain([Change::Synced]));
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let make = move |_: &usize, _: &Arc<()>| {
        count.fetch_add(1, Ordering::Relaxed);
        NoOp
    };
    runtime.block_on(async {
        let mut balance = Builder::new(first.chain(later).chain(pending()), make)
            .policy(LeastPending::new())
            .spawn::<_, u64, _>();
        while usable(&balance) < before {
            yield_now().await;
        }
        let task = tokio::spawn(async move {
            let mut quiet = Vec::with_capacity(before * 40);
            while quiet.len() < before * 40 {
                quiet.push(timed(&mut balance));
            }
            let all = before + more;
            let mut during = Vec::with_capacity(all * 20);
            drop(come.send(endpoints(before, all).collect()));
            while made.load(Ordering::Relaxed) < all {
                during.push(timed(&mut balance));
                // The driver may have been put behind this task.
                if during.len().is_multiple_of(1_000) {
                    yield_now().await;
                }
            }
            let after = (0..before * 40).map(|_| timed(&mut balance)).collect();
            Took { quiet, during, after }
        });
        Ok(task.await?)
    })
}

fn tower(before: usize, more: usize) -> Took {
    let endpoint = |key| Ok::<_, Nothing>(discover::Change::Insert(key, with_pending()));
    let (come, they_come) = oneshot::channel::<usize>();
    let later = they_come.map(move |to| iter((before..to.unwrap_or(before)).map(endpoint)));
    let source = iter((0..before).map(endpoint)).chain(later.flatten_stream()).chain(pending());
    let mut balance = p2c::Balance::new(Box::pin(source));
    request(&mut balance, 0);
    let quiet = (0..before * 4).map(|_| timed(&mut balance)).collect();
    let _ = come.send(before + more);
    let during = (0..before).map(|_| timed(&mut balance)).collect();
    let after = (0..before).map(|_| timed(&mut balance)).collect();
    Took { quiet, during, after }
}

fn timed<S: Service<u64>>(service: &mut S) -> f64 {
    let start = Instant::now();
    request(service, 1);
    Duration::as_secs_f64(&start.elapsed())
}
