//! Two things measured in turns under criterion: it sees one side at a time, the other runs in
//! between and both are noted, so that the ratio is of the same moments.

use std::time::Duration;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use discovery_benches::Pairs;

/// Measures `ours` and `floor`, each told how often to do its work (up to `chunk` times) and saying
/// how long it took.
pub(crate) fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    sides: [&str; 2],
    chunk: u32,
    mut ours: impl FnMut(u64) -> Duration,
    mut floor: impl FnMut(u64) -> Duration,
) -> Pairs {
    let mut pairs = Pairs::default();
    let mut ours_first = true;
    for (side, label) in sides.into_iter().enumerate() {
        group.bench_function(format!("{name}/{label}"), |bencher| {
            bencher.iter_custom(|times| {
                let mut sum = Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    let now = left.min(u64::from(chunk));
                    left -= now;
                    ours_first = !ours_first;
                    let taken = if ours_first {
                        let first = ours(now);
                        [first, floor(now)]
                    } else {
                        let first = floor(now);
                        [ours(now), first]
                    };
                    sum += taken[side];
                    // What criterion tries out while it warms up is too short to count.
                    if now == u64::from(chunk) {
                        let each = taken.map(|taken| taken.as_secs_f64() / f64::from(chunk));
                        pairs.push(each[0], each[1]);
                    }
                }
                sum
            });
        });
    }
    pairs
}
