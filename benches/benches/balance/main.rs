//! The balancer beside its floor and its peers, on endpoints that do nothing.
//!
//! Not with criterion: ours, the floor and the peers are measured in turns, so that whatever else the
//! machine does hits all of them alike, and what counts are the ratios. The names of its parts as
//! arguments run these only.

mod calls;
mod changes;
mod churn;
mod floor;
mod shared;
mod subject;

use std::process::ExitCode;

use discovery_benches::{Report, is_measuring, is_wanted};

/// How many endpoints there are.
const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<ExitCode> {
    let mut met = true;
    for (name, run) in [
        ("calls", calls::run as fn() -> Outcome<Report>),
        ("shared", shared::run),
        ("churn", churn::run),
        ("changes", changes::run),
    ] {
        if is_wanted(name) {
            met &= run()?.show(is_measuring());
        }
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
