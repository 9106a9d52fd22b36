//! What can happen in a step.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use discovery_core::Change;
use discovery_tower::balance::{Availability, CallError, Outcome, Policy};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;
use tower::Service as _;

use super::{At, CALLS, Outstanding, Rig};
use crate::model::{Stage, address};
use crate::polling::Woken;
use crate::world::{Actor, Answer, Given, Line, Readiness, Request, Value};

impl<P: Policy<Request, u32, Value>> Rig<P> {
    pub(super) fn start(&mut self) {
        if self.calls.len() >= CALLS {
            return self.any(Self::cancel);
        }
        self.next += 1;
        let (id, line) = (self.next, Arc::new(Line::default()));
        let avoid = self.rng.random_bool(0.1).then(|| self.rng.random_range(0..self.keys));
        let request = Request { id, avoid, line: line.clone() };
        self.model.started(id, avoid);
        let handle = self.rng.random_range(0..self.handles.len());
        let handle = &mut self.handles[handle];
        self.world.act(Actor::Call(id));
        assert!(handle.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        let call = handle.call(request);
        self.model.polled(id, self.world.take_log(), Instant::now());
        self.calls.insert(id, Outstanding { line, at: At::Call(Woken::new(call)) });
        if !self.watched {
            self.poll(id);
        }
    }

    pub(super) fn poll(&mut self, id: u64) {
        let Some(outstanding) = self.calls.get_mut(&id) else { return };
        let At::Call(call) = &mut outstanding.at else { return };
        self.world.act(Actor::Call(id));
        let polled = call.poll();
        let (log, now) = (self.world.take_log(), Instant::now());
        self.model.polled(id, log, now);
        let stage = self.model.calls[&id].stage;
        match polled {
            Poll::Pending if stage == Stage::New => self.model.searches(id, now),
            Poll::Pending => {}
            Poll::Ready(Ok(Given::Open(completion))) => {
                assert_eq!(Some(*completion.endpoint()), self.model.calls[&id].served);
                assert!(matches!(stage, Stage::Open(_)), "call {id} is {stage:?}");
                outstanding.at = At::Open(completion);
            }
            Poll::Ready(Ok(Given::Over(ref origin))) => {
                assert_eq!(stage, Stage::New, "call {id} is over");
                assert_eq!(Some(*origin.endpoint()), self.model.calls[&id].served);
                self.calls.remove(&id);
                self.model.gone(id);
            }
            Poll::Ready(Err(CallError::Failed { endpoint, .. })) => {
                assert_eq!(Some(endpoint), self.model.calls[&id].served);
                // What came back has nowhere to go when the balancer is gone.
                let gone = self.handles.is_empty() && stage == Stage::Settling;
                assert!(gone || stage == Stage::New, "call {id} is over, and {stage:?}");
                self.calls.remove(&id);
                self.model.gone(id);
            }
            Poll::Ready(Err(error)) => {
                self.model.refused(id, &error, now);
                self.calls.remove(&id);
                self.model.gone(id);
            }
        }
    }

    pub(super) fn answer(&mut self) {
        let sent = self.model.calls.iter().filter(|(_, call)| matches!(call.stage, Stage::Sent(_)));
        let sent: Vec<u64> = sent.map(|(id, _)| *id).collect();
        if sent.is_empty() {
            return;
        }
        let id = sent[self.rng.random_range(0..sent.len())];
        let retry_after = self.rng.random_bool(0.5).then_some(Duration::from_millis(200));
        let answer = match self.rng.random_range(0..100) {
            0..50 => Answer::Response(Outcome::Success),
            50..60 => Answer::Response(Outcome::Failure),
            60..70 => Answer::Error(Outcome::Failure),
            70..75 => Answer::Error(Outcome::Ignore),
            75..78 => Answer::Response(Outcome::Overloaded { retry_after }),
            78..88 => Answer::Open,
            88..96 => Answer::Back(Outcome::Ignore),
            _ => Answer::Back(Outcome::Failure),
        };
        self.calls[&id].line.answer(answer);
    }

    pub(super) fn end(&mut self) {
        let open = self.calls.iter().filter(|(_, call)| matches!(call.at, At::Open(_)));
        let Some(id) = open.map(|(id, _)| *id).next() else { return };
        let Some(Outstanding { at: At::Open(completion), .. }) = self.calls.remove(&id) else {
            return;
        };
        let outcome = match self.rng.random_range(0..4) {
            0 => Outcome::Failure,
            1 => Outcome::Ignore,
            2 => Outcome::Cancelled,
            _ => Outcome::Success,
        };
        if outcome == Outcome::Cancelled {
            drop(completion);
        } else {
            completion.end(outcome);
        }
        self.model.over(id, outcome);
        self.model.polled(id, self.world.take_log(), Instant::now());
        self.model.gone(id);
    }

    pub(super) fn cancel(&mut self, id: u64) {
        self.calls.remove(&id);
        self.model.gone(id);
        self.model.polled(id, self.world.take_log(), Instant::now());
    }

    pub(super) fn change(&mut self) {
        if self.ended || self.silent > 0 {
            self.silent = self.silent.saturating_sub(1);
            return;
        }
        for _ in 0..self.rng.random_range(1..4) {
            let key = self.rng.random_range(0..self.keys);
            let change = match self.rng.random_range(0..100) {
                0..3 => Change::Synced,
                3..20 => {
                    if self.source.remove(&key).is_none() {
                        continue;
                    }
                    Change::Remove(key)
                }
                _ => Change::Insert(key, self.value(key)),
            };
            self.queue.push(Some(change));
        }
    }

    pub(super) fn value(&mut self, key: u32) -> Arc<Value> {
        self.next += 1;
        let former = self.source.get(&key).map_or(0, |value| value.address);
        let moves = self.rng.random_bool(0.3);
        let value = Value {
            // The model reads the address in it.
            version: self.next * 8
                + u64::from(if moves { self.rng.random_range(0..8) } else { former }),
            address: 0,
            weight: *pick(&mut self.rng, &[0, 1, 1, 1, 1, 2, 5]),
            availability: *pick(
                &mut self.rng,
                &[
                    Availability::Up,
                    Availability::Up,
                    Availability::Up,
                    Availability::LastResort,
                    Availability::Out,
                ],
            ),
            suspect: self.rng.random_bool(0.1),
        };
        let value = Value { address: address(value.version), ..value };
        self.source.insert(key, value.clone());
        Arc::new(value)
    }

    pub(super) fn finish_source(&mut self) {
        if self.rng.random_bool(0.01) {
            self.ended = true;
            self.queue.push(None);
        }
    }

    pub(super) fn drive(&mut self) {
        self.world.act(Actor::Driver);
        assert!(self.driver.poll().is_pending(), "the driver ended");
        let (changes, left, ended) = {
            let mut queued = self.queue.0.lock().unwrap();
            (std::mem::take(&mut queued.taken), queued.waiting.len(), queued.ended)
        };
        if !ended && changes.last().is_some_and(|last| !matches!(last, Change::Synced)) {
            // It waits a turn for the rest of the batch. There is none, so that it shows what it has.
            assert!(self.driver.is_woken(), "the driver leaves a batch at that");
            assert!(self.driver.poll().is_pending(), "the driver ended");
        }
        assert_eq!(left, 0, "changes that the driver left");
        let (log, view) = (self.world.take_log(), self.handles[0].endpoints());
        self.model.driven(changes, ended, log, &view, Instant::now());
    }

    /// Some service becomes ready, or not.
    pub(super) fn turn(&mut self) {
        let alive = self.model.held();
        if alive.is_empty() {
            return;
        }
        let serial = *pick(&mut self.rng, &alive);
        let readiness = *pick(
            &mut self.rng,
            &[Readiness::Ready, Readiness::Ready, Readiness::Pending, Readiness::Failing],
        );
        self.world.set(serial, readiness);
    }

    pub(super) async fn advance(&mut self) {
        let millis = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(0..6_000),
            1..6 => self.rng.random_range(0..600),
            _ => self.rng.random_range(0..30),
        };
        tokio::time::advance(Duration::from_millis(millis)).await;
        // Timers fire before this goes on.
        tokio::task::yield_now().await;
    }

    pub(super) fn handle(&mut self) {
        if self.handles.len() < 4 && self.rng.random_bool(0.5) {
            let handle = pick(&mut self.rng, &self.handles).clone();
            self.handles.push(handle);
        } else if self.handles.len() > 1 {
            let which = self.rng.random_range(0..self.handles.len());
            self.handles.swap_remove(which);
        }
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}
