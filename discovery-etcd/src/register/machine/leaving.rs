//! Going, and knowing that one is gone: what fences off whatever is still under way.

use discovery_core::RegistrationState;
use tokio::time::Instant;

use super::{LEAVE_WITHIN, Machine, Place};
use crate::register::lease::{EXPIRY_SLACK, Lease};
use crate::register::messages::{Action, Question};
use crate::wire::Guard;

impl Machine {
    /// Goes: with the own lease goes what stands under it, and whatever is still under way to it.
    pub(super) fn leave(&mut self, now: Instant) {
        if let Some(lease) = &self.lease {
            return self.ask(Question::Revoke { lease: lease.id }, LEAVE_WITHIN, now);
        }
        match self.home.filter(|_| self.may_be_there()) {
            Some(home) => {
                let delete = self.guarded(None, home.id, Guard::Lease(home.id));
                self.ask(Question::Put(delete), LEAVE_WITHIN, now);
            }
            None if self.is_leaving() => self.end(RegistrationState::Deregistered),
            None => self.end(self.status.state.clone()),
        }
    }

    /// Whether the key may be in etcd, by our doing.
    pub(super) fn may_be_there(&self) -> bool {
        let put = self.lease.as_ref().is_some_and(|lease| lease.granted.is_some());
        put || self.may_have_moved()
    }

    /// Whether the key may stand under the shared lease.
    pub(super) fn may_have_moved(&self) -> bool {
        let moved = self.plan.share_lease && self.was_registered && self.home.is_some();
        moved && !matches!(self.place, Place::Absent | Place::Foreign { .. })
    }

    pub(super) fn revoked(&mut self) {
        if let Some(lease) = self.lease.take()
            && !matches!(self.place, Place::Ours { lease: there, .. } if there != lease.id)
        {
            self.place = Place::Unknown;
        }
        self.actions.push_back(Action::NeededBy(None));
    }

    /// Until when etcd keeps the key at most, if it keeps running and nothing renews the lease.
    pub(super) fn gone(&self) -> Option<Instant> {
        let home = self.home.map(|home| home.over + home.granted + EXPIRY_SLACK);
        self.lease.as_ref().and_then(Lease::gone).max(home)
    }

    pub(super) fn end(&mut self, state: RegistrationState) {
        self.ended = true;
        self.asked = None;
        self.report(state);
        self.actions.push_back(Action::End);
    }
}
