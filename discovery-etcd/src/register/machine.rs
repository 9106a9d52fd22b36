//! The registration machine: what to do so that etcd says what is wanted, without I/O, clock or
//! chance of its own.
//!
//! It is not a path through states but a comparison: of what is *wanted* with what is *known* of the
//! connection, the lease and the key. Whenever nothing is being asked, [`Machine::step`] asks the
//! first thing that brings the two closer:
//!
//! ```text
//! connected?  lease due?   own key watched?  lease granted?  key known?   key ours, as wanted?
//! connect  →  renew it  →  watch it       →  grant one    →  read it   →  put it (guarded)
//! ```
//!
//! What is known changes by answers and by the watch on the key; a lost connection makes the key
//! unknown and leaves the lease to be renewed. The lease is asked for by an id of our choice, so that
//! a lost answer does no harm. Each registration has a lease of its own: to revoke it deletes the key
//! and fences off a put that may still be under way.

use std::collections::VecDeque;
use std::time::Duration;

use discovery_core::{
    Address, Conflict, InstanceKey, RegistrationState, RegistrationStatus, SourceError, Unconfirmed,
};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::OnConflict;
use super::lease::Lease;
use super::messages::{Action, Answer, Input, Plan, Question, Wanted};
use crate::backoff::{self, Backoff};
use crate::rotation::Rotation;
use crate::wire::{
    Event, Guard, GuardedPut, KeyValue, Keys, Kind, PutReply, WatchMessage, WireError,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often the key is read even though the watch says nothing.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// A server that is full or refuses is asked again after this, more or less a half.
const HOLD: Duration = Duration::from_secs(2);
/// Connected for so long, a failure is a new one and not the same again.
const QUIET: Duration = Duration::from_secs(10);
/// Also when a lease is about to expire, a server that is away is not tried more often.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// A handle that was dropped lets us try for this long.
const ABANDON_WITHIN: Duration = Duration::from_secs(3);
/// While leaving there is little time: who does not answer in this must not use up all of it.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Link {
    Down { until: Instant },
    Connecting,
    Up { since: Instant, watching: bool },
}

/// What is known of the key.
#[derive(Debug)]
enum Place {
    Unknown,
    Absent,
    /// Attached to our lease, with the value of this version (0: of none that is wanted).
    Ours {
        version: u64,
    },
    Foreign {
        revision: i64,
        address: Option<Address>,
    },
}

#[derive(Debug)]
struct Asked {
    question: Question,
    /// The version that a put carries.
    version: u64,
    sent: Instant,
    deadline: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    plan: Plan,
    wanted: Wanted,
    /// When to give up being sure that the key is gone.
    give_up: Option<Instant>,
    link: Link,
    rotation: Rotation,
    asked: Option<Asked>,
    lease: Option<Lease>,
    place: Place,
    /// The store's revision that `place` is known as of, on this connection.
    known: i64,
    verify_at: Instant,
    /// Nothing is granted or put before this.
    hold: Instant,
    backoff: Backoff,
    rng: StdRng,
    was_registered: bool,
    last_error: Option<SourceError>,
    status: RegistrationStatus,
    ended: bool,
    actions: VecDeque<Action>,
}

impl Machine {
    pub(crate) fn new(plan: Plan, wanted: Wanted, rng: StdRng, now: Instant) -> Self {
        let rotation = plan.rotation.clone();
        let mut machine = Self {
            plan,
            wanted,
            give_up: None,
            link: Link::Down { until: now },
            rotation,
            asked: None,
            lease: None,
            place: Place::Unknown,
            known: 0,
            verify_at: now,
            hold: now,
            backoff: Backoff::default(),
            rng,
            was_registered: false,
            last_error: None,
            status: RegistrationStatus::new(),
            ended: false,
            actions: VecDeque::new(),
        };
        machine.step(now);
        machine
    }

    /// What is being registered.
    pub(crate) fn key(&self) -> &InstanceKey {
        &self.plan.key
    }

    /// The time to live that is asked for.
    pub(crate) fn ttl(&self) -> Duration {
        self.plan.ttl
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to tell of the time, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next = match (&self.asked, &self.link) {
            (Some(asked), _) => Some(asked.deadline),
            (None, Link::Down { until }) => Some(*until),
            (None, Link::Connecting) => None,
            (None, Link::Up { .. }) => match &self.lease {
                Some(Lease { granted: Some(_), renew_at, .. }) => {
                    let held = self.put_if().is_some().then_some(self.hold);
                    [Some(self.verify_at), Some(*renew_at), held].into_iter().flatten().min()
                }
                _ => Some(self.hold),
            },
        };
        let expires = match self.status.state {
            RegistrationState::Registered => self.lease.as_ref().and_then(Lease::expires),
            _ => None,
        };
        [next, self.give_up, expires].into_iter().flatten().min()
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) {
        if self.ended {
            return;
        }
        match input {
            Input::Wanted(wanted) => self.want(wanted, now),
            Input::Answer(answer) => {
                // None: an answer to a question that no longer matters.
                if let Some(asked) = self.take_asked(now) {
                    match answer {
                        Ok(answer) => self.answered(asked, answer, now),
                        Err(error) => self.refused(&asked, error, now),
                    }
                }
            }
            // Late news of a watch that was given up.
            Input::Watch(_) if !matches!(self.link, Link::Up { watching: true, .. }) => {}
            Input::Watch(Ok(WatchMessage::Events(events))) => self.events(events),
            Input::Watch(Ok(WatchMessage::Created { .. } | WatchMessage::Progress)) => {}
            Input::Watch(Ok(WatchMessage::Canceled(error)) | Err(error)) => self.lost(error, now),
            Input::Tick => self.tick(now),
        }
        self.step(now);
    }

    fn want(&mut self, wanted: Wanted, now: Instant) {
        if self.is_leaving() && !matches!(wanted, Wanted::Absent { .. }) {
            // Who leaves does not come back, and has the time that was given first.
            return;
        }
        self.give_up = match &wanted {
            Wanted::Present { .. } => None,
            Wanted::Absent { deadline } => Some(*deadline),
            Wanted::Abandoned => Some(now + ABANDON_WITHIN),
        };
        self.wanted = wanted;
        if self.is_leaving() {
            // Whatever is under way was for the old wish. A put that lands late finds no lease.
            match &mut self.link {
                Link::Up { .. } => drop(self.take_asked(now)),
                Link::Down { until } => *until = now,
                Link::Connecting => {
                    if let Some(asked) = &mut self.asked {
                        asked.deadline = asked.deadline.min(now + LEAVE_WITHIN);
                    }
                }
            }
            self.backoff.reset();
            self.report(RegistrationState::Deregistering);
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    fn is_leaving(&self) -> bool {
        !matches!(self.wanted, Wanted::Present { .. })
    }

    fn tick(&mut self, now: Instant) {
        if self.give_up.is_some_and(|give_up| now >= give_up) {
            self.take_asked(now);
            let gone = self.lease.as_ref().and_then(Lease::gone);
            let within = gone.map(|at| at.saturating_duration_since(now));
            let error = self.last_error.clone();
            let unconfirmed = Unconfirmed::new(self.plan.key.clone(), within, error);
            return self.end(RegistrationState::Abandoned(unconfirmed));
        }
        if matches!(self.status.state, RegistrationState::Registered)
            && self.lease.as_ref().and_then(Lease::expires).is_some_and(|at| now >= at)
        {
            self.report(RegistrationState::Registering(self.last_error.clone()));
        }
        if self.asked.as_ref().is_some_and(|asked| now >= asked.deadline)
            && let Some(asked) = self.take_asked(now)
        {
            let within = (asked.deadline - asked.sent).as_secs_f64();
            let cause = format!("no answer within {within:.1} s");
            self.lost(
                WireError::unreachable(asked.question.what(), self.rotation.name(), cause),
                now,
            );
        }
    }

    /// What was asked is answered or no longer matters.
    fn take_asked(&mut self, now: Instant) -> Option<Asked> {
        let asked = self.asked.take()?;
        if let (Question::Grant { .. } | Question::Renew { .. }, Some(lease)) =
            (&asked.question, &mut self.lease)
        {
            lease.over = now;
        }
        Some(asked)
    }

    /// Asks the first thing that brings what is known closer to what is wanted.
    fn step(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        let put = self.lease.as_ref().is_some_and(|lease| lease.granted.is_some());
        if self.is_leaving() && !put && !(self.lease.is_some() && self.is_up()) {
            // Nothing was ever put under a lease that may still be alive. A lease whose grant is not
            // confirmed is empty; it is revoked if that costs nothing.
            return self.end(RegistrationState::Deregistered);
        }
        if self.asked.is_some() {
            return;
        }
        let watching = match self.link {
            Link::Down { until } if now >= until => {
                self.link = Link::Connecting;
                let within = if self.is_leaving() { LEAVE_WITHIN } else { CONNECT_WITHIN };
                return self.ask(Question::Connect(self.rotation.current()), within, now);
            }
            Link::Down { .. } | Link::Connecting => return,
            Link::Up { watching, .. } => watching,
        };
        if self.is_leaving() || self.conflict_is_final() {
            match &self.lease {
                Some(lease) => {
                    return self.ask(Question::Revoke { lease: lease.id }, LEAVE_WITHIN, now);
                }
                None => return self.end(self.status.state.clone()),
            }
        }
        if let Some(&Lease { id, granted: Some(granted), renew_at, .. }) = self.lease.as_ref()
            && now >= renew_at
        {
            return self.ask(Question::Renew { lease: id }, answer_within(granted), now);
        }
        // An answer must not take so long that the next renewal comes too late.
        let granted = self.lease.as_ref().and_then(|lease| lease.granted);
        let within = granted.map_or(ANSWER_WITHIN, answer_within);
        if !watching {
            let keys = Keys::One(self.plan.raw_key.clone());
            return self.ask(Question::Watch(keys), within, now);
        }
        let lease = match &self.lease {
            Some(Lease { id, granted: Some(_), .. }) => *id,
            unconfirmed => {
                let known = unconfirmed.as_ref().map(|lease| lease.id);
                if now >= self.hold {
                    self.grant(known, now);
                }
                return;
            }
        };
        if let Place::Unknown = self.place {
            return self.ask(Question::Get(self.plan.raw_key.clone()), within, now);
        }
        match (self.put_if(), &self.wanted) {
            (Some(guard), Wanted::Present { value, .. }) if now >= self.hold => {
                let (key, value) = (self.plan.raw_key.clone(), value.clone());
                let put = GuardedPut { key, value, lease, guard };
                self.ask(Question::Put(put), within, now);
            }
            _ if now >= self.verify_at => {
                self.ask(Question::Get(self.plan.raw_key.clone()), within, now);
            }
            _ => {}
        }
    }

    /// Under which condition the key is to be put; `None` if it is not.
    fn put_if(&self) -> Option<Guard> {
        let Wanted::Present { address: ours, version, .. } = &self.wanted else { return None };
        match &self.place {
            Place::Unknown => None,
            Place::Absent => Some(Guard::Absent),
            Place::Ours { version: known } => {
                let lease = self.lease.as_ref()?.id;
                (known != version).then_some(Guard::Lease(lease))
            }
            Place::Foreign { revision, address } => {
                self.replaces(address.as_ref(), ours).then_some(Guard::Revision(*revision))
            }
        }
    }

    /// Whether a holder at `address` is our dead predecessor.
    fn replaces(&self, address: Option<&Address>, ours: &Address) -> bool {
        self.plan.replace_same_address && !self.was_registered && address == Some(ours)
    }

    fn conflict_is_final(&self) -> bool {
        matches!(&self.status.state, RegistrationState::Conflict(conflict) if !conflict.waiting)
    }

    fn grant(&mut self, known: Option<i64>, now: Instant) {
        let lease = known.unwrap_or_else(|| self.rng.random_range(1..=i64::MAX));
        self.lease = Some(Lease::unconfirmed(lease, now));
        self.ask(Question::Grant { lease, ttl: self.plan.ttl }, ANSWER_WITHIN, now);
    }

    fn ask(&mut self, question: Question, within: Duration, now: Instant) {
        let version = match &self.wanted {
            Wanted::Present { version, .. } => *version,
            _ => 0,
        };
        self.actions.push_back(Action::Ask(question.clone()));
        self.asked = Some(Asked { question, version, sent: now, deadline: now + within });
    }

    fn answered(&mut self, asked: Asked, answer: Answer, now: Instant) {
        match answer {
            Answer::Connected => {
                self.link = Link::Up { since: now, watching: false };
                self.place = Place::Unknown;
                self.known = 0;
                if let Some(lease) = &mut self.lease {
                    // While we were away its time went on.
                    lease.renew_at = now;
                }
            }
            Answer::Watching => {
                if let Link::Up { watching, .. } = &mut self.link {
                    *watching = true;
                }
            }
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
                self.verify_at = now + VERIFY_EVERY;
                self.judge(found.entry, found.revision);
            }
            Answer::Put(PutReply::Done { revision }) => {
                self.verify_at = now + VERIFY_EVERY;
                if revision >= self.known {
                    self.known = revision;
                    self.settle(Place::Ours { version: asked.version });
                }
            }
            Answer::Revoked => self.revoked(),
        }
    }

    /// The lease is alive since `sent`.
    fn confirm(&mut self, granted: Option<Duration>, sent: Instant) {
        let jitter = self.rng.random_range(0.9..1.1);
        let Some(lease) = &mut self.lease else { return };
        let Some(granted) = granted.or(lease.granted) else { return };
        if lease.granted.is_none() && granted != self.plan.ttl {
            self.actions.push_back(Action::OtherTtl { granted });
        }
        lease.granted = Some(granted);
        lease.sent = sent;
        lease.renew_at = sent + granted.mul_f64(jitter / 3.0);
        self.report(self.status.state.clone());
    }

    fn revoked(&mut self) {
        self.lease = None;
        self.place = Place::Unknown;
    }

    /// etcd refused what was asked, or it could not be asked.
    fn refused(&mut self, asked: &Asked, error: WireError, now: Instant) {
        match (&asked.question, error.kind) {
            (Question::Revoke { .. }, Kind::LeaseNotFound) => self.revoked(),
            (Question::Renew { .. } | Question::Put(_), Kind::LeaseNotFound) => {
                // With the lease went the key. Grant and put again.
                self.lease = None;
                self.place = Place::Unknown;
                if self.was_registered && !self.conflict_is_final() {
                    self.last_error = Some(SourceError::new(error));
                    self.report(RegistrationState::Registering(self.last_error.clone()));
                }
            }
            (Question::Grant { lease, .. }, Kind::LeaseExists) => {
                let lease = *lease;
                self.ask(Question::GrantedTtl { lease }, ANSWER_WITHIN, now);
            }
            (Question::Grant { .. } | Question::Put(_), Kind::Busy | Kind::Rejected) => {
                // The connection is good and the lease must be renewed: only this has to wait.
                self.hold = now + HOLD.mul_f64(self.rng.random_range(0.5..1.5));
                self.trouble(error);
            }
            _ => self.lost(error, now),
        }
    }

    /// The connection is of no use any more.
    fn lost(&mut self, error: WireError, now: Instant) {
        if let Link::Up { since, .. } = self.link
            && now.saturating_duration_since(since) >= QUIET
        {
            self.backoff.reset();
        }
        // An attempt that hung has waited already.
        let from = self.take_asked(now).map_or(now, |asked| asked.sent);
        let wait = self.backoff.next(&mut self.rng);
        let until = (from + wait).max(now + wait.min(SHORTEST_WAIT));
        let until = match (error.kind, &self.lease) {
            // What is registered must not be lost because something else is not allowed.
            (Kind::Denied, Some(lease)) if lease.expires().is_some_and(|at| now < at) => {
                until.max(lease.renew_at).min(now + backoff::denied(&mut self.rng))
            }
            (Kind::Denied, _) => now + backoff::denied(&mut self.rng),
            // An outage shorter than the lease's time must not cost the lease: the less of it is left,
            // the shorter the wait.
            (_, Some(lease)) => {
                let left = lease.expires().map(|at| at.saturating_duration_since(now));
                let left = left.filter(|left| !left.is_zero()).map(|left| left / 2);
                left.map_or(until, |left| until.min(now + left.max(SHORTEST_WAIT)))
            }
            _ => until,
        };
        self.link = Link::Down { until };
        self.rotation.rotate();
        self.place = Place::Unknown;
        self.actions.push_back(Action::Disconnect);
        self.trouble(error);
    }

    /// Notes what stands in the way. What is registered stays so until its lease's time is over.
    fn trouble(&mut self, error: WireError) {
        let error = SourceError::new(error);
        self.last_error = Some(error.clone());
        self.report(match &self.status.state {
            RegistrationState::Registering(_) => RegistrationState::Registering(Some(error)),
            other => other.clone(),
        });
    }

    fn events(&mut self, events: Vec<Event>) {
        for event in events {
            let revision = event.revision();
            match event {
                Event::Put(entry) => self.judge(Some(entry), revision),
                Event::Delete { .. } => self.judge(None, revision),
            }
        }
    }

    /// The key stood like this at `revision`.
    fn judge(&mut self, entry: Option<KeyValue>, revision: i64) {
        if revision < self.known {
            // Older than what is known: answers and events overtake each other.
            return;
        }
        self.known = revision;
        let ours = self.lease.as_ref().map(|lease| lease.id);
        self.settle(match entry {
            None => Place::Absent,
            Some(entry) if Some(entry.lease) == ours => match &self.wanted {
                Wanted::Present { value, version, .. } if *value == entry.value => {
                    Place::Ours { version: *version }
                }
                _ => Place::Ours { version: 0 },
            },
            Some(entry) => Place::Foreign {
                revision: entry.revision,
                address: (self.plan.address_of)(&entry.value),
            },
        });
    }

    /// Takes the key's place for known and tells what it means.
    fn settle(&mut self, place: Place) {
        self.place = place;
        if self.conflict_is_final() {
            return;
        }
        let Wanted::Present { address: ours, version, .. } = &self.wanted else { return };
        match &self.place {
            Place::Ours { version: known } => {
                self.was_registered = true;
                if known == version {
                    self.status.applied = *version;
                    self.report(RegistrationState::Registered);
                }
            }
            Place::Foreign { address, .. } => {
                if !self.replaces(address.as_ref(), ours) {
                    let waiting = self.plan.on_conflict == OnConflict::Wait;
                    let key = self.plan.key.clone();
                    let conflict = Conflict::new(key, address.clone(), waiting);
                    self.report(RegistrationState::Conflict(conflict));
                }
            }
            Place::Absent if !matches!(self.status.state, RegistrationState::Registering(_)) => {
                let cause = SourceError::new("the key was deleted");
                self.report(RegistrationState::Registering(Some(cause)));
            }
            Place::Absent | Place::Unknown => {}
        }
    }

    fn report(&mut self, state: RegistrationState) {
        self.status.state = state;
        self.status.expires = self.lease.as_ref().and_then(Lease::expires);
        self.status.last_error.clone_from(&self.last_error);
        self.actions.push_back(Action::Report(self.status.clone()));
    }

    fn end(&mut self, state: RegistrationState) {
        self.ended = true;
        self.asked = None;
        self.actions.push_back(Action::Disconnect);
        self.report(state);
        self.actions.push_back(Action::End);
    }
}

/// How long an answer may take while a lease of this time to live has to be renewed.
fn answer_within(granted: Duration) -> Duration {
    (granted / 6).clamp(Duration::from_millis(500), ANSWER_WITHIN)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
