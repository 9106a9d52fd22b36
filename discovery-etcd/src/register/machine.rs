//! The registration machine: what to do so that etcd says what is wanted, without I/O, clock or
//! chance of its own.
//!
//! It is not a path through states but a comparison: of what is *wanted* with what is *known* of the
//! connection, the lease and the key. Whenever nothing is being asked, [`Machine::step`] asks the
//! first thing that brings the two closer:
//!
//! ```text
//! lease due?   own key watched?  lease granted?  key known?   key ours, as wanted?
//! renew it  →  watch it       →  grant one    →  read it   →  put it (guarded)
//! ```
//!
//! What is known changes by answers and by the watch on the key; a lost connection makes the key
//! unknown and leaves the lease to be renewed. The lease is asked for by an id of our choice, so that
//! a lost answer does no harm. Each registration has a lease of its own: to revoke it deletes the key
//! and fences off a put that may still be under way.
//!
//! Where a lease is *shared* it cannot be revoked for one of many, so it fences nothing: a put into an
//! absent key whose answer was lost could land after the key was deleted. So a key that is not ours
//! yet is put under a lease of its own here, too, then moved to the shared one, and the own one is
//! revoked. Every put to a key that is ours is guarded by the lease that it stands under, and a key
//! that is gone stands under none. Who could not leave in time says so and goes on trying for as long as
//! others keep the lease alive, and the key with it.

mod answers;
mod leaving;
mod place;
mod questions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{RegistrationState, RegistrationStatus, SourceError, Unconfirmed};
use rand::rngs::StdRng;
use tokio::time::Instant;

use self::place::Place;
use super::lease::{Lease, answer_within};
use super::messages::{Action, Home, Input, Plan, Question, Wanted};
use crate::backoff::Backoff;
use crate::wire::{Event, Keys, WireError, shown};

/// Longer than an election takes.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// A server that is full or refuses is asked again after this, more or less a half.
const HOLD: Duration = Duration::from_secs(2);
/// Longer than an election takes …
const ELECTION: Duration = Duration::from_secs(4);
/// … and how often it is asked whether it is over.
const AFTER_ELECTION: Duration = Duration::from_millis(250);
/// A handle that was dropped lets us try for this long.
const ABANDON_WITHIN: Duration = Duration::from_secs(3);
/// While leaving there is little time: who does not answer in this must not use up all of it.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// What is refused while leaving is tried again after this.
const LEAVE_HOLD: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum Link {
    Down,
    Up { endpoint: Arc<str>, watch: Watch },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    None,
    Asked,
    Stands,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    /// The wish that a put carries.
    wish: u64,
    sent: Instant,
    /// How long an answer usually takes at most.
    within: Duration,
    /// The link was told that this one is late.
    checked: bool,
    /// When to do something about it.
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
    asked: Option<Asked>,
    lease: Option<Lease>,
    /// The shared lease.
    home: Option<Home>,
    /// Whether the application shows signs of life.
    alive: bool,
    place: Place,
    /// The store's revision that `place` is known as of, on this connection; 0: nothing was read yet.
    known: i64,
    /// The last that the watch said before anything was read on this connection.
    early: Option<Event>,
    verify_at: Instant,
    /// Nothing but a renewal is asked before this.
    hold: Instant,
    /// A new token was asked for since something went well.
    refreshed: bool,
    /// The watch was denied while something else was being asked.
    not_watched: Option<WireError>,
    /// The last question was not answered, over a connection that is alive.
    unanswered: bool,
    /// Since when the member has no leader.
    electing: Option<Instant>,
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
        Self {
            plan,
            wanted,
            give_up: None,
            link: Link::Down,
            asked: None,
            lease: None,
            home: None,
            alive: true,
            place: Place::Unknown,
            known: 0,
            early: None,
            verify_at: now,
            hold: now,
            refreshed: false,
            not_watched: None,
            unanswered: false,
            electing: None,
            backoff: Backoff::default(),
            rng,
            was_registered: false,
            last_error: None,
            status: RegistrationStatus::new(),
            ended: false,
            actions: VecDeque::new(),
        }
    }

    /// What never changes about the registration.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to tell of the time, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next = match (&self.asked, &self.link) {
            (Some(asked), _) => Some(asked.deadline),
            (None, Link::Down) => None,
            (None, Link::Up { .. }) => [self.renew_at(), self.due()].into_iter().flatten().min(),
        };
        let expires = match self.status.state {
            RegistrationState::Registered => self.expires(),
            _ => None,
        };
        [next, self.give_up, expires].into_iter().flatten().min()
    }

    /// When the lease is to be renewed.
    fn renew_at(&self) -> Option<Instant> {
        let lease = self.lease.as_ref().filter(|_| self.renews() && !self.goes())?;
        lease.granted.map(|_| lease.renew_at)
    }

    /// When the first thing other than a renewal is to be asked.
    fn due(&self) -> Option<Instant> {
        if self.goes() {
            return Some(self.hold);
        }
        if !self.renews() {
            return None;
        }
        match &self.link {
            Link::Up { watch: Watch::None, .. } => Some(self.hold),
            Link::Up { watch: Watch::Stands, .. } => {
                let something = self.next_question().is_some();
                Some(if something { self.hold } else { self.verify_at.max(self.hold) })
            }
            _ => None,
        }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) {
        if self.ended {
            return;
        }
        match input {
            Input::Wanted(wanted) => self.want(wanted, now),
            Input::Refused(refused) => {
                self.last_error = Some(refused.cause.clone());
                self.status.refused = Some(refused);
                self.report(self.status.state.clone());
            }
            Input::Up(endpoint) => self.up(endpoint, now),
            Input::Down(error) => self.down(error, now),
            Input::Retry => {
                self.hold = now;
                // What is being refused just now was asked with the old ones.
                self.refreshed = false;
            }
            Input::Watching => {
                if let Link::Up { watch, .. } = &mut self.link {
                    *watch = Watch::Stands;
                }
            }
            Input::NotWatching(error) => self.not_watching(error, now),
            // Late news of a connection that was given up.
            Input::Events(_) if matches!(self.link, Link::Down) => {}
            Input::Events(events) => self.events(events),
            Input::Answer(answer) => {
                // None: an answer to a question that no longer matters.
                if let Some(asked) = self.take_asked(now) {
                    self.unanswered = false;
                    match answer {
                        Ok(answer) => self.answered(asked, answer, now),
                        Err(error) => {
                            let named = asked.question.names_no_key();
                            let error = if named { error.about(&self.key()) } else { error };
                            self.refused(&asked, error, now);
                        }
                    }
                }
            }
            Input::Home(home) => self.moved(home, now),
            Input::Unkept => {
                if let RegistrationState::Abandoned(_) = self.status.state {
                    return self.end(self.status.state.clone());
                }
            }
            Input::Alive(alive) => self.alive(alive),
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
        if let Some(until) = self.give_up {
            // Whatever is under way was for the old wish. A put that lands late finds no lease.
            self.take_asked(now);
            self.hold = now;
            self.actions.push_back(Action::Hurry { until });
            self.report(RegistrationState::Deregistering);
        }
    }

    fn up(&mut self, endpoint: Arc<str>, now: Instant) {
        self.link = Link::Up { endpoint, watch: Watch::None };
        self.place = Place::Unknown;
        self.known = 0;
        self.early = None;
        self.hold = now;
        self.refreshed = false;
        self.not_watched = None;
        self.unanswered = false;
        self.electing = None;
        if let Some(lease) = &mut self.lease {
            // While we were away its time went on.
            lease.renew_at = now;
        }
    }

    fn down(&mut self, error: WireError, now: Instant) {
        self.take_asked(now);
        self.link = Link::Down;
        self.place = Place::Unknown;
        self.trouble(error);
    }

    /// The connection is of no use any more.
    fn lost(&mut self, error: WireError, now: Instant) {
        self.actions.push_back(Action::Condemn(error.clone()));
        self.down(error, now);
    }

    /// The key, for an error.
    fn key(&self) -> String {
        shown(&self.plan.raw_key)
    }

    fn is_leaving(&self) -> bool {
        !matches!(self.wanted, Wanted::Present { .. })
    }

    /// Whether the lease is to be given up.
    fn goes(&self) -> bool {
        self.is_leaving() || self.conflict_is_final()
    }

    /// Whether the lease is kept. A dead application's is left to expire; a shared one is not ours to
    /// leave, so its key is deleted instead.
    fn renews(&self) -> bool {
        self.alive || self.plan.share_lease
    }

    fn tick(&mut self, now: Instant) {
        if self.give_up.is_some_and(|give_up| now >= give_up) {
            self.take_asked(now);
            if !self.may_be_there() {
                return self.end(RegistrationState::Deregistered);
            }
            let within = self.gone().map(|at| at.saturating_duration_since(now));
            let error = self.last_error.clone();
            let unconfirmed = Unconfirmed::new(self.plan.key.clone(), within, error);
            let state = RegistrationState::Abandoned(unconfirmed);
            if !self.may_have_moved() {
                return self.end(state);
            }
            // Others go on renewing the shared lease, so the key has to be deleted some time.
            self.give_up = None;
            self.report(state);
        }
        self.wait_on(now);
        // Whose time it is may have changed with the connection.
        if matches!(self.status.state, RegistrationState::Registered)
            && self.expires().is_some_and(|at| now >= at)
        {
            self.report(RegistrationState::Registering(self.last_error.clone()));
        }
    }

    /// What was asked is not answered yet.
    fn wait_on(&mut self, now: Instant) {
        let Some(asked) = self.asked.as_mut().filter(|asked| now >= asked.deadline) else { return };
        if !asked.checked {
            // One slow answer is no reason to take the connection from all who share it; but if
            // nothing else is answered on it either, it is given up when this one's time is over.
            asked.checked = true;
            asked.deadline = now + asked.within;
            return self.actions.push_back(Action::Check { by: now + asked.within / 2 });
        }
        let Some(asked) = self.take_asked(now) else { return };
        let Link::Up { endpoint, .. } = &self.link else { return };
        let cause = format!("no answer within {:.1} s", (now - asked.sent).as_secs_f64());
        let attempt = asked.question.attempt(&self.key());
        let error = WireError::unreachable(&attempt, endpoint, cause);
        // The connection is alive, so this is asked again on it. A lease has no time for that; and
        // what is never answered may be answered elsewhere, except where there is no time left.
        let renews = matches!(asked.question, Question::Renew { .. });
        if !self.is_leaving() && (renews || self.unanswered) {
            return self.lost(error, now);
        }
        self.unanswered = true;
        if let Question::Put(_) = asked.question {
            self.place = Place::Unknown;
        }
        self.trouble(error);
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
        let up = matches!(self.link, Link::Up { .. });
        if self.is_leaving() && !self.may_be_there() && !(self.lease.is_some() && up) {
            // Nothing was ever put under a lease that may still be alive. A lease whose grant is not
            // confirmed is empty; it is revoked if that costs nothing.
            return self.end(RegistrationState::Deregistered);
        }
        if self.asked.is_some() || !up {
            return;
        }
        if let Some(error) = self.not_watched.take() {
            return self.denied(error, now);
        }
        self.settle_unlisted();
        if self.goes() {
            if now >= self.hold {
                self.leave(now);
            }
            return;
        }
        if !self.renews() {
            return;
        }
        if let Some(&Lease { id, granted: Some(granted), renew_at, .. }) = self.lease.as_ref()
            && now >= renew_at
        {
            return self.ask(Question::Renew { lease: id }, answer_within(granted), now);
        }
        if now < self.hold {
            return;
        }
        let Link::Up { watch, .. } = &mut self.link else { return };
        match watch {
            Watch::None => {
                *watch = Watch::Asked;
                let keys = Keys::One(self.plan.raw_key.clone());
                return self.actions.push_back(Action::Watch(keys));
            }
            Watch::Asked => return,
            Watch::Stands => {}
        }
        // An answer must not take so long that the next renewal comes too late.
        let granted = self.lease.as_ref().and_then(|lease| lease.granted);
        let within = granted.map_or(ANSWER_WITHIN, answer_within);
        match self.next_question() {
            Some(Question::Grant { lease: known, .. }) => self.grant(known, now),
            Some(question) => self.ask(question, within, now),
            None if now >= self.verify_at => {
                self.ask(Question::Get(self.plan.raw_key.clone()), within, now);
            }
            None => {}
        }
    }

    fn conflict_is_final(&self) -> bool {
        matches!(&self.status.state, RegistrationState::Conflict(conflict) if !conflict.waiting)
    }

    fn ask(&mut self, question: Question, within: Duration, now: Instant) {
        let wish = match &self.wanted {
            Wanted::Present { wish, .. } => *wish,
            _ => 0,
        };
        self.actions.push_back(Action::Ask(question.clone()));
        let deadline = now + within / 2;
        self.asked = Some(Asked { question, wish, sent: now, within, checked: false, deadline });
    }

    fn alive(&mut self, alive: bool) {
        if self.alive == alive {
            return;
        }
        self.alive = alive;
        if alive {
            self.last_error = None;
        } else {
            let cause = format!("{}: the application shows no sign of life", self.key());
            self.last_error = Some(SourceError::new(cause));
        }
        self.report(self.status.state.clone());
    }

    /// Until when etcd keeps the key at least.
    fn expires(&self) -> Option<Instant> {
        match &self.place {
            Place::Ours { lease, .. } if self.home.is_some_and(|home| home.id == *lease) => {
                self.home.map(|home| home.sent + home.granted)
            }
            Place::Unknown if self.plan.share_lease && self.lease.is_none() => {
                self.home.map(|home| home.sent + home.granted)
            }
            _ => self.lease.as_ref().and_then(Lease::expires),
        }
    }

    fn report(&mut self, state: RegistrationState) {
        self.status.state = state;
        self.status.expires = self.expires();
        self.status.last_error.clone_from(&self.last_error);
        self.actions.push_back(Action::Report(self.status.clone()));
    }
}

#[cfg(test)]
#[path = "leaving_tests.rs"]
mod leaving_tests;
#[cfg(test)]
#[path = "rig.rs"]
mod rig;
#[cfg(test)]
#[path = "sharing_tests.rs"]
mod sharing_tests;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "trouble_tests.rs"]
mod trouble_tests;
