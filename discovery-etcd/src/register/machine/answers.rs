//! What an answer, or the lack of one, means for what is known.

use std::time::Duration;

use discovery_core::{RegistrationState, SourceError};
use rand::RngExt as _;
use tokio::time::Instant;

use super::{
    AFTER_ELECTION, ANSWER_WITHIN, Asked, ELECTION, HOLD, LEAVE_HOLD, Link, Machine, Place, Watch,
};
use crate::backoff;
use crate::register::lease::{Lease, answer_within};
use crate::register::messages::{Action, Answer, Question};
use crate::wire::{Kind, PutReply, WireError};

impl Machine {
    pub(super) fn answered(&mut self, asked: Asked, answer: Answer, now: Instant) {
        self.refreshed &= matches!(answer, Answer::Refreshed);
        self.electing = None;
        match answer {
            Answer::Refreshed => {}
            Answer::Granted(granted) => {
                self.confirm(Some(granted), asked.sent);
            }
            Answer::GrantedTtl(Some(granted)) => {
                // An earlier grant: how much of its time has passed is not known.
                self.confirm(Some(granted), asked.sent);
                if let Some(lease) = &mut self.lease {
                    lease.renew_at = now;
                }
            }
            Answer::GrantedTtl(None) => self.lease = None,
            Answer::Renewed => {
                self.confirm(None, asked.sent);
                if matches!(self.status.state, RegistrationState::Registering(_)) {
                    // Its time seemed to be over; so let us see whether the key is there.
                    self.verify_at = now;
                }
            }
            Answer::Found(found) | Answer::Put(PutReply::Refused(found)) => {
                self.verify_later(now);
                self.judge(found.entry, found.revision);
                let early = self.early.take();
                self.events(early.into_iter().collect());
            }
            Answer::Put(PutReply::Done { revision }) => {
                self.verify_later(now);
                if let Question::Put(put) = asked.question
                    && revision >= self.known
                {
                    self.known = revision;
                    self.settle(match put.value {
                        Some(_) => Place::Ours { lease: put.lease, wish: asked.wish },
                        None => Place::Absent,
                    });
                }
            }
            Answer::Revoked => self.revoked(),
        }
        self.backoff.reset();
    }

    pub(super) fn verify_later(&mut self, now: Instant) {
        let jitter = self.rng.random_range(0.9..1.1);
        self.verify_at = now + self.plan.verify_every.mul_f64(jitter);
    }

    /// The lease is alive since `sent`.
    pub(super) fn confirm(&mut self, granted: Option<Duration>, sent: Instant) {
        let jitter = self.rng.random_range(0.9..1.1);
        let Some(lease) = &mut self.lease else { return };
        let Some(granted) = granted.or(lease.granted) else { return };
        if lease.granted.is_none() && granted != self.plan.ttl {
            self.actions.push_back(Action::OtherTtl { granted });
        }
        lease.granted = Some(granted);
        lease.sent = sent;
        lease.renew_at = sent + granted.mul_f64(jitter / 3.0);
        self.actions.push_back(Action::NeededBy(lease.expires()));
        self.report(self.status.state.clone());
    }

    /// etcd refused what was asked, or it could not be asked.
    pub(super) fn refused(&mut self, asked: &Asked, error: WireError, now: Instant) {
        if self.is_leaving() && !self.may_be_there() {
            // A lease without a key that cannot be revoked is left to expire.
            self.lease = None;
            return;
        }
        match (&asked.question, error.kind) {
            (Question::Revoke { .. }, Kind::LeaseNotFound) => self.revoked(),
            (Question::Renew { .. } | Question::Put(_), Kind::LeaseNotFound) => {
                let gone = match &asked.question {
                    Question::Put(put) => Some(put.lease),
                    _ => self.lease.as_ref().map(|lease| lease.id),
                };
                // Which lease that is, is not told by what is shared now: that may be another one.
                if self.lease.as_ref().map(|lease| lease.id) == gone {
                    self.lease = None;
                } else if self.home.map(|home| home.id) == gone {
                    self.home = None;
                }
                if matches!(self.place, Place::Ours { lease, .. } if Some(lease) != gone) {
                    // Its key stands elsewhere.
                    return;
                }
                // With the lease went the key. Grant and put again.
                self.place = Place::Unknown;
                if self.was_registered && !self.is_leaving() && !self.conflict_is_final() {
                    self.last_error = Some(SourceError::new(error));
                    self.report(RegistrationState::Registering(self.last_error.clone()));
                }
            }
            (Question::Grant { lease, .. }, Kind::LeaseExists) => {
                let lease = *lease;
                self.ask(Question::GrantedTtl { lease }, ANSWER_WITHIN, now);
            }
            (_, Kind::Denied) => self.denied(error, now),
            (_, Kind::Electing) if !self.is_leaving() => self.electing(error, now),
            (
                Question::Grant { .. } | Question::Put(_) | Question::Revoke { .. },
                Kind::Busy | Kind::Rejected,
            ) => {
                // The connection is good, others use it and the lease must be renewed: only this has
                // to wait.
                let hold = HOLD.mul_f64(self.rng.random_range(0.5..1.5));
                self.hold = now + if self.give_up.is_some() { LEAVE_HOLD } else { hold };
                self.trouble(error);
            }
            _ => self.lost(error, now),
        }
    }

    /// Its cluster has no leader: the member is asked again, and left if an election cannot take so long.
    pub(super) fn electing(&mut self, error: WireError, now: Instant) {
        let since = *self.electing.get_or_insert(now);
        if now.saturating_duration_since(since) >= ELECTION {
            self.electing = None;
            return self.lost(error, now);
        }
        self.hold = now + AFTER_ELECTION;
        if let Some(lease) = &mut self.lease {
            lease.renew_at = lease.renew_at.max(self.hold);
        }
        self.trouble(error);
    }

    /// The token may be dead, and a new one mend that; if not, only people can.
    pub(super) fn denied(&mut self, error: WireError, now: Instant) {
        if !self.refreshed {
            self.refreshed = true;
            return self.ask(Question::Refresh, ANSWER_WITHIN, now);
        }
        self.refreshed = false;
        let denied = backoff::denied(&mut self.rng);
        let wait = if self.give_up.is_some() { LEAVE_HOLD } else { denied };
        self.hold = now + wait;
        if let Some(Lease { granted: Some(granted), renew_at, .. }) = &mut self.lease
            && *renew_at <= now
        {
            // Renewals do not wait for `hold`, but they need a pause, too.
            *renew_at = now + answer_within(*granted);
        }
        self.trouble(error);
    }

    pub(super) fn not_watching(&mut self, error: WireError, now: Instant) {
        if self.goes() {
            // Nothing depends on the watch any more, and its trouble is not to hold up the rest.
            return;
        }
        let Link::Up { watch, .. } = &mut self.link else { return };
        *watch = Watch::None;
        self.place = Place::Unknown;
        if error.kind == Kind::Denied {
            self.not_watched = Some(error);
            return;
        }
        self.hold = now + self.backoff.next(&mut self.rng);
        self.trouble(error);
    }

    /// Notes what stands in the way. What is registered stays so until its lease's time is over.
    pub(super) fn trouble(&mut self, error: WireError) {
        let error = SourceError::new(error);
        self.last_error = Some(error.clone());
        self.report(match &self.status.state {
            RegistrationState::Registering(_) => RegistrationState::Registering(Some(error)),
            other => other.clone(),
        });
    }
}
