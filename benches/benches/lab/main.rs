//! How well balancers balance: a seeded simulation in virtual time, so the numbers are those of the
//! strategies and the same on any machine, loaded or not.
//!
//! Ten endpoints of four servers with a queue each; requests come at 70 % of what the endpoints can
//! serve. The balancers are real code. `benches/README.md` says more.

// Cargo builds a benchmark without harness as a test whose tests are not run; those of these modules
// are run from `tests.rs`.
#![allow(dead_code, unused_imports, reason = "the tests in the modules are not run from here")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "minutes in nanoseconds, millions of requests: far from where that matters"
)]

mod arguments;
mod endpoint;
mod load;
mod ours;
mod peers;
mod report;
mod run;
mod scenario;
mod subject;
mod subjects;
mod summary;
mod world;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use discovery_benches::is_measuring;

use crate::arguments::{Arguments, USAGE};
use crate::run::{Outcome, Plan, run};
use crate::scenario::{Scenario, Shape};
use crate::subject::{Role, Subject};
use crate::summary::{Line, Medians, missed};

const SEEDS: u64 = 5;
const REQUESTS: usize = 400_000;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(asked) => match tables(&asked) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => complain(&error.to_string()),
        },
        Err(message) => complain(&format!("{message}\n{USAGE}")),
    }
}

fn complain(message: &str) -> ExitCode {
    // Nobody to read it: the exit code says it, too.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(2)
}

/// Prints the table of each scenario as soon as it is done; says whether ours reach all goals.
fn tables(asked: &Arguments) -> io::Result<bool> {
    // To see that it runs, a little is enough.
    let (seeds, requests) = if is_measuring() { (SEEDS, REQUESTS) } else { (1, 4000) };
    let (seeds, requests) = (asked.seeds.unwrap_or(seeds), asked.requests.unwrap_or(requests));
    let subjects: Vec<Subject> =
        subjects::all().into_iter().filter(|subject| asked.wants_subject(subject)).collect();
    let mut met = true;
    for scenario in Scenario::all().iter().filter(|scenario| asked.wants(scenario)) {
        let lines = lines(scenario, &subjects, seeds, requests)?;
        let text = report::table(scenario, &lines, asked.style);
        io::stdout().write_all(text.as_bytes())?;
        let ours = lines.iter().filter(|line| line.role == Role::Ours);
        met &= ours.into_iter().all(|line| missed(line, scenario, &lines).is_empty());
    }
    if !is_measuring() {
        io::stdout().write_all(b"(a trial run: the numbers mean nothing)\n")?;
        return Ok(true);
    }
    Ok(met)
}

/// All balancers in a scenario. Runs do not depend on one another, so each processor takes some.
fn lines(
    scenario: &Scenario,
    subjects: &[Subject],
    seeds: u64,
    requests: usize,
) -> io::Result<Vec<Line>> {
    let mut runs = Vec::new();
    for (index, _) in subjects.iter().enumerate() {
        for shape in Shape::ALL {
            runs.extend((1..=seeds).map(|seed| (index, shape, seed)));
        }
    }
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<Option<io::Result<Outcome>>>> =
        Mutex::new(runs.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((index, (subject, shape, seed))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    runs.get(index).map(|run| (index, *run))
                } {
                    let plan = Plan { scenario, clients: shape.clients(), requests, seed };
                    let outcome = run(&subjects[subject], plan);
                    let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    all[index] = Some(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let outcomes = outcomes.into_iter().flatten().collect::<io::Result<Vec<Outcome>>>()?;
    let mut of_seeds = outcomes.chunks(usize::try_from(seeds).unwrap_or(1)).map(Medians::of);
    let line = |subject: &Subject| {
        let mut next = || of_seeds.next().unwrap_or_default();
        let shapes = [next(), next()];
        Line { subject: subject.name.clone(), role: subject.role, shapes }
    };
    Ok(subjects.iter().map(line).collect())
}
