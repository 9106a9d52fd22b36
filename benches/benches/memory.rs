//! What a publisher and its readers take beside the instances themselves, byte for byte: counted by
//! the allocator, as asked for, so the result is the same on every machine.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use discovery_benches::{Report, Row, bytes, instance, instances, is_measuring};
use discovery_core::{Instance, InstanceChanges, InstanceKey, Publisher, Update};
use futures::Stream as _;
use peak_alloc::PeakAlloc;

type Set = Publisher<InstanceKey, Instance>;
type Made = (InstanceKey, Arc<Instance>);

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The usual size, and the one at which tables that double have just done so: the worst for them.
const SIZES: [usize; 2] = [100_000, 114_689];
const READERS: usize = 10;
const FURTHER: u16 = 9;
/// For one key and one further reader.
const READER_BYTES: f64 = 64.0;

fn main() -> ExitCode {
    let mut report = Report::new("Memory, bytes per instance", "taken", "against");
    for count in if is_measuring() { SIZES.to_vec() } else { vec![1000] } {
        let own = own(count, usual);
        table(count, own, &mut report);
        readers(count, own, &mut report);
        smallest(count, &mut report);
    }
    report.finish(true)
}

/// What the instances take by themselves: they and what they point to, not the list they are in.
fn own(count: usize, made: fn(usize) -> Made) -> f64 {
    let mut list = Vec::with_capacity(count);
    let before = HEAP.current_usage();
    list.extend((0..count).map(made));
    per(count, HEAP.current_usage() - before)
}

fn table(count: usize, own: f64, report: &mut Report) {
    let goal = Some(2.0);
    let set = instances(count);
    let before = HEAP.current_usage();
    let mut publisher = Set::new();
    HEAP.reset_peak_usage();
    publisher.replace(set, Some(1));
    // The list is gone now; of the instances each was there before, and still is, once.
    let list = count * size_of::<Made>();
    let taken = own + per(count, HEAP.current_usage() + list - before);
    let peak = own + per(count, HEAP.peak_usage() - before);
    let row = |what: &str, taken, goal| {
        Row::numbers(
            format!("{what} of {count} / the instances themselves"),
            taken,
            own,
            bytes,
            goal,
        )
    };
    report.add(row("table, told at once,", taken, goal));
    report.add(row("  at its peak meanwhile,", peak, None));

    let before = HEAP.current_usage();
    publisher.replace(instances(count), Some(2));
    let more = HEAP.current_usage().saturating_sub(before);
    report.add(row("  told the same set again", taken + per(count, more), goal));
    drop(publisher);

    let before = HEAP.current_usage();
    let mut publisher = Set::new();
    for number in 0..count {
        let (key, value) = instance(number, 0);
        publisher.apply([Update::Insert(key, value)], None);
    }
    let taken = per(count, HEAP.current_usage() - before);
    report.add(row("table, told one by one,", taken, goal));
}

/// The same for instances of nothing but names and an address, beside which all else weighs most.
fn smallest(count: usize, report: &mut Report) {
    let made = |number: usize| -> Made {
        let made = Instance::parse("s", &number.to_string(), "a:1");
        let instance = made.expect("its parts are valid");
        (instance.key(), Arc::new(instance))
    };
    let own = own(count, made);
    let set: Vec<Made> = (0..count).map(made).collect();
    let list = count * size_of::<Made>();
    let before = HEAP.current_usage();
    let mut publisher = Set::new();
    publisher.replace(set, Some(1));
    let taken = own + per(count, HEAP.current_usage() + list - before);
    let what = format!("table of {count} of the smallest instances / these themselves");
    report.add(Row::numbers(what, taken, own, bytes, Some(2.0)));
}

fn readers(count: usize, own: f64, report: &mut Report) {
    let mut publisher = Set::new();
    publisher.replace(instances(count), Some(1));
    let row = |what: &str, taken| {
        let what = format!("{what}, of {count}");
        Row::numbers(what, taken, READER_BYTES, bytes, Some(1.0))
    };

    let before = HEAP.current_usage();
    let mut fresh: Vec<_> = (0..READERS).map(|_| publisher.subscribe()).collect();
    let each = per(count * READERS, HEAP.current_usage() - before);
    report.add(row("a new reader that has not looked", each));
    fresh.iter_mut().for_each(drain);
    let each = per(count * READERS, HEAP.current_usage() - before);
    report.add(row("a reader that knows all", each));
    drop(fresh);

    // Readers that do not look while every key changes. All hold on to the same former values.
    let one = lagging(count, 1);
    let many = lagging(count, 1 + usize::from(FURTHER));
    let each = (many - one) / f64::from(FURTHER);
    report.add(row("a further reader that does not look while all changes", each));
    report.add(Row::numbers(
        format!("the first such reader of {count}, former values included / the instances"),
        one,
        own,
        bytes,
        None,
    ));
}

/// What readers take that do not look while every key changes, beyond what they take if they do.
fn lagging(count: usize, readers: usize) -> f64 {
    let mut publisher = Set::new();
    publisher.replace(instances(count), Some(1));
    let mut readers: Vec<_> = (0..readers).map(|_| publisher.subscribe()).collect();
    readers.iter_mut().for_each(drain);
    let before = HEAP.current_usage();
    for number in 0..count {
        let (key, value) = instance(number, 1);
        publisher.apply([Update::Insert(key, value)], None);
    }
    per(count, HEAP.current_usage() - before)
}

fn drain(reader: &mut InstanceChanges) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut reader = pin!(reader);
    while let Poll::Ready(change) = reader.as_mut().poll_next(&mut cx) {
        drop(change);
    }
}

fn usual(number: usize) -> Made {
    instance(number, 0)
}

fn per(count: usize, bytes: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).expect("all here is below 4 GiB"));
    number(bytes) / number(count)
}
