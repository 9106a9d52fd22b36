//! A machine and its clock, for tests.

use super::*;
use rand::SeedableRng as _;

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
        Self::following(seed, false)
    }

    pub(super) fn following(seed: u64, members: bool) -> Self {
        let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 1);
        let machine = Machine::new(rotation, members, StdRng::seed_from_u64(seed));
        Self { machine, now: Instant::now() }
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

    pub(super) fn after(&mut self, passed: Duration) -> Vec<Action> {
        self.now += passed;
        self.hear(Input::Tick)
    }

    pub(super) fn connecting(&mut self) -> String {
        self.hear(Input::Used(true));
        match self.tick().1.as_slice() {
            [Action::Connect(endpoint)] => endpoint.clone(),
            other => panic!("not connecting: {other:?}"),
        }
    }

    pub(super) fn up(&mut self) {
        self.connecting();
        assert_eq!(self.hear(Input::Connected), [Action::Up]);
    }

    pub(super) fn heard(&mut self, revision: i64) -> Vec<Action> {
        self.hear(Input::Heard { progress: false, revision })
    }

    pub(super) fn progress(&mut self) -> Vec<Action> {
        self.hear(Input::Heard { progress: true, revision: 0 })
    }

    /// Up, and its stream has spoken.
    pub(super) fn alive(&mut self, revision: i64) {
        self.up();
        assert!(self.heard(revision).is_empty());
    }

    /// Alive, of a server that answers probes.
    pub(super) fn probed(&mut self) {
        self.alive(7);
        assert_eq!(self.tick(), (s(3), vec![Action::Probe, Action::Count]));
        assert!(self.progress().is_empty());
    }

    pub(super) fn check(&mut self, within: Duration) -> Vec<Action> {
        self.hear(Input::Check { by: self.now + within })
    }

    pub(super) fn fail(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Failed(error(kind)))
    }

    /// What tells two states apart.
    pub(super) fn state(&self) -> String {
        format!("{:?} {}", self.machine.state, self.machine.endpoint())
    }
}

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn error(kind: Kind) -> WireError {
    WireError::new(kind, "try", "etcd", "no")
}

/// The cause, if the connection or the attempt was given up and nothing else done.
pub(super) fn down(actions: &[Action]) -> String {
    match actions {
        [Action::Down(error)] => error.to_string(),
        other => panic!("not given up: {other:?}"),
    }
}

pub(super) type Reach = fn(&mut Rig);

/// Each state.
pub(super) const STATES: [(&str, Reach); 8] = [
    ("idle", |_| {}),
    ("waiting", |rig| {
        rig.connecting();
        rig.fail(Kind::Unreachable);
    }),
    ("denied", |rig| {
        rig.connecting();
        rig.fail(Kind::Denied);
    }),
    ("connecting", |rig| drop(rig.connecting())),
    ("up", Rig::up),
    ("alive", |rig| rig.alive(7)),
    ("probing", |rig| {
        rig.alive(7);
        rig.tick();
    }),
    ("doubted", |rig| {
        rig.probed();
        rig.tick();
        rig.tick();
    }),
];

pub(super) fn reached(names: &[&str]) -> impl Iterator<Item = (&'static str, Rig)> {
    STATES.iter().filter(|(state, _)| names.contains(state)).map(|(state, reach)| {
        let mut rig = Rig::new();
        reach(&mut rig);
        (*state, rig)
    })
}
