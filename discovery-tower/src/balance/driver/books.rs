//! The driver's books: every endpoint, how it stands, and who can be used. Decisions of (books, event,
//! now) without I/O; the driver brings the events and publishes what changed.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::departed::{Departed, Record};
use super::lists::Lists;
use crate::balance::attributes::{Attributes, Availability};
use crate::balance::ejection::{Ejection, Tally, Why};
use crate::balance::error::{Cause, SharedError};
use crate::balance::flight::{Endpoint, guarded};
use crate::balance::hub::Hub;
use crate::balance::member::{FULL, Gate, Member, Standing};
use crate::balance::parts::Parts;
use crate::balance::policy::Policy as _;
use crate::balance::settle::{CAUSES, Readying};
use crate::balance::snapshot::{Others, Snapshot};

/// How an endpoint that failed to connect is tried again: full jitter between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After so long connected, a failure is the first again.
const SETTLED: Duration = Duration::from_secs(10);

/// How the books are kept.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) ejection: Ejection,
    pub(crate) slow_start: SlowStart,
}

/// How an endpoint that is new among others is given its share little by little.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SlowStart {
    /// How long: 30 s. Zero: not at all.
    pub window: Duration,
    /// The part of its weight that it begins with, in percent: 10.
    pub least_percent: u8,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), least_percent: 10 }
    }
}

impl SlowStart {
    /// Sets how long it takes, and the part of its weight in percent that an endpoint begins with.
    #[must_use]
    pub fn over(self, window: Duration, least_percent: u8) -> Self {
        Self { window, least_percent, ..self }
    }

    /// No slow start.
    #[must_use]
    pub fn none() -> Self {
        Self { window: Duration::ZERO, least_percent: 100 }
    }

    fn ramp(&self, since: Duration) -> u16 {
        if since >= self.window {
            return FULL;
        }
        let part = since.as_secs_f64() / self.window.as_secs_f64();
        let least = f64::from(self.least_percent.min(100)) / 100.0;
        ((part.max(least) * f64::from(FULL)) as u16).clamp(1, FULL)
    }
}

pub(crate) struct Books<T: Parts> {
    pub(crate) hub: Arc<Hub<T>>,
    rules: Rules,
    entries: Vec<Option<Entry<T>>>,
    vacant: Vec<usize>,
    /// Ids by their keys, each with its hash: a table that grows would else look at all keys again.
    by_key: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
    lists: Lists<T>,
    departed: Departed<T::Key>,
    loaded: bool,
    panic: Panic,
    /// Whether some may have come while others were there, and have not connected yet.
    joining: bool,
    /// What has to be tried again or let in again, and when.
    timers: BTreeSet<(Instant, usize)>,
    /// Those in their slow start: all of them can be used.
    ramping: BTreeSet<usize>,
    /// Those put out, and those who would be but for the maximum.
    ejected: BTreeSet<usize>,
    spared: BTreeSet<usize>,
    /// Those that failed to connect.
    failed: BTreeSet<usize>,
    /// Those to be used only when nobody else is there.
    last_resort: BTreeSet<usize>,
    connecting: usize,
    weightless: usize,
    /// Endpoints that can be used and are no last resort.
    first_resort: usize,
    /// Endpoints that could be used if it were not for panic.
    healthy: usize,
    /// Those put out as suspects: they say nothing of the others.
    gone: usize,
    changed: bool,
    /// Whether what is computed of the members is to be computed anew.
    members_changed: bool,
    /// Whether nobody waits any more for a service that is getting ready.
    abandoned: bool,
    /// Services that have to become ready.
    pub(crate) to_ready: Vec<Readying<T>>,
}

struct Entry<T: Parts> {
    endpoint: Arc<Endpoint<T>>,
    /// What its service was made for.
    made_for: Arc<T::Endpoint>,
    /// Where it is: among those that are used, or in the rest.
    place: u32,
    used: bool,
    phase: Phase,
    /// Whether its service has yet to say for the first time whether it is ready.
    readying: bool,
    availability: Availability,
    /// Whether it has come while others were there.
    joins: bool,
    /// Whether it counts as healthy.
    healthy: bool,
    /// Calls and failures when the interval began, which may wrap around.
    before: (u32, u32),
    /// Only of those that are not as they should be.
    trouble: Option<Box<Trouble<T>>>,
}

/// Whether endpoints that are left out are used all the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Panic {
    No,
    /// All but suspects, since so many are out that something else must be wrong.
    Most,
    /// All, since nobody else is there.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
    Failed,
}

struct Trouble<T: Parts> {
    /// When it is tried again, and when it is let in again.
    retry_at: Option<Instant>,
    out_until: Option<Instant>,
    /// Whether it is left out as a suspect.
    gone: bool,
    /// For what a service is to be made then, if not for what the present one was made for.
    wants: Option<Arc<T::Endpoint>>,
    /// A service that is to take the place of the present one once it is ready.
    next: Option<(Arc<Endpoint<T>>, Arc<T::Endpoint>)>,
    /// How often connecting failed, one after the other.
    attempts: u32,
    cause: Option<SharedError>,
    connected: Option<Instant>,
    ejections: u32,
    /// Calls it has to serve yet on probation.
    to_pass: u32,
    ramp_from: Option<Instant>,
}

impl<T: Parts> Default for Trouble<T> {
    fn default() -> Self {
        Self {
            retry_at: None,
            out_until: None,
            gone: false,
            wants: None,
            next: None,
            attempts: 0,
            cause: None,
            connected: None,
            ejections: 0,
            to_pass: 0,
            ramp_from: None,
        }
    }
}

impl<T: Parts> Entry<T> {
    fn member(&self) -> &Member<T::Key, T::Endpoint, T::Load> {
        &self.endpoint.member
    }

    fn trouble(&mut self) -> &mut Trouble<T> {
        self.trouble.get_or_insert_default()
    }

    fn is_out(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.out_until.is_some())
    }

    fn is_gone(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.gone)
    }

    /// What is held against it.
    fn record(&self) -> Record {
        let failures_in_a_row = self.member().failures_in_a_row();
        let record = Record { failures_in_a_row, ..Record::default() };
        self.trouble.as_ref().map_or(record, |trouble| Record {
            out_until: trouble.out_until,
            ejections: trouble.ejections,
            to_pass: trouble.to_pass,
            ..record
        })
    }

    fn is_next(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        let next = self.trouble.as_ref().and_then(|trouble| trouble.next.as_ref());
        next.is_some_and(|(next, _)| Arc::ptr_eq(next, endpoint))
    }

    /// Whether it may be used as far as itself is concerned.
    fn is_usable(&self, panic: Panic) -> bool {
        self.phase == Phase::Connected
            && self.member().own_weight() > 0
            && self.availability != Availability::Out
            && match panic {
                Panic::No => !self.is_out(),
                Panic::Most => !self.is_gone(),
                Panic::All => true,
            }
    }
}

/// A new service, and what the policy keeps of it.
pub(crate) struct Made<T: Parts> {
    pub(crate) service: T::Service,
    pub(crate) load: T::Load,
}

/// A hash of 32 bits as one of 64, of which the table uses the lowest and the highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Something whose time has come, for which a new service is needed.
pub(crate) struct Due<T: Parts> {
    pub(crate) id: usize,
    pub(crate) key: T::Key,
    pub(crate) endpoint: Arc<T::Endpoint>,
}

impl<T: Parts> Books<T> {
    pub(crate) fn new(hub: Arc<Hub<T>>, rules: Rules) -> Self {
        Self {
            hub,
            rules,
            entries: Vec::new(),
            vacant: Vec::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            lists: Lists::default(),
            departed: Departed::default(),
            loaded: false,
            panic: Panic::No,
            joining: false,
            timers: BTreeSet::new(),
            ramping: BTreeSet::new(),
            ejected: BTreeSet::new(),
            spared: BTreeSet::new(),
            failed: BTreeSet::new(),
            last_resort: BTreeSet::new(),
            connecting: 0,
            weightless: 0,
            first_resort: 0,
            healthy: 0,
            gone: 0,
            changed: false,
            members_changed: false,
            abandoned: false,
            to_ready: Vec::new(),
        }
    }

    fn id_of(&self, key: &T::Key) -> Option<usize> {
        let entries = &self.entries;
        let hash = self.hash(key);
        let is_it = |&(other, id): &(u32, u32)| {
            let entry = || entries.get(id as usize).and_then(Option::as_ref);
            other == hash && entry().is_some_and(|entry| entry.member().key() == key)
        };
        self.by_key.find(spread(hash), is_it).map(|&(_, id)| id as usize)
    }

    fn hash(&self, key: &T::Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn entry(&mut self, id: usize) -> Option<&mut Entry<T>> {
        self.entries.get_mut(id)?.as_mut()
    }

    /// The entry whose present service this is.
    fn of(&mut self, endpoint: &Arc<Endpoint<T>>) -> Option<&mut Entry<T>> {
        self.entry(endpoint.id).filter(|entry| Arc::ptr_eq(&entry.endpoint, endpoint))
    }

    /// What the latest service of this key was made for, or is to be made for.
    pub(crate) fn made_for(&self, key: &T::Key) -> Option<Arc<T::Endpoint>> {
        let entry = self.entries.get(self.id_of(key)?)?.as_ref()?;
        let latest = entry.trouble.as_ref().and_then(|trouble| {
            let next = trouble.next.as_ref().map(|(_, made_for)| made_for);
            next.or(trouble.wants.as_ref())
        });
        Some(latest.unwrap_or(&entry.made_for).clone())
    }

    pub(crate) fn set_loaded(&mut self) {
        self.changed |= !self.loaded;
        self.loaded = true;
    }

    /// The set has an endpoint that it did not have.
    pub(crate) fn insert(
        &mut self,
        key: T::Key,
        endpoint: Arc<T::Endpoint>,
        made: Made<T>,
        attributes: Attributes,
        now: Instant,
    ) {
        let hash = self.hash(&key);
        let record = self.departed.take(&key);
        let id = self.vacant.pop().unwrap_or(self.entries.len());
        let weight = attributes.weight;
        let made = self.make(id, key, endpoint.clone(), made, weight);
        made.member.set_suspect(attributes.suspect);
        let place = self.lists.rest.push(made.clone());
        let joins = self.loaded && !self.lists.ready.is_empty();
        self.joining |= joins;
        let entry = Entry {
            endpoint: made.clone(),
            made_for: endpoint,
            place: place as u32,
            used: false,
            phase: Phase::Connecting,
            readying: true,
            availability: attributes.availability,
            joins,
            healthy: false,
            before: (0, 0),
            trouble: None,
        };
        match self.entries.get_mut(id) {
            Some(vacant) => *vacant = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        self.by_key.insert_unique(spread(hash), (hash, id as u32), |&(hash, _)| spread(hash));
        self.connecting += 1;
        self.weightless += usize::from(weight == 0);
        if attributes.availability == Availability::LastResort {
            self.last_resort.insert(id);
        }
        (self.changed, self.members_changed) = (true, true);
        self.to_ready.push(Readying::new(made));
        if let Some(record) = record {
            self.resume(id, record, now);
        }
        self.review_panic();
    }

    /// An endpoint that comes back is judged as if it had stayed.
    fn resume(&mut self, id: usize, record: Record, now: Instant) {
        let may = self.rules.ejection.may_eject(self.ejected.len(), self.lists.len());
        let probation = self.rules.ejection.probation;
        let Some(entry) = self.entry(id) else { return };
        entry.member().set_failures_in_a_row(record.failures_in_a_row);
        let trouble = entry.trouble();
        trouble.ejections = record.ejections;
        trouble.to_pass = record.to_pass;
        match record.out_until {
            Some(until) if until > now && may => self.leave_out(id, until),
            Some(_) if record.ejections > 0 => trouble.to_pass = probation,
            _ => {}
        }
    }

    /// What an endpoint says of itself is another; its service stays.
    pub(crate) fn update(
        &mut self,
        key: &T::Key,
        endpoint: &Arc<T::Endpoint>,
        attributes: Attributes,
    ) {
        let Some(id) = self.id_of(key) else { return };
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let member = &entry.endpoint.member;
        member.set_endpoint(endpoint.clone());
        let cleared = member.is_suspect() && !attributes.suspect;
        member.set_suspect(attributes.suspect);
        if let Some((next, _)) = entry.trouble.as_ref().and_then(|trouble| trouble.next.as_ref()) {
            next.member.set_weight(attributes.weight);
            next.member.set_suspect(attributes.suspect);
        }
        let former = member.own_weight();
        if former != attributes.weight {
            if entry.used {
                self.lists.reweigh(entry.place as usize, former, attributes.weight);
            }
            member.set_weight(attributes.weight);
            self.weightless -= usize::from(former == 0);
            self.weightless += usize::from(attributes.weight == 0);
        }
        if entry.availability != attributes.availability {
            // It is counted as what it was, until it is placed anew.
            self.withdraw(id);
            if let Some(entry) = self.entry(id) {
                entry.availability = attributes.availability;
            }
            if attributes.availability == Availability::LastResort {
                self.last_resort.insert(id);
            } else {
                self.last_resort.remove(&id);
            }
        }
        self.members_changed = true;
        if cleared {
            self.let_in(id, 0);
        }
        self.place(id);
    }

    /// Ends an ejection, if there is one; `to_pass` calls have to go well one at a time then.
    fn let_in(&mut self, id: usize, to_pass: u32) {
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let Some(trouble) = &mut entry.trouble else { return };
        let Some(until) = trouble.out_until.take() else { return };
        trouble.to_pass = to_pass;
        self.gone -= usize::from(std::mem::take(&mut trouble.gone));
        if to_pass == 0 && trouble.ejections > 0 {
            info!(endpoint = ?entry.endpoint.member.key(), "endpoint is used again");
        }
        entry.endpoint.member.set_until(0);
        self.timers.remove(&(until, id));
        self.ejected.remove(&id);
        self.review_panic();
    }

    /// A service for another state of an endpoint: it takes the place of the present one when it is
    /// ready.
    pub(crate) fn replace(&mut self, key: &T::Key, endpoint: Arc<T::Endpoint>, made: Made<T>) {
        if let Some(id) = self.id_of(key) {
            self.succeed(id, endpoint, made);
        }
    }

    /// A new service for an endpoint whose time to be tried again has come.
    pub(crate) fn retry(&mut self, due: Due<T>, made: Made<T>) {
        self.succeed(due.id, due.endpoint, made);
    }

    /// No new service could be made: another time.
    pub(crate) fn retry_later(&mut self, due: Due<T>, cause: SharedError, now: Instant) {
        let Some(entry) = self.entry(due.id) else { return };
        entry.trouble().wants = Some(due.endpoint);
        self.unready(due.id, cause, now);
    }

    fn succeed(&mut self, id: usize, made_for: Arc<T::Endpoint>, made: Made<T>) {
        let Some(entry) = self.entry(id) else { return };
        let (key, weight) = (entry.member().key().clone(), entry.member().own_weight());
        let suspect = entry.member().is_suspect();
        let endpoint = entry.member().endpoint();
        let next = self.make(id, key, endpoint, made, weight);
        next.member.set_suspect(suspect);
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let trouble = entry.trouble();
        if let Some(at) = trouble.retry_at.take() {
            self.timers.remove(&(at, id));
        }
        trouble.wants = None;
        let former = trouble.next.replace((next.clone(), made_for));
        self.abandoned |= former.is_some();
        self.to_ready.push(Readying::new(next));
    }

    fn make(
        &self,
        id: usize,
        key: T::Key,
        endpoint: Arc<T::Endpoint>,
        made: Made<T>,
        weight: u32,
    ) -> Arc<Endpoint<T>> {
        let member = Member::new(key, endpoint, made.load, weight);
        Arc::new(Endpoint { member, service: made.service, id, hub: self.hub.clone() })
    }

    /// The set has this endpoint no longer. Calls under way go on.
    pub(crate) fn remove(&mut self, key: &T::Key) {
        let hash = self.hash(key);
        let Some(id) = self.id_of(key) else { return };
        if let Some(entry) = self.entries.get(id).and_then(Option::as_ref) {
            self.departed.keep(key.clone(), entry.record());
        }
        self.untime(id);
        self.withdraw(id);
        let found = self.by_key.find_entry(spread(hash), |found| found.1 as usize == id);
        if let Ok(found) = found {
            found.remove();
        }
        let Some(entry) = self.entries.get_mut(id).and_then(Option::take) else { return };
        self.vacant.push(id);
        self.connecting -= usize::from(entry.phase == Phase::Connecting);
        self.weightless -= usize::from(entry.member().own_weight() == 0);
        self.healthy -= usize::from(entry.healthy);
        self.gone -= usize::from(entry.trouble.as_ref().is_some_and(|trouble| trouble.gone));
        entry.member().close();
        let next = entry.trouble.as_ref().is_some_and(|trouble| trouble.next.is_some());
        self.abandoned |= entry.readying || next;
        self.hub.seen.fold(entry.member());
        self.ejected.remove(&id);
        self.spared.remove(&id);
        self.failed.remove(&id);
        self.last_resort.remove(&id);
        self.leave_rest(entry.place);
        (self.changed, self.members_changed) = (true, true);
        self.review_panic();
    }

    /// A service has become ready, or has failed to.
    pub(crate) fn readied(
        &mut self,
        endpoint: &Arc<Endpoint<T>>,
        ready: Result<(), SharedError>,
        now: Instant,
    ) {
        let id = endpoint.id;
        let Some(entry) = self.entry(id) else { return };
        if entry.is_next(endpoint) {
            match ready {
                Ok(()) => {
                    self.take_over(id);
                    self.connected(id, now);
                }
                Err(cause) => {
                    let trouble = entry.trouble();
                    trouble.wants = trouble.next.take().map(|(_, made_for)| made_for);
                    self.unready(id, cause, now);
                }
            }
        } else if Arc::ptr_eq(&entry.endpoint, endpoint) && entry.readying {
            entry.readying = false;
            match ready {
                Ok(()) => self.connected(id, now),
                Err(cause) => self.unready(id, cause, now),
            }
        }
    }

    /// Whether somebody waits for this service to become ready.
    pub(crate) fn awaits(&self, readying: &Readying<T>) -> bool {
        let endpoint = readying.endpoint();
        self.entries.get(endpoint.id).and_then(Option::as_ref).is_some_and(|entry| {
            let is_present = entry.readying && Arc::ptr_eq(&entry.endpoint, endpoint);
            is_present || entry.is_next(endpoint)
        })
    }

    /// Whether, since this was last asked, somebody stopped waiting for a service to become ready.
    pub(crate) fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// A service failed to become ready for a call.
    pub(crate) fn broken(&mut self, endpoint: &Arc<Endpoint<T>>, cause: SharedError, now: Instant) {
        // Told again by each call that had picked it.
        if let Some(entry) = self.of(endpoint).filter(|entry| entry.phase == Phase::Connected) {
            entry.phase = Phase::Failed;
            endpoint.member.close();
            self.unready(endpoint.id, cause, now);
        }
    }

    /// The next service of an endpoint takes the place of its present one.
    fn take_over(&mut self, id: usize) {
        self.withdraw(id);
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let next = entry.trouble.as_mut().and_then(|trouble| trouble.next.take());
        let Some((next, made_for)) = next else { return };
        if Arc::ptr_eq(&made_for, &entry.made_for) {
            next.member.inherit(entry.member());
        }
        next.member.set_endpoint(entry.member().endpoint());
        next.member.set_until(entry.member().until());
        entry.before = (next.member.finished() as u32, next.member.failures() as u32);
        entry.member().close();
        self.abandoned |= std::mem::take(&mut entry.readying);
        self.hub.seen.fold(entry.member());
        entry.endpoint = next.clone();
        entry.made_for = made_for;
        self.lists.rest.set(entry.place as usize, next);
        self.members_changed = true;
    }

    fn connected(&mut self, id: usize, now: Instant) {
        // In the minority, or new among others: the others are not to be without their share at once.
        let full = self.lists.ready.len() - self.ramping.len();
        let (all, window) = (self.lists.len(), self.rules.slow_start.window);
        if full == 0 && std::mem::take(&mut self.joining) {
            // Those they came among are gone: together they are a new set.
            self.entries.iter_mut().flatten().for_each(|entry| entry.joins = false);
        }
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let former = std::mem::replace(&mut entry.phase, Phase::Connected);
        let returns = former == Phase::Failed && full * 2 >= all;
        let starts = !window.is_zero() && full > 0 && (entry.joins || returns);
        entry.joins = false;
        if let Some(trouble) = &mut entry.trouble {
            trouble.connected = Some(now);
            if trouble.cause.take().is_some() {
                info!(endpoint = ?entry.endpoint.member.key(), "endpoint is ready again");
            }
        }
        if starts {
            entry.trouble().ramp_from = Some(now);
        }
        self.connecting -= usize::from(former == Phase::Connecting);
        self.failed.remove(&id);
        self.changed = true;
        self.place(id);
    }

    fn unready(&mut self, id: usize, cause: SharedError, now: Instant) {
        self.hub.seen.unready();
        let random = self.hub.random.next_u64();
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        // While the present service serves, the next one is tried again beside it.
        let beside = entry.phase == Phase::Connected;
        let former = entry.phase;
        if !beside {
            entry.phase = Phase::Failed;
        }
        let key = entry.endpoint.member.key().clone();
        let trouble = entry.trouble();
        if trouble.connected.is_some_and(|connected| now - connected >= SETTLED) {
            trouble.attempts = 0;
        }
        trouble.connected = None;
        if trouble.cause.is_none() {
            warn!(endpoint = ?key, error = %cause, "endpoint cannot be used");
        }
        trouble.cause = Some(cause);
        let cap = RETRY.0.saturating_mul(1 << trouble.attempts.min(16)).min(RETRY.1);
        trouble.attempts = trouble.attempts.saturating_add(1);
        let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
        if !beside {
            self.connecting -= usize::from(former == Phase::Connecting);
            self.failed.insert(id);
            self.place(id);
        }
        self.changed = true;
        let at = now + cap.mul_f64(part).max(RETRY.0 / 10);
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let trouble = entry.trouble();
        if trouble.next.is_some() {
            // Its next service is on its way already, perhaps to another address.
            return;
        }
        if let Some(former) = trouble.retry_at.replace(at) {
            self.timers.remove(&(former, id));
        }
        self.timers.insert((at, id));
    }

    /// An endpoint failed so often that it is to be judged.
    pub(crate) fn struck(&mut self, endpoint: &Arc<Endpoint<T>>, now: Instant) {
        let Some(entry) = self.of(endpoint) else { return };
        if entry.is_out() {
            return;
        }
        let member = entry.member();
        let why = if member.is_suspect() {
            Why::Suspect
        } else if member.gate() == Gate::Probation {
            Why::Probation
        } else {
            Why::Consecutive
        };
        self.eject(endpoint.id, why, now);
    }

    fn eject(&mut self, id: usize, why: Why, now: Instant) {
        let may = self.rules.ejection.may_eject(self.ejected.len(), self.lists.len());
        if !why.is_certain() && !may {
            if self.spared.insert(id) {
                self.review_panic();
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let trouble = entry.trouble();
        trouble.ejections = trouble.ejections.saturating_add(1);
        let times = trouble.ejections;
        let time = self.rules.ejection.time(times);
        entry.member().forgive();
        warn!(endpoint = ?entry.member().key(), ?why, times, ?time, "endpoint is left out for failing");
        self.hub.seen.ejected(why);
        self.leave_out(id, now + time);
    }

    fn leave_out(&mut self, id: usize, until: Instant) {
        let at = self.hub.at(until);
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        entry.member().set_until(at);
        let gone = entry.member().is_suspect();
        let trouble = entry.trouble();
        self.gone += usize::from(gone);
        self.gone -= usize::from(std::mem::replace(&mut trouble.gone, gone));
        trouble.to_pass = 0;
        if let Some(former) = trouble.out_until.replace(until) {
            self.timers.remove(&(former, id));
        }
        self.timers.insert((until, id));
        self.ejected.insert(id);
        self.spared.remove(&id);
        self.review_panic();
        self.place(id);
    }

    /// An endpoint asks to be left alone for a while.
    pub(crate) fn overloaded(
        &mut self,
        endpoint: &Arc<Endpoint<T>>,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        let may = self.rules.ejection.may_eject(self.ejected.len(), self.lists.len());
        let time = retry_after.unwrap_or(Duration::from_secs(1));
        let time = time.min(self.rules.ejection.max_retry_after);
        let Some(entry) = self.of(endpoint) else { return };
        if entry.is_out() || !may || time.is_zero() {
            return;
        }
        debug!(endpoint = ?entry.member().key(), ?time, "endpoint is overloaded");
        self.hub.seen.ejected(Why::Overloaded);
        self.leave_out(endpoint.id, now + time);
    }

    /// An endpoint on probation served a call.
    pub(crate) fn passed(&mut self, endpoint: &Arc<Endpoint<T>>) {
        let Some(entry) = self.of(endpoint) else { return };
        let trouble = entry.trouble();
        trouble.to_pass = trouble.to_pass.saturating_sub(1);
        if trouble.to_pass == 0 && entry.member().gate() == Gate::Probation {
            entry.member().set_gate(Gate::Open);
            info!(endpoint = ?entry.member().key(), "endpoint is used again");
            self.place(endpoint.id);
        }
    }

    /// Lets those in again whose time is over, and tells for which endpoints a new service is needed.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due<T>> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { continue };
            let trouble = entry.trouble();
            let is_back = trouble.out_until.is_some_and(|until| until <= now);
            let is_tried = trouble.retry_at.is_some_and(|at| at <= now);
            // One that was only overloaded has nothing to prove.
            let to_pass = if trouble.ejections > 0 { self.rules.ejection.probation } else { 0 };
            if is_back {
                trouble.ramp_from = Some(now);
            }
            if is_tried {
                let trouble = entry.trouble();
                trouble.retry_at = None;
                let endpoint = trouble.wants.take().unwrap_or_else(|| entry.made_for.clone());
                due.push(Due { id, key: entry.member().key().clone(), endpoint });
            }
            if is_back {
                self.let_in(id, to_pass);
                self.place(id);
            }
        }
        due
    }

    /// Puts an endpoint where it belongs: among those that can be used, or not.
    fn place(&mut self, id: usize) {
        let panic = self.panic;
        let nobody_else = self.first_resort == 0;
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        let usable = entry.is_usable(panic);
        let healthy = entry.is_usable(Panic::No);
        self.healthy += usize::from(healthy);
        self.healthy -= usize::from(std::mem::replace(&mut entry.healthy, healthy));
        let last_resort = entry.availability == Availability::LastResort;
        if usable && (!last_resort || nobody_else) {
            let on_probation = entry.trouble.as_ref().is_some_and(|trouble| trouble.to_pass > 0);
            let gate =
                if on_probation && panic == Panic::No { Gate::Probation } else { Gate::Open };
            entry.member().set_gate(gate);
            if !entry.used {
                let former = entry.place;
                let place = self.lists.add_ready(&entry.endpoint, entry.member().own_weight());
                (entry.place, entry.used) = (place as u32, true);
                let ramp_from = entry.trouble.as_ref().and_then(|trouble| trouble.ramp_from);
                let ramp = if ramp_from.is_some() {
                    self.rules.slow_start.ramp(Duration::ZERO)
                } else {
                    FULL
                };
                entry.member().set_ramp(ramp);
                if ramp < FULL {
                    self.ramping.insert(id);
                }
                self.leave_rest(former);
                if !last_resort {
                    self.first_resort += 1;
                    if nobody_else {
                        self.place_last_resort();
                    }
                }
            }
        } else {
            entry.member().set_gate(Gate::Closed);
            self.withdraw(id);
        }
        self.stand(id);
        self.changed = true;
    }

    /// Takes an endpoint out of those that can be used.
    fn withdraw(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        if !std::mem::take(&mut entry.used) {
            return;
        }
        let last_resort = entry.availability == Availability::LastResort;
        let weight = entry.member().own_weight();
        let former = entry.place;
        entry.place = self.lists.rest.push(entry.endpoint.clone()) as u32;
        self.ramping.remove(&id);
        if let Some(moved) = self.lists.remove_ready(former as usize, weight)
            && let Some(moved) = self.entry(moved)
        {
            moved.place = former;
        }
        self.changed = true;
        if !last_resort {
            self.first_resort -= 1;
            if self.first_resort == 0 {
                self.place_last_resort();
            }
        }
    }

    /// Takes one out of the rest, where the last one moves to its place.
    fn leave_rest(&mut self, place: u32) {
        if let Some(moved) = self.lists.rest.remove(place as usize).map(|moved| moved.id)
            && let Some(moved) = self.entry(moved)
        {
            moved.place = place;
        }
    }

    fn place_last_resort(&mut self) {
        for id in self.last_resort.clone() {
            self.place(id);
        }
    }

    /// Whether so many are bad that all have to be used.
    fn review_panic(&mut self) {
        let bad = self.ejected.len() + self.spared.len() - self.gone;
        let nobody = self.rules.ejection.panic_percent <= 100
            && self.healthy == 0
            && !self.ejected.is_empty();
        let most = self.rules.ejection.is_panic(bad, self.lists.len());
        let panic = match (nobody, most) {
            (true, _) => Panic::All,
            (false, true) => Panic::Most,
            (false, false) => Panic::No,
        };
        if panic != self.panic {
            (self.panic, self.changed) = (panic, true);
            let all = self.lists.len();
            let service = self.hub.name();
            let service = service.as_deref();
            if panic == Panic::No {
                info!(service, bad, all, "endpoints that fail are left out again");
            } else {
                warn!(service, bad, all, "so many endpoints fail that all are used");
            }
            for id in self.ejected.clone() {
                self.place(id);
            }
        }
    }

    /// Says of an endpoint how it stands.
    fn stand(&mut self, id: usize) {
        let Some(entry) = self.entry(id) else { return };
        let member = entry.member();
        let standing = match entry.phase {
            Phase::Connecting => Standing::Connecting,
            Phase::Failed => Standing::Failed,
            Phase::Connected if entry.is_out() && !entry.used => Standing::Ejected,
            Phase::Connected if member.own_weight() == 0 => Standing::Out,
            Phase::Connected if entry.availability == Availability::Out => Standing::Out,
            Phase::Connected if !entry.used => Standing::LastResort,
            Phase::Connected if member.gate() == Gate::Probation => Standing::Probation,
            Phase::Connected => Standing::Up,
        };
        let former = member.set_standing(standing);
        if former != standing {
            debug!(
                endpoint = ?member.key(),
                from = former.name(),
                to = standing.name(),
                "endpoint stands differently"
            );
        }
    }

    fn untime(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { return };
        if let Some(trouble) = &mut entry.trouble {
            let times = [trouble.retry_at.take(), trouble.out_until.take()];
            for at in times.into_iter().flatten() {
                self.timers.remove(&(at, id));
            }
        }
    }

    /// When something is due, apart from what happens at intervals.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn is_ramping(&self) -> bool {
        !self.ramping.is_empty()
    }

    /// Gives those in their slow start the share they should have by now.
    pub(crate) fn ramp(&mut self, now: Instant) {
        for id in self.ramping.clone() {
            let slow_start = self.rules.slow_start;
            let Some(entry) = self.entries.get_mut(id).and_then(Option::as_mut) else { continue };
            let from = entry.trouble.as_ref().and_then(|trouble| trouble.ramp_from);
            let ramp =
                from.map_or(FULL, |from| slow_start.ramp(now.saturating_duration_since(from)));
            entry.member().set_ramp(ramp);
            if ramp == FULL {
                self.ramped(id);
            }
        }
    }

    fn ramped(&mut self, id: usize) {
        self.ramping.remove(&id);
        self.changed = true;
        if let Some(entry) = self.entry(id) {
            entry.member().set_ramp(FULL);
            if let Some(trouble) = &mut entry.trouble {
                trouble.ramp_from = None;
            }
        }
    }

    /// How often [`sweep`](Self::sweep) is to be done.
    pub(crate) fn interval(&self) -> Duration {
        self.rules.ejection.interval.max(Duration::from_millis(1))
    }

    /// Once an interval: compares success rates, and forgets what is past.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let mut tallies = Vec::new();
        let strikes = self.rules.ejection.consecutive;
        let mut forgiven = Vec::new();
        for (id, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let member = &entry.endpoint.member;
            let total = (member.look() as u32, member.failures() as u32);
            let before = std::mem::replace(&mut entry.before, total);
            let calls = total.0.wrapping_sub(before.0).into();
            let failures = total.1.wrapping_sub(before.1).into();
            let out = entry.is_out();
            if calls > 0 && !out {
                tallies.push(Tally { id, calls, failures });
            }
            if let Some(trouble) = entry.trouble.as_mut().filter(|_| !out) {
                trouble.ejections = trouble.ejections.saturating_sub(u32::from(failures == 0));
            }
        }
        self.departed.sweep(now);
        for &id in &self.spared {
            let entry = self.entries.get(id).and_then(Option::as_ref);
            if entry.is_none_or(|entry| entry.member().failures_in_a_row() < strikes.max(1)) {
                forgiven.push(id);
            }
        }
        for id in forgiven {
            self.spared.remove(&id);
        }
        if let Some(rule) = &self.rules.ejection.success_rate {
            for id in rule.outliers(&tallies) {
                self.eject(id, Why::SuccessRate, now);
            }
        }
        for id in self.spared.clone() {
            self.eject(id, Why::Consecutive, now);
        }
        self.review_panic();
    }

    /// The set as calls are to see it, if it has changed.
    pub(crate) fn publish(&mut self, former: &Snapshot<T>) -> Option<Snapshot<T>> {
        if self.panic != Panic::No || !self.ejected.is_empty() {
            self.review_panic();
        }
        if self.ramping.len() == self.lists.ready.len() {
            // Nobody is there whose share has to be kept.
            for id in self.ramping.clone() {
                self.ramped(id);
            }
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let state = if std::mem::take(&mut self.members_changed) {
            let members = self.lists.all().map(|endpoint| &endpoint.member);
            let hub = &self.hub;
            guarded(|| hub.policy.state(members, Some(former.state.clone()))).unwrap_or_else(|| {
                warn!("the policy panicked over the set; it keeps what it had");
                former.state.clone()
            })
        } else {
            former.state.clone()
        };
        let rest = self.lists.rest.publish(|_, _| ());
        let (ready, weights) = self.lists.publish_ready();
        let even = weights.is_equal() && self.ramping.is_empty();
        let causes = self.failed.iter().take(CAUSES).filter_map(|&id| {
            let entry = self.entries.get(id)?.as_ref()?;
            let error = entry.trouble.as_ref()?.cause.clone()?;
            Some(Cause { endpoint: entry.member().key().clone(), error })
        });
        let others = Others {
            connecting: self.connecting,
            failed: self.failed.len(),
            weightless: self.weightless,
            causes: causes.collect(),
        };
        let (loaded, panic) = (self.loaded, self.panic != Panic::No);
        Some(Snapshot { ready, weights, even, rest, state, loaded, panic, others })
    }

    /// All members, for the policy to look at.
    pub(crate) fn members(
        &self,
    ) -> impl ExactSizeIterator<Item = &Member<T::Key, T::Endpoint, T::Load>> {
        self.lists.all().map(|endpoint| &endpoint.member)
    }
}
