//! The tests of the simulation itself: a benchmark without harness has no place for them.
#![expect(dead_code, reason = "the command is not in this")]
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
