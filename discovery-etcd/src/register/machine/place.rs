//! Where the key stands, as far as answers and the watch have told.

use discovery_core::{Address, Conflict, RegistrationState, SourceError};
use tokio::time::Instant;

use super::{Asked, Link, Machine};
use crate::register::OnConflict;
use crate::register::messages::{Home, Question, Wanted};
use crate::wire::{Event, KeyValue};

/// What is known of the key.
#[derive(Debug)]
pub(super) enum Place {
    Unknown,
    Absent,
    /// Attached to this lease, which is ours, with the value of this wish (0: of none).
    Ours {
        lease: i64,
        wish: u64,
    },
    Foreign {
        revision: i64,
        address: Option<Address>,
    },
}

impl Machine {
    /// The shared lease is this one now.
    pub(super) fn moved(&mut self, home: Option<Home>, now: Instant) {
        let before = self.home.map(|home| home.id);
        self.home = home;
        let same = home.map(|home| home.id) == before;
        let stood_there = match &self.place {
            Place::Ours { lease, .. } => Some(*lease) == before,
            // Not seen on this connection yet.
            Place::Unknown => before.is_some() && self.lease.is_none() && self.was_registered,
            Place::Absent | Place::Foreign { .. } => false,
        };
        if !same && stood_there {
            // With the lease went the key.
            self.place = Place::Unknown;
        }
        match &self.status.state {
            RegistrationState::Registered if !same && stood_there && self.value().is_some() => {
                let cause = format!("{}: the shared lease is gone", self.key());
                self.report(RegistrationState::Registering(Some(SourceError::new(cause))));
            }
            RegistrationState::Registered => self.report(RegistrationState::Registered),
            // Its time seemed to be over; so let us see whether the key is there.
            RegistrationState::Registering(_) if same && stood_there => self.verify_at = now,
            _ => {}
        }
    }

    pub(super) fn events(&mut self, mut events: Vec<Event>) {
        if self.known == 0 {
            // A member that lags tells of the past first: who held the key then, or that it was gone.
            self.early = events.pop().or(self.early.take());
            return;
        }
        for event in events {
            let revision = event.revision();
            match event {
                Event::Put(entry) => self.judge(Some(entry), revision),
                Event::Delete { .. } => self.judge(None, revision),
            }
        }
    }

    /// The key stood like this at `revision`.
    pub(super) fn judge(&mut self, entry: Option<KeyValue>, revision: i64) {
        if revision < self.known {
            // Older than what is known: answers and events overtake each other.
            return;
        }
        self.known = revision;
        let own = self.lease.as_ref().map(|lease| lease.id);
        let home = self.home.map(|home| home.id);
        self.settle(match entry {
            None => Place::Absent,
            Some(entry) if [own, home].contains(&Some(entry.lease)) => {
                let wish = match &self.wanted {
                    Wanted::Present { value, wish, .. } if *value == Some(entry.value) => *wish,
                    _ => 0,
                };
                Place::Ours { lease: entry.lease, wish }
            }
            Some(entry) => Place::Foreign {
                revision: entry.revision,
                address: self.plan.address_of(&entry.value),
            },
        });
    }

    /// Not to be listed, and not listed: that is as wanted, unless a put of before is under way.
    pub(super) fn settle_unlisted(&mut self) {
        let Wanted::Present { version, value: None, .. } = self.wanted else { return };
        let is_told = matches!(self.status.state, RegistrationState::Registered)
            && self.status.applied == version;
        let puts = matches!(&self.asked, Some(Asked { question: Question::Put(put), .. }) if put.value.is_some());
        if matches!(self.place, Place::Absent) && self.alive && !puts && !is_told {
            self.status.applied = version;
            self.report(RegistrationState::Registered);
        }
    }

    /// Takes the key's place for known and tells what it means.
    pub(super) fn settle(&mut self, place: Place) {
        self.place = place;
        if self.conflict_is_final() {
            return;
        }
        let Wanted::Present { version, wish, .. } = &self.wanted else { return };
        match &self.place {
            Place::Ours { wish: known, .. } => {
                self.was_registered = true;
                if known == wish {
                    self.status.applied = *version;
                    self.report(RegistrationState::Registered);
                }
            }
            Place::Foreign { address, .. } => {
                if !self.replaces(address.as_ref()) {
                    let waiting = self.plan.on_conflict == OnConflict::Wait;
                    let key = self.plan.key.clone();
                    let conflict = Conflict::new(key, address.clone(), waiting);
                    self.report(RegistrationState::Conflict(conflict));
                }
            }
            Place::Absent if self.alive && self.value().is_none() => self.settle_unlisted(),
            Place::Absent if !self.alive => {
                self.report(RegistrationState::Registering(self.last_error.clone()));
            }
            Place::Absent if !matches!(self.status.state, RegistrationState::Registering(_)) => {
                let endpoint = match &self.link {
                    Link::Up { endpoint, .. } => endpoint,
                    Link::Down => "etcd",
                };
                let cause = format!("{} at {endpoint}: the key was deleted", self.key());
                self.report(RegistrationState::Registering(Some(SourceError::new(cause))));
            }
            Place::Absent | Place::Unknown => {}
        }
    }
}
