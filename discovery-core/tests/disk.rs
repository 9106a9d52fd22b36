//! The last good set on disk: what readers see of it, and when it is written.
#![cfg(all(feature = "disk", feature = "testkit"))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use discovery_core::disk::{FromDisk, LastGood, LastGoodError, LastGoodOptions};
use discovery_core::testkit::{self, Checked, Faults, Subject};
use discovery_core::{
    Change, Instance, InstanceChanges, InstanceKey, MemoryRegistry, Publisher, ServiceName, Source,
    SourceError, StatusReader, Update,
};
use futures::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

type Reader = Checked<InstanceChanges, InstanceKey, Arc<Instance>>;

/// A source that loads, fails and is closed when it is told to. All its readers see the same set.
#[derive(Clone, Default)]
struct Feed {
    publisher: Arc<Mutex<Option<Publisher<InstanceKey, Instance>>>>,
    watches: Arc<AtomicUsize>,
}

impl Feed {
    /// One that has not loaded.
    fn loading() -> Self {
        let publisher = Arc::new(Mutex::new(Some(Publisher::new())));
        Self { publisher, watches: Arc::default() }
    }

    fn loaded(ids: impl IntoIterator<Item = u16>) -> Self {
        let feed = Self::loading();
        feed.load(ids);
        feed
    }

    fn publisher<T>(&self, f: impl FnOnce(&mut Publisher<InstanceKey, Instance>) -> T) -> T {
        f(self.publisher.lock().unwrap().as_mut().unwrap())
    }

    fn load(&self, ids: impl IntoIterator<Item = u16>) {
        let set: Vec<_> =
            ids.into_iter().map(|id| (instance(id, 1).key(), instance(id, 1))).collect();
        self.publisher(|publisher| publisher.replace(set, None));
    }

    fn trouble(&self, error: &'static str) {
        self.publisher(|publisher| publisher.trouble(SourceError::new(error)));
    }

    fn is_watched(&self) -> bool {
        self.publisher.lock().unwrap().as_ref().is_some_and(|publisher| !publisher.is_unused())
    }

    fn close(&self) {
        self.publisher.lock().unwrap().take().unwrap().close();
    }
}

impl Source for Feed {
    fn watch(&self, _: &ServiceName) -> InstanceChanges {
        self.watch_all()
    }

    fn watch_all(&self) -> InstanceChanges {
        self.watches.fetch_add(1, Ordering::Relaxed);
        self.publisher(|publisher| publisher.subscribe())
    }
}

fn instance(id: u16, version: u16) -> Instance {
    let address = format!("10.0.0.1:{}", 8000 + version);
    Instance::parse("orders", &id.to_string(), &address).unwrap()
}

fn orders() -> ServiceName {
    "orders".parse().unwrap()
}

fn last_good(feed: &Feed, directory: &Path) -> LastGood<Feed> {
    LastGood::new(feed.clone(), options(directory)).unwrap()
}

fn options(directory: &Path) -> LastGoodOptions {
    LastGoodOptions::new(directory).source_name("feed")
}

fn path(directory: &Path) -> PathBuf {
    directory.join("service.orders.last-good")
}

/// What stands in the file of `orders`.
fn body(directory: &Path) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(path(directory)).ok()?;
    Some(serde_json::from_str(text.split_once('\n')?.1).unwrap())
}

fn saved(directory: &Path) -> Option<BTreeSet<u16>> {
    let body = body(directory)?;
    let instances = body["instances"].as_array().unwrap().iter();
    Some(instances.map(|each| each["id"].as_str().unwrap().parse().unwrap()).collect())
}

fn ids(reader: &Reader) -> BTreeSet<u16> {
    reader.set().keys().map(|key| key.id.as_str().parse().unwrap()).collect()
}

/// Takes what is there now.
fn told(reader: &mut Reader) -> Vec<Change<InstanceKey, Arc<Instance>>> {
    std::iter::from_fn(|| reader.next().now_or_never().flatten()).collect()
}

/// Lets everything be done that can be done at this moment. Paused time goes on only when all tasks
/// wait for it, and not while a file is read or written.
async fn rest() {
    sleep(Duration::from_millis(1)).await;
}

/// A directory in which an earlier run saved these.
async fn left_behind(ids: impl IntoIterator<Item = u16>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = last_good(&Feed::loaded(ids), directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    rest().await;
    told(&mut reader);
    assert_eq!(saved(directory.path()), Some(whole(&reader)));
    directory
}

fn whole(reader: &Reader) -> BTreeSet<u16> {
    assert!(reader.is_synced());
    ids(reader)
}

fn set(ids: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
    ids.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_away_the_saved_set_is_served_as_stale() {
    let directory = left_behind(1..=3).await;
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    let status = reader.get_ref().status();
    feed.trouble("connection refused");
    let start = Instant::now();
    rest().await;
    assert_eq!(told(&mut reader), []);
    let now = status.get();
    assert!(!now.loaded && now.state.error().unwrap().to_string() == "connection refused");

    sleep(Duration::from_secs(60)).await;
    told(&mut reader);
    assert_eq!((whole(&reader), status.get().endpoints), (set(1..=3), 3));
    let stale = status.get();
    assert!(stale.loaded && stale.is_stale());
    let error = stale.state.error().unwrap();
    let from = error.get_ref().downcast_ref::<FromDisk>().unwrap();
    assert_eq!(from.cause().unwrap().to_string(), "connection refused");
    // The wall clock is not paused: some of its seconds may have gone by.
    let text = error.to_string();
    let (age, cause) =
        text.strip_prefix("from disk, saved ").unwrap().split_once(" s ago: ").unwrap();
    let age: u64 = age.parse().unwrap();
    assert!((60..120).contains(&age) && cause == "connection refused", "{text}");
    assert_eq!((stale.since, stale.elapsed().as_secs()), (from.saved(), age));
    assert!(stale.elapsed() >= start.elapsed());

    // Its words may change; since when it is stale does not.
    feed.trouble("no route");
    rest().await;
    assert_eq!(status.get().since, stale.since);
    assert!(status.get().state.error().unwrap().to_string().ends_with("s ago: no route"));
    assert_eq!(told(&mut reader), [], "a cause is no change");

    feed.load(2..=4);
    rest().await;
    let changes = told(&mut reader);
    assert_eq!(changes.len(), 3, "one insert, one remove, synced: {changes:?}");
    assert_eq!(whole(&reader), set(2..=4));
    assert!(status.get().is_fresh());
    assert_eq!(saved(directory.path()), Some(set(2..=4)));

    // It has loaded: its own last set is what is served from now on.
    feed.trouble("gone");
    rest().await;
    assert_eq!(status.get().state.error().unwrap().to_string(), "gone");
    assert!(told(&mut reader).is_empty() && status.get().is_stale());
}

#[tokio::test(start_paused = true)]
async fn the_saved_set_is_never_told_as_fresh_and_never_as_a_part() {
    let directory = left_behind(0..100).await;
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    let mut status = reader.get_ref().status();
    let states = tokio::spawn(async move {
        let mut states = vec![status.get().state.name()];
        while states.len() < 3 && status.changed().await {
            states.push(status.get().state.name());
            states.dedup();
        }
        states
    });
    let mut sizes = BTreeSet::new();
    let start = Instant::now();
    while reader.next().await != Some(Change::Synced) {
        sizes.insert(start.elapsed().as_millis());
    }
    assert_eq!(sizes, BTreeSet::from([500]), "all at once, when the grace is over");
    assert_eq!(reader.set().len(), 100);
    feed.load(0..1);
    assert_eq!(states.await.unwrap(), ["loading", "stale", "fresh"]);
}

/// Notes the state at the moment at which a reader is woken.
struct Looks {
    status: StatusReader,
    states: Mutex<Vec<&'static str>>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.states.lock().unwrap().push(self.status.get().state.name());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_woken_for_the_saved_set_finds_it_stale() {
    let directory = left_behind(1..=3).await;
    let source = last_good(&Feed::loading(), directory.path());
    let mut reader = source.watch(&orders());
    let looks = Arc::new(Looks { status: reader.status(), states: Mutex::default() });
    let waker = Waker::from(looks.clone());
    assert!(reader.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*looks.states.lock().unwrap(), ["stale"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_not_tried_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(path(directory.path())).unwrap();
    let feed = Feed::loaded([1]);
    let options = options(directory.path()).save_every(Duration::ZERO);
    let _reader = LastGood::new(feed.clone(), options).unwrap().watch(&orders());
    // Paused time goes on only while nothing is being written: else this would not end.
    sleep(Duration::from_secs(10)).await;
    std::fs::remove_dir(path(directory.path())).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(saved(directory.path()), Some(set([1])));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_loads_in_time_is_all_that_readers_see() {
    let directory = left_behind(1..=3).await;
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    feed.trouble("the first address does not answer");
    sleep(Duration::from_millis(499)).await;
    assert_eq!(told(&mut reader), []);
    feed.load([7]);
    sleep(Duration::from_secs(60)).await;
    let changes = told(&mut reader);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(whole(&reader), set([7]));
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_the_saved_set_is_there_as_soon_as_it_is_read() {
    let directory = left_behind(1..=3).await;
    let feed = Feed::loading();
    let source = LastGood::new(feed, options(directory.path()).grace(Duration::ZERO)).unwrap();
    let mut reader = Checked::new(source.watch(&orders()));
    rest().await;
    told(&mut reader);
    assert_eq!(whole(&reader), set(1..=3));
    // A source that has loaded needs no file.
    let loaded = options(directory.path()).grace(Duration::ZERO);
    let source = LastGood::new(Feed::loaded([9]), loaded).unwrap();
    let mut reader = Checked::new(source.watch(&orders()));
    rest().await;
    assert_eq!(told(&mut reader).len(), 2);
    assert_eq!(whole(&reader), set([9]));
}

#[tokio::test(start_paused = true)]
async fn from_any_saved_set_to_any_other_only_what_differs_is_told() {
    for (before, after) in [(1_u16, 0_u16), (0b0011, 0b0110), (0b1111, 0), (0b1111, 0b1111), (8, 7)]
    {
        let of = |bits: u16| (0..4).filter(move |id| bits & (1 << id) != 0);
        let directory = left_behind(of(before)).await;
        let feed = Feed::loading();
        let source = last_good(&feed, directory.path());
        let mut reader = Checked::new(source.watch(&orders()));
        sleep(Duration::from_secs(1)).await;
        told(&mut reader);
        assert_eq!(whole(&reader), set(of(before)));
        feed.load(of(after));
        rest().await;
        let changes = told(&mut reader).into_iter().filter(|change| change.key().is_some()).count();
        assert_eq!(changes, (0..4).filter(|id| (before ^ after) & (1 << id) != 0).count());
        assert_eq!(whole(&reader), set(of(after)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_saved_set_that_is_empty_is_none() {
    let directory = left_behind([]).await;
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(told(&mut reader), []);
    assert!(!reader.get_ref().status().get().loaded);
}

#[tokio::test(start_paused = true)]
async fn a_set_is_saved_at_once_and_then_not_for_each_change() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let _reader = source.watch(&orders());
    rest().await;
    assert_eq!(saved(directory.path()), Some(set([1])));
    let start = Instant::now();
    let mut files = BTreeSet::new();
    for id in 2..=100 {
        feed.load(1..=id);
        sleep(Duration::from_millis(100)).await;
        files.insert(saved(directory.path()).unwrap());
    }
    assert_eq!(start.elapsed().as_millis(), 9_900);
    assert_eq!(files.len(), 2, "the first, and that of 5 s later");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(saved(directory.path()), Some(set(1..=100)));
}

#[tokio::test(start_paused = true)]
async fn only_a_fresh_set_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let reader = source.watch(&orders());
    rest().await;
    feed.trouble("gone");
    feed.publisher(|publisher| {
        publisher.apply([Update::Insert(instance(2, 1).key(), instance(2, 1))], None);
    });
    sleep(Duration::from_secs(60)).await;
    assert_eq!(saved(directory.path()), Some(set([1])));
    drop(reader);
    rest().await;
    assert!(!feed.is_watched());
    assert_eq!(saved(directory.path()), Some(set([1])));

    let _reader = source.watch(&orders());
    rest().await;
    assert_eq!(saved(directory.path()), Some(set([1])));
    feed.publisher(Publisher::fresh);
    rest().await;
    assert_eq!(saved(directory.path()), Some(set(1..=2)));
}

#[tokio::test(start_paused = true)]
async fn what_was_fresh_is_saved_also_when_the_source_is_lost_before_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let _reader = source.watch(&orders());
    rest().await;
    feed.load(1..=3);
    sleep(Duration::from_millis(100)).await;
    feed.trouble("gone");
    rest().await;
    assert_eq!(saved(directory.path()), Some(set([1])), "saved a moment ago");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(saved(directory.path()), Some(set(1..=3)));
}

#[tokio::test(start_paused = true)]
async fn the_last_set_is_saved_when_the_last_reader_goes_and_then_the_work_stops() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let (one, two) = (source.watch(&orders()), source.watch(&orders()));
    let other = source.clone().watch(&orders());
    rest().await;
    assert_eq!(feed.watches.load(Ordering::Relaxed), 1, "they share one");
    feed.load(1..=2);
    rest().await;
    drop((one, two));
    rest().await;
    assert!(feed.is_watched());
    assert_eq!(saved(directory.path()), Some(set([1])));
    drop(other);
    rest().await;
    assert!(!feed.is_watched());
    assert_eq!(saved(directory.path()), Some(set(1..=2)));

    // The next reader begins anew.
    let _reader = source.watch(&orders());
    assert!(feed.is_watched());
    assert_eq!(feed.watches.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_does_not_change_does_not_grow_old() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Feed::loaded([1]);
    let _reader = last_good(&feed, directory.path()).watch(&orders());
    rest().await;
    std::fs::remove_file(path(directory.path())).unwrap();
    sleep(Duration::from_secs(3590)).await;
    assert_eq!(saved(directory.path()), None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(saved(directory.path()), Some(set([1])));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_closed_ends_the_streams_and_its_last_set_is_saved() {
    let directory = left_behind([1]).await;
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    rest().await;
    feed.load(1..=2);
    feed.close();
    rest().await;
    assert_eq!(told(&mut reader).len(), 3);
    assert!(reader.has_ended());
    assert_eq!(saved(directory.path()), Some(set(1..=2)));

    // One that never loaded has nothing to save, and what was saved ends with it.
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    sleep(Duration::from_secs(1)).await;
    told(&mut reader);
    assert_eq!(whole(&reader), set(1..=2));
    feed.close();
    rest().await;
    assert!(told(&mut reader).is_empty() && reader.has_ended());
    assert_eq!(saved(directory.path()), Some(set(1..=2)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_off_leaves_its_readers_what_they_have() {
    let directory = left_behind([1]).await;
    let feed = Feed::loading();
    let source = last_good(&feed, directory.path());
    let mut reader = Checked::new(source.watch(&orders()));
    drop(feed.publisher.lock().unwrap().take());
    sleep(Duration::from_secs(1)).await;
    told(&mut reader);
    assert_eq!(whole(&reader), set([1]));
    let status = reader.get_ref().status().get();
    assert!(status.is_stale());
    assert!(status.state.error().unwrap().to_string().contains("without being closed"));
}

/// What was logged while this lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        /// With one subscriber alone, a line that another test's thread reaches first is turned off
        /// for all threads, since that thread has none.
        static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| {
            tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish())
        });
        let log = Self::default();
        let sink = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(level)).map(ToOwned::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Spoil = Box<dyn Fn(&Path)>;

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_good_is_named_once_and_ignored() {
    let directory = left_behind(1..=3).await;
    let good = std::fs::read(path(directory.path())).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let directory_in_its_place: fn(&Path) = |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    let replaced = |bytes: Vec<u8>| move |path: &Path| std::fs::write(path, &bytes).unwrap();
    let cases: Vec<(&str, Spoil)> = vec![
        ("damaged", Box::new(replaced(good[..good.len() - 1].to_vec()))),
        ("not a last good set", Box::new(replaced(Vec::new()))),
        ("not a last good set", Box::new(replaced(vec![0; 100]))),
        ("version", Box::new(replaced(text.replace("version 1", "version 2").into()))),
        ("not a file", Box::new(directory_in_its_place)),
    ];
    let fails = async |case: &str, source: LastGood<Feed>, service: &str| {
        let (log, _guard) = Log::start();
        let mut reader = Checked::new(source.watch(&service.parse().unwrap()));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(told(&mut reader), [], "{case}");
        assert_eq!(reader.get_ref().status().get().state.name(), "loading", "{case}");
        let lines = log.lines("WARN");
        let path = directory.path().join(format!("service.{service}.last-good"));
        assert_eq!(lines.len(), 1, "{case}: {lines:?}");
        let parts = [case, path.to_str().unwrap()];
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{case}: {lines:?}");
    };
    for (case, spoil) in cases {
        spoil(&path(directory.path()));
        fails(case, last_good(&Feed::loading(), directory.path()), "orders").await;
        let _ = std::fs::remove_dir(path(directory.path()));
        std::fs::write(path(directory.path()), &good).unwrap();
    }
    let other = options(directory.path()).source_name("other");
    fails("of the source", LastGood::new(Feed::loading(), other).unwrap(), "orders").await;
    std::fs::copy(path(directory.path()), directory.path().join("service.users.last-good"))
        .unwrap();
    fails("of the service orders", last_good(&Feed::loading(), directory.path()), "users").await;
    // The wall clock goes on by itself.
    let young = options(directory.path()).max_age(Duration::ZERO);
    let saved_at = body(directory.path()).unwrap()["saved"].as_u64().unwrap();
    while std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() <= saved_at {
        tokio::task::yield_now().await;
    }
    fails("more than 0 s", LastGood::new(Feed::loading(), young).unwrap(), "orders").await;
    // None at all is nothing to be told of.
    std::fs::remove_file(path(directory.path())).unwrap();
    let (log, _guard) = Log::start();
    let _reader = last_good(&Feed::loading(), directory.path()).watch(&orders());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines(" "), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_told_once_and_disturbs_nobody() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(path(directory.path())).unwrap();
    let feed = Feed::loaded([1]);
    let source = last_good(&feed, directory.path());
    let (log, _guard) = Log::start();
    let mut reader = Checked::new(source.watch(&orders()));
    for id in 1..=20 {
        feed.load(1..=id);
        sleep(Duration::from_secs(4)).await;
        told(&mut reader);
        assert_eq!(whole(&reader), set(1..=id));
        assert!(reader.get_ref().status().get().is_fresh());
    }
    let told_of = |log: &Log| {
        let lines = log.lines("cannot be saved");
        assert!(lines.iter().all(|line| line.contains(path(directory.path()).to_str().unwrap())));
        lines.len()
    };
    sleep(Duration::from_secs(60)).await;
    assert_eq!((told_of(&log), log.lines("saved again").len()), (1, 0));
    std::fs::remove_dir(path(directory.path())).unwrap();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(saved(directory.path()), Some(set(1..=20)), "tried again without a change");
    assert_eq!((told_of(&log), log.lines("saved again").len()), (1, 1));
    // The same once more, and the last reader goes while it fails.
    std::fs::remove_file(path(directory.path())).unwrap();
    std::fs::create_dir(path(directory.path())).unwrap();
    feed.load([1]);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(told_of(&log), 2);
    drop(reader);
    rest().await;
    assert!(!feed.is_watched());
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let error = LastGood::new(Feed::loading(), options(directory.path())).unwrap_err();
    assert!(matches!(error, LastGoodError::NoRuntime));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for bad in [file.clone(), file.join("below")] {
        let error = LastGood::new(Feed::loading(), options(&bad)).unwrap_err().to_string();
        assert!(error.contains(bad.to_str().unwrap()), "{error}");
    }
}

/// For the test kit: the last good set over a source with faults.
struct Kept {
    feed: Feed,
    truth: BTreeMap<InstanceKey, Instance>,
    failed: bool,
    source: LastGood<Feed>,
    _directory: TempDir,
}

impl Kept {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let feed = Feed::loaded([]);
        // Written as often as can be, so that it gets in the way if it can.
        let options = options(directory.path()).save_every(Duration::ZERO);
        let source = LastGood::new(feed.clone(), options).unwrap();
        Self { feed, truth: BTreeMap::new(), failed: false, source, _directory: directory }
    }
}

impl Subject for Kept {
    type Key = InstanceKey;
    type Endpoint = Instance;
    type Reader = InstanceChanges;

    fn key(&self, number: u16) -> InstanceKey {
        instance(number, 0).key()
    }

    fn endpoint(&self, key: u16, version: u16) -> Instance {
        instance(key, version)
    }

    fn open(&mut self) -> InstanceChanges {
        self.source.watch(&orders())
    }

    fn status(&self, reader: &InstanceChanges) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, batch: Vec<Update<InstanceKey, Instance>>) {
        for update in batch.clone() {
            match update {
                Update::Insert(key, value) => drop(self.truth.insert(key, value)),
                Update::Remove(key) => drop(self.truth.remove(&key)),
                _ => unreachable!(),
            }
        }
        if !self.failed {
            self.feed.publisher(|publisher| publisher.apply(batch, None));
        }
    }

    fn settles_within(&self) -> Option<Duration> {
        Some(Duration::from_secs(20))
    }

    fn faults(&self) -> Faults {
        Faults::Changing
    }

    async fn fail(&mut self) {
        self.failed = true;
        self.feed.trouble("cut off");
    }

    async fn recover(&mut self) {
        self.failed = false;
        self.feed.publisher(|publisher| publisher.replace(self.truth.clone(), None));
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.feed.close();
    }

    fn is_working(&self) -> Option<bool> {
        Some(self.feed.is_watched())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_laws() {
    testkit::check(Kept::new()).await;
    testkit::random_history(Kept::new(), 1, 3_000).await;
}

#[tokio::test(start_paused = true)]
async fn all_services_have_a_set_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let registry = MemoryRegistry::new();
    for service in ["orders", "users"] {
        registry.insert(Instance::parse(service, "1", "127.0.0.1:80").unwrap());
    }
    let source = LastGood::new(registry, options(directory.path())).unwrap();
    let readers = (source.watch_all(), source.watch(&orders()));
    rest().await;
    drop(readers);
    let source = last_good(&Feed::loading(), directory.path());
    let (mut all, mut one) =
        (Checked::new(source.watch_all()), Checked::new(source.watch(&orders())));
    sleep(Duration::from_secs(1)).await;
    told(&mut all);
    told(&mut one);
    assert_eq!((all.set().len(), one.set().len()), (2, 1));
}
