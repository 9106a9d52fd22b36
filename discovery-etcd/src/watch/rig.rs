//! A machine and its clock, for tests.

use super::*;
use crate::wire::KeyValue;
use rand::SeedableRng as _;

pub(super) const PREFIX: &[u8] = b"/services/a/";

pub(super) const AUDIT: Duration = Duration::from_secs(300);

/// A machine, its clock, and what it did since last asked.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Instant,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::seeded(1)
    }

    pub(super) fn seeded(seed: u64) -> Self {
        Self::audited(seed, Some(AUDIT))
    }

    pub(super) fn audited(seed: u64, every: Option<Duration>) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { machine: Machine::new(PREFIX.to_vec(), every, rng), now: Instant::now() }
    }

    pub(super) fn hear(&mut self, input: Input) -> Vec<Action> {
        let ticked = matches!(input, Input::Tick);
        self.machine.handle(input, self.now);
        if ticked {
            let later = self.machine.deadline().is_none_or(|deadline| deadline > self.now);
            assert!(later, "a busy loop: {:?}", self.machine);
        }
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    /// How long until the deadline.
    pub(super) fn wait(&self) -> Duration {
        self.machine.deadline().expect("a deadline").saturating_duration_since(self.now)
    }

    /// Goes on to the deadline; gives the time that passed, too.
    pub(super) fn tick(&mut self) -> (Duration, Vec<Action>) {
        let passed = self.wait();
        self.now += passed;
        (passed, self.hear(Input::Tick))
    }

    pub(super) fn up(&mut self) {
        assert_eq!(self.hear(Input::Up("etcd".into())), [Action::Open]);
    }

    pub(super) fn created(&mut self, revision: i64) {
        assert_eq!(self.hear(Input::Created { revision }), [list(None, None)]);
    }

    pub(super) fn listed(&mut self, revision: i64) {
        let page = page(&[], false, revision);
        let done = [Action::Stage(page.clone()), Action::Commit { revision }];
        assert_eq!(self.hear(Input::Page(Ok(page))), done);
    }

    pub(super) fn listing(&mut self, created: i64) {
        self.up();
        self.created(created);
    }

    pub(super) fn live(&mut self, revision: i64) {
        self.listing(revision);
        self.listed(revision);
    }

    /// From live on.
    pub(super) fn auditing(&mut self) {
        assert_eq!(self.tick().1, [Action::AuditBegin, keys(None, None)]);
    }

    pub(super) fn settling(&mut self, at: i64) {
        self.auditing();
        let page = page(&[], false, at);
        let done = [Action::AuditPage(page.clone()), Action::AuditEnd { at }];
        assert_eq!(self.hear(Input::Page(Ok(page))), done);
    }

    pub(super) fn events(&mut self, events: Vec<Event>) -> Vec<Action> {
        self.hear(Input::Events(events))
    }

    pub(super) fn refuse(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Refused(error(kind)))
    }

    pub(super) fn no_page(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Page(Err(error(kind))))
    }

    /// What tells two states apart.
    pub(super) fn state(&self) -> String {
        format!("{:?}", self.machine.state)
    }
}

pub(super) fn error(kind: Kind) -> WireError {
    WireError::new(kind, "try", "etcd", "no")
}

pub(super) fn entry(key: &str, revision: i64) -> KeyValue {
    KeyValue { key: key.into(), value: b"v".to_vec(), revision, lease: 0 }
}

pub(super) fn put(key: &str, revision: i64) -> Event {
    Event::Put(entry(key, revision))
}

pub(super) fn delete(key: &str, revision: i64) -> Event {
    Event::Delete { key: key.into(), revision }
}

pub(super) fn page(keys: &[&str], more: bool, revision: i64) -> Page {
    Page { entries: keys.iter().map(|key| entry(key, 1)).collect(), more, revision }
}

pub(super) fn list(after: Option<&str>, at: Option<i64>) -> Action {
    let after = after.map(Into::into);
    Action::List(List { prefix: PREFIX.to_vec(), after, at, keys_only: false })
}

pub(super) fn keys(after: Option<&str>, at: Option<i64>) -> Action {
    let after = after.map(Into::into);
    Action::List(List { prefix: PREFIX.to_vec(), after, at, keys_only: true })
}

pub(super) fn given_up(kind: Kind) -> [Action; 2] {
    [Action::Abandon, Action::Trouble(error(kind))]
}

pub(super) fn condemned(actions: &[Action]) -> &WireError {
    match actions {
        [Action::Abandon, Action::Trouble(error), Action::Condemn(same)] if error == same => error,
        other => panic!("not condemned: {other:?}"),
    }
}

pub(super) type Reach = fn(&mut Rig);

/// Each state.
pub(super) const STATES: [(&str, Reach); 8] = [
    ("down", |_| {}),
    ("waiting", |rig| {
        rig.up();
        rig.refuse(Kind::Busy);
    }),
    ("refreshing", |rig| {
        rig.up();
        rig.refuse(Kind::Denied);
    }),
    ("opening", Rig::up),
    ("listing", |rig| rig.listing(7)),
    ("live", |rig| rig.live(7)),
    ("auditing", |rig| {
        rig.live(7);
        rig.auditing();
    }),
    ("settling", |rig| {
        rig.live(7);
        rig.settling(7);
    }),
];

pub(super) fn reached(names: &[&str]) -> impl Iterator<Item = (&'static str, Rig)> {
    STATES.iter().filter(|(state, _)| names.contains(state)).map(|(state, reach)| {
        let mut rig = Rig::new();
        reach(&mut rig);
        (*state, rig)
    })
}
