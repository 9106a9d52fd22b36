//! Services that cannot be used are made anew, again and again, at times that differ: those that lost the
//! same host must not all come back to it at once. Whose time it is to be let in again is told here too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::books::{Books, Made};
use super::departed::Said;
use super::entry::{Phase, Trouble};
use crate::balance::error::SharedError;
use crate::balance::flight::Endpoint;
use crate::balance::logged::Logged;
use crate::balance::parts::Parts;

/// How an endpoint that failed to connect is tried again: full jitter between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// After so long connected, a failure is the first again.
const SETTLED: Duration = Duration::from_secs(10);

impl<T: Parts> Trouble<T> {
    /// Whether it has stayed connected for a while.
    pub(super) fn has_settled(&self, now: Instant) -> bool {
        self.connected.is_some_and(|at| now.saturating_duration_since(at) >= SETTLED)
    }

    /// It has connected.
    pub(super) fn connects<K: fmt::Debug>(&mut self, key: &K, now: Instant) {
        self.connected = Some(now);
        if self.cause.take().is_some() && self.said == Said::Down {
            info!(endpoint = ?Logged(key), "endpoint is ready again");
        }
    }

    /// Says of one that came and went that it has stayed, if it has.
    pub(super) fn stays<K: fmt::Debug>(&mut self, key: &K, now: Instant) {
        if self.has_settled(now) && std::mem::take(&mut self.said) == Said::Flaps {
            info!(endpoint = ?Logged(key), "endpoint is ready again");
        }
    }
}

/// Something whose time has come, for which a new service is needed.
pub(super) struct Due<T: Parts> {
    pub(super) id: usize,
    pub(super) key: T::Key,
    pub(super) endpoint: Arc<T::Endpoint>,
}

impl<T: Parts> Books<T> {
    /// A service failed to become ready for a call.
    pub(super) fn broken(&mut self, endpoint: &Arc<Endpoint<T>>, cause: SharedError, now: Instant) {
        // Told again by each call that had picked it.
        if let Some(entry) =
            self.entries.of(endpoint).filter(|entry| entry.phase == Phase::Connected)
        {
            entry.phase = Phase::Failed;
            endpoint.member.close();
            self.unready(endpoint.id, cause, now);
        }
    }

    pub(super) fn unready(&mut self, id: usize, cause: SharedError, now: Instant) {
        self.hub.seen.unready();
        let random = self.hub.random.next_u64();
        let Some(entry) = self.entries.get_mut(id) else { return };
        // While the present service serves, the next one is tried again beside it.
        let beside = entry.phase == Phase::Connected;
        let former = entry.phase;
        if !beside {
            entry.phase = Phase::Failed;
        }
        let key = entry.endpoint.member.key().clone();
        let trouble = entry.trouble();
        if trouble.has_settled(now) {
            (trouble.attempts, trouble.said) = (0, Said::Nothing);
        }
        trouble.connected = None;
        let again = trouble.cause.is_some();
        match trouble.said {
            Said::Nothing => {
                warn!(endpoint = ?Logged(key), error = %Logged(&cause), "endpoint cannot be used");
                trouble.said = Said::Down;
            }
            Said::Down if !again => {
                warn!(
                    endpoint = ?Logged(key),
                    error = %Logged(&cause),
                    "endpoint comes and goes; it is told again when it has stayed"
                );
                trouble.said = Said::Flaps;
            }
            Said::Down | Said::Flaps => {
                debug!(endpoint = ?Logged(key), error = %Logged(&cause), "endpoint cannot be used");
            }
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
        let Some(entry) = self.entries.get_mut(id) else { return };
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

    /// Lets those in again whose time is over, and tells for which endpoints a new service is needed.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due<T>> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(id) else { continue };
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

    /// When something is due, apart from what happens at intervals.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn untime(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if let Some(trouble) = &mut entry.trouble {
            let times = [trouble.retry_at.take(), trouble.out_until.take()];
            for at in times.into_iter().flatten() {
                self.timers.remove(&(at, id));
            }
        }
    }

    /// A new service for an endpoint whose time to be tried again has come.
    pub(super) fn retry(&mut self, due: Due<T>, made: Made<T>) {
        self.succeed(due.id, due.endpoint, made);
    }

    /// No new service could be made: another time.
    pub(super) fn retry_later(&mut self, due: Due<T>, cause: SharedError, now: Instant) {
        let Some(entry) = self.entries.get_mut(due.id) else { return };
        entry.trouble().wants = Some(due.endpoint);
        self.unready(due.id, cause, now);
    }
}
