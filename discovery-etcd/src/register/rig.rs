//! A machine, its clock and whoever it talks to, for tests.

use std::sync::Arc;
use std::time::Duration;

pub(super) use discovery_core::{Conflict, InstanceKey};
use discovery_core::{Instance, RegistrationState, RegistrationStatus, ServiceName, SourceError};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

pub(super) use super::super::OnConflict;
pub(super) use super::super::messages::Answer;
use super::super::messages::{Action, Home, Input, Plan, Question, Wanted};
use super::{Link, Machine, Watch};
use crate::format::{Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable};
use crate::wire::{Event, Found, GuardedPut, Keys, WireError};
pub(super) use crate::wire::{Guard, KeyValue, Kind, PutReply};

pub(super) const KEY: &[u8] = b"/services/a/1";
pub(super) const TTL: Duration = Duration::from_secs(15);
pub(super) const HERE: &str = "http://10.0.0.1:80";
pub(super) const THERE: &str = "http://10.0.0.2:80";
pub(super) const FOREIGN_LEASE: i64 = -7;
/// A shared lease.
pub(super) const HOME: i64 = -100;

/// In these tests a value is an address.
#[derive(Debug)]
struct Plain;

impl Format for Plain {
    fn prefix(&self, _: Option<&ServiceName>) -> Vec<u8> {
        b"/services/".to_vec()
    }

    fn record<'k>(&self, _: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        Ok(Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let [entry] = entries else { return Ok(Decoded::none()) };
        let address = std::str::from_utf8(entry.value).map_err(Undecodable::value)?;
        Ok(Decoded::one(Instance::parse("a", "1", address)?))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let key = format!("/services/{}/{}", instance.service, instance.id).into_bytes();
        Ok(Encoded { key, value: Some(instance.address.to_string().into_bytes()) })
    }
}

/// A machine, its clock, and what it said since last asked.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) asked: Option<Question>,
    /// Whether it asked for its watch.
    pub(super) opens: bool,
    pub(super) reports: Vec<RegistrationStatus>,
    pub(super) other_ttl: Option<Duration>,
    pub(super) condemned: usize,
    /// Whether the connection is alive has to be known by then.
    pub(super) check: Option<Instant>,
    pub(super) hurry: Option<Instant>,
    pub(super) needed_by: Option<Instant>,
    pub(super) ended: bool,
}

pub(super) fn plan() -> Plan {
    Plan {
        key: InstanceKey::new("a".parse().unwrap(), "1".parse().unwrap()),
        raw_key: KEY.to_vec(),
        ttl: TTL,
        on_conflict: OnConflict::Wait,
        replace_same_address: false,
        share_lease: false,
        verify_every: Duration::from_secs(10),
        format: Arc::new(Plain),
    }
}

pub(super) fn failing() -> Plan {
    Plan { on_conflict: OnConflict::Fail, ..plan() }
}

/// Wanted with this value: the first, second … version.
pub(super) fn present(value: &str, version: u64) -> Wanted {
    wanted(Some(value), version, version)
}

/// Not to be listed.
pub(super) fn unlisted(version: u64) -> Wanted {
    wanted(None, version, version)
}

pub(super) fn wanted(value: Option<&str>, version: u64, wish: u64) -> Wanted {
    let value = value.map(|value| value.as_bytes().to_vec());
    Wanted::Present { value, address: HERE.parse().unwrap(), version, wish }
}

pub(super) fn error(kind: Kind) -> WireError {
    WireError::new(kind, "try", "etcd", "no")
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn entry(value: &str, lease: i64, revision: i64) -> KeyValue {
    KeyValue { key: KEY.to_vec(), value: value.into(), revision, lease }
}

pub(super) fn there(revision: i64) -> KeyValue {
    entry(THERE, FOREIGN_LEASE, revision)
}

pub(super) fn deleted(revision: i64) -> Event {
    Event::Delete { key: KEY.to_vec(), revision }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::of(plan(), 1)
    }

    pub(super) fn of(plan: Plan, seed: u64) -> Self {
        let now = Instant::now();
        let machine = Machine::new(plan, present(HERE, 1), StdRng::seed_from_u64(seed), now);
        Self {
            machine,
            now,
            asked: None,
            opens: false,
            reports: Vec::new(),
            other_ttl: None,
            condemned: 0,
            check: None,
            hurry: None,
            needed_by: None,
            ended: false,
        }
    }

    fn collect(&mut self) {
        while let Some(action) = self.machine.next_action() {
            assert!(!self.ended, "{action:?} after the end");
            let holds = self.now < self.machine.hold;
            match action {
                Action::Watch(keys) => {
                    assert!(!holds && !self.machine.is_leaving(), "{:?}", self.machine);
                    assert_eq!(keys, Keys::One(KEY.to_vec()));
                    self.opens = true;
                }
                Action::Ask(question) => {
                    let puts = match &question {
                        Question::Grant { .. } => true,
                        Question::Put(put) => put.value.is_some(),
                        _ => false,
                    };
                    assert!(!(puts && self.machine.is_leaving()), "{question:?} while leaving");
                    // What a refusal calls for belongs to the question that was refused.
                    let at_once = matches!(
                        question,
                        Question::Renew { .. } | Question::Refresh | Question::GrantedTtl { .. }
                    );
                    assert!(at_once || !holds, "{question:?} too early");
                    self.asked = Some(question);
                }
                Action::Check { by } => {
                    assert!(self.machine.asked.is_some() && by > self.now, "{:?}", self.machine);
                    self.check = Some(by);
                }
                Action::Condemn(_) => {
                    self.asked = None;
                    self.opens = false;
                    self.condemned += 1;
                }
                Action::Hurry { until } => self.hurry = Some(until),
                Action::NeededBy(by) => self.needed_by = by,
                Action::Report(status) => self.reports.push(status),
                Action::OtherTtl { granted } => self.other_ttl = Some(granted),
                Action::End => self.ended = true,
            }
        }
    }

    pub(super) fn hear(&mut self, input: Input) {
        let ticked = matches!(input, Input::Tick);
        self.machine.handle(input, self.now);
        self.collect();
        if !self.ended {
            let idle = match self.machine.link {
                Link::Down => true,
                Link::Up { watch, .. } => watch == Watch::Asked || !self.machine.renews(),
            };
            match self.machine.deadline() {
                Some(deadline) => {
                    assert!(!ticked || deadline > self.now, "a busy loop: {:?}", self.machine);
                }
                None => assert!(idle, "it stands still: {:?}", self.machine),
            }
        }
    }

    /// What is being asked; it is an error if nothing is.
    pub(super) fn question(&self) -> Question {
        self.asked.clone().unwrap_or_else(|| panic!("nothing is asked: {:?}", self.machine))
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        assert!(self.asked.take().is_some(), "{answer:?} to no question");
        self.hear(Input::Answer(Ok(answer)));
    }

    pub(super) fn fail(&mut self, kind: Kind) {
        assert!(self.asked.take().is_some(), "{kind:?} to no question");
        self.hear(Input::Answer(Err(error(kind))));
    }

    /// Denied with the new token, too.
    pub(super) fn deny(&mut self) {
        self.fail(Kind::Denied);
        assert_eq!(self.question(), Question::Refresh);
        self.fail(Kind::Denied);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.hear(Input::Events(vec![event]));
    }

    pub(super) fn want(&mut self, wanted: Wanted) {
        self.hear(Input::Wanted(wanted));
    }

    pub(super) fn leave(&mut self) -> Instant {
        let deadline = self.now + ms(3_000);
        self.want(Wanted::Absent { deadline });
        deadline
    }

    /// Goes on to the deadline and says how long that took.
    pub(super) fn tick(&mut self) -> Duration {
        let deadline = self.machine.deadline().expect("nothing is to be waited for");
        let passed = deadline.saturating_duration_since(self.now);
        self.now += passed;
        self.hear(Input::Tick);
        passed
    }

    /// Goes on until something is asked.
    pub(super) fn until_asked(&mut self) -> Duration {
        let from = self.now;
        for _ in 0..100 {
            if self.asked.is_some() {
                return self.now - from;
            }
            self.tick();
        }
        panic!("nothing is ever asked: {:?}", self.machine);
    }

    /// The connection is dead: nothing is answered, and the link gives it up. How long that took.
    pub(super) fn dies(&mut self) -> Duration {
        let from = self.now;
        self.check = None;
        while self.check.is_none() {
            self.tick();
        }
        self.now = self.check.take().expect("it was asked for");
        self.down();
        self.now - from
    }

    /// What is asked is not answered, though the connection is alive. How long it took to say so.
    pub(super) fn unanswered(&mut self) -> Duration {
        assert!(self.asked.take().is_some(), "nothing is asked: {:?}", self.machine);
        let (from, condemned) = (self.now, self.condemned);
        self.check = None;
        let sent = self.machine.asked.as_ref().map(|asked| asked.sent);
        while self.machine.asked.as_ref().map(|asked| asked.sent) == sent && !self.has_given_up() {
            self.tick();
        }
        assert!(self.check.is_some() || self.has_given_up(), "the link was not asked");
        assert!(self.condemned <= condemned + 1);
        self.now - from
    }

    pub(super) fn up(&mut self) {
        self.hear(Input::Up("etcd".into()));
    }

    pub(super) fn down(&mut self) {
        self.asked = None;
        self.opens = false;
        self.hear(Input::Down(error(Kind::Unreachable)));
    }

    /// Nothing more is heard of what was asked, and there is another connection.
    pub(super) fn reconnect(&mut self) {
        self.down();
        self.up();
    }

    pub(super) fn watching(&mut self) {
        assert!(std::mem::take(&mut self.opens), "no watch is asked for: {:?}", self.machine);
        self.hear(Input::Watching);
    }

    pub(super) fn grant(&mut self) -> i64 {
        let Question::Grant { lease, ttl } = self.question() else { panic!("{:?}", self.asked) };
        assert_eq!(ttl, TTL);
        self.answer(Answer::Granted(TTL));
        lease
    }

    pub(super) fn get(&mut self, entry: Option<KeyValue>, revision: i64) {
        assert_eq!(self.question(), Question::Get(KEY.to_vec()));
        self.answer(Answer::Found(Found { entry, revision }));
    }

    pub(super) fn put(&self) -> GuardedPut {
        let Question::Put(put) = self.question() else { panic!("{:?}", self.asked) };
        assert_eq!(put.key, KEY);
        put
    }

    /// What is being put, under which lease, where it stood.
    pub(super) fn puts(&self, value: &str, lease: i64, guard: Guard) {
        let value = Some(value.as_bytes().to_vec());
        assert_eq!(self.put(), GuardedPut { key: KEY.to_vec(), value, lease, guard });
    }

    /// The key is being deleted if it stands under this lease.
    pub(super) fn deletes(&self, lease: i64) {
        let put = self.put();
        assert_eq!((put.value, put.guard), (None, Guard::Lease(lease)));
    }

    pub(super) fn done(&mut self, revision: i64) {
        self.put();
        self.answer(Answer::Put(PutReply::Done { revision }));
    }

    /// The guard did not hold.
    pub(super) fn guarded(&mut self, entry: Option<KeyValue>, revision: i64) {
        self.put();
        self.answer(Answer::Put(PutReply::Refused(Found { entry, revision })));
    }

    pub(super) fn renewed(&mut self, lease: i64) {
        assert_eq!(self.question(), Question::Renew { lease });
        self.answer(Answer::Renewed);
    }

    pub(super) fn revoked(&mut self, lease: i64) {
        assert_eq!(self.question(), Question::Revoke { lease });
        self.answer(Answer::Revoked);
    }

    /// Watching, and asking for what comes next.
    pub(super) fn begun(plan: Plan) -> Self {
        let mut rig = Self::of(plan, 1);
        rig.up();
        rig.watching();
        rig
    }

    /// Registered, at revision 10; gives the lease.
    pub(super) fn registered() -> (Self, i64) {
        Self::registered_with(plan(), 1)
    }

    pub(super) fn registered_with(plan: Plan, seed: u64) -> (Self, i64) {
        let mut rig = Self::of(plan, seed);
        rig.up();
        rig.watching();
        let lease = rig.grant();
        rig.get(None, 9);
        rig.done(10);
        assert!(rig.is_registered(1));
        assert_eq!(rig.asked, None);
        (rig, lease)
    }

    /// The shared lease is this one, renewed just now.
    pub(super) fn home(&mut self, id: i64) {
        let home = Home { id, granted: TTL, sent: self.now, over: self.now };
        self.hear(Input::Home(Some(home)));
    }

    pub(super) fn state(&self) -> &RegistrationState {
        &self.machine.status.state
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.machine.status.expires
    }

    pub(super) fn is_registered(&self, version: u64) -> bool {
        matches!(self.state(), RegistrationState::Registered)
            && self.machine.status.applied == version
    }

    pub(super) fn is_registering(&self) -> bool {
        matches!(self.state(), RegistrationState::Registering(_))
    }

    /// Why it is registering anew.
    pub(super) fn trouble(&self) -> Option<&SourceError> {
        match self.state() {
            RegistrationState::Registering(error) => error.as_ref(),
            _ => None,
        }
    }

    pub(super) fn conflict(&self) -> Option<&Conflict> {
        match self.state() {
            RegistrationState::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    pub(super) fn is_deregistered(&self) -> bool {
        self.ended && matches!(self.state(), RegistrationState::Deregistered)
    }

    /// It has given up; when the key is gone by its account, if it knows.
    pub(super) fn gone_at(&self) -> Option<Instant> {
        let RegistrationState::Abandoned(unconfirmed) = self.state() else {
            panic!("{:?}", self.state())
        };
        unconfirmed.gone_within.map(|within| self.now + within)
    }

    /// Nothing is answered any more, and no connection lasts, until it gives up.
    pub(super) fn nothing_comes_through(&mut self) {
        while !self.has_given_up() {
            self.tick();
        }
    }

    /// Under a shared lease it goes on trying then.
    pub(super) fn has_given_up(&self) -> bool {
        let abandoned = matches!(self.state(), RegistrationState::Abandoned(_));
        assert!(!abandoned || self.ended || self.machine.plan.share_lease);
        self.ended || abandoned
    }
}
