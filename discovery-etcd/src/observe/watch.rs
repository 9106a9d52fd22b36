//! Figures of what follows a prefix.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::{State, Status, StatusReader};
use tokio::time::sleep;

use super::facade::{count, set};
use super::figures::{
    AUDITS, EVENTS, Figure, INSTANCES, LISTS, REPAIRED_KEYS, REPAIRS, STALE, UNDECODABLE,
};

const PREFIX: &str = "prefix";
/// The resolution of the seconds that count up.
const WHILE_STALE: Duration = Duration::from_secs(1);
/// Gauges are told again after this, for recorders that come late or forget.
const WHILE_FRESH: Duration = Duration::from_secs(15);

/// Counts what happens to one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    prefix: Arc<str>,
}

impl Watch {
    pub(crate) fn new(prefix: &[u8]) -> Self {
        let watch = Self { prefix: label(prefix) };
        for figure in [&LISTS, &EVENTS, &AUDITS, &REPAIRS, &REPAIRED_KEYS, &UNDECODABLE] {
            watch.count(figure, 0);
        }
        watch
    }

    /// The whole prefix was listed.
    pub(crate) fn listed(&self) {
        self.count(&LISTS, 1);
    }

    /// So many changes followed.
    pub(crate) fn changed(&self, events: usize) {
        self.count(&EVENTS, events);
    }

    pub(crate) fn audited(&self) {
        self.count(&AUDITS, 1);
    }

    /// The audit found so many keys to differ.
    pub(crate) fn repaired(&self, differing: usize) {
        self.count(&REPAIRS, 1);
        self.count(&REPAIRED_KEYS, differing);
    }

    /// A key or a value that cannot be read is reported.
    pub(crate) fn undecodable(&self) {
        self.count(&UNDECODABLE, 1);
    }

    fn count(&self, figure: &Figure, by: usize) {
        count(figure, &[(PREFIX, &self.prefix)], by.try_into().unwrap_or(u64::MAX));
    }
}

/// Goes on with `following` and shows meanwhile how its set is doing; no longer once it has ended.
pub(crate) async fn showing(
    prefix: Vec<u8>,
    mut status: StatusReader,
    mut following: impl Future<Output = ()> + Unpin,
) {
    let shown = Shown::new(&prefix);
    loop {
        let now = status.get();
        shown.set(Gauges::of(&now));
        let pause = if now.is_fresh() { WHILE_FRESH } else { WHILE_STALE };
        tokio::select! {
            biased;
            () = &mut following => return,
            true = status.changed() => {}
            () = sleep(pause) => {}
        }
    }
}

/// How the set of one watch is doing.
#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    instances: u32,
    stale: f64,
}

impl Gauges {
    fn of(status: &Status) -> Self {
        let stale = match status.state {
            State::Loading(_) | State::Stale(_) => status.elapsed().as_secs_f64(),
            _ => 0.0,
        };
        Self { instances: status.endpoints.try_into().unwrap_or(u32::MAX), stale }
    }
}

type All = BTreeMap<Arc<str>, BTreeMap<u64, Gauges>>;

/// The watches of all registries, since several can follow the same prefix: also for a moment, while
/// one that nobody reads any more has not ended yet.
static ALL: Mutex<All> = Mutex::new(All::new());

/// One watch among all of them.
struct Shown {
    prefix: Arc<str>,
    id: u64,
}

impl Shown {
    fn new(prefix: &[u8]) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self { prefix: label(prefix), id: IDS.fetch_add(1, Ordering::Relaxed) }
    }

    fn set(&self, gauges: Gauges) {
        self.tell(|watches| {
            watches.insert(self.id, gauges);
        });
    }

    /// Tells what all watches of this prefix come to after a change: under the lock, so that the last
    /// word is about the last change.
    fn tell(&self, change: impl FnOnce(&mut BTreeMap<u64, Gauges>)) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let watches = all.entry(self.prefix.clone()).or_default();
        change(watches);
        let instances: f64 = watches.values().map(|gauges| f64::from(gauges.instances)).sum();
        let stale = watches.values().map(|gauges| gauges.stale).fold(0.0, f64::max);
        if watches.is_empty() {
            all.remove(&self.prefix);
        }
        let labels = [(PREFIX, &*self.prefix)];
        set(&INSTANCES, &labels, instances);
        set(&STALE, &labels, stale);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.tell(|watches| {
            watches.remove(&self.id);
        });
    }
}

fn label(prefix: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(prefix).into()
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use discovery_core::{Publisher, SourceError};
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
    use tokio::sync::oneshot;

    use super::*;

    fn recorder() -> PrometheusRecorder {
        PrometheusBuilder::new().build_recorder()
    }

    /// The gauge of the prefix `p`.
    fn gauge(recorder: &PrometheusRecorder, name: &str) -> Option<f64> {
        let text = recorder.handle().render();
        let start = format!("{name}{{prefix=\"p\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn gauges_follow_a_set_grow_while_it_is_stale_and_reach_a_late_recorder() {
        let early = recorder();
        // The runtime of this test has no other thread.
        let here = metrics::set_default_local_recorder(&early);
        let (instances, stale) = ("discovery_etcd_instances", "discovery_etcd_stale_seconds");
        let mut publisher = Publisher::<u8, u8>::new();
        let status = publisher.status();
        let (end, ends) = oneshot::channel::<()>();
        let task = tokio::spawn(showing(
            b"p".to_vec(),
            status,
            Box::pin(async {
                let _ = ends.await;
            }),
        ));
        // Time stands still until nothing else is to be done.
        let settle = || sleep(Duration::from_millis(1));
        settle().await;
        assert_eq!((gauge(&early, instances), gauge(&early, stale)), (Some(0.0), Some(0.0)));
        sleep(Duration::from_millis(5500)).await;
        let loading = gauge(&early, stale).unwrap();
        assert!((5.0..5.5).contains(&loading), "{loading}");
        publisher.replace([(1, 1), (2, 2)], Some(1));
        settle().await;
        assert_eq!((gauge(&early, instances), gauge(&early, stale)), (Some(2.0), Some(0.0)));
        publisher.trouble(SourceError::new("away"));
        sleep(Duration::from_millis(2500)).await;
        let away = gauge(&early, stale).unwrap();
        assert!((2.0..2.5).contains(&away), "{away}");
        publisher.fresh();
        settle().await;
        assert_eq!(gauge(&early, stale), Some(0.0));
        drop(here);

        let late = recorder();
        let _here = metrics::set_default_local_recorder(&late);
        sleep(WHILE_FRESH).await;
        assert_eq!((gauge(&late, instances), gauge(&late, stale)), (Some(2.0), Some(0.0)));
        // Also when the publisher is gone and nothing will change any more.
        drop(publisher);
        sleep(WHILE_FRESH).await;
        drop(end);
        task.await.unwrap();
        assert_eq!(gauge(&late, instances), Some(0.0));
    }
}
