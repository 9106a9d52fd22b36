//! What is to be asked next, by comparing what is wanted with what is known.

use discovery_core::Address;
use rand::RngExt as _;
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Machine, Place};
use crate::register::lease::Lease;
use crate::register::messages::{Question, Wanted};
use crate::wire::{Guard, GuardedPut};

impl Machine {
    /// What is to be asked, other than a renewal, once the watch stands.
    pub(super) fn next_question(&self) -> Option<Question> {
        let own = self.lease.as_ref();
        let granted = own.filter(|lease| lease.granted.is_some()).map(|lease| lease.id);
        let grant = || {
            let lease = own.map_or(0, |lease| lease.id);
            Some(Question::Grant { lease, ttl: self.plan.ttl })
        };
        if !self.plan.share_lease && granted.is_none() {
            return grant();
        }
        let value = self.value();
        match (&self.place, &self.wanted) {
            (Place::Unknown, _) => Some(Question::Get(self.plan.raw_key.clone())),
            (Place::Ours { lease, wish: known }, Wanted::Present { wish, .. }) => {
                let home = self.home.filter(|_| self.plan.share_lease).map(|home| home.id);
                let to = home.unwrap_or(*lease);
                if value.is_none() || known != wish || to != *lease {
                    let put = self.guarded(value.cloned(), to, Guard::Lease(*lease));
                    return Some(Question::Put(put));
                }
                // It has moved: the own lease is empty and nothing needs it.
                let empty = own.filter(|own| home == Some(*lease) && own.id != *lease)?;
                Some(Question::Revoke { lease: empty.id })
            }
            (Place::Absent | Place::Foreign { .. }, _) => {
                let guard = match &self.place {
                    Place::Foreign { revision, address } => {
                        if !self.replaces(address.as_ref()) {
                            return None;
                        }
                        Guard::Revision(*revision)
                    }
                    _ => Guard::Absent,
                };
                let value = value?.clone();
                let Some(lease) = granted else { return grant() };
                Some(Question::Put(self.guarded(Some(value), lease, guard)))
            }
            _ => None,
        }
    }

    /// What etcd should say of us now.
    pub(super) fn value(&self) -> Option<&Vec<u8>> {
        match &self.wanted {
            Wanted::Present { value, .. } if self.alive => value.as_ref(),
            _ => None,
        }
    }

    pub(super) fn guarded(&self, value: Option<Vec<u8>>, lease: i64, guard: Guard) -> GuardedPut {
        GuardedPut { key: self.plan.raw_key.clone(), value, lease, guard }
    }

    /// Whether a holder at `address` is our dead predecessor.
    pub(super) fn replaces(&self, address: Option<&Address>) -> bool {
        let Wanted::Present { address: ours, .. } = &self.wanted else { return false };
        self.plan.replace_same_address && !self.was_registered && address == Some(ours)
    }

    /// Asks for a lease; once more for the one that was asked for before, so that a lost answer
    /// leaves no other.
    pub(super) fn grant(&mut self, known: i64, now: Instant) {
        let lease = if known > 0 { known } else { self.rng.random_range(1..=i64::MAX) };
        self.lease = Some(Lease::unconfirmed(lease, now));
        self.ask(Question::Grant { lease, ttl: self.plan.ttl }, ANSWER_WITHIN, now);
    }
}
