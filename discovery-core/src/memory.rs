//! A registry within the process: for tests, demonstrations, and programs that are their own registry.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{
    Conflict, Desired, Instance, InstanceChanges, InstanceKey, Publisher, Registrar, Registration,
    RegistrationState, RegistrationStatus, ServiceName, Source, SourceError, Update,
};

type Sender = Arc<watch::Sender<RegistrationStatus>>;

/// An in-memory registry: a [`Source`] and a [`Registrar`] in one. Clones share one registry.
///
/// Instances come by [`register`](Registrar::register), like those of a real registry, or directly by
/// [`insert`](Self::insert), [`remove`](Self::remove) and [`apply`](Self::apply). For tests it can
/// misbehave: [`go_stale`](Self::go_stale) cuts its readers off from what goes on, until
/// [`come_back`](Self::come_back); [`lose_registration`](Self::lose_registration) drops an instance
/// under its registration, until [`restore_registration`](Self::restore_registration).
#[derive(Clone, Default)]
pub struct MemoryRegistry {
    state: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    /// What is registered, whether or not readers can see it now.
    truth: HashMap<InstanceKey, Arc<Instance>>,
    all: Option<Publisher<InstanceKey, Instance>>,
    services: HashMap<ServiceName, Publisher<InstanceKey, Instance>>,
    /// Who holds a key by a registration, and who waits for it.
    holders: HashMap<InstanceKey, VecDeque<Claim>>,
    next_claim: u64,
    stale: Option<SourceError>,
    closed: bool,
}

/// One registration's claim to a key; the first in the queue holds it.
struct Claim {
    number: u64,
    instance: Arc<Instance>,
    version: u64,
    status: Sender,
    lost: bool,
}

impl MemoryRegistry {
    /// An empty registry, loaded and fresh.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an instance in, or changes it.
    pub fn insert(&self, instance: Instance) {
        self.apply([Update::Insert(instance.key(), instance)]);
    }

    /// Takes an instance out.
    pub fn remove(&self, key: &InstanceKey) {
        self.apply([Update::Remove(key.clone())]);
    }

    /// Changes several instances at once: readers see all of it or nothing.
    pub fn apply(&self, batch: impl IntoIterator<Item = Update<InstanceKey, Instance>>) {
        let batch = batch.into_iter().map(|update| match update {
            Update::Insert(_, instance) => Update::Insert(instance.key(), Arc::new(instance)),
            Update::Remove(key) => Update::Remove(key),
        });
        let batch = batch.collect();
        self.lock().apply(batch);
    }

    /// Makes exactly these instances the set, whatever was there.
    pub fn replace(&self, instances: impl IntoIterator<Item = Instance>) {
        let set: HashMap<_, _> = instances.into_iter().map(|i| (i.key(), Arc::new(i))).collect();
        let mut memory = self.lock();
        let gone = memory.truth.keys().filter(|key| !set.contains_key(*key)).cloned();
        let mut batch: Vec<_> = gone.map(Update::Remove).collect();
        batch.extend(set.into_iter().map(|(key, instance)| Update::Insert(key, instance)));
        memory.apply(batch);
    }

    /// The registered instances.
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.lock().truth.values().cloned().collect()
    }

    /// From now on readers keep what they have, and are told that it is stale because of `error`.
    pub fn go_stale(&self, error: SourceError) {
        let mut memory = self.lock();
        for publisher in memory.publishers() {
            publisher.trouble(error.clone());
        }
        memory.stale = Some(error);
    }

    /// Ends [`go_stale`](Self::go_stale): readers learn what changed meanwhile, in one batch.
    pub fn come_back(&self) {
        let mut memory = self.lock();
        memory.stale = None;
        let Memory { truth, all, services, .. } = &mut *memory;
        if let Some(all) = all {
            all.replace(truth.iter().map(|(k, v)| (k.clone(), v.clone())), None);
        }
        for (service, publisher) in services {
            let own = truth.iter().filter(|(key, _)| key.service == *service);
            publisher.replace(own.map(|(k, v)| (k.clone(), v.clone())), None);
        }
    }

    /// Drops an instance under its registration, as an expired lease does. The registration says
    /// [`Registering`](RegistrationState::Registering) until
    /// [`restore_registration`](Self::restore_registration); `false` if there is none.
    pub fn lose_registration(&self, key: &InstanceKey, error: SourceError) -> bool {
        let mut memory = self.lock();
        let Some(claim) = memory.holders.get_mut(key).and_then(VecDeque::front_mut) else {
            return false;
        };
        claim.lost = true;
        let status = claim.status.clone();
        memory.apply(vec![Update::Remove(key.clone())]);
        status.send_modify(|status| status.state = RegistrationState::Registering(Some(error)));
        true
    }

    /// Lets a lost registration register anew; `false` if there is none.
    pub fn restore_registration(&self, key: &InstanceKey) -> bool {
        let mut memory = self.lock();
        let claim = memory.holders.get_mut(key).and_then(VecDeque::front_mut);
        let Some(claim) = claim.filter(|claim| claim.lost) else { return false };
        claim.lost = false;
        memory.put(key);
        true
    }

    /// Closes the registry: all streams end once their readers have been told everything.
    pub fn close(&self) {
        let mut memory = self.lock();
        memory.closed = true;
        let all = memory.all.take();
        for publisher in memory.services.drain().map(|(_, publisher)| publisher).chain(all) {
            publisher.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn publishers(&mut self) -> impl Iterator<Item = &mut Publisher<InstanceKey, Instance>> {
        self.services.values_mut().chain(&mut self.all)
    }

    fn apply(&mut self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) {
        for update in &batch {
            match update {
                Update::Insert(key, instance) => {
                    self.truth.insert(key.clone(), instance.clone());
                }
                Update::Remove(key) => {
                    self.truth.remove(key);
                }
            }
        }
        if self.stale.is_some() {
            return;
        }
        let mut by_service: HashMap<&ServiceName, Vec<_>> = HashMap::new();
        for update in &batch {
            let (Update::Insert(key, _) | Update::Remove(key)) = update;
            if self.services.contains_key(&key.service) {
                by_service.entry(&key.service).or_default().push(update.clone());
            }
        }
        for (service, batch) in by_service {
            if let Some(publisher) = self.services.get_mut(service) {
                publisher.apply(batch, None);
            }
        }
        if let Some(all) = &mut self.all {
            all.apply(batch, None);
        }
    }

    /// A publisher of what is there now, as a reader that comes now sees it.
    fn publisher(&self, service: Option<&ServiceName>) -> Publisher<InstanceKey, Instance> {
        let mut publisher = Publisher::new();
        let own = self.truth.iter().filter(|(key, _)| service.is_none_or(|s| key.service == *s));
        publisher.replace(own.map(|(k, v)| (k.clone(), v.clone())), None);
        if let Some(error) = &self.stale {
            publisher.trouble(error.clone());
        }
        publisher
    }

    /// Publishes what the holder of the key wants.
    fn put(&mut self, key: &InstanceKey) {
        let Some(claim) = self.holders.get(key).and_then(VecDeque::front) else { return };
        if claim.lost {
            return;
        }
        let batch = vec![Update::Insert(key.clone(), claim.instance.clone())];
        // First done, then told: who awaits the status finds it so.
        self.apply(batch);
        if let Some(claim) = self.holders.get(key).and_then(VecDeque::front) {
            claim.tell(RegistrationState::Registered);
        }
    }

    fn claim(&mut self, instance: Arc<Instance>, status: Sender) -> u64 {
        let key = instance.key();
        self.next_claim += 1;
        let number = self.next_claim;
        let claim = Claim { number, instance, version: 1, status, lost: false };
        let queue = self.holders.entry(key.clone()).or_default();
        if let Some(holder) = queue.front() {
            let address = Some(holder.instance.address.clone());
            claim.tell(RegistrationState::Conflict(Conflict::new(key.clone(), address, true)));
        }
        queue.push_back(claim);
        self.put(&key);
        number
    }

    fn change(&mut self, key: &InstanceKey, number: u64, desired: Desired) {
        let Some(queue) = self.holders.get_mut(key) else { return };
        let Some(place) = queue.iter().position(|claim| claim.number == number) else { return };
        if let Desired::Present { instance, version } = desired {
            queue[place].instance = instance;
            queue[place].version = version;
        } else {
            let gone = queue.remove(place);
            if queue.is_empty() {
                self.holders.remove(key);
                self.apply(vec![Update::Remove(key.clone())]);
            } else if place == 0 {
                self.put(key);
            }
            if let Some(claim) = gone {
                claim.tell(RegistrationState::Deregistered);
            }
            return;
        }
        if place == 0 {
            self.put(key);
        }
    }
}

impl Claim {
    fn tell(&self, state: RegistrationState) {
        self.status.send_modify(|status| {
            if matches!(state, RegistrationState::Registered) {
                status.applied = self.version;
            }
            status.state = state;
        });
    }
}

impl Source for MemoryRegistry {
    fn watch(&self, service: &ServiceName) -> InstanceChanges {
        let mut memory = self.lock();
        if let Some(publisher) = memory.services.get(service) {
            return publisher.subscribe();
        }
        // Names that nobody looks at any more must not pile up.
        memory.services.retain(|_, publisher| !publisher.is_unused());
        let publisher = memory.publisher(Some(service));
        let changes = publisher.subscribe();
        if memory.closed {
            publisher.close();
        } else {
            memory.services.insert(service.clone(), publisher);
        }
        changes
    }

    fn watch_all(&self) -> InstanceChanges {
        let mut memory = self.lock();
        if let Some(publisher) = &memory.all {
            return publisher.subscribe();
        }
        let publisher = memory.publisher(None);
        let changes = publisher.subscribe();
        if memory.closed {
            publisher.close();
        } else {
            memory.all = Some(publisher);
        }
        changes
    }
}

impl Registrar for MemoryRegistry {
    /// Registers at once. If another registration holds the id, this one waits for it to go.
    fn register(&self, instance: Instance) -> Registration {
        let instance = Arc::new(instance);
        let key = instance.key();
        let (sender, receiver) = watch::channel(RegistrationStatus::new());
        let number = self.lock().claim(instance.clone(), Arc::new(sender));
        let memory = self.clone();
        Registration::new(instance, receiver, move |desired| {
            memory.lock().change(&key, number, desired);
        })
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistry").field("instances", &self.lock().truth.len()).finish()
    }
}
