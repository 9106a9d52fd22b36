//! Who has which connection, who waits, and when another one is made: decisions only, no sockets.
//!
//! After each change the owner carries out [`State::next`] until there is nothing left to do. So
//! nobody waits beside a connection that could be used, and never are more connections being made
//! than there are callers waiting.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use super::backoff::Backoff;
use super::failure::Failure;

/// How many connections are made at a time: who waits may be served elsewhere meanwhile, and a burst
/// of requests asks several endpoints each.
const AT_A_TIME: usize = 8;

/// How often at most it is asked what can expire: with a timeout of 0, it would be without end.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// A connection, as far as the decisions need it.
pub(super) trait Link: Sized {
    /// Whether it is not closed.
    fn is_open(&self) -> bool;

    /// How many requests it carries at a time.
    fn room(&self) -> usize;

    /// A second hold on it, if it carries several requests.
    fn share(&self) -> Option<Self>;

    /// Whether both are holds on the same one.
    fn is_same(&self, other: &Self) -> bool;

    /// Of one that is given up: whether that counts as a failure to connect, which it does once.
    fn is_to_blame(&self, now: Instant) -> bool;

    /// Which [period](State::period) it was begun in.
    fn period(&self) -> u64;
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_connections: usize,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
}

/// `C` is a connection, `W` the end of a channel to a caller that waits.
pub(super) struct State<C, W> {
    limits: Limits,
    store: Store<C>,
    /// Connections that there are, used or not, and that are being made.
    places: usize,
    connecting: usize,
    /// By age.
    waiters: BTreeMap<u64, W>,
    next_waiter: u64,
    failing: Option<Failing>,
    backoff: Backoff,
    /// A new one begins with each failure. Several attempts of the same period that fail together are
    /// one failure, not many.
    period: u64,
}

struct Failing {
    last: Failure,
    until: Instant,
}

enum Store<C> {
    /// Those that are not in use, with the time since when; the last one used is the last.
    Own(Vec<(C, Instant)>),
    /// The one that all use.
    Shared(Option<Shared<C>>),
}

struct Shared<C> {
    connection: C,
    in_use: usize,
    since: Instant,
}

/// What a caller is told.
#[derive(Debug)]
pub(super) enum Asked<C> {
    Have(C),
    Failed(Failure),
    /// Wait, as this number.
    Wait(u64),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step<C, W> {
    Give(W, C),
    Fail(Vec<W>, Failure),
    /// Make a connection; it is begun in this period.
    Connect(u64),
}

impl<C: Link, W> State<C, W> {
    pub(super) fn new(shared: bool, limits: Limits) -> Self {
        Self {
            limits,
            store: if shared { Store::Shared(None) } else { Store::Own(Vec::new()) },
            places: 0,
            connecting: 0,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            failing: None,
            backoff: Backoff::default(),
            period: 0,
        }
    }

    /// A caller wants a connection. `waiter` makes its channel, if it has to wait.
    pub(super) fn ask(&mut self, now: Instant, waiter: impl FnOnce() -> W) -> Asked<C> {
        if let Some(connection) = self.take() {
            return Asked::Have(connection);
        }
        if let Some(failing) = self.resting(now) {
            return Asked::Failed(failing.last.clone());
        }
        let number = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.insert(number, waiter());
        Asked::Wait(number)
    }

    /// A caller does not want to wait any longer.
    pub(super) fn leave(&mut self, number: u64) {
        self.waiters.remove(&number);
    }

    /// What is to be done now; `None` when all is done.
    pub(super) fn next(&mut self, now: Instant) -> Option<Step<C, W>> {
        if self.waiters.is_empty() {
            return None;
        }
        if let Some(connection) = self.take() {
            let (_, waiter) = self.waiters.pop_first()?;
            return Some(Step::Give(waiter, connection));
        }
        if let Some(failing) = self.resting(now) {
            if self.connecting > 0 {
                return None;
            }
            // Nobody is told when the rest is over, so nobody may wait for it.
            let last = failing.last.clone();
            return Some(Step::Fail(
                std::mem::take(&mut self.waiters).into_values().collect(),
                last,
            ));
        }
        // While it is not known that the instance is back, one at a time looks.
        let most = if self.failing.is_some() { 1 } else { self.waiters.len().min(AT_A_TIME) };
        if self.connecting < most && self.places < self.limits.max_connections {
            self.connecting += 1;
            self.places += 1;
            return Some(Step::Connect(self.period));
        }
        None
    }

    /// A connection was made.
    pub(super) fn made(&mut self, connection: C, now: Instant) {
        self.connecting -= 1;
        match &mut self.store {
            Store::Own(_) => self.put(connection, now),
            Store::Shared(shared) => *shared = Some(Shared { connection, in_use: 0, since: now }),
        }
    }

    /// An attempt, begun in that period, came to nothing. Returns who is to be told.
    pub(super) fn failed(&mut self, period: u64, failure: Failure, now: Instant) -> Option<W> {
        self.connecting -= 1;
        self.places -= 1;
        self.note(period, failure, now);
        self.waiters.pop_first().map(|(_, waiter)| waiter)
    }

    /// A new connection has served a request.
    pub(super) fn served(&mut self) {
        self.failing = None;
        self.backoff.reset();
    }

    /// A caller gives its connection back.
    pub(super) fn put(&mut self, connection: C, now: Instant) {
        let keep = connection.is_open();
        match &mut self.store {
            Store::Own(idle) => {
                if keep && (idle.len() < self.limits.max_idle || !self.waiters.is_empty()) {
                    idle.push((connection, now));
                    return;
                }
            }
            Store::Shared(Some(shared)) if shared.connection.is_same(&connection) => {
                shared.in_use -= 1;
                shared.since = now;
                if keep {
                    return;
                }
            }
            // One that was replaced, and serves those who have it.
            Store::Shared(_) => {}
        }
        self.discard(&connection, now);
    }

    /// A caller gives its connection up.
    pub(super) fn discard(&mut self, connection: &C, now: Instant) {
        match &mut self.store {
            Store::Own(_) => self.places -= 1,
            Store::Shared(shared) => {
                if shared.as_ref().is_some_and(|shared| shared.connection.is_same(connection)) {
                    *shared = None;
                    self.places -= 1;
                }
            }
        }
        if connection.is_to_blame(now) {
            let failure = Failure::connect("the connection was closed before it served");
            self.note(connection.period(), failure, now);
        }
    }

    /// Forgets the connections that were closed while nobody used them. That is no failure: they were
    /// good for as long as they were asked.
    pub(super) fn sweep(&mut self) {
        match &mut self.store {
            Store::Own(idle) => {
                let before = idle.len();
                idle.retain(|(connection, _)| connection.is_open());
                self.places -= before - idle.len();
            }
            Store::Shared(shared) => {
                if shared.as_ref().is_some_and(|shared| !shared.connection.is_open()) {
                    *shared = None;
                    self.places -= 1;
                }
            }
        }
    }

    /// Lets go of the connections that were not used for too long. Returns when to ask again, if there
    /// are any left.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let timeout = self.limits.idle_timeout;
        let old = |since: Instant| now.saturating_duration_since(since) >= timeout;
        match &mut self.store {
            Store::Own(idle) => {
                let expired = idle.iter().take_while(|(_, since)| old(*since)).count();
                idle.drain(..expired);
                self.places -= expired;
            }
            Store::Shared(shared) => {
                if shared.as_ref().is_some_and(|shared| shared.in_use == 0 && old(shared.since)) {
                    *shared = None;
                    self.places -= 1;
                }
            }
        }
        self.expires(now)
    }

    /// When [`expire`](Self::expire) is to be called, if there is anything that can expire.
    pub(super) fn expires(&self, now: Instant) -> Option<Instant> {
        let since = match &self.store {
            Store::Own(idle) => idle.first().map(|(_, since)| *since),
            Store::Shared(Some(shared)) if shared.in_use == 0 => Some(shared.since),
            // It is in use; it may be asked about again when that may be over.
            Store::Shared(shared) => shared.as_ref().map(|_| now),
        };
        since?.checked_add(self.limits.idle_timeout.max(LEAST_PAUSE))
    }

    /// How many connections there are, or are being made, and how many callers wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.places, self.waiters.len())
    }

    fn take(&mut self) -> Option<C> {
        match &mut self.store {
            Store::Own(idle) => {
                while let Some((connection, _)) = idle.pop() {
                    if connection.is_open() {
                        return Some(connection);
                    }
                    self.places -= 1;
                }
                None
            }
            Store::Shared(Some(shared)) if shared.connection.is_open() => {
                if shared.in_use >= shared.connection.room() {
                    return None;
                }
                shared.in_use += 1;
                shared.connection.share()
            }
            Store::Shared(_) => {
                self.sweep();
                None
            }
        }
    }

    fn resting(&self, now: Instant) -> Option<&Failing> {
        self.failing.as_ref().filter(|failing| now < failing.until)
    }

    fn note(&mut self, period: u64, last: Failure, now: Instant) {
        if period == self.period {
            self.period += 1;
            let until = now + self.backoff.next(&mut rand::rng());
            self.failing = Some(Failing { last, until });
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
