//! The watch machine: what to do about what happened, without I/O, clock or chance of its own.
//!
//! ```text
//!            ┌──────────────── wait (jittered, next endpoint) ◄──────────────┐
//!            ▼                                                               │
//!        Connecting ── Connected ──► Opening ── Created ──► Listing ── last ──► Live
//!       (open a connection)     (open a watch at "now")  (list, events held)  page
//!            └── any failure, refusal, end or deadline, in any state ────────┘
//! ```
//!
//! A live watch that is silent is asked for signs of life; see [`pulse`](super::pulse).
//!
//! The watch is opened *first*, at "now", and then the prefix is listed at one revision; events at or
//! below that revision are in the list already and are dropped, later ones follow it. No history is
//! ever read. So nothing that was compacted meanwhile can be missed, a delete least of all; and a
//! store that was wiped or set back shows as what its list says, because what is known of revisions
//! starts anew with each connection.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::pulse::{Beat, Pulse};
use crate::backoff::{self, Backoff};
use crate::rotation::Rotation;
use crate::wire::{Event, Kind, List, Page, WatchMessage, WireError};

/// How long connecting (authenticating included) may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a watch may take to stand. etcd needs 4 s to find out that it has no leader.
const CREATED_WITHIN: Duration = Duration::from_secs(3);
/// How long one page of a list may take.
const PAGE_WITHIN: Duration = Duration::from_secs(4);
/// Even an attempt that hung for longer than the wait is not repeated without a breath.
const BREATH: Duration = Duration::from_millis(50);
/// Live for so long, a failure is a new one and not the same again.
const QUIET: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// The connection asked for stands.
    Connected,
    /// A message of the watch.
    Watch(WatchMessage),
    /// A page asked for.
    Page(Page),
    /// The count asked for: the store's revision, or why there is none.
    Counted(Result<i64, WireError>),
    /// Connecting, opening, listing or the watch itself failed.
    Failed(WireError),
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Connect to this endpoint.
    Connect(usize),
    /// Open the watch at "now".
    Open,
    /// Fetch a page.
    List(List),
    /// The page is the next part of the whole set.
    Stage(Page),
    /// What was staged is the whole set as of this revision.
    Commit { revision: i64 },
    /// These changes happened.
    Apply(Vec<Event>),
    /// Ask for a sign of life on the watch's stream.
    Probe,
    /// Count the keys, linearizably.
    Count,
    /// The set is as of now after all.
    Trust,
    /// Give up the connection and whatever was asked of it, and what was staged.
    Disconnect,
    /// The set may be out of date from now on, because of this.
    Trouble(WireError),
}

#[derive(Debug)]
enum State {
    /// Not connected; the next attempt is due.
    Waiting { until: Instant },
    /// A connection is being made.
    Connecting { since: Instant },
    /// The watch is being opened.
    Opening { since: Instant },
    /// The watch stands, the list is being fetched; what the watch says meanwhile is held back.
    Listing {
        /// When the page was asked for.
        since: Instant,
        /// The revision of the first page, to which the others are pinned.
        at: Option<i64>,
        /// The revision at which the watch stands: the list must not be older.
        created: i64,
        /// By key, the last event only: however long the list takes, this is bounded by the keys.
        held: BTreeMap<Vec<u8>, Event>,
    },
    /// The set is known; changes behind `floor` follow.
    Live {
        floor: i64,
        since: Instant,
        pulse: Pulse,
        /// The floor when the keys were last counted: the count cannot be behind it.
        asked_at: i64,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    prefix: Vec<u8>,
    rotation: Rotation,
    state: State,
    backoff: Backoff,
    rng: StdRng,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that follows all keys that start with `prefix`. It tries the endpoints of
    /// `rotation` in turn and is due at once.
    pub(crate) fn new(prefix: Vec<u8>, rotation: Rotation, rng: StdRng, now: Instant) -> Self {
        Self {
            prefix,
            rotation,
            state: State::Waiting { until: now },
            backoff: Backoff::default(),
            rng,
            actions: VecDeque::new(),
        }
    }

    /// What all keys that it follows start with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to tell of the time, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Instant {
        match &self.state {
            State::Waiting { until } => *until,
            State::Connecting { since } => *since + CONNECT_WITHIN,
            State::Opening { since } => *since + CREATED_WITHIN,
            State::Listing { since, .. } => *since + PAGE_WITHIN,
            State::Live { pulse, .. } => pulse.deadline(),
        }
    }

    /// Takes in what happened. Whatever does not fit the state is late news of a connection that was
    /// given up, and of no interest.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) {
        if let (Input::Watch(message), State::Live { pulse, .. }) = (&input, &mut self.state) {
            let beat = pulse.heard(matches!(message, WatchMessage::Progress), now);
            self.beat(beat, now);
        }
        match input {
            Input::Tick => self.tick(now),
            Input::Counted(counted) => self.counted(counted, now),
            Input::Connected => self.connected(now),
            Input::Watch(WatchMessage::Created { revision }) => self.created(revision, now),
            Input::Watch(WatchMessage::Events(events)) => self.events(events),
            Input::Watch(WatchMessage::Canceled(error)) | Input::Failed(error) => {
                self.failed(error, now);
            }
            Input::Watch(WatchMessage::Progress) => {}
            Input::Page(page) => self.page(page, now),
        }
    }

    fn tick(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        let name = self.rotation.name().to_owned();
        let late = |what: &str, within: Duration| {
            let cause = format!("no answer within {} s", within.as_secs());
            WireError::unreachable(what, &name, cause)
        };
        match &mut self.state {
            State::Waiting { .. } => {
                self.state = State::Connecting { since: now };
                self.actions.push_back(Action::Connect(self.rotation.current()));
            }
            State::Connecting { .. } => self.failed(late("connect", CONNECT_WITHIN), now),
            State::Opening { .. } => self.failed(late("open a watch", CREATED_WITHIN), now),
            State::Listing { .. } => self.failed(late("list", PAGE_WITHIN), now),
            State::Live { pulse, .. } => {
                let beat = pulse.tick(now);
                self.beat(beat, now);
            }
        }
    }

    /// Does what the pulse of a live watch calls for.
    fn beat(&mut self, beat: Beat, now: Instant) {
        let dead = |cause| WireError::unreachable("watch", self.rotation.name(), cause);
        if let (Beat::Count | Beat::Both, State::Live { floor, asked_at, .. }) =
            (beat, &mut self.state)
        {
            *asked_at = *floor;
        }
        match beat {
            Beat::Nothing => {}
            Beat::Probe => self.actions.push_back(Action::Probe),
            Beat::Count => self.actions.push_back(Action::Count),
            Beat::Both => self.actions.extend([Action::Probe, Action::Count]),
            Beat::Doubt => {
                let error = dead("no sign of life for 5 s");
                self.actions.push_back(Action::Trouble(error));
            }
            Beat::Trust => self.actions.push_back(Action::Trust),
            Beat::Dead => self.failed(dead("no sign of life"), now),
        }
    }

    fn counted(&mut self, counted: Result<i64, WireError>, now: Instant) {
        let State::Live { asked_at, pulse, .. } = &mut self.state else { return };
        // Without an answer, the pulse decides when its time comes.
        let Ok(revision) = counted else { return };
        if revision < *asked_at {
            // It was wiped or set back: what the watch will say is of another history.
            let cause = format!("the store is at revision {revision}, behind {asked_at}");
            let error = WireError::unreachable("watch", self.rotation.name(), cause);
            return self.failed(error, now);
        }
        pulse.counted(now);
    }

    fn connected(&mut self, now: Instant) {
        if let State::Connecting { .. } = self.state {
            self.state = State::Opening { since: now };
            self.actions.push_back(Action::Open);
        }
    }

    fn created(&mut self, created: i64, now: Instant) {
        if let State::Opening { .. } = self.state {
            let held = BTreeMap::new();
            self.state = State::Listing { since: now, at: None, created, held };
            self.list(None, None);
        }
    }

    fn list(&mut self, after: Option<Vec<u8>>, at: Option<i64>) {
        self.actions.push_back(Action::List(List { prefix: self.prefix.clone(), after, at }));
    }

    fn page(&mut self, page: Page, now: Instant) {
        let State::Listing { since, at, created, held } = &mut self.state else { return };
        // Later pages carry the revision of their own time: the first one's counts.
        let revision = *at.get_or_insert(page.revision);
        if revision < *created {
            let cause = format!("revision {revision} is older than the watch, {created}");
            return self.failed(WireError::unreachable("list", self.rotation.name(), cause), now);
        }
        *since = now;
        let last = page.entries.last().map(|entry| entry.key.clone());
        match last {
            None if page.more => {
                let cause = "a page without keys promises more of them";
                self.failed(WireError::unreachable("list", self.rotation.name(), cause), now);
            }
            Some(last) if page.more => {
                self.actions.push_back(Action::Stage(page));
                self.list(Some(last), Some(revision));
            }
            _ => {
                let held = std::mem::take(held);
                self.actions.push_back(Action::Stage(page));
                self.actions.push_back(Action::Commit { revision });
                self.state = State::Live {
                    floor: revision,
                    since: now,
                    pulse: Pulse::new(now),
                    asked_at: revision,
                };
                let mut held: Vec<_> = held.into_values().collect();
                held.sort_by_key(Event::revision);
                self.events(held);
            }
        }
    }

    fn events(&mut self, mut events: Vec<Event>) {
        match &mut self.state {
            State::Listing { held, .. } => {
                held.extend(events.into_iter().map(|event| (event.key().to_vec(), event)));
            }
            State::Live { floor, .. } => {
                events.retain(|event| event.revision() > *floor);
                if let Some(last) = events.last() {
                    *floor = last.revision();
                    self.actions.push_back(Action::Apply(events));
                }
            }
            _ => {}
        }
    }

    fn failed(&mut self, error: WireError, now: Instant) {
        match self.state {
            State::Waiting { .. } => return,
            State::Live { since, .. } if now.saturating_duration_since(since) >= QUIET => {
                self.backoff.reset();
            }
            _ => {}
        }
        // An attempt that hung has waited already.
        let from = match self.state {
            State::Connecting { since } | State::Opening { since } => since,
            _ => now,
        };
        let wait = match error.kind {
            Kind::Denied => backoff::denied(&mut self.rng),
            _ => self.backoff.next(&mut self.rng),
        };
        self.rotation.rotate();
        self.state = State::Waiting { until: (from + wait).max(now + wait.min(BREATH)) };
        self.actions.push_back(Action::Disconnect);
        self.actions.push_back(Action::Trouble(error));
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
