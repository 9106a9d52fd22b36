//! Who is left out, and who is let in again. What is held against whom the rules say; here it is done,
//! and written down with all that follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::books::Books;
use super::departed::Record;
use super::entry::{Counted, Panic};
use crate::balance::ejection::{Tally, Why};
use crate::balance::flight::Endpoint;
use crate::balance::hub::later;
use crate::balance::logged::Logged;
use crate::balance::member::{Gate, Standing};
use crate::balance::parts::Parts;

impl<T: Parts> Books<T> {
    /// Whether one more may be put out; suspects that are do not count.
    fn may_eject(&self) -> bool {
        self.rules.ejection.may_eject(self.ejected.len() - self.gone, self.lists.len())
    }

    /// An endpoint failed, and is to be judged: it failed so often in a row, or else was a suspect, or on
    /// probation.
    pub(super) fn struck(&mut self, endpoint: &Arc<Endpoint<T>>, enough: bool, now: Instant) {
        let Some(entry) = self.entries.of(endpoint) else { return };
        if entry.is_out() {
            // It may be used all the same, and as a suspect it was closed at once.
            self.place(endpoint.id);
            return;
        }
        let member = entry.member();
        // Not by its gate, which a call may have closed since.
        let proves = entry.trouble.as_ref().is_some_and(|trouble| trouble.to_pass > 0);
        let why = if member.is_suspect() {
            Why::Suspect
        } else if member.standing() == Standing::Probation || (proves && !enough) {
            Why::Probation
        } else if enough {
            Why::Consecutive
        } else {
            // What it was then it is no more. As a suspect it was closed at once.
            self.place(endpoint.id);
            return;
        };
        self.eject(endpoint.id, why, now);
    }

    fn eject(&mut self, id: usize, why: Why, now: Instant) {
        let may = self.may_eject();
        if !why.is_certain() && !may {
            // One that fails in a row stays spared until it serves; else it is compared again.
            let spared = self.spared.entry(id).or_insert(why);
            if why == Why::Consecutive {
                *spared = why;
            }
            self.review_panic();
            return;
        }
        let Some(entry) = self.entries.get_mut(id) else { return };
        let trouble = entry.trouble();
        trouble.ejections = trouble.ejections.saturating_add(1);
        let times = trouble.ejections;
        let time = self.rules.ejection.time(times);
        entry.member().forgive();
        warn!(endpoint = ?Logged(entry.member().key()), ?why, times, ?time, "endpoint is left out for failing");
        self.hub.seen.ejected(why);
        self.leave_out(id, later(now, time));
    }

    fn leave_out(&mut self, id: usize, until: Instant) {
        let at = self.hub.at(until);
        let Some(entry) = self.entries.get_mut(id) else { return };
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
    pub(super) fn overloaded(
        &mut self,
        endpoint: &Arc<Endpoint<T>>,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        let may = self.may_eject();
        let time = retry_after.unwrap_or(Duration::from_secs(1));
        let time = time.min(self.rules.ejection.max_retry_after);
        let Some(entry) = self.entries.of(endpoint) else { return };
        if entry.is_out() || !may || time.is_zero() {
            return;
        }
        debug!(endpoint = ?Logged(entry.member().key()), ?time, "endpoint is overloaded");
        self.hub.seen.ejected(Why::Overloaded);
        self.leave_out(endpoint.id, later(now, time));
    }

    /// An endpoint on probation served a call.
    pub(super) fn passed(&mut self, endpoint: &Arc<Endpoint<T>>) {
        let Some(entry) = self.entries.of(endpoint) else { return };
        let trouble = entry.trouble();
        trouble.to_pass = trouble.to_pass.saturating_sub(1);
        if trouble.to_pass == 0 && entry.member().gate() == Gate::Probation {
            entry.member().set_gate(Gate::Open);
            info!(endpoint = ?Logged(entry.member().key()), "endpoint is used again");
            self.place(endpoint.id);
        }
    }

    /// Ends an ejection, if there is one; `to_pass` calls have to go well one at a time then.
    pub(super) fn let_in(&mut self, id: usize, to_pass: u32) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(trouble) = &mut entry.trouble else { return };
        let Some(until) = trouble.out_until.take() else { return };
        trouble.to_pass = to_pass;
        self.gone -= usize::from(std::mem::take(&mut trouble.gone));
        if to_pass == 0 && trouble.ejections > 0 {
            info!(endpoint = ?Logged(entry.endpoint.member.key()), "endpoint is used again");
        }
        entry.endpoint.member.set_until(0);
        self.timers.remove(&(until, id));
        self.ejected.remove(&id);
        self.review_panic();
    }

    /// An endpoint that comes back is judged as if it had stayed.
    pub(super) fn resume(&mut self, id: usize, record: Record, now: Instant) {
        let may = self.may_eject();
        let probation = self.rules.ejection.probation;
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.member().set_failures_in_a_row(record.failures_in_a_row);
        let trouble = entry.trouble();
        trouble.ejections = record.ejections;
        trouble.to_pass = record.to_pass;
        trouble.said = record.said;
        match record.out_until {
            Some(until) if until > now && may => self.leave_out(id, until),
            Some(_) if record.ejections > 0 => trouble.to_pass = probation,
            _ => {}
        }
    }

    /// How often [`sweep`](Self::sweep) is to be done.
    pub(super) fn interval(&self) -> Duration {
        self.rules.ejection.interval.max(Duration::from_millis(1))
    }

    /// Once an interval: compares success rates, and forgets what is past.
    pub(super) fn sweep(&mut self, now: Instant) {
        let mut tallies = Vec::new();
        for (id, entry) in self.entries.iter_mut() {
            let member = &entry.endpoint.member;
            let counted = Counted::by(member);
            let (calls, failures) = counted.since(std::mem::replace(&mut entry.before, counted));
            let out = entry.is_out();
            if calls > 0 && !out {
                tallies.push(Tally { id, calls, failures });
            }
            if let Some(trouble) = &mut entry.trouble {
                trouble.stays(member.key(), now);
                if !out {
                    trouble.ejections = trouble.ejections.saturating_sub(u32::from(failures == 0));
                }
            }
        }
        self.departed.sweep(now);
        let rule = self.rules.ejection.success_rate.as_ref();
        let outliers = rule.map(|rule| rule.outliers(&tallies)).unwrap_or_default();
        let (entries, strikes) = (&self.entries, self.rules.ejection.consecutive.max(1));
        self.spared.retain(|id, why| match why {
            Why::SuccessRate => outliers.contains(id),
            _ => entries.get(*id).is_some_and(|it| it.member().failures_in_a_row() >= strikes),
        });
        for id in outliers {
            self.eject(id, Why::SuccessRate, now);
        }
        for (id, why) in self.spared.clone() {
            self.eject(id, why, now);
        }
        self.review_panic();
    }

    /// Whether an endpoint was left out for failing, and not only because it asked for it.
    fn has_failed(&self, id: usize) -> bool {
        let trouble = self.entries.get(id).and_then(|entry| entry.trouble.as_ref());
        trouble.is_some_and(|trouble| trouble.ejections > 0)
    }

    /// Whether so many are bad that all have to be used.
    pub(super) fn review_panic(&mut self) {
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
                if std::mem::take(&mut self.panic_said) {
                    info!(service, bad, all, "endpoints that fail are left out again");
                }
            } else if !self.spared.is_empty() || self.ejected.iter().any(|id| self.has_failed(*id))
            {
                if !std::mem::replace(&mut self.panic_said, true) {
                    warn!(service, bad, all, "so many endpoints fail that all are used");
                }
            } else {
                // That may be each second.
                debug!(service, bad, all, "so many endpoints are overloaded that all are used");
            }
            // Of those that are used, who has something to prove is let off while there is panic.
            let concerned = self.entries.iter_mut().filter(|(_, entry)| {
                let trouble = entry.trouble.as_ref();
                trouble.is_some_and(|it| it.out_until.is_some() || it.to_pass > 0)
            });
            let concerned: Vec<usize> = concerned.map(|(id, _)| id).collect();
            for id in concerned {
                self.place(id);
            }
        }
    }
}
