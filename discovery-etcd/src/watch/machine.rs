//! The watch machine: what to do about what happened to one prefix, without I/O, clock or chance of
//! its own.
//!
//! ```text
//!   Down ── up ──► Opening ── created ──► Listing ── last page ──► Live ──┐
//!    ▲               ▲  │ denied: a new token, once   ▲              │    │ audit: keys and
//!    │ the link      │  ▼                            └── differs ───┘◄───┘ revisions only
//!    │ is down    Waiting ◄── refused, canceled, late: jittered wait
//! ```
//!
//! The watch is opened *first*, at "now", and then the prefix is listed at one revision; events at or
//! below that revision are in the list already and are dropped, later ones follow it. No history is
//! ever read. So nothing that was compacted meanwhile can be missed, a delete least of all; and a
//! store that was wiped or set back shows as what its list says, because what is known of revisions
//! starts anew with each watch.
//!
//! The connection is the [link](crate::link)'s business and is shared: a prefix in trouble of its own
//! disturbs nobody else on it. As the last line of defence, what is known is audited now and then
//! against keys and revisions alone; if that differs for longer than events are on their way, the
//! prefix is listed again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::backoff::{self, Backoff};
use crate::wire::{Event, Kind, List, Page, WireError};

/// How long one page of a list may take.
const PAGE_WITHIN: Duration = Duration::from_secs(4);
/// How long to be given a new token may take.
const REFRESH_WITHIN: Duration = Duration::from_secs(3);
/// Live for so long, a failure is a new one and not the same again.
const QUIET: Duration = Duration::from_secs(10);
/// How long an event may be on its way before the audit is believed.
const SETTLE: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// There is a connection, to this endpoint.
    Up(Arc<str>),
    /// There is none, or none any more.
    Down(WireError),
    /// The connection may be dead, or is not after all.
    Doubt(WireError),
    Trust,
    /// What was denied is worth another attempt.
    Retry,
    /// The watch stands since this revision.
    Created {
        revision: i64,
    },
    /// The watch is refused, or ended by the server.
    Refused(WireError),
    /// What changed.
    Events(Vec<Event>),
    /// A page asked for, or why there is none.
    Page(Result<Page, WireError>),
    /// The token is new, or why it is not.
    Refreshed(Result<(), WireError>),
    /// Something was published in between: the list is out of date.
    Outdated,
    /// So many keys are still not as the audit says.
    Audited(usize),
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Open the watch at "now", in place of the one there may be.
    Open,
    /// Ask for a new token.
    Refresh,
    /// Fetch a page.
    List(List),
    /// The page is the next part of the whole set.
    Stage(Page),
    /// What was staged is the whole set as of this revision.
    Commit {
        revision: i64,
    },
    /// These changes happened.
    Apply(Vec<Event>),
    /// The audit begins; the page is a part of what it says; it was as of this revision; events have
    /// had time to explain what differs.
    AuditBegin,
    AuditPage(Page),
    AuditEnd {
        at: i64,
    },
    AuditSettle,
    /// The audit found what differs, and the set is listed again.
    Repair {
        differing: usize,
    },
    /// The set is as of now after all.
    Trust,
    /// Give up the watch, whatever was asked, and what was staged.
    Abandon,
    /// The connection is of no use.
    Condemn(WireError),
    /// Something took too long: is the connection alive?
    Check,
    /// The set may be out of date from now on, because of this.
    Trouble(WireError),
}

#[derive(Debug)]
enum State {
    /// There is no connection.
    Down,
    /// There is one; the next attempt is due.
    Waiting { until: Instant, denied: bool },
    /// Access was denied; a new token may mend that.
    Refreshing { since: Instant },
    /// The watch is being opened.
    Opening,
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
    Live { floor: i64, since: Instant, audit: Audit },
}

#[derive(Debug)]
enum Audit {
    /// The next one is due then; `None`: there is none.
    Due(Option<Instant>),
    /// Its pages are being fetched, as of the revision of the first one.
    Listing { since: Instant, at: Option<i64> },
    /// It is complete; events on their way have until then to explain what differs.
    Settling { until: Instant },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    prefix: Vec<u8>,
    /// Where the connection is to.
    endpoint: Arc<str>,
    /// How often what is known is audited.
    audit_every: Option<Duration>,
    state: State,
    /// A new token was asked for in this series of attempts.
    refreshed: bool,
    doubted: bool,
    backoff: Backoff,
    /// For jitter only, and there are many machines.
    rng: SmallRng,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that follows all keys that start with `prefix`, once there is a connection.
    pub(crate) fn new(prefix: Vec<u8>, audit_every: Option<Duration>, rng: SmallRng) -> Self {
        Self {
            prefix,
            endpoint: Arc::default(),
            audit_every,
            state: State::Down,
            refreshed: false,
            doubted: false,
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
        let next = self.actions.pop_front();
        if next.is_none() {
            // Most of the time there is nothing to do, and many wait.
            self.actions = VecDeque::new();
        }
        next
    }

    /// When to tell of the time, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Down | State::Opening => None,
            State::Waiting { until, .. } | State::Live { audit: Audit::Settling { until }, .. } => {
                Some(*until)
            }
            State::Refreshing { since } => Some(*since + REFRESH_WITHIN),
            State::Listing { since, .. }
            | State::Live { audit: Audit::Listing { since, .. }, .. } => Some(*since + PAGE_WITHIN),
            State::Live { audit: Audit::Due(at), .. } => *at,
        }
    }

    /// Takes in what happened. Whatever does not fit the state is late news of what was given up, and
    /// of no interest.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Up(endpoint) => {
                self.endpoint = endpoint;
                self.refreshed = false;
                self.open();
            }
            Input::Down(error) => self.down(error, now),
            Input::Doubt(error) => {
                if let State::Live { .. } = self.state {
                    self.doubted = true;
                    self.actions.push_back(Action::Trouble(error));
                }
            }
            Input::Trust => self.trust(),
            Input::Retry => {
                // What is being refused just now was asked with the old ones.
                self.refreshed = false;
                if let State::Waiting { until, denied: true } = &mut self.state {
                    *until = now;
                }
            }
            Input::Created { revision } => self.created(revision, now),
            Input::Refused(error) => match self.state {
                State::Down | State::Waiting { .. } | State::Refreshing { .. } => {}
                _ => self.failed(error, now),
            },
            Input::Events(events) => self.events(events),
            Input::Page(Ok(page)) => self.page(page, now),
            Input::Page(Err(error)) => self.no_page(error, now),
            Input::Refreshed(result) => self.token(result, now),
            Input::Outdated => {
                if let State::Live { .. } = self.state {
                    self.failed(self.unreachable("list", "outdated"), now);
                }
            }
            Input::Audited(differing) => self.audited(differing, now),
            Input::Tick => self.tick(now),
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &mut self.state {
            State::Down | State::Opening => {}
            State::Waiting { .. } => {
                self.refreshed = false;
                self.open();
            }
            State::Refreshing { .. } => {
                let error = self.unreachable("authenticate", "no answer");
                self.late(error, now);
            }
            State::Listing { .. } => {
                let cause = format!("no answer within {} s", PAGE_WITHIN.as_secs());
                self.late(self.unreachable("list", cause), now);
            }
            State::Live { audit, .. } => match audit {
                Audit::Due(_) => {
                    *audit = Audit::Listing { since: now, at: None };
                    self.actions.push_back(Action::AuditBegin);
                    self.list(None, None, true);
                }
                // The next one will do; meanwhile, is anybody there?
                Audit::Listing { .. } => {
                    self.put_off(now);
                    self.actions.push_back(Action::Check);
                }
                Audit::Settling { .. } => {
                    self.put_off(now);
                    self.actions.push_back(Action::AuditSettle);
                }
            },
        }
    }

    fn unreachable(&self, attempt: &str, cause: impl std::fmt::Display) -> WireError {
        let prefix = String::from_utf8_lossy(&self.prefix);
        let attempt = format!("{attempt} {}", prefix.escape_debug());
        WireError::unreachable(&attempt, &self.endpoint, cause)
    }

    fn open(&mut self) {
        self.state = State::Opening;
        self.actions.push_back(Action::Open);
    }

    fn list(&mut self, after: Option<Vec<u8>>, at: Option<i64>, keys_only: bool) {
        let prefix = self.prefix.clone();
        self.actions.push_back(Action::List(List { prefix, after, at, keys_only }));
    }

    fn trust(&mut self) {
        let doubted = std::mem::take(&mut self.doubted);
        if let State::Live { .. } = self.state
            && doubted
        {
            self.actions.push_back(Action::Trust);
        }
    }

    fn down(&mut self, error: WireError, now: Instant) {
        self.settle_backoff(now);
        self.state = State::Down;
        self.actions.extend([Action::Abandon, Action::Trouble(error)]);
    }

    fn created(&mut self, created: i64, now: Instant) {
        if let State::Opening = self.state {
            self.start_list(created, now);
        }
    }

    fn start_list(&mut self, created: i64, now: Instant) {
        let held = BTreeMap::new();
        self.state = State::Listing { since: now, at: None, created, held };
        self.list(None, None, false);
    }

    fn page(&mut self, page: Page, now: Instant) {
        if let State::Live { .. } = self.state {
            return self.audit_page(page, now);
        }
        let State::Listing { since, at, created, held } = &mut self.state else { return };
        // Later pages carry the revision of their own time: the first one's counts.
        let revision = *at.get_or_insert(page.revision);
        if revision < *created {
            let cause = format!("revision {revision} is older than the watch, {created}");
            return self.failed(self.unreachable("list", cause), now);
        }
        *since = now;
        let last = page.entries.last().map(|entry| entry.key.clone());
        match last {
            None if page.more => {
                let cause = "a page without keys promises more of them";
                self.failed(self.unreachable("list", cause), now);
            }
            Some(last) if page.more => {
                // The next page is on its way while this one is read.
                self.list(Some(last), Some(revision), false);
                self.actions.push_back(Action::Stage(page));
            }
            _ => {
                let held = std::mem::take(held);
                self.actions.push_back(Action::Stage(page));
                self.actions.push_back(Action::Commit { revision });
                let audit = Audit::Due(None);
                self.state = State::Live { floor: revision, since: now, audit };
                self.put_off(now);
                self.refreshed = false;
                let mut held: Vec<_> = held.into_values().collect();
                held.sort_by_key(Event::revision);
                self.events(held);
            }
        }
    }

    fn no_page(&mut self, error: WireError, now: Instant) {
        match self.state {
            State::Listing { .. } => self.failed(error, now),
            // Who may not read any more is told so by the audit, though the watch goes on.
            State::Live { .. } if error.kind == Kind::Denied => self.failed(error, now),
            State::Live { audit: Audit::Listing { .. }, .. } => self.put_off(now),
            _ => {}
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

    fn audit_page(&mut self, page: Page, now: Instant) {
        let State::Live { audit: Audit::Listing { since, at }, .. } = &mut self.state else {
            return;
        };
        let revision = *at.get_or_insert(page.revision);
        *since = now;
        let last = page.entries.last().map(|entry| entry.key.clone());
        let more = page.more.then_some(last).flatten();
        self.actions.push_back(Action::AuditPage(page));
        if more.is_some() {
            return self.list(more, Some(revision), true);
        }
        self.actions.push_back(Action::AuditEnd { at: revision });
        if let State::Live { audit, .. } = &mut self.state {
            *audit = Audit::Settling { until: now + SETTLE };
        }
    }

    /// The next audit has its time.
    fn put_off(&mut self, now: Instant) {
        let jitter = self.rng.random_range(0.8..1.2);
        if let State::Live { audit, .. } = &mut self.state {
            *audit = Audit::Due(self.audit_every.map(|every| now + every.mul_f64(jitter)));
        }
    }

    fn audited(&mut self, differing: usize, now: Instant) {
        if let State::Live { floor, .. } = self.state
            && differing > 0
        {
            self.actions.push_back(Action::Repair { differing });
            self.start_list(floor, now);
        }
    }

    fn token(&mut self, result: Result<(), WireError>, now: Instant) {
        if let State::Refreshing { .. } = self.state {
            match result {
                Ok(()) => self.open(),
                Err(error) => self.failed(error, now),
            }
        }
    }

    fn settle_backoff(&mut self, now: Instant) {
        if let State::Live { since, .. } = self.state
            && now.saturating_duration_since(since) >= QUIET
        {
            self.backoff.reset();
        }
    }

    /// Nobody answered in time: that may be us alone, or the connection.
    fn late(&mut self, error: WireError, now: Instant) {
        self.wait(error, now);
        self.actions.push_back(Action::Check);
    }

    fn failed(&mut self, error: WireError, now: Instant) {
        let asked = matches!(self.state, State::Listing { .. } | State::Refreshing { .. });
        match error.kind {
            // The token may be dead: etcd calls that a lack of permission, too.
            Kind::Denied if !self.refreshed => {
                self.refreshed = true;
                self.settle_backoff(now);
                self.actions.push_back(Action::Abandon);
                if let State::Live { .. } = self.state {
                    self.actions.push_back(Action::Trouble(error));
                }
                self.state = State::Refreshing { since: now };
                self.actions.push_back(Action::Refresh);
            }
            Kind::Unreachable if asked => {
                self.wait(error.clone(), now);
                self.actions.push_back(Action::Condemn(error));
            }
            _ => self.wait(error, now),
        }
    }

    fn wait(&mut self, error: WireError, now: Instant) {
        self.settle_backoff(now);
        let denied = error.kind == Kind::Denied;
        let wait =
            if denied { backoff::denied(&mut self.rng) } else { self.backoff.next(&mut self.rng) };
        self.state = State::Waiting { until: now + wait, denied };
        self.actions.extend([Action::Abandon, Action::Trouble(error)]);
    }
}

#[cfg(test)]
#[path = "audit_machine_tests.rs"]
mod audit_tests;
#[cfg(test)]
#[path = "rig.rs"]
mod rig;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "trouble_tests.rs"]
mod trouble_tests;
