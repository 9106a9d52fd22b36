//! What etcd stores: keys at revisions, leases, watches.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::wire::{
    Event, Found, Guard, GuardedPut, Heard, KeyValue, Keys, Kind, List, Page, PutReply, Result,
    WireError,
};

/// etcd's least time to live.
const LEAST_TTL: Duration = Duration::from_secs(2);

/// A key and what it is to have: a value and a lease, or nothing.
pub(crate) type Written = (Vec<u8>, Option<(Vec<u8>, i64)>);

type Table = BTreeMap<Vec<u8>, KeyValue>;

/// The store after a change.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) keys: Table,
    /// What was written: the key as it was before and as it is now.
    pub(crate) writes: Vec<(Option<KeyValue>, Option<KeyValue>)>,
}

/// A message and when it arrives.
pub(super) type Sent = (Instant, Heard);

struct Watcher {
    id: i64,
    keys: Keys,
    to: UnboundedSender<Sent>,
    last: Instant,
    /// Once canceled its stream stays open and silent.
    silent: bool,
}

struct Lease {
    granted: Duration,
    expires: Instant,
}

pub(crate) struct Store {
    revision: i64,
    compacted: i64,
    keys: Table,
    history: BTreeMap<i64, Table>,
    leases: BTreeMap<i64, Lease>,
    watchers: Vec<Watcher>,
    /// How late the messages of a watch may be.
    pub(crate) lag: Duration,
    pub(crate) page: usize,
    /// What starts with this may not be watched.
    pub(crate) forbidden: Option<Vec<u8>>,
    /// etcd's gRPC proxy answers no probes.
    pub(crate) answers_probes: bool,
    rng: StdRng,
    /// All that ever was, across wipes.
    pub(crate) log: Vec<Moment>,
}

fn refused(kind: Kind, cause: &str) -> WireError {
    WireError::new(kind, "ask", "fake", cause)
}

impl Store {
    pub(super) fn new(rng: StdRng) -> Self {
        let log = vec![Moment { keys: Table::new(), writes: Vec::new() }];
        Self {
            revision: 1,
            compacted: 0,
            keys: Table::new(),
            history: BTreeMap::from([(1, Table::new())]),
            leases: BTreeMap::new(),
            watchers: Vec::new(),
            lag: Duration::ZERO,
            page: 3,
            forbidden: None,
            answers_probes: true,
            rng,
            log,
        }
    }

    pub(crate) fn key(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// The store as it is.
    pub(crate) fn now(&self) -> &Moment {
        self.log.last().expect("there is a first moment")
    }

    /// Changes keys in one revision.
    pub(crate) fn write(&mut self, changes: Vec<Written>) {
        let revision = self.revision + 1;
        let (mut writes, mut events) = (Vec::new(), Vec::new());
        for (key, new) in changes {
            let old = self.keys.get(&key).cloned();
            let new =
                new.map(|(value, lease)| KeyValue { key: key.clone(), value, revision, lease });
            match &new {
                Some(entry) => {
                    self.keys.insert(key, entry.clone());
                    events.push(Event::Put(entry.clone()));
                }
                None if old.is_some() => {
                    self.keys.remove(&key);
                    events.push(Event::Delete { key, revision });
                }
                None => continue,
            }
            writes.push((old, new));
        }
        if events.is_empty() {
            return;
        }
        self.revision = revision;
        self.history.insert(revision, self.keys.clone());
        self.log.push(Moment { keys: self.keys.clone(), writes });
        self.tell(&events);
    }

    fn tell(&mut self, events: &[Event]) {
        let (lag, rng) = (self.lag, &mut self.rng);
        self.watchers.retain_mut(|watcher| {
            let wanted = |event: &&Event| {
                let key = match event {
                    Event::Put(entry) => &entry.key,
                    Event::Delete { key, .. } => key,
                };
                match &watcher.keys {
                    Keys::One(one) => key == one,
                    Keys::Prefix(prefix) => key.starts_with(prefix),
                }
            };
            let events: Vec<_> = events.iter().filter(wanted).cloned().collect();
            if watcher.silent || events.is_empty() {
                return !watcher.to.is_closed();
            }
            watcher.last = watcher.last.max(Instant::now() + lag.mul_f64(rng.random()));
            watcher.to.send((watcher.last, Heard::Events { id: watcher.id, events })).is_ok()
        });
    }

    pub(super) fn watch(&mut self, id: i64, keys: Keys, to: UnboundedSender<Sent>, denied: bool) {
        let last = Instant::now();
        let forbidden = self.forbidden.as_ref().is_some_and(|it| keys.bytes().starts_with(it));
        if denied || forbidden {
            // What etcd says is created *and* canceled.
            let _ = to.send((last, Heard::Refused(refused(Kind::Denied, "permission denied"))));
            return;
        }
        let _ = to.send((last, Heard::Created { id, revision: self.revision }));
        self.watchers.push(Watcher { id, keys, to, last, silent: false });
    }

    pub(super) fn cancel(&mut self, id: i64, to: &UnboundedSender<Sent>) {
        self.watchers.retain(|watcher| watcher.id != id || !watcher.to.same_channel(to));
    }

    /// How many watches there are.
    pub(crate) fn watched(&self) -> usize {
        self.watchers.iter().filter(|watcher| !watcher.to.is_closed()).count()
    }

    /// Ends a watch by chance.
    pub(crate) fn end_a_watch(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.watchers.len());
        let watcher = &mut self.watchers[which];
        watcher.silent = true;
        let error = refused(Kind::Unreachable, "no leader");
        let canceled = Heard::Canceled { id: watcher.id, error };
        let _ = watcher.to.send((watcher.last.max(Instant::now()), canceled));
    }

    /// An event is lost on the way to all who watch: an error of the server's.
    pub(crate) fn write_unseen(&mut self, changes: Vec<Written>) {
        let watchers = std::mem::take(&mut self.watchers);
        self.write(changes);
        self.watchers = watchers;
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.retain(|revision, _| *revision >= self.compacted);
    }

    /// The data is lost and revisions start anew; what was open is closed by who calls this.
    pub(super) fn wipe(&mut self) {
        let gone = self.keys.values().cloned().map(|entry| (Some(entry), None)).collect();
        self.keys.clear();
        self.leases.clear();
        self.watchers.clear();
        (self.revision, self.compacted) = (1, 0);
        self.history = BTreeMap::from([(1, Table::new())]);
        self.log.push(Moment { keys: Table::new(), writes: gone });
    }

    /// Started anew on its data, etcd gives each lease its full time again.
    pub(super) fn restart(&mut self) {
        self.watchers.clear();
        let now = Instant::now();
        self.leases.values_mut().for_each(|lease| lease.expires = now + lease.granted);
    }

    /// What etcd does twice a second.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let over = self.leases.iter().filter(|(_, lease)| lease.expires <= now);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over {
            let _ = self.revoke(id);
        }
    }

    pub(crate) fn leases(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    pub(super) fn list(&self, list: &List) -> Result<Page> {
        let at = list.at.unwrap_or(self.revision);
        if at < self.compacted || at > self.revision {
            return Err(refused(Kind::Compacted, "required revision"));
        }
        let table = self.history.range(..=at).next_back().map(|(_, table)| table);
        let mut rest = table.into_iter().flatten().filter(|(key, _)| {
            key.starts_with(&list.prefix) && list.after.as_ref().is_none_or(|after| *key > after)
        });
        let part = rest.by_ref().take(self.page).map(|(_, entry)| entry.clone());
        let without = |entry| KeyValue { value: Vec::new(), ..entry };
        let entries =
            if list.keys_only { part.map(without).collect() } else { part.collect::<Vec<_>>() };
        Ok(Page { entries, more: rest.next().is_some(), revision: self.revision })
    }

    pub(super) fn get(&self, key: &[u8]) -> Found {
        Found { entry: self.key(key).cloned(), revision: self.revision }
    }

    pub(super) fn put(&mut self, put: GuardedPut) -> Result<PutReply> {
        let there = self.key(&put.key);
        let holds = match put.guard {
            Guard::Absent => there.is_none(),
            Guard::Lease(lease) => there.is_some_and(|entry| entry.lease == lease),
            Guard::Revision(revision) => there.is_some_and(|entry| entry.revision == revision),
        };
        if !holds {
            return Ok(PutReply::Refused(self.get(&put.key)));
        }
        if put.value.is_some() && !self.leases.contains_key(&put.lease) {
            return Err(refused(Kind::LeaseNotFound, "requested lease not found"));
        }
        let new = put.value.map(|value| (value, put.lease));
        self.write(vec![(put.key, new)]);
        Ok(PutReply::Done { revision: self.revision })
    }

    pub(super) fn grant(&mut self, id: i64, ttl: Duration) -> Result<Duration> {
        if self.leases.contains_key(&id) {
            return Err(refused(Kind::LeaseExists, "lease already exists"));
        }
        let granted = ttl.max(LEAST_TTL);
        self.leases.insert(id, Lease { granted, expires: Instant::now() + granted });
        Ok(granted)
    }

    pub(super) fn granted_ttl(&self, id: i64) -> Option<Duration> {
        self.leases.get(&id).map(|lease| lease.granted)
    }

    pub(super) fn renew(&mut self, id: i64) -> Result<()> {
        // A lease whose time is over cannot be renewed.
        self.expire();
        match self.leases.get_mut(&id) {
            Some(lease) => lease.expires = Instant::now() + lease.granted,
            None => return Err(refused(Kind::LeaseNotFound, "requested lease not found")),
        }
        Ok(())
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<()> {
        if self.leases.remove(&id).is_none() {
            return Err(refused(Kind::LeaseNotFound, "requested lease not found"));
        }
        let keys = self.keys.values().filter(|entry| entry.lease == id);
        let gone = keys.map(|entry| (entry.key.clone(), None)).collect();
        self.write(gone);
        Ok(())
    }
}
