//! What the driver does, and what it shows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::Change;
use discovery_tower::balance::{Availability, EndpointView, Standing};
use tokio::time::Instant;

use super::{Entry, Made, Model, PANIC_PERCENT, Phase, address};
use crate::world::{Actor, Event, Readiness, Value};

/// The longest time between two attempts to get a service ready, and what timers round up.
const RETRY: Duration = Duration::from_millis(5_005);

impl Model {
    /// The driver was polled: these changes it has taken, this happened, and this is what it shows.
    pub fn driven(
        &mut self,
        changes: Vec<Change<u32, Arc<Value>>>,
        ended: bool,
        log: Vec<Event>,
        view: &[EndpointView<u32, Value>],
        now: Instant,
    ) {
        self.made.values_mut().for_each(|made| (made.passed, made.closed) = (false, false));
        for serial in std::mem::take(&mut self.broken) {
            let key = self.made[&serial].key;
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.serial == serial
                && entry.phase == Phase::Connected
            {
                (entry.phase, entry.failed_at) = (Phase::Failed, now);
            }
        }
        let mut members = None;
        let mut makes = Vec::new();
        let mut polls = Vec::new();
        for event in log {
            match event {
                Event::Made { serial, key, version } => makes.push((serial, key, version)),
                Event::Polled { serial, by, was } => {
                    assert_eq!(by, Actor::Driver, "who polls {serial}");
                    polls.push((serial, was));
                }
                Event::Members(serials) => members = Some(serials),
                other => panic!("the driver: {other:?}"),
            }
        }
        let mut makes = makes.into_iter();
        for change in changes {
            self.change(change, &mut makes, now);
        }
        self.loaded |= ended;
        for (serial, key, version) in makes {
            self.tried_again(serial, key, version);
        }
        for (serial, was) in polls {
            self.readied(serial, was, now);
        }
        self.look(view, now);
        if let Some(mut members) = members {
            members.sort_unstable();
            let mut expected: Vec<_> = self.entries.values().map(|entry| entry.serial).collect();
            expected.sort_unstable();
            assert_eq!(members, expected, "the members that the policy is told of");
        }
    }

    fn change(
        &mut self,
        change: Change<u32, Arc<Value>>,
        makes: &mut impl Iterator<Item = (u64, u32, u64)>,
        now: Instant,
    ) {
        match change {
            Change::Insert(key, value) => {
                let new = match self.entries.get(&key) {
                    None => true,
                    Some(entry) => {
                        let next = entry.next.map(|next| self.made[&next].version);
                        let version = next.or(entry.wants).unwrap_or(entry.made_for);
                        address(version) != value.address
                    }
                };
                let made = new.then(|| {
                    let (serial, of, version) = makes.next().expect("a service is made");
                    assert_eq!((of, version), (key, value.version), "what it is made for");
                    self.made.insert(serial, Made { key, version, ..Made::default() });
                    serial
                });
                match (self.entries.get_mut(&key), made) {
                    (Some(entry), made) => {
                        entry.suspected |= value.suspect;
                        entry.value = value;
                        if made.is_some() {
                            (entry.next, entry.wants) = (made, None);
                        }
                    }
                    (None, Some(serial)) => {
                        let (blamed, streak) = self.departed.remove(&key).unwrap_or_default();
                        self.made.get_mut(&serial).unwrap().streak = streak;
                        let entry = Entry {
                            made_for: value.version,
                            suspected: value.suspect,
                            value,
                            serial,
                            phase: Phase::Connecting,
                            next: None,
                            wants: None,
                            failed_at: now,
                            out: false,
                            standing: Standing::Connecting,
                            blamed,
                        };
                        self.entries.insert(key, entry);
                    }
                    (None, None) => unreachable!(),
                }
            }
            Change::Remove(key) => {
                if let Some(entry) = self.entries.remove(&key) {
                    let streak = self.made[&entry.serial].streak;
                    self.departed.insert(key, (entry.blamed || entry.out, streak));
                }
            }
            _ => self.loaded = true,
        }
    }

    /// A service was made without a change.
    fn tried_again(&mut self, serial: u64, key: u32, version: u64) {
        self.made.insert(serial, Made { key, version, ..Made::default() });
        let entry = self.entries.get_mut(&key).expect("it is a member");
        assert_eq!(entry.next, None, "{key} has a service on its way");
        assert!(entry.phase == Phase::Failed || entry.wants.is_some(), "{key} is well");
        let wanted = entry.wants.take().unwrap_or(entry.made_for);
        assert_eq!(version, wanted, "what the service of {key} is made for");
        entry.next = Some(serial);
    }

    /// The driver asked a service whether it is ready.
    fn readied(&mut self, serial: u64, was: Readiness, now: Instant) {
        let (key, version) = (self.made[&serial].key, self.made[&serial].version);
        let entry = self.entries.get_mut(&key).filter(|entry| {
            entry.next == Some(serial) || entry.serial == serial && entry.phase != Phase::Connected
        });
        let entry = entry.unwrap_or_else(|| panic!("{serial} is polled, and not wanted any more"));
        let is_next = entry.next == Some(serial);
        match was {
            Readiness::Pending => {}
            Readiness::Ready => {
                entry.phase = Phase::Connected;
                if is_next {
                    let former = std::mem::replace(&mut entry.serial, serial);
                    if entry.made_for == version {
                        let counts = &self.made[&former];
                        let counts = (counts.finished, counts.failures, counts.perhaps);
                        let made = self.made.get_mut(&serial).unwrap();
                        (made.finished, made.failures, made.perhaps) = counts;
                    }
                    (entry.made_for, entry.next) = (version, None);
                }
            }
            Readiness::Failing => {
                if is_next {
                    (entry.next, entry.wants) = (None, Some(version));
                }
                if entry.phase != Phase::Connected {
                    entry.phase = Phase::Failed;
                }
                entry.failed_at = now;
            }
        }
    }

    /// Compares what the driver shows with what there has to be.
    fn look(&mut self, view: &[EndpointView<u32, Value>], now: Instant) {
        assert_eq!(view.len(), self.entries.len(), "members");
        let certainly_out = std::mem::take(&mut self.certainly_out);
        self.panic = view.iter().any(|it| {
            let connected = self.entries.get(&it.key).is_some_and(|e| e.phase == Phase::Connected);
            connected && it.ejected_for.is_some() && it.standing != Standing::Ejected
        });
        for it in view {
            let entry = self.entries.get_mut(&it.key).expect("a member");
            let out = it.ejected_for.is_some();
            assert!(!out || entry.out || entry.blamed, "{} is out, and not to blame", it.key);
            if entry.out && !out {
                entry.blamed = false;
            }
            entry.out = out;
            // One on probation is let off if there is panic before the driver hears of it, and a suspect
            // once it is none any more.
            let cleared = entry.suspected && !entry.value.suspect;
            let has_to = !self.panic && !cleared && certainly_out.contains(&entry.serial);
            assert!(out || !has_to, "{} has to be out", it.key);
        }
        let (out, all) = (self.entries.values().filter(|entry| entry.out).count(), view.len());
        let are_many = |bad| bad > 0 && (bad == all || bad * 100 > all * PANIC_PERCENT);
        let gone = self.entries.values().filter(|entry| entry.out && entry.suspected).count();
        let must = are_many(out - gone);
        let blamed = self.entries.values().filter(|entry| entry.out || entry.blamed).count();
        let is_healthy = |entry: &Entry| {
            entry.phase == Phase::Connected
                && entry.value.weight > 0
                && entry.value.availability != Availability::Out
                && !entry.out
        };
        self.may_panic = are_many(blamed) || out > 0 && !self.entries.values().any(is_healthy);
        assert!(!self.panic || self.may_panic, "{blamed} of {all} are bad, and all are used");
        // All but suspects may be used, or all.
        let shown: BTreeSet<u32> =
            view.iter().filter(|it| it.standing == Standing::Ejected).map(|it| it.key).collect();
        let stays_out =
            |entry: &Entry| entry.suspected && shown.contains(&self.made[&entry.serial].key);
        let is_usable = |entry: &Entry| {
            entry.phase == Phase::Connected
                && entry.value.weight > 0
                && entry.value.availability != Availability::Out
                && (!entry.out || self.panic && !stays_out(entry))
        };
        let usable = |of| {
            let entries = self.entries.values().filter(|entry| is_usable(entry));
            let of = entries.filter(move |entry| entry.value.availability == of);
            of.map(|entry| entry.serial).collect::<BTreeSet<_>>()
        };
        self.usable = usable(Availability::Up);
        if self.usable.is_empty() {
            self.usable = usable(Availability::LastResort);
        }
        self.published = self.loaded;
        for it in view {
            let entry = self.entries.get_mut(&it.key).unwrap();
            let (key, made) = (it.key, self.made.get_mut(&entry.serial).unwrap());
            let perhaps = made.failures..=made.failures + std::mem::take(&mut made.perhaps);
            assert!(perhaps.contains(&it.failures), "failures of {key}: {entry:?}");
            made.failures = it.failures;
            let expected = match entry.phase {
                Phase::Connecting => Standing::Connecting,
                Phase::Failed => Standing::Failed,
                Phase::Connected if entry.out && !self.usable.contains(&entry.serial) => {
                    Standing::Ejected
                }
                Phase::Connected if entry.value.weight == 0 => Standing::Out,
                Phase::Connected if entry.value.availability == Availability::Out => Standing::Out,
                Phase::Connected if !self.usable.contains(&entry.serial) => Standing::LastResort,
                Phase::Connected if it.standing == Standing::Probation => Standing::Probation,
                Phase::Connected => Standing::Up,
            };
            assert_eq!(it.standing, expected, "{key}: {entry:?}");
            let stays = entry.suspected
                || it.standing != Standing::Ejected
                || entry.value.weight == 0
                || entry.value.availability != Availability::Up;
            assert!(!must || stays, "{key} is out, and so are too many");
            entry.standing = it.standing;
            assert_eq!(it.endpoint.version, entry.value.version, "what {key} says of itself");
            assert_eq!(it.weight, entry.value.weight, "weight of {key}");
            assert_eq!(it.pending, made.pending, "calls under way at {key}: {entry:?}");
            let counts = (it.successes + it.failures + it.unjudged, it.failures);
            assert_eq!(counts, (made.finished, made.failures), "calls of {key}: {entry:?}");
            let tried = now.saturating_duration_since(entry.failed_at) < RETRY;
            let waits =
                entry.next.is_none() && (entry.phase == Phase::Failed || entry.wants.is_some());
            assert!(!waits || tried, "{key} is not tried again: {entry:?}");
        }
    }
}
