//! One run of the stress: random steps, all from one seed, and the model beside them.

mod steps;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use discovery_tower::balance::{
    Balance, Builder, Completion, Ejection, Limits, Policy, Seeded, SlowStart,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::model::{Model, PANIC_PERCENT, STRIKES};
use crate::polling::{Queue, Woken};
use crate::world::{Line, Maker, Request, Script, Scripted, Value, World};

const LIMITS: (Duration, Duration, Duration) =
    (Duration::from_millis(700), Duration::from_millis(500), Duration::from_millis(150));
/// How many calls there are at most.
const CALLS: usize = 40;

type Handle<P> = Balance<u32, Value, Scripted, Request, P, Script>;
type Calling<P> = <Handle<P> as tower::Service<Request>>::Future;

/// What a test has of a call.
struct Outstanding<P: Policy<Request, u32, Value>> {
    line: Arc<Line>,
    at: At<P>,
}

enum At<P: Policy<Request, u32, Value>> {
    Call(Woken<Calling<P>>),
    Open(Completion<u32>),
}

struct Rig<P: Policy<Request, u32, Value>> {
    rng: StdRng,
    world: Arc<World>,
    model: Model,
    watched: bool,
    handles: Vec<Handle<P>>,
    driver: Woken<Pin<Box<dyn Future<Output = ()>>>>,
    queue: Queue,
    calls: BTreeMap<u64, Outstanding<P>>,
    /// The endpoints as the source has them.
    source: BTreeMap<u32, Value>,
    next: u64,
    ended: bool,
    /// For how many changes the source has said nothing yet.
    silent: u32,
    /// How many keys there are to choose from.
    keys: u32,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    pub picks: u64,
    pub ended: u64,
    /// Not loaded, no endpoints, unavailable.
    pub errors: [u64; 4],
}

/// Runs so many steps of this seed. `watched`: whether the policy tells what it is asked.
pub async fn run<P>(
    seed: u64,
    steps: u64,
    policy: impl FnOnce(Arc<World>) -> P,
    watched: bool,
) -> Ran
where
    P: Policy<Request, u32, Value>,
{
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let queue = Queue::default();
    let ejection = Ejection::default()
        .consecutive(STRIKES)
        .lasting(Duration::from_millis(300), Duration::from_secs(3))
        .max_percent(rng.random_range(1..80))
        .panic_percent(u32::try_from(PANIC_PERCENT).unwrap())
        .interval(Duration::from_millis(500))
        .success_rate(None)
        .probation(rng.random_range(0..4));
    let slow_start = match rng.random_range(0..2) {
        0 => SlowStart::none(),
        _ => SlowStart::default().over(Duration::from_secs(1), 10),
    };
    let limits = Limits::default().load(LIMITS.0).ready(LIMITS.1).failed(LIMITS.2);
    let (balance, driver) = Builder::new(queue.clone(), Maker(world.clone()))
        .policy(policy(world.clone()))
        .protocol(Script)
        .entropy(Seeded::new(seed))
        .ejection(ejection)
        .slow_start(slow_start)
        .limits(limits)
        .build::<Scripted, Request>();
    world.take_log();
    let mut rig = Rig {
        keys: if rng.random_bool(0.1) { 60 } else { rng.random_range(1..13) },
        silent: rng.random_range(0..60),
        rng,
        world: world.clone(),
        model: Model::new(watched, limits),
        watched,
        handles: vec![balance],
        driver: Woken::new(Box::pin(driver)),
        queue,
        calls: BTreeMap::new(),
        source: BTreeMap::new(),
        next: 0,
        ended: false,
    };
    for _ in 0..steps {
        rig.step().await;
    }
    rig.finish(&world)
}

impl<P: Policy<Request, u32, Value>> Rig<P> {
    async fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..150 => self.start(),
            150..350 => self.any(Self::poll),
            350..550 => self.answer(),
            550..600 => self.any(Self::cancel),
            600..650 => self.end(),
            650..750 => self.change(),
            750..860 => self.drive(),
            860..910 => self.turn(),
            910..940 => self.advance().await,
            940..960 => self.handle(),
            960..997 => self.settle(),
            997..999 => self.drain(),
            _ => self.finish_source(),
        }
    }

    fn any(&mut self, what: fn(&mut Self, u64)) {
        if self.calls.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.calls.len());
        let id = *self.calls.keys().nth(which).unwrap();
        what(self, id);
    }

    /// Polls whoever was woken, and nobody else, until nobody is.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.driver.is_woken() {
                self.drive();
                continue;
            }
            let woken = self.calls.iter().find(|(_, call)| match &call.at {
                At::Call(call) => call.is_woken(),
                At::Open(_) => false,
            });
            let Some((&id, _)) = woken else {
                assert!(self.queue.0.lock().unwrap().waiting.is_empty(), "changes nobody takes");
                let world = self.world.clone();
                return self.model.at_rest(|serial| world.readiness(serial), Instant::now());
            };
            self.poll(id);
        }
        panic!("it does not come to rest");
    }

    /// Ends all calls: nothing is to be left of them, nor of endpoints that are gone.
    fn drain(&mut self) {
        while let Some(id) = self.calls.keys().next().copied() {
            self.cancel(id);
        }
        self.settle();
        self.model.is_idle();
        let alive = self.world.alive();
        assert_eq!(alive, self.model.held(), "the services that are held");
        self.model.forget(&alive);
    }

    fn finish(mut self, world: &World) -> Ran {
        self.settle();
        self.drain();
        let told = if self.watched { self.model.ended } else { 0 };
        assert_eq!(self.model.told, told, "ends that the policy was told of");
        let ran =
            Ran { picks: self.model.picks, ended: self.model.ended, errors: self.model.errors };
        match self.rng.random_range(0..3) {
            0 => drop(self.without_driver()),
            1 => drop(self.without_handles().last_of_the_driver()),
            _ => drop(self.last_of_the_driver()),
        }
        assert!(world.alive().is_empty(), "services that are held by nobody");
        ran
    }

    /// Calls go on among the endpoints as they were.
    fn without_driver(mut self) -> Self {
        self.driver = Woken::new(Box::pin(std::future::pending()));
        for _ in 0..200 {
            match self.rng.random_range(0..4) {
                0 => self.start(),
                1 => self.any(Self::poll),
                2 => self.answer(),
                _ => self.end(),
            }
        }
        self
    }

    /// Calls that were made end as they would.
    fn without_handles(mut self) -> Self {
        (0..CALLS / 2).for_each(|_| self.start());
        let ids: Vec<_> = self.calls.keys().copied().collect();
        for id in ids {
            self.poll(id);
        }
        self.handles.clear();
        for _ in 0..200 {
            match self.rng.random_range(0..4) {
                0 => self.any(Self::cancel),
                1 => self.answer(),
                2 => self.end(),
                _ => self.any(Self::poll),
            }
        }
        self
    }

    fn last_of_the_driver(mut self) -> Self {
        self.calls.clear();
        self.handles.clear();
        assert!(self.driver.is_woken(), "the driver is not told that all handles are gone");
        assert!(self.driver.poll().is_ready(), "the driver goes on for nobody");
        self
    }
}
