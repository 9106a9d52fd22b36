//! The driver's books: every endpoint, how it stands, and who can be used. Decisions of (books, event,
//! now) without I/O; the driver brings the events and publishes what changed.
//!
//! Here is what the source says, and what calls are to see. What becomes of endpoints in between is in the
//! files beside this one, each of which adds to the same books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::departed::Departed;
use super::entries::Entries;
use super::entry::{Counted, Entry, Panic, Phase};
use super::lists::Lists;
use super::slow_start::SlowStart;
use crate::balance::attributes::{Attributes, Availability};
use crate::balance::ejection::{Ejection, Why};
use crate::balance::error::Cause;
use crate::balance::flight::guarded;
use crate::balance::hub::Hub;
use crate::balance::member::Member;
use crate::balance::parts::Parts;
use crate::balance::policy::Policy as _;
use crate::balance::settle::{CAUSES, Readying};
use crate::balance::snapshot::{Others, Snapshot};

/// How the books are kept.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) ejection: Ejection,
    pub(crate) slow_start: SlowStart,
}

pub(super) struct Books<T: Parts> {
    pub(super) hub: Arc<Hub<T>>,
    pub(super) rules: Rules,
    pub(super) entries: Entries<T>,
    pub(super) lists: Lists<T>,
    pub(super) departed: Departed<T::Key>,
    pub(super) loaded: bool,
    pub(super) panic: Panic,
    /// Whether that was logged.
    pub(super) panic_said: bool,
    /// Whether some may have come while others were there, and have not connected yet.
    pub(super) joining: bool,
    /// What has to be tried again or let in again, and when.
    pub(super) timers: BTreeSet<(Instant, usize)>,
    /// Those in their slow start: all of them can be used.
    pub(super) ramping: BTreeSet<usize>,
    /// Those put out, and those who would be but for the maximum.
    pub(super) ejected: BTreeSet<usize>,
    pub(super) spared: BTreeMap<usize, Why>,
    /// Those that failed to connect.
    pub(super) failed: BTreeSet<usize>,
    /// Those to be used only when nobody else is there.
    pub(super) last_resort: BTreeSet<usize>,
    pub(super) connecting: usize,
    pub(super) weightless: usize,
    /// Endpoints that can be used and are no last resort.
    pub(super) first_resort: usize,
    /// Endpoints that could be used if it were not for panic.
    pub(super) healthy: usize,
    /// Those put out as suspects: they say nothing of the others.
    pub(super) gone: usize,
    pub(super) changed: bool,
    /// Whether what is computed of the members is to be computed anew.
    pub(super) members_changed: bool,
    /// Whether nobody waits any more for a service that is getting ready.
    pub(super) abandoned: bool,
    /// Services that have to become ready.
    pub(super) to_ready: Vec<Readying<T>>,
}

/// A new service, and what the policy keeps of it.
pub(super) struct Made<T: Parts> {
    pub(super) service: T::Service,
    pub(super) load: T::Load,
}

impl<T: Parts> Books<T> {
    pub(super) fn new(hub: Arc<Hub<T>>, rules: Rules) -> Self {
        Self {
            hub,
            rules,
            entries: Entries::default(),
            lists: Lists::default(),
            departed: Departed::default(),
            loaded: false,
            panic: Panic::No,
            panic_said: false,
            joining: false,
            timers: BTreeSet::new(),
            ramping: BTreeSet::new(),
            ejected: BTreeSet::new(),
            spared: BTreeMap::new(),
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

    /// What the latest service of this key was made for, or is to be made for.
    pub(super) fn made_for(&self, key: &T::Key) -> Option<Arc<T::Endpoint>> {
        let entry = self.entries.get(self.entries.find(key)?)?;
        let latest = entry.trouble.as_ref().and_then(|trouble| {
            let next = trouble.next.as_ref().map(|(_, made_for)| made_for);
            next.or(trouble.wants.as_ref())
        });
        Some(latest.unwrap_or(&entry.made_for).clone())
    }

    pub(super) fn set_loaded(&mut self) {
        self.changed |= !self.loaded;
        self.loaded = true;
    }

    /// The set has an endpoint that it did not have.
    pub(super) fn insert(
        &mut self,
        key: T::Key,
        endpoint: Arc<T::Endpoint>,
        made: Made<T>,
        attributes: Attributes,
        now: Instant,
    ) {
        let record = self.departed.take(&key);
        let id = self.entries.vacancy();
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
            before: Counted::default(),
            trouble: None,
        };
        self.entries.insert(id, entry);
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

    /// What an endpoint says of itself is another; its service stays.
    pub(super) fn update(
        &mut self,
        key: &T::Key,
        endpoint: &Arc<T::Endpoint>,
        attributes: Attributes,
    ) {
        let Some(id) = self.entries.find(key) else { return };
        let Some(entry) = self.entries.get_mut(id) else { return };
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
            if let Some(entry) = self.entries.get_mut(id) {
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

    /// The set has this endpoint no longer. Calls under way go on.
    pub(super) fn remove(&mut self, key: &T::Key) {
        let Some(id) = self.entries.find(key) else { return };
        if let Some(entry) = self.entries.get(id) {
            self.departed.keep(key.clone(), entry.record());
        }
        self.untime(id);
        self.withdraw(id);
        let Some(entry) = self.entries.remove(id) else { return };
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

    /// The set as calls are to see it, if it has changed.
    pub(super) fn publish(&mut self, former: &Snapshot<T>) -> Option<Snapshot<T>> {
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
            let entry = self.entries.get(id)?;
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
    pub(super) fn members(
        &self,
    ) -> impl ExactSizeIterator<Item = &Member<T::Key, T::Endpoint, T::Load>> {
        self.lists.all().map(|endpoint| &endpoint.member)
    }
}
