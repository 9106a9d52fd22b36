//! The watch over a scripted etcd, through random courses of faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::stabilise::{Crowd, Stabilise, Stabiliser};
use discovery_core::testkit::Checked;
use discovery_core::{Change, Changes, Instance, InstanceKey, Publisher, StatusReader};
use futures::{FutureExt as _, StreamExt as _};
use rand::rngs::{SmallRng, StdRng};
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Follower, Machine, Translator};
use crate::fake::{Fake, Faults, Moment, for_each_seed};
use crate::format::{Entry, Format as _, Native};
use crate::link::Link;
use crate::rotation::Rotation;

/// Every removal passes.
fn passing() -> Stabiliser {
    Stabiliser::new(Stabilise::new().suspects_for(Duration::ZERO), &Crowd::new(), false)
}

fn rotation() -> Rotation {
    Rotation::new(&["a", "b", "c"].map(str::to_owned), 1)
}

const PREFIX: &[u8] = b"/services/a/";

/// How often what is known is audited.
const AUDIT: Duration = Duration::from_secs(30);

fn native() -> Native {
    Native::new("/services")
}

fn key(number: usize) -> Vec<u8> {
    format!("/services/a/{number}").into_bytes()
}

fn value(port: u16) -> Vec<u8> {
    format!(r#"{{"address":"10.0.0.1:{port}"}}"#).into_bytes()
}

/// What a moment of the store means; `None` where the value cannot be read.
fn meant(moment: &Moment) -> BTreeMap<InstanceKey, Option<Instance>> {
    let watched = moment.keys.iter().filter(|(key, _)| key.starts_with(PREFIX));
    watched
        .filter_map(|(key, entry)| {
            native().record(key).ok()?;
            let decoded = native().decode(&[Entry { key, value: &entry.value }]);
            let name = key.strip_prefix(PREFIX)?;
            let id = std::str::from_utf8(name).ok()?.parse().ok()?;
            let instance = decoded.ok().and_then(|decoded| decoded.into_instances().next());
            Some((InstanceKey::new("a".parse().unwrap(), id), instance))
        })
        .collect()
}

type Reader = Checked<Changes<InstanceKey, Instance>, InstanceKey, Arc<Instance>>;

struct Rig {
    etcd: Fake,
    reader: Reader,
    status: StatusReader,
    task: JoinHandle<()>,
    closed: watch::Sender<bool>,
    /// The earliest moment of the store that the reader may have: it never goes back.
    moment: usize,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let etcd = Fake::new(seed);
        let publisher = Publisher::new();
        let changes = publisher.subscribe();
        let status = changes.status();
        let (closed, closes) = watch::channel(false);
        let mut rng = StdRng::seed_from_u64(seed);
        let (link, work) = Link::new(etcd.clone(), rotation(), false, StdRng::from_rng(&mut rng));
        tokio::spawn(work);
        let follower = Follower::new(
            link.join(),
            Machine::new(PREFIX.to_vec(), Some(AUDIT), SmallRng::from_rng(&mut rng)),
            Translator::new(Arc::new(native()), Some("a".parse().unwrap())),
            publisher,
            passing(),
        );
        let task = tokio::spawn(Box::new(follower).follow(closes));
        Self { etcd, reader: Checked::new(changes), status, task, closed, moment: 0 }
    }

    /// Reads all there is, and checks that it was so in the store at one moment.
    fn drain(&mut self) {
        let mut news = false;
        while let Some(change) = self.reader.next().now_or_never() {
            news = true;
            match change.expect("no fault ends a stream") {
                Change::Insert(key, instance) => {
                    let invented = self.etcd.with(|store| {
                        !store.log[self.moment..].iter().any(|moment| {
                            meant(moment).get(&key) == Some(&Some((*instance).clone()))
                        })
                    });
                    assert!(!invented, "{key} never was {instance:?}");
                }
                Change::Remove(_) | Change::Synced => {}
                other => panic!("{other:?}"),
            }
        }
        if news && self.reader.is_synced() {
            let set = self.reader.set();
            let moment = self.etcd.with(|store| {
                let log = store.log[self.moment..].iter();
                log.enumerate().find(|(_, moment)| fits(set, moment)).map(|(index, _)| index)
            });
            self.moment += moment.unwrap_or_else(|| panic!("never was there a set {set:?}"));
        }
        assert!(!self.task.is_finished());
    }

    fn is_right(&mut self) -> bool {
        self.drain();
        let set = self.reader.set();
        self.status.get().is_fresh() && self.etcd.with(|store| fits(set, store.now()))
    }

    async fn until_right(&mut self, within: Duration) {
        let from = Instant::now();
        while !self.is_right() {
            let now = self.etcd.with(|store| store.now().clone());
            let (set, status) = (self.reader.set(), self.status.get());
            assert!(from.elapsed() < within, "after {within:?} {status:?}\n{set:?}\n{now:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn write(&self, number: usize, value: Option<Vec<u8>>) {
        self.etcd.with(|store| store.write(vec![(key(number), value.map(|value| (value, 0)))]));
    }

    fn ports(&mut self) -> Vec<String> {
        self.drain();
        self.reader.set().values().map(|instance| instance.address.to_string()).collect()
    }

    async fn settle(&mut self) {
        self.until_right(Duration::from_secs(1)).await;
    }

    /// The last reader goes, and everything behind it.
    async fn ends(self) {
        drop(self.reader);
        timeout(Duration::from_secs(1), self.task).await.expect("the task ends").unwrap();
        let closed = async {
            while self.etcd.open() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(1), closed).await.expect("the connection is closed");
    }
}

/// Whether `set` is what a reader has at that moment. For a key whose value cannot be read it may
/// have a former one, or none.
fn fits(set: &BTreeMap<InstanceKey, Arc<Instance>>, moment: &Moment) -> bool {
    let meant = meant(moment);
    meant.iter().all(|(key, instance)| match instance {
        Some(instance) => set.get(key).is_some_and(|there| **there == *instance),
        None => true,
    }) && set.keys().all(|key| meant.contains_key(key))
}

async fn course(seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut rig = Rig::new(seed);
    rig.etcd.with(|store| store.page = rng.random_range(1..6));
    for _ in 0..rng.random_range(20..60) {
        let value = match rng.random_range(0..8) {
            0 => b"{".to_vec(),
            1 => b"\xff".to_vec(),
            _ => value(rng.random_range(1..5)),
        };
        let number = rng.random_range(0..8);
        match rng.random_range(0..100) {
            0..30 => rig.write(number, Some(value)),
            30..45 => rig.write(number, None),
            45..55 => {
                // Several keys in one revision, and some that are none of ours.
                let mut changes: BTreeMap<_, _> = (0..rng.random_range(2..6))
                    .map(|_| (key(rng.random_range(0..8)), None))
                    .collect();
                for change in changes.values_mut() {
                    *change = rng.random_bool(0.6).then(|| (value.clone(), 0));
                }
                changes.insert(b"/services/ab/1".to_vec(), Some((value.clone(), 0)));
                changes.insert(b"/services/a/x/y".to_vec(), Some((value, 0)));
                rig.etcd.with(|store| store.write(changes.into_iter().collect()));
            }
            55..63 => rig.etcd.with(crate::fake::Store::compact),
            63..68 => rig.etcd.cut(),
            68..71 => rig.etcd.stall(),
            71..76 => rig.etcd.with(crate::fake::Store::end_a_watch),
            76..78 => rig.etcd.wipe(),
            78..81 => rig.etcd.restart(),
            81..88 => rig.etcd.set(Faults {
                trouble: rng.random_range(0.0..0.5),
                denied: if rng.random_bool(0.2) { 0.3 } else { 0.0 },
                busy: 0.0,
                ..Faults::default()
            }),
            88..92 => {
                let lag = Duration::from_millis(rng.random_range(0..2_000));
                rig.etcd.with(|store| store.lag = lag);
            }
            _ => rig.drain(),
        }
        if rng.random_bool(0.5) {
            sleep(Duration::from_secs(3).mul_f64(rng.random::<f64>().powi(3))).await;
        }
    }
    rig.etcd.set(Faults::default());
    rig.etcd.with(|store| store.lag = Duration::ZERO);
    // The longest of it: 15 s until a stalled connection is found dead, or 12 s after a denial.
    rig.until_right(Duration::from_secs(20)).await;
    // Well again, it stays so and follows at once.
    sleep(Duration::from_secs(20)).await;
    let load = rig.etcd.load();
    for number in 0..8 {
        rig.write(number, Some(value(99)));
        rig.settle().await;
        assert_eq!(rig.ports().len(), rig.reader.set().len());
    }
    assert!(rig.ports().iter().all(|port| port.ends_with(":99")), "{:?}", rig.ports());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.etcd.load(), load, "neither connected nor listed anew");
    rig.ends().await;
}

#[test]
fn whatever_happens_the_set_becomes_the_stores_and_is_never_anything_else() {
    for_each_seed(400, course);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_value_stays_while_another_cannot_be_read() {
    let mut rig = Rig::new(1);
    rig.write(1, Some(value(1)));
    rig.write(2, Some(b"{".to_vec()));
    rig.settle().await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:1"]);
    rig.write(1, Some(b"{".to_vec()));
    rig.settle().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:1"]);
    // Also across a new list.
    rig.etcd.cut();
    sleep(Duration::from_secs(1)).await;
    rig.settle().await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:1"]);
    rig.write(1, Some(value(2)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:2"]);
    rig.write(1, None);
    sleep(Duration::from_secs(1)).await;
    assert!(rig.ports().is_empty());
    rig.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_leaves_the_set_and_makes_it_stale() {
    let mut rig = Rig::new(1);
    rig.write(1, Some(value(1)));
    rig.settle().await;
    rig.etcd.set(Faults { trouble: 1.0, ..Faults::default() });
    rig.etcd.cut();
    sleep(Duration::from_millis(10)).await;
    assert!(rig.status.get().is_stale());
    assert_eq!(rig.ports(), ["http://10.0.0.1:1"]);
    // A delete that was compacted meanwhile.
    rig.write(1, None);
    rig.etcd.with(crate::fake::Store::compact);
    rig.etcd.set(Faults::default());
    rig.until_right(Duration::from_secs(6)).await;
    assert!(rig.ports().is_empty());
    rig.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_forgot_to_tell_is_found_by_the_audit() {
    let mut rig = Rig::new(1);
    rig.write(1, Some(value(1)));
    rig.write(2, Some(value(2)));
    rig.settle().await;
    let lists = rig.etcd.load().1;
    sleep(AUDIT * 3).await;
    rig.drain();
    assert_eq!(rig.etcd.load().1, lists, "nothing differs, so nothing is listed");
    let changes = |value: Option<Vec<u8>>| value.map(|value| (value, 0));
    rig.etcd.with(|store| {
        store.write_unseen(vec![(key(1), None), (key(2), changes(Some(value(3))))]);
    });
    rig.etcd.with(|store| store.write_unseen(vec![(key(4), changes(Some(value(4))))]));
    assert_eq!(rig.ports(), ["http://10.0.0.1:1", "http://10.0.0.1:2"]);
    rig.until_right(AUDIT.mul_f64(1.2) + Duration::from_secs(3)).await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:3", "http://10.0.0.1:4"]);
    assert_eq!(rig.etcd.load(), (1, lists + 1));
    rig.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_wiped_store_is_believed_though_its_revisions_are_lower() {
    let mut rig = Rig::new(1);
    for port in 1..50 {
        rig.write(1, Some(value(port)));
    }
    rig.settle().await;
    assert_eq!(rig.ports().len(), 1);
    rig.etcd.wipe();
    rig.write(2, Some(value(7)));
    rig.settle().await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:7"]);
    rig.write(2, Some(value(8)));
    rig.settle().await;
    assert_eq!(rig.ports(), ["http://10.0.0.1:8"]);
    rig.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_registry_ends_the_stream_after_everything_was_told() {
    let mut rig = Rig::new(1);
    rig.write(1, Some(value(1)));
    rig.settle().await;
    rig.closed.send_replace(true);
    assert!(timeout(Duration::from_secs(1), rig.reader.next()).await.unwrap().is_none());
    timeout(Duration::from_secs(1), rig.task).await.expect("the task ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_dropped_leaves_its_readers() {
    let mut rig = Rig::new(1);
    rig.write(1, Some(value(1)));
    rig.settle().await;
    rig.closed = watch::channel(false).0;
    rig.write(1, Some(value(2)));
    rig.settle().await;
    rig.ends().await;
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn what_the_audit_repairs_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    // The runtime of this test has no other thread.
    let _here = metrics::set_default_local_recorder(&recorder);
    let told = |line: &str| {
        let text = recorder.handle().render();
        let line =
            line.replace("{}", &format!("{{prefix=\"{}\"}}", str::from_utf8(PREFIX).unwrap()));
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    };
    let mut rig = Rig::new(1);
    rig.settle().await;
    told("discovery_etcd_repairs_total{} 0");
    rig.etcd.with(|store| {
        store.write_unseen(vec![(key(1), Some((value(1), 0))), (key(2), Some((value(2), 0)))]);
    });
    rig.until_right(AUDIT.mul_f64(1.2) + Duration::from_secs(3)).await;
    told("discovery_etcd_repairs_total{} 1");
    told("discovery_etcd_repaired_keys_total{} 2");
    told("discovery_etcd_lists_total{} 2");
    rig.ends().await;
}
