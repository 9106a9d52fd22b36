//! `Publisher` → `Changes`: what a first sync costs beside a plain `HashMap`, and whether one change
//! costs the same among many as among few.
//!
//! criterion measures each side; the pairs it is made of are measured in turns and give the ratios of
//! the table at the end.

mod feed;
mod pair;
mod plain;
mod subject;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use discovery_benches::{Report, Row, instances, is_measuring};
use discovery_core::{Instance, InstanceKey};

use self::feed::Keys;
use self::pair::measure;
use self::plain::PlainMap;
use self::subject::Subject;

const FEW: usize = 100;
const MANY: usize = 100_000;
const READERS: usize = 10;
/// So many single changes are timed at a time: reading the clock takes as long as a tenth of one.
const CHANGES: u32 = 1000;

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let mut report = Report::new("Publisher -> Changes", "ours", "floor");
    first_sync(&mut criterion, &mut report);
    one_change(&mut criterion, &mut report);
    criterion.final_summary();
    report.finish(is_measuring())
}

/// Timed: the publisher is told the whole set and its readers drain until `Synced`. The floor is to
/// insert the same keys and values into an empty `HashMap`, which grows. Making and dropping is timed
/// in neither.
fn first_sync(criterion: &mut Criterion, report: &mut Report) {
    let mut group = criterion.benchmark_group("first sync");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for count in [10_000, MANY] {
        let set = instances(count);
        let pairs = measure(
            &mut group,
            &format!("{count} instances"),
            ["sync", "HashMap"],
            1,
            |times| repeat(times, || synced(&set, 1)),
            |times| repeat(times, || inserted(&set, HashMap::new())),
        );
        let what = format!("first sync of {count} to 1 reader / HashMap inserts");
        report.add(Row::times(what, &pairs, Some(3.0)));
    }
    let set = instances(MANY);
    let pairs = measure(
        &mut group,
        &format!("{MANY} instances, room made before"),
        ["sync", "HashMap"],
        1,
        |times| repeat(times, || synced(&set, 1)),
        |times| repeat(times, || inserted(&set, HashMap::with_capacity(MANY))),
    );
    let what = format!("  {MANY} / inserts into a HashMap that has room for all");
    report.add(Row::times(what, &pairs, None));
    let set = instances(10_000);
    let pairs = measure(
        &mut group,
        "10000 instances fanned out",
        [&format!("to {READERS} readers"), "to 1 reader"],
        1,
        |times| repeat(times, || synced(&set, READERS)),
        |times| repeat(times, || synced(&set, 1)),
    );
    let what = format!("first sync of 10000: to {READERS} readers / to 1 reader");
    report.add(Row::times(what, &pairs, None));
    group.finish();
}

fn synced(set: &[(InstanceKey, Arc<Instance>)], readers: usize) -> Duration {
    let input = set.to_vec();
    let mut subject = Subject::new(readers);
    let start = Instant::now();
    subject.publisher.replace(input, Some(1));
    let told = subject.drain();
    let taken = start.elapsed();
    assert_eq!(told, set.len() * readers);
    taken
}

type Map = HashMap<InstanceKey, Arc<Instance>>;

fn inserted(set: &[(InstanceKey, Arc<Instance>)], mut map: Map) -> Duration {
    let input = set.to_vec();
    let start = Instant::now();
    for (key, instance) in input {
        map.insert(key, instance);
    }
    let taken = start.elapsed();
    assert_eq!(black_box(map).len(), set.len());
    taken
}

/// Timed: the publisher is told of one new value, the waiting reader is woken and drains, `Synced`
/// included. The floor is the same among few instances.
///
/// The goal is for keys that are in the processor's cache in both. Changes of any key among many wait
/// for memory; how long a plain map waits for it stands below.
fn one_change(criterion: &mut Criterion, report: &mut Report) {
    let mut group = criterion.benchmark_group("one change");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (keys, goal) in [(Keys::Same(FEW), Some(1.3)), (Keys::Any, None)] {
        let (mut many, mut few) = (Subject::with(MANY, 1), Subject::with(FEW, 1));
        let pairs = measure(
            &mut group,
            &format!("{keys}"),
            [&format!("among {MANY}"), &format!("among {FEW}")],
            CHANGES,
            |times| many.change(keys, times),
            |times| few.change(keys, times),
        );
        let what = format!("one change of {keys}: among {MANY} / among {FEW}");
        report.add(Row::times(what, &pairs, goal));
    }
    let (mut many, mut few) = (PlainMap::with(MANY), PlainMap::with(FEW));
    let pairs = measure(
        &mut group,
        "any key in a HashMap",
        [&format!("among {MANY}"), &format!("among {FEW}")],
        CHANGES,
        |times| many.change(Keys::Any, times),
        |times| few.change(Keys::Any, times),
    );
    let what = format!("  the same in a HashMap: among {MANY} / among {FEW}");
    report.add(Row::times(what, &pairs, None));
    let (mut all, mut one) = (Subject::with(MANY, READERS), Subject::with(MANY, 1));
    let pairs = measure(
        &mut group,
        "fan-out",
        [&format!("to {READERS} readers"), "to 1 reader"],
        CHANGES,
        |times| all.change(Keys::Same(FEW), times),
        |times| one.change(Keys::Same(FEW), times),
    );
    let what = format!("one change among {MANY}: to {READERS} readers / to 1 reader");
    report.add(Row::times(what, &pairs, None));
    group.finish();
}

fn repeat(times: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| once()).sum()
}
