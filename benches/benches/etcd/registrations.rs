//! A thousand registrations of one process on a shared lease: what they take while nothing happens,
//! and how long it takes until all are registered; beside the same with leases of their own.

use std::time::{Duration, Instant};

use discovery_benches::etcd::{DEADLINE, Result, registry, start};
use discovery_benches::{Pairs, Report, Row, cpu, is_measuring, percent};
use discovery_core::{Instance, Registration};
use discovery_etcd::{EtcdRegistry, RegisterOptions};
use discovery_test_support::Etcd;
use futures::future::try_join_all;
use tokio::time::{sleep, timeout};

const COUNT: usize = 1_000;
const IDLE: Duration = Duration::from_secs(30);
/// The share of a processor, with a shared lease.
const CPU: f64 = 0.01;

pub(crate) async fn run() -> Result<Report> {
    let (count, idle) =
        if is_measuring() { (COUNT, IDLE) } else { (10, Duration::from_millis(100)) };
    let etcd = start().await;
    // One after the other: what is measured is the whole process.
    let (shared_time, shared) = measure(&etcd, true, count, idle).await?;
    let (own_time, own) = measure(&etcd, false, count, idle).await?;
    let title = format!(
        "etcd {}: {count} registrations of one process, {} s idle",
        etcd.version(),
        idle.as_secs()
    );
    let mut report = Report::new(title, "shared lease", "against");
    report.add(Row::numbers("processor while idle / the bound", shared, CPU, percent, Some(1.0)));
    report.add(Row::numbers("processor while idle / own leases", shared, own, percent, None));
    let mut pairs = Pairs::default();
    pairs.push(shared_time.as_secs_f64(), own_time.as_secs_f64());
    report.add(Row::times("until all are registered / own leases", &pairs, None));
    Ok(report)
}

/// Returns the time until all were registered and the share of a processor while idle.
async fn measure(
    etcd: &Etcd,
    share: bool,
    count: usize,
    idle: Duration,
) -> Result<(Duration, f64)> {
    let registry: EtcdRegistry = registry(etcd.url(), "/services")?;
    let options = RegisterOptions::new().share_lease(share);
    let prefix = if share { "shared" } else { "own" };
    let start = Instant::now();
    let all: Vec<Registration> = (0..count)
        .map(|number| {
            let instance = Instance::parse(prefix, &number.to_string(), "http://10.0.0.1:80")?;
            Ok(registry.register_with(instance, options.clone()))
        })
        .collect::<Result<_>>()?;
    let registered = all.iter().map(Registration::registered);
    timeout(DEADLINE, try_join_all(registered)).await??;
    let taken = start.elapsed();
    // What a start leaves to do is over within two renewals.
    sleep(idle / 3).await;
    let (before, start) = (cpu::process()?, Instant::now());
    sleep(idle).await;
    let worked = cpu::process()?.saturating_sub(before);
    let share = worked.div_duration_f64(start.elapsed());
    for registration in all {
        registration.deregister().await?;
    }
    Ok((taken, share))
}
