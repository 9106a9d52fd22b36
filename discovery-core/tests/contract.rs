//! The contract test kit, run against everything in this crate that gives a stream of changes.
#![cfg(feature = "testkit")]

use std::collections::BTreeMap;
use std::sync::Arc;

use discovery_core::combine::{failover_changes, filter, map, merge, merge_changes};
use discovery_core::testkit::{self, Faults, STEPS, Set, Subject};
use discovery_core::{
    Changes, Instance, InstanceChanges, InstanceKey, MemoryRegistry, Publisher, Source,
    SourceError, StaticSource, StatusReader, Update, Weight,
};

/// Steps for what is slower than a publisher alone.
const FEWER: usize = 20_000;

fn run(future: impl Future<Output = ()>) {
    futures::executor::block_on(future);
}

/// A publisher whose source relists after each fault.
struct Published {
    publisher: Option<Publisher<u16, (u16, u16)>>,
    truth: BTreeMap<u16, (u16, u16)>,
    failed: bool,
    relists: usize,
}

impl Published {
    fn new() -> Self {
        let mut publisher = Publisher::new();
        publisher.fresh();
        Self { publisher: Some(publisher), truth: BTreeMap::new(), failed: false, relists: 0 }
    }
}

impl Subject for Published {
    type Key = u16;
    type Endpoint = (u16, u16);
    type Reader = Changes<u16, (u16, u16)>;

    fn key(&self, number: u16) -> u16 {
        number
    }

    fn endpoint(&self, key: u16, version: u16) -> (u16, u16) {
        (key, version)
    }

    fn open(&mut self) -> Self::Reader {
        self.publisher.as_ref().unwrap().subscribe()
    }

    fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, batch: Vec<Update<u16, (u16, u16)>>) {
        for update in &batch {
            match update {
                Update::Insert(key, value) => drop(self.truth.insert(*key, *value)),
                Update::Remove(key) => drop(self.truth.remove(key)),
                _ => unreachable!(),
            }
        }
        if !self.failed {
            self.publisher.as_mut().unwrap().apply(batch, None);
        }
    }

    fn faults(&self) -> Faults {
        Faults::Changing
    }

    async fn fail(&mut self) {
        self.failed = true;
        self.publisher.as_mut().unwrap().trouble(SourceError::new("cut off"));
    }

    async fn recover(&mut self) {
        self.failed = false;
        self.relists += 1;
        let publisher = self.publisher.as_mut().unwrap();
        if self.relists.is_multiple_of(2) {
            publisher.replace(self.truth.clone(), None);
        } else {
            // In pages, knowing of some keys only that they are as they were.
            let same =
                |(key, value): &(&u16, &_)| publisher.get(key).is_some_and(|have| *have == **value);
            let (kept, listed): (Vec<_>, Vec<_>) = self.truth.iter().partition(same);
            let mut replacement = publisher.replacement();
            for page in listed.chunks(3) {
                replacement.extend(page.iter().map(|(key, value)| (**key, **value)));
            }
            for (key, _) in kept {
                assert!(replacement.keep(key));
            }
            replacement.commit(None);
        }
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.publisher.take().unwrap().close();
    }

    fn is_working(&self) -> Option<bool> {
        self.publisher.as_ref().map(|publisher| !publisher.is_unused())
    }
}

type Instances = Set<InstanceKey, Instance>;

fn instance(key: u16, version: u16) -> Instance {
    let address = format!("10.0.0.{key}:{}", 8000 + version);
    let mut instance = Instance::parse("orders", &key.to_string(), &address).unwrap();
    instance.weight = Weight::new(version);
    instance
}

fn orders() -> discovery_core::ServiceName {
    "orders".parse().unwrap()
}

/// Anything made of memory registries.
struct Memory {
    registries: Vec<MemoryRegistry>,
    /// Which registries have the key.
    route: fn(u16) -> &'static [usize],
    open: Box<dyn FnMut() -> InstanceChanges>,
    visible: fn(&Instances) -> Instances,
}

impl Memory {
    fn one(open: impl Fn(&MemoryRegistry) -> InstanceChanges + 'static) -> Self {
        let registry = MemoryRegistry::new();
        let of = registry.clone();
        Self {
            registries: vec![registry],
            route: |_| &[0],
            open: Box::new(move || open(&of)),
            visible: Clone::clone,
        }
    }
}

impl Subject for Memory {
    type Key = InstanceKey;
    type Endpoint = Instance;
    type Reader = InstanceChanges;

    fn key(&self, number: u16) -> InstanceKey {
        InstanceKey::new(orders(), number.to_string().parse().unwrap())
    }

    fn endpoint(&self, key: u16, version: u16) -> Instance {
        instance(key, version)
    }

    fn open(&mut self) -> InstanceChanges {
        (self.open)()
    }

    fn status(&self, reader: &InstanceChanges) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, batch: Vec<Update<InstanceKey, Instance>>) {
        for (place, registry) in self.registries.iter().enumerate() {
            let own = batch.iter().filter_map(|update| {
                let (Update::Insert(key, _) | Update::Remove(key)) = update else { unreachable!() };
                let route = (self.route)(key.id.as_str().parse().unwrap());
                let mut update = update.clone();
                match &mut update {
                    // What comes behind the first is not to be seen.
                    Update::Insert(_, instance) if route[0] != place => {
                        instance.metadata.insert("hidden".into(), place.to_string());
                    }
                    _ => {}
                }
                route.contains(&place).then_some(update)
            });
            registry.apply(own.collect::<Vec<_>>());
        }
    }

    fn visible(&self, set: &Instances) -> Instances {
        (self.visible)(set)
    }

    fn faults(&self) -> Faults {
        Faults::Changing
    }

    async fn fail(&mut self) {
        for registry in &self.registries {
            registry.go_stale(SourceError::new("cut off"));
        }
    }

    async fn recover(&mut self) {
        self.registries.iter().for_each(MemoryRegistry::come_back);
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.registries.iter().for_each(MemoryRegistry::close);
    }
}

/// The laws one by one, then a random history.
fn check<S: Subject>(make: impl Fn() -> S, seed: u64, steps: usize) {
    run(async {
        testkit::check(make()).await;
        testkit::random_history(make(), seed, steps).await;
    });
}

#[test]
fn publisher() {
    check(Published::new, 1, STEPS);
}

#[test]
fn memory_registry_all_services() {
    check(|| Memory::one(Source::watch_all), 2, STEPS);
}

#[test]
fn memory_registry_one_service() {
    check(|| Memory::one(|registry| registry.watch(&orders())), 3, STEPS);
}

#[test]
fn mapped() {
    let heavier = |_: &InstanceKey, instance: &Instance| {
        let mut instance = instance.clone();
        // Some versions become equal by this.
        instance.weight = Weight::new(instance.weight.get() / 2);
        instance.address = "10.0.0.1:80".parse().unwrap();
        instance
    };
    let subject = move || {
        let mut subject = Memory::one(move |registry| map(registry.clone(), heavier).watch_all());
        subject.visible = |set| {
            set.iter()
                .map(|(key, instance)| {
                    let mut instance = instance.clone();
                    instance.weight = Weight::new(instance.weight.get() / 2);
                    instance.address = "10.0.0.1:80".parse().unwrap();
                    (key.clone(), instance)
                })
                .collect()
        };
        subject
    };
    check(subject, 4, FEWER);
}

#[test]
fn filtered() {
    fn wanted(_: &InstanceKey, instance: &Instance) -> bool {
        instance.weight.get().is_multiple_of(2)
    }
    let subject = || {
        let mut subject = Memory::one(|registry| filter(registry.clone(), wanted).watch_all());
        subject.visible = |set| {
            let set = set.iter().filter(|(key, instance)| wanted(key, instance));
            set.map(|(key, instance)| (key.clone(), instance.clone())).collect()
        };
        subject
    };
    check(subject, 5, FEWER);
}

#[test]
fn merged() {
    let subject = || {
        let registries = vec![MemoryRegistry::new(), MemoryRegistry::new(), MemoryRegistry::new()];
        let sources = registries.iter().map(|r| Arc::new(r.clone()) as Arc<dyn Source>);
        let merged = merge(sources);
        Memory {
            registries,
            route: |key| match key % 4 {
                0 => &[0],
                1 => &[1],
                2 => &[0, 1],
                _ => &[1, 2],
            },
            open: Box::new(move || merged.watch(&orders())),
            visible: Clone::clone,
        }
    };
    check(subject, 6, FEWER);
}

#[test]
fn combinators_on_top_of_each_other() {
    let subject = || {
        let registries = vec![MemoryRegistry::new(), MemoryRegistry::new()];
        let (a, b) = (registries[0].clone(), registries[1].clone());
        Memory {
            registries,
            route: |key| if key % 2 == 0 { &[0] } else { &[1] },
            open: Box::new(move || {
                let light = a.watch_all().filter_endpoints(|_, i| i.weight.get() < 1000);
                let same = b.watch_all().map_endpoints(|_, i| i.clone());
                let never = Publisher::new();
                let loading = never.subscribe();
                // Its source has stopped before it loaded.
                drop(never);
                failover_changes([loading, merge_changes([light, same])])
            }),
            visible: Clone::clone,
        }
    };
    check(subject, 7, FEWER);
}

/// Two publishers with the same set; the preferred one loads when the other one has had its fault.
struct Failover {
    preferred: Option<Publisher<u16, u16>>,
    fallback: Option<Publisher<u16, u16>>,
    preferred_loaded: bool,
}

impl Failover {
    fn new() -> Self {
        let (preferred, mut fallback) = (Publisher::new(), Publisher::new());
        fallback.fresh();
        Self { preferred: Some(preferred), fallback: Some(fallback), preferred_loaded: false }
    }
}

impl Subject for Failover {
    type Key = u16;
    type Endpoint = u16;
    type Reader = Changes<u16, u16>;

    fn key(&self, number: u16) -> u16 {
        number
    }

    fn endpoint(&self, _: u16, version: u16) -> u16 {
        version
    }

    fn open(&mut self) -> Self::Reader {
        let inputs = [&self.preferred, &self.fallback];
        failover_changes(inputs.into_iter().flatten().map(Publisher::subscribe))
    }

    fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, batch: Vec<Update<u16, u16>>) {
        for publisher in [&mut self.preferred, &mut self.fallback].into_iter().flatten() {
            publisher.apply(batch.clone(), None);
        }
    }

    fn faults(&self) -> Faults {
        Faults::Changing
    }

    async fn fail(&mut self) {
        for publisher in [&mut self.preferred, &mut self.fallback].into_iter().flatten() {
            publisher.trouble(SourceError::new("cut off"));
        }
    }

    async fn recover(&mut self) {
        if !std::mem::replace(&mut self.preferred_loaded, true) {
            // The fallback stays in trouble, and is no longer of interest.
            self.preferred.as_mut().unwrap().fresh();
            return;
        }
        for publisher in [&mut self.preferred, &mut self.fallback].into_iter().flatten() {
            publisher.fresh();
        }
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        for publisher in [self.preferred.take(), self.fallback.take()].into_iter().flatten() {
            publisher.close();
        }
    }

    fn is_working(&self) -> Option<bool> {
        let publishers = [&self.preferred, &self.fallback];
        Some(publishers.into_iter().flatten().any(|publisher| !publisher.is_unused()))
    }
}

#[test]
fn failover() {
    check(Failover::new, 8, FEWER);
}

struct Fixed(StaticSource);

impl Subject for Fixed {
    type Key = InstanceKey;
    type Endpoint = Instance;
    type Reader = InstanceChanges;

    fn key(&self, number: u16) -> InstanceKey {
        self.endpoint(number, 0).key()
    }

    fn endpoint(&self, key: u16, version: u16) -> Instance {
        instance(key, version)
    }

    fn open(&mut self) -> InstanceChanges {
        self.0.watch_all()
    }

    fn status(&self, reader: &InstanceChanges) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, _: Vec<Update<InstanceKey, Instance>>) {
        unreachable!("it cannot change");
    }

    fn initial(&self) -> Instances {
        (0..5).map(|key| (self.key(key), instance(key, 0))).collect()
    }

    fn can_change(&self) -> bool {
        false
    }
}

#[test]
fn static_source() {
    check(|| Fixed((0..5).map(|key| instance(key, 0)).collect()), 9, FEWER);
}

/// What a source looks like that tells its changes later, from another thread.
struct Later {
    orders: Option<std::sync::mpsc::Sender<Vec<Update<u16, u16>>>>,
    subscriber: discovery_core::Subscriber<u16, u16>,
}

impl Later {
    fn new() -> Self {
        let mut publisher = Publisher::new();
        let subscriber = publisher.subscriber();
        let (sender, receiver) = std::sync::mpsc::channel::<Vec<_>>();
        std::thread::spawn(move || {
            publisher.fresh();
            for batch in receiver {
                std::thread::yield_now();
                publisher.apply(batch, None);
            }
            publisher.close();
        });
        Self { orders: Some(sender), subscriber }
    }
}

impl Subject for Later {
    type Key = u16;
    type Endpoint = u16;
    type Reader = Changes<u16, u16>;

    fn key(&self, number: u16) -> u16 {
        number
    }

    fn endpoint(&self, _: u16, version: u16) -> u16 {
        version
    }

    fn open(&mut self) -> Self::Reader {
        self.subscriber.subscribe().unwrap()
    }

    fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
        Some(reader.status())
    }

    async fn apply(&mut self, batch: Vec<Update<u16, u16>>) {
        self.orders.as_ref().unwrap().send(batch).unwrap();
    }

    fn settles_within(&self) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(10))
    }

    fn can_close(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.orders = None;
    }
}

#[tokio::test]
async fn a_source_that_settles_later() {
    testkit::check(Later::new()).await;
    testkit::random_history(Later::new(), 10, 5_000).await;
}
