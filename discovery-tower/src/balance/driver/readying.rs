//! Services on their way to being ready, and what comes of it. A new service for an endpoint that has one
//! gets ready beside it, so that a change of address costs no call.

use std::sync::Arc;

use tokio::time::Instant;

use super::books::{Books, Made};
use super::entry::{Counted, Phase};
use crate::balance::error::SharedError;
use crate::balance::flight::Endpoint;
use crate::balance::member::Member;
use crate::balance::parts::Parts;
use crate::balance::settle::Readying;

impl<T: Parts> Books<T> {
    pub(super) fn make(
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

    /// A service for another state of an endpoint: it takes the place of the present one when it is
    /// ready.
    pub(super) fn replace(&mut self, key: &T::Key, endpoint: Arc<T::Endpoint>, made: Made<T>) {
        if let Some(id) = self.entries.find(key) {
            self.succeed(id, endpoint, made);
        }
    }

    pub(super) fn succeed(&mut self, id: usize, made_for: Arc<T::Endpoint>, made: Made<T>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (key, weight) = (entry.member().key().clone(), entry.member().own_weight());
        let suspect = entry.member().is_suspect();
        let endpoint = entry.member().endpoint();
        let next = self.make(id, key, endpoint, made, weight);
        next.member.set_suspect(suspect);
        let Some(entry) = self.entries.get_mut(id) else { return };
        let trouble = entry.trouble();
        if let Some(at) = trouble.retry_at.take() {
            self.timers.remove(&(at, id));
        }
        trouble.wants = None;
        let former = trouble.next.replace((next.clone(), made_for));
        self.abandoned |= former.is_some();
        self.to_ready.push(Readying::new(next));
    }

    /// Whether somebody waits for this service to become ready.
    pub(super) fn awaits(&self, readying: &Readying<T>) -> bool {
        let endpoint = readying.endpoint();
        self.entries.get(endpoint.id).is_some_and(|entry| {
            let is_present = entry.readying && Arc::ptr_eq(&entry.endpoint, endpoint);
            is_present || entry.is_next(endpoint)
        })
    }

    /// Whether, since this was last asked, somebody stopped waiting for a service to become ready.
    pub(super) fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// A service has become ready, or has failed to.
    pub(super) fn readied(
        &mut self,
        endpoint: &Arc<Endpoint<T>>,
        ready: Result<(), SharedError>,
        now: Instant,
    ) {
        let id = endpoint.id;
        let Some(entry) = self.entries.get_mut(id) else { return };
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

    /// The next service of an endpoint takes the place of its present one.
    fn take_over(&mut self, id: usize) {
        self.withdraw(id);
        let Some(entry) = self.entries.get_mut(id) else { return };
        let next = entry.trouble.as_mut().and_then(|trouble| trouble.next.take());
        let Some((next, made_for)) = next else { return };
        if Arc::ptr_eq(&made_for, &entry.made_for) {
            next.member.inherit(entry.member());
        }
        next.member.set_endpoint(entry.member().endpoint());
        next.member.set_until(entry.member().until());
        entry.before = Counted::by(&next.member);
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
            self.entries.iter_mut().for_each(|(_, entry)| entry.joins = false);
        }
        let Some(entry) = self.entries.get_mut(id) else { return };
        let former = std::mem::replace(&mut entry.phase, Phase::Connected);
        let returns = former == Phase::Failed && full * 2 >= all;
        let starts = !window.is_zero() && full > 0 && (entry.joins || returns);
        entry.joins = false;
        if let Some(trouble) = &mut entry.trouble {
            trouble.connects(entry.endpoint.member.key(), now);
        }
        if starts {
            entry.trouble().ramp_from = Some(now);
        }
        self.connecting -= usize::from(former == Phase::Connecting);
        self.failed.remove(&id);
        self.changed = true;
        self.place(id);
    }
}
