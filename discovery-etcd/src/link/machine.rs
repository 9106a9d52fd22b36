//! The link machine: one connection to one etcd endpoint at a time, as long as somebody uses it;
//! without I/O, clock or chance of its own.
//!
//! ```text
//!   Idle ── used ──► Waiting ── due ──► Connecting ── connected ──► Up
//!                       ▲                    │                      │
//!                       └── jittered wait, next endpoint ◄──────────┘ failed, condemned, dead
//! ```
//!
//! Whether a connection that is up is alive is [`pulse`](super::pulse)'s question. A store that was
//! wiped or set back accepts watches in its future and then keeps silent; it is told by a count whose
//! revision is behind one that this connection has shown.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::pulse::{Beat, LATE, Pulse};
use crate::backoff::{self, Backoff};
use crate::rotation::Rotation;
use crate::wire::{Kind, WireError};

/// How long connecting, authenticating included, may take …
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// … and while all who use it are leaving: who does not answer must not use up all the time there is.
const HURRIED_WITHIN: Duration = Duration::from_secs(1);
/// Even an attempt that hung for longer than the wait is not repeated without a breath.
const BREATH: Duration = Duration::from_millis(50);
/// Also when a lease is about to expire, a server that is away is not tried more often.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Up for so long, a failure is a new one and not the same again.
const QUIET: Duration = Duration::from_secs(10);
/// How often the cluster is asked for its members, more or less a fifth.
const MEMBERS_EVERY: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// Somebody uses the connection now, or nobody does any more.
    Used(bool),
    Connected,
    /// Connecting failed, or the stream of the watches has ended.
    Failed(WireError),
    /// A user has found the connection to be of no use.
    Condemned(WireError),
    /// Something on the connection takes long: is it alive, and can anything be read? It is given up
    /// unless that is known by then.
    Check {
        by: Instant,
    },
    /// The stream said something; in answer to a probe, or with a revision of the store.
    Heard {
        progress: bool,
        revision: i64,
    },
    /// The count asked for: the store's revision, or why there is none.
    Counted(Result<i64, WireError>),
    /// The members asked for.
    Members(Vec<String>),
    /// Somebody leaves and has time until then.
    Hurry {
        until: Instant,
    },
    /// Whether somebody uses it who does not leave.
    Stays(bool),
    /// A lease is lost unless there is a connection by then.
    NeededBy(Instant),
    /// The credentials have changed: what was refused may not be now.
    Retry,
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Connect to this endpoint.
    Connect(String),
    /// Tell the users that there is a connection.
    Up,
    /// Give up the connection, or the attempt, and tell the users why.
    Down(WireError),
    /// Give it up without a word: there are no users.
    Close,
    /// Ask for a sign of life on the stream.
    Probe,
    /// Count some keys, linearizably.
    Count,
    /// Ask for the members.
    Members,
    /// Tell the users that what they know may be out of date from now on.
    Doubt(WireError),
    /// Tell the users that it is as of now after all.
    Trust,
}

#[derive(Debug)]
enum State {
    /// Nobody uses it; after a failure it is to rest until then all the same.
    Idle { until: Option<Instant>, denied: bool },
    /// Not connected; the next attempt is due.
    Waiting { until: Instant, denied: bool },
    /// A connection is being made.
    Connecting {
        since: Instant,
        within: Duration,
        /// The credentials have changed since it began.
        outdated: bool,
    },
    /// There is one.
    Up {
        since: Instant,
        /// From the first message of the stream on.
        pulse: Option<Pulse>,
        /// The latest revision that it has shown.
        seen: i64,
        /// That revision when keys were last counted: the count cannot be behind it.
        asked_at: i64,
        /// A count that must be answered, since something else was not. The stream can be alive where a
        /// member is cut off from its disk.
        read: Option<Read>,
        members_at: Option<Instant>,
    },
}

/// What is read to see whether anything can be.
#[derive(Debug)]
struct Read {
    since: Instant,
    by: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Machine {
    rotation: Rotation,
    /// Whether to ask the cluster for its members.
    follow_members: bool,
    state: State,
    backoff: Backoff,
    hurry: Option<Instant>,
    /// Somebody uses it who is in no hurry, and needs a connection that takes its time, too.
    stays: bool,
    rng: StdRng,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that tries the endpoints of `rotation` in turn.
    pub(super) fn new(rotation: Rotation, follow_members: bool, rng: StdRng) -> Self {
        Self {
            rotation,
            follow_members,
            state: State::Idle { until: None, denied: false },
            backoff: Backoff::default(),
            hurry: None,
            stays: false,
            rng,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The endpoint in use.
    pub(super) fn endpoint(&self) -> &str {
        self.rotation.current()
    }

    /// When to tell of the time, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { .. } => None,
            State::Waiting { until, .. } => Some(*until),
            State::Connecting { since, within, .. } => Some(*since + *within),
            State::Up { pulse, read, members_at, .. } => {
                let pulse = pulse.as_ref().map(Pulse::deadline);
                let read = read.as_ref().map(|read| read.by);
                [pulse, read, *members_at].into_iter().flatten().min()
            }
        }
    }

    /// Takes in what happened. Whatever does not fit the state is late news of a connection that was
    /// given up, and of no interest.
    pub(super) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Used(used) => self.used(used, now),
            Input::Connected => self.connected(now),
            Input::Failed(error) | Input::Condemned(error) => self.failed(error, now),
            Input::Check { by } => self.check(by, now),
            Input::Heard { progress, revision } => self.heard(progress, revision, now),
            Input::Counted(counted) => self.counted(counted, now),
            Input::Members(members) => self.rotation.refresh(members),
            Input::Hurry { until: leaving } => {
                self.hurry = self.hurry.max(Some(leaving));
                self.backoff.reset();
                if let State::Waiting { until, .. } = &mut self.state {
                    *until = now;
                }
                self.pace(now);
            }
            Input::Stays(stays) => {
                self.stays = stays;
                self.pace(now);
            }
            Input::NeededBy(needed) => {
                // The less time is left, the shorter the wait. With none left there is no hurry.
                let left = needed.saturating_duration_since(now);
                if let State::Waiting { until, .. } = &mut self.state
                    && !left.is_zero()
                {
                    *until = (*until).min(now + (left / 2).max(SHORTEST_WAIT));
                }
            }
            Input::Retry => match &mut self.state {
                State::Waiting { until, denied: true } => *until = now,
                State::Idle { until, denied: true } => *until = None,
                State::Connecting { outdated, .. } => *outdated = true,
                _ => {}
            },
            Input::Tick => self.tick(now),
        }
    }

    fn used(&mut self, used: bool, now: Instant) {
        match (&self.state, used) {
            (State::Idle { until, denied }, true) => {
                let (until, denied) = (until.unwrap_or(now), *denied);
                self.state = State::Waiting { until, denied };
            }
            (State::Idle { .. }, false) | (_, true) => {}
            (state, false) => {
                let (until, denied) = match state {
                    State::Waiting { until, denied } => (Some(*until), *denied),
                    _ => (None, false),
                };
                self.state = State::Idle { until, denied };
                self.hurry = None;
                self.actions.push_back(Action::Close);
            }
        }
    }

    /// How long an attempt that begins now may take.
    fn connect_within(&self, now: Instant) -> Duration {
        let hurried = !self.stays && self.hurry.is_some_and(|until| now < until);
        if hurried { HURRIED_WITHIN } else { CONNECT_WITHIN }
    }

    /// Gives the attempt under way the time that it may take by those who need it now.
    fn pace(&mut self, now: Instant) {
        let left = self.connect_within(now);
        if let State::Connecting { since, within, .. } = &mut self.state {
            *within = if left < CONNECT_WITHIN {
                (*within).min(now + left - *since)
            } else {
                CONNECT_WITHIN
            };
        }
    }

    fn tick(&mut self, now: Instant) {
        let within = self.connect_within(now);
        match &mut self.state {
            State::Idle { .. } => {}
            State::Waiting { until, .. } if now < *until => {}
            State::Waiting { .. } => {
                self.state = State::Connecting { since: now, within, outdated: false };
                self.actions.push_back(Action::Connect(self.rotation.current().to_owned()));
            }
            State::Connecting { since, within, .. } => {
                if now >= *since + *within {
                    let cause = format!("no answer within {:.1} s", within.as_secs_f64());
                    let error = WireError::unreachable("connect", self.rotation.current(), cause);
                    self.failed(error, now);
                }
            }
            State::Up { pulse, read, members_at, .. } => {
                if let Some(Read { since, by }) = read
                    && now >= *by
                {
                    let within = *by - *since;
                    if now <= *by + LATE {
                        let cause =
                            format!("no read is answered within {:.1} s", within.as_secs_f64());
                        let error = WireError::unreachable("count", self.rotation.current(), cause);
                        return self.failed(error, now);
                    }
                    // It was us who did not run: the answer may be there and not be read yet.
                    (*since, *by) = (now, now + within);
                }
                if members_at.is_some_and(|at| now >= at) {
                    let every = MEMBERS_EVERY.mul_f64(self.rng.random_range(0.8..1.2));
                    *members_at = Some(now + every);
                    self.actions.push_back(Action::Members);
                }
                if let Some(pulse) = pulse {
                    let beat = pulse.tick(now);
                    self.beat(beat, now);
                }
            }
        }
    }

    fn connected(&mut self, now: Instant) {
        if let State::Connecting { .. } = self.state {
            let members_at = self.follow_members.then_some(now);
            self.state =
                State::Up { since: now, pulse: None, seen: 0, asked_at: 0, read: None, members_at };
            self.actions.push_back(Action::Up);
        }
    }

    fn heard(&mut self, progress: bool, revision: i64, now: Instant) {
        if let State::Up { pulse, seen, .. } = &mut self.state {
            *seen = revision.max(*seen);
            let beat = pulse.get_or_insert_with(|| Pulse::new(now)).heard(progress, now);
            self.beat(beat, now);
        }
    }

    /// Asks for a sign of life and, linearizably, for a count. One that is under way will do.
    fn check(&mut self, by: Instant, now: Instant) {
        let State::Up { pulse, read, .. } = &mut self.state else { return };
        let reads = read.is_none();
        let read = read.get_or_insert(Read { since: now, by });
        read.by = read.by.min(by);
        // Without a watch there is no stream to show a sign of life.
        let probes = pulse.as_mut().map_or(Beat::Nothing, |pulse| pulse.check(now));
        let beat = match probes {
            Beat::Probe if reads => Beat::Both,
            Beat::Nothing if reads => Beat::Count,
            beat => beat,
        };
        self.beat(beat, now);
    }

    /// Does what the pulse calls for.
    fn beat(&mut self, beat: Beat, now: Instant) {
        let State::Up { seen, asked_at, .. } = &mut self.state else { return };
        if let Beat::Count | Beat::Both = beat {
            *asked_at = *seen;
        }
        let dead = |cause| WireError::unreachable("watch", self.rotation.current(), cause);
        match beat {
            Beat::Nothing => {}
            Beat::Probe => self.actions.push_back(Action::Probe),
            Beat::Count => self.actions.push_back(Action::Count),
            Beat::Both => self.actions.extend([Action::Probe, Action::Count]),
            Beat::Doubt => {
                let error = dead("no sign of life for 5 s");
                self.actions.push_back(Action::Doubt(error));
            }
            Beat::Trust => self.actions.push_back(Action::Trust),
            Beat::Dead => self.failed(dead("no sign of life"), now),
        }
    }

    fn counted(&mut self, counted: Result<i64, WireError>, now: Instant) {
        let State::Up { asked_at, read, pulse, .. } = &mut self.state else { return };
        let revision = match counted {
            Ok(revision) => revision,
            // That is an answer, too. A member that stays without a leader ends its watches.
            Err(error) if matches!(error.kind, Kind::Denied | Kind::Electing | Kind::Busy) => {
                *asked_at
            }
            // Without one, the pulse decides when its time comes.
            Err(_) => return,
        };
        if revision < *asked_at {
            // It was wiped or set back: what its watches will say is of another history.
            let cause = format!("the store is at revision {revision}, behind {asked_at}");
            let error = WireError::unreachable("watch", self.rotation.current(), cause);
            return self.failed(error, now);
        }
        *read = None;
        if let Some(pulse) = pulse {
            pulse.counted(now);
        }
    }

    fn failed(&mut self, error: WireError, now: Instant) {
        let from = match self.state {
            State::Idle { .. } | State::Waiting { .. } => return,
            State::Up { since, .. } => {
                if now.saturating_duration_since(since) >= QUIET {
                    self.backoff.reset();
                }
                now
            }
            // An attempt that hung has waited already.
            State::Connecting { since, .. } => since,
        };
        let outdated = matches!(self.state, State::Connecting { outdated: true, .. });
        let denied = error.kind == Kind::Denied;
        let wait = if denied && !outdated {
            backoff::denied(&mut self.rng)
        } else {
            self.backoff.next(&mut self.rng)
        };
        self.rotation.rotate();
        self.state = State::Waiting { until: (from + wait).max(now + wait.min(BREATH)), denied };
        self.actions.push_back(Action::Down(error));
    }
}

#[cfg(test)]
#[path = "alive_tests.rs"]
mod alive_tests;
#[cfg(test)]
#[path = "rig.rs"]
mod rig;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
