//! What calls do, and what they are told.

use std::collections::BTreeSet;
use std::time::Duration;

use discovery_tower::balance::{CallError, Outcome, Standing, Unavailable};
use tokio::time::Instant;

use super::{Call, Model, Phase, STRIKES, Stage};
use crate::world::{Actor, Answer, Event, Readiness};

impl Model {
    pub fn started(&mut self, id: u64, avoid: Option<u32>) {
        let (refused, since) = (BTreeSet::new(), None);
        let call = Call { stage: Stage::New, avoid, refused, causes: 0, since, served: None };
        self.calls.insert(id, call);
    }

    /// A call was polled, or made: this is what happened meanwhile.
    pub fn polled(&mut self, id: u64, log: Vec<Event>, now: Instant) {
        for event in log {
            match event {
                Event::Picked { among, chosen } => {
                    let among: BTreeSet<_> = among.into_iter().collect();
                    assert_eq!(among, self.usable, "the set that call {id} picks from");
                    if let Some(chosen) = chosen {
                        assert!(
                            self.may_go(chosen),
                            "call {id} picks {chosen}, which cannot be used"
                        );
                        let avoid = self.calls[&id].avoid;
                        assert_ne!(avoid, Some(self.made[&chosen].key), "to be avoided");
                    }
                }
                Event::Started { serial, pending } => self.begins(id, serial, Some(pending)),
                Event::Polled { serial, by, was } => {
                    assert_eq!(by, Actor::Call(id), "who polls {serial}");
                    if was != Readiness::Ready {
                        self.unpick(id, serial);
                    }
                    if was == Readiness::Failing {
                        self.broken.push(serial);
                        self.made.get_mut(&serial).unwrap().broken = true;
                        let call = self.calls.get_mut(&id).unwrap();
                        call.refused.insert(serial);
                        call.causes += 1;
                    }
                    if was != Readiness::Ready {
                        self.searches(id, now);
                    }
                }
                Event::Called { serial, request } => {
                    assert_eq!(request, id, "the request that call {id} sends");
                    if !self.watched {
                        self.begins(id, serial, None);
                    }
                    assert_eq!(self.calls[&id].stage, Stage::Picked(serial), "call {id} is sent");
                    self.calls.get_mut(&id).unwrap().stage = Stage::Sent(serial);
                }
                Event::Answered { serial, request, answer } => {
                    assert_eq!((request, self.calls[&id].stage), (id, Stage::Sent(serial)));
                    self.calls.get_mut(&id).unwrap().served = Some(self.made[&serial].key);
                    match answer {
                        Answer::Open => {
                            self.calls.get_mut(&id).unwrap().stage = Stage::Open(serial);
                        }
                        Answer::Response(outcome) | Answer::Error(outcome) => {
                            self.over(id, outcome);
                        }
                        Answer::Back(outcome) => {
                            self.over(id, outcome);
                            let call = self.calls.get_mut(&id).unwrap();
                            call.refused.insert(serial);
                            call.causes += 1;
                            call.since = None;
                            self.searches(id, now);
                        }
                    }
                }
                Event::Finished { serial, pending, outcome } => {
                    let made = &self.made[&serial];
                    assert_eq!((pending, Some(outcome)), (made.pending, made.last), "{serial}");
                    self.told += 1;
                }
                other => panic!("call {id}: {other:?}"),
            }
        }
    }

    /// The call looks for an endpoint from now on, if it does not already.
    pub fn searches(&mut self, id: u64, now: Instant) {
        let call = self.calls.get_mut(&id).unwrap();
        call.since.get_or_insert(now);
        call.stage = Stage::Settling;
    }

    fn begins(&mut self, id: u64, serial: u64, pending: Option<u32>) {
        let call = &self.calls[&id];
        assert!(
            matches!(call.stage, Stage::New | Stage::Settling),
            "call {id} is {:?}",
            call.stage
        );
        // Where picks are not seen, calls are polled as soon as they are made.
        assert!(self.may_go(serial), "call {id} goes to {serial}, which cannot be used");
        assert_ne!(call.avoid, Some(self.made[&serial].key), "call {id} was to avoid {serial}");
        if self.is_full(serial) && !self.may_panic {
            assert!(!self.has_others(call), "call {id} is one too many for {serial}");
        }
        let made = self.made.get_mut(&serial).unwrap();
        if let Some(pending) = pending {
            assert_eq!(pending, made.pending, "calls under way at {serial} as call {id} begins");
        }
        made.pending += 1;
        self.picks += 1;
        self.calls.get_mut(&id).unwrap().stage = Stage::Picked(serial);
    }

    fn unpick(&mut self, id: u64, serial: u64) {
        let call = self.calls.get_mut(&id).unwrap();
        if call.stage == Stage::Picked(serial) {
            call.stage = Stage::New;
            self.made.get_mut(&serial).unwrap().pending -= 1;
        }
    }

    /// The call at an endpoint is over.
    pub fn over(&mut self, id: u64, outcome: Outcome) {
        let (Stage::Sent(serial) | Stage::Open(serial)) = self.calls[&id].stage else {
            panic!("call {id} is over, and was {:?}", self.calls[&id].stage)
        };
        self.calls.get_mut(&id).unwrap().stage = Stage::New;
        self.ended += 1;
        let standing = self.standing(serial);
        let key = self.made[&serial].key;
        let suspect = self.entries.get(&key).is_some_and(|entry| entry.value.suspect);
        let current = self.is_current(serial);
        let made = self.made.get_mut(&serial).unwrap();
        made.pending -= 1;
        made.finished += 1;
        made.last = Some(outcome);
        made.closed |= suspect && matches!(outcome, Outcome::Failure | Outcome::Cancelled);
        match outcome {
            Outcome::Success => (made.streak, made.passed) = (0, true),
            Outcome::Failure => (made.failures, made.streak) = (made.failures + 1, made.streak + 1),
            Outcome::Overloaded { .. } => made.failures += 1,
            Outcome::Cancelled if suspect => {
                (made.perhaps, made.streak) = (made.perhaps + 1, made.streak + 1);
            }
            _ => {}
        }
        let perhaps = suspect && outcome == Outcome::Cancelled;
        if !current || !(outcome.is_failure() || perhaps) {
            return;
        }
        // What came first may have ended its probation.
        let certain =
            suspect || standing == Some(Standing::Probation) && !made.passed && !made.broken;
        let may_be = certain || standing == Some(Standing::Probation);
        let streak = made.streak;
        let entry = self.entries.get_mut(&key).unwrap();
        entry.blamed |= may_be || streak >= STRIKES || outcome != Outcome::Failure;
        if certain && outcome == Outcome::Failure && !entry.out {
            self.certainly_out.push(serial);
        }
    }

    /// A call is gone: dropped, or it has told its caller all there was.
    pub fn gone(&mut self, id: u64) {
        match self.calls[&id].stage {
            Stage::Picked(serial) => self.unpick(id, serial),
            Stage::Sent(_) | Stage::Open(_) => self.over(id, Outcome::Cancelled),
            Stage::New | Stage::Settling => {}
        }
        self.calls.remove(&id);
    }

    /// Whether it is on probation and has a call.
    pub(super) fn is_full(&self, serial: u64) -> bool {
        self.standing(serial) == Some(Standing::Probation) && self.made[&serial].pending > 0
    }

    /// Whether there are endpoints for this call that may take any number of calls.
    fn has_others(&self, call: &Call) -> bool {
        let is_other = |&other: &u64| {
            let open = !self.is_full(other) && !self.made[&other].closed;
            open && self.is_free_for(call, other)
        };
        self.usable.iter().any(is_other)
    }

    pub(super) fn count(&self, phase: Phase) -> usize {
        self.entries.values().filter(|entry| entry.phase == phase).count()
    }

    pub(super) fn is_free_for(&self, call: &Call, serial: u64) -> bool {
        self.may_go(serial)
            && !call.refused.contains(&serial)
            && call.avoid != Some(self.made[&serial].key)
    }

    /// A call ended without having been sent to anybody.
    pub fn refused(&mut self, id: u64, error: &CallError<u32>, now: Instant) {
        let call = &self.calls[&id];
        assert!(matches!(call.stage, Stage::Settling | Stage::New), "call {id}: {error}");
        let waits = call.since.map_or(Duration::ZERO, |since| now - since);
        let which = match error {
            CallError::NotLoaded { waited, .. } => {
                assert!(self.entries.is_empty() && !self.published, "call {id}: {error}");
                assert!(*waited == waits && *waited >= self.limits.load, "{waits:?}: {error:?}");
                0
            }
            CallError::NoEndpoints { .. } => {
                assert!(self.entries.is_empty() && self.published, "call {id}: {error}");
                1
            }
            CallError::Unavailable { waited, endpoints, reason, .. } => {
                assert_eq!(
                    (*waited, *endpoints),
                    (waits, self.entries.len()),
                    "call {id}: {error}"
                );
                self.unavailable(id, *reason, waits);
                2
            }
            other => panic!("call {id}: {other}"),
        };
        self.errors[which] += 1;
    }

    fn unavailable(&self, id: u64, reason: Unavailable, waited: Duration) {
        let call = &self.calls[&id];
        let avoided =
            self.usable.iter().copied().filter(|&serial| {
                call.avoid == Some(self.made[&serial].key) && self.may_go(serial)
            });
        let avoided: Vec<_> = avoided.collect();
        if reason == Unavailable::Avoided {
            assert!(!avoided.is_empty(), "call {id} avoids nobody");
            return;
        }
        let is_sure = |&serial: &u64| {
            !call.refused.contains(&serial) && self.standing(serial) == Some(Standing::Up)
        };
        assert!(!avoided.iter().any(is_sure), "call {id} avoids one that is there: {reason:?}");
        let weightless = self.entries.values().any(|entry| entry.value.weight == 0);
        let (connecting, failed) = (self.count(Phase::Connecting), self.count(Phase::Failed));
        let expected = if !self.usable.is_empty() {
            if call.causes > 0 { Unavailable::Failed } else { Unavailable::NotReady }
        } else if connecting > 0 {
            Unavailable::NotReady
        } else if failed > 0 {
            Unavailable::Failed
        } else if weightless {
            Unavailable::Weightless
        } else {
            Unavailable::OutOfService
        };
        assert_eq!(reason, expected, "call {id}: {call:?}");
        let limit = if connecting > 0 {
            self.limits.ready
        } else if failed > 0 || !self.usable.is_empty() {
            self.limits.failed
        } else {
            Duration::ZERO
        };
        assert!(waited >= limit, "call {id} waited {waited:?} only: {reason:?}");
    }
}
