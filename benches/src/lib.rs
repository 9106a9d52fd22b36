//! What the benchmarks share: instances of a realistic size, and a table that sets each result beside
//! its floor or peer and its goal, so that a reader has the ratio without arithmetic.
//!
//! A number alone says little on another machine. So each result here is a ratio of two things
//! measured in the same run, in turns, and a goal is a bound on that ratio.

#[cfg(any(feature = "balance", feature = "etcd"))]
pub mod cpu;
#[cfg(feature = "etcd")]
pub mod etcd;
mod instances;
mod report;
mod samples;
mod turns;

pub use instances::{JSON_BYTES, VERSIONS, instance, instances, json};
pub use report::{Report, Row, bytes, megabytes, number, percent, time};
pub use samples::{Pairs, percentile};
pub use turns::{Side, Turns};

/// Whether the program was started by `cargo bench`. If not (`cargo test --benches`), it is enough
/// that it runs, and numbers do not count.
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether this part of a benchmark was asked for: its name is among the arguments, or there are none.
pub fn is_wanted(name: &str) -> bool {
    let mut wanted =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    wanted.peek().is_none() || wanted.any(|argument| argument == name)
}
