//! What the books say of one endpoint. Most endpoints are well, and there may be very many: what only
//! those in trouble have is kept apart.

use std::sync::Arc;

use tokio::time::Instant;

use super::departed::{Record, Said};
use crate::balance::attributes::Availability;
use crate::balance::error::SharedError;
use crate::balance::flight::Endpoint;
use crate::balance::member::Member;
use crate::balance::parts::Parts;

pub(super) struct Entry<T: Parts> {
    pub(super) endpoint: Arc<Endpoint<T>>,
    /// What its service was made for.
    pub(super) made_for: Arc<T::Endpoint>,
    /// Where it is: among those that are used, or in the rest.
    pub(super) place: u32,
    pub(super) used: bool,
    pub(super) phase: Phase,
    /// Whether its service has yet to say for the first time whether it is ready.
    pub(super) readying: bool,
    pub(super) availability: Availability,
    /// Whether it has come while others were there.
    pub(super) joins: bool,
    /// Whether it counts as healthy.
    pub(super) healthy: bool,
    /// What was counted of its calls when the interval began.
    pub(super) before: Counted,
    /// Only of those that are not as they should be.
    pub(super) trouble: Option<Box<Trouble<T>>>,
}

/// Calls that ended, and those of them that failed, or that say nothing. Each may wrap around.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    ended: u32,
    failures: u32,
    unjudged: u32,
}

impl Counted {
    pub(super) fn by<K, E, L>(member: &Member<K, E, L>) -> Self {
        Self {
            ended: member.look() as u32,
            failures: member.failures() as u32,
            unjudged: member.unjudged() as u32,
        }
    }

    /// How many calls since then say something of it, and how many of them failed.
    pub(super) fn since(self, before: Self) -> (u64, u64) {
        // A call ends a moment before it is judged: one in between may be judged in the next interval.
        let unjudged = self.unjudged.wrapping_sub(before.unjudged);
        let calls = self.ended.wrapping_sub(before.ended).saturating_sub(unjudged);
        (calls.into(), self.failures.wrapping_sub(before.failures).into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Connected,
    Failed,
}

/// Whether endpoints that are left out are used all the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Panic {
    No,
    /// All but suspects, since so many are out that something else must be wrong.
    Most,
    /// All, since nobody else is there.
    All,
}

pub(super) struct Trouble<T: Parts> {
    /// When it is tried again, and when it is let in again.
    pub(super) retry_at: Option<Instant>,
    pub(super) out_until: Option<Instant>,
    /// Whether it is left out as a suspect.
    pub(super) gone: bool,
    /// For what a service is to be made then, if not for what the present one was made for.
    pub(super) wants: Option<Arc<T::Endpoint>>,
    /// A service that is to take the place of the present one once it is ready.
    pub(super) next: Option<(Arc<Endpoint<T>>, Arc<T::Endpoint>)>,
    /// How often connecting failed, one after the other.
    pub(super) attempts: u32,
    pub(super) cause: Option<SharedError>,
    pub(super) connected: Option<Instant>,
    /// What was logged of that.
    pub(super) said: Said,
    pub(super) ejections: u32,
    /// Calls it has to serve yet on probation.
    pub(super) to_pass: u32,
    pub(super) ramp_from: Option<Instant>,
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
            said: Said::Nothing,
            ejections: 0,
            to_pass: 0,
            ramp_from: None,
        }
    }
}

impl<T: Parts> Entry<T> {
    pub(super) fn member(&self) -> &Member<T::Key, T::Endpoint, T::Load> {
        &self.endpoint.member
    }

    pub(super) fn trouble(&mut self) -> &mut Trouble<T> {
        self.trouble.get_or_insert_default()
    }

    pub(super) fn is_out(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.out_until.is_some())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.gone)
    }

    /// What is held against it.
    pub(super) fn record(&self) -> Record {
        let failures_in_a_row = self.member().failures_in_a_row();
        let record = Record { failures_in_a_row, ..Record::default() };
        self.trouble.as_ref().map_or(record, |trouble| Record {
            out_until: trouble.out_until,
            ejections: trouble.ejections,
            to_pass: trouble.to_pass,
            said: trouble.said,
            ..record
        })
    }

    pub(super) fn is_next(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        let next = self.trouble.as_ref().and_then(|trouble| trouble.next.as_ref());
        next.is_some_and(|(next, _)| Arc::ptr_eq(next, endpoint))
    }

    /// Whether it may be used as far as itself is concerned.
    pub(super) fn is_usable(&self, panic: Panic) -> bool {
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
