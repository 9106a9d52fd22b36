//! What the stress balances over: services that do as they are told, and a log of all they are asked.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use discovery_tower::MakeEndpoint;
use discovery_tower::balance::{
    Attributes, Availability, Candidates, Completion, Describe, Finished, Member, Origin, Outcome,
    Policy, Protocol,
};
use tower::Service;

/// What an endpoint says of itself. Each has a version of its own.
#[derive(Clone, Debug)]
pub struct Value {
    pub version: u64,
    pub address: u32,
    pub weight: u32,
    pub availability: Availability,
    pub suspect: bool,
}

impl Describe for Value {
    fn attributes(&self) -> Attributes {
        let attributes = Attributes::default().weight(self.weight).suspect(self.suspect);
        attributes.availability(self.availability)
    }
}

/// Who polls at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Nobody,
    Driver,
    Call(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Pending,
    Failing,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Response(Outcome),
    /// A response whose outcome is told later.
    Open,
    Error(Outcome),
    /// An error that gives the request back.
    Back(Outcome),
}

/// What happened, in order. A service is named by the number it was made with.
#[derive(Clone, Debug)]
pub enum Event {
    Made { serial: u64, key: u32, version: u64 },
    Polled { serial: u64, by: Actor, was: Readiness },
    Picked { among: Vec<u64>, chosen: Option<u64> },
    Started { serial: u64, pending: u32 },
    Finished { serial: u64, pending: u32, outcome: Outcome },
    Called { serial: u64, request: u64 },
    Answered { serial: u64, request: u64, answer: Answer },
    Members(Vec<u64>),
}

#[derive(Default)]
pub struct World(Mutex<State>);

struct State {
    actor: Actor,
    log: Vec<Event>,
    services: BTreeMap<u64, Made>,
    made: u64,
    chance: u64,
}

struct Made {
    readiness: Readiness,
    waiting: Vec<Waker>,
    alive: Weak<()>,
}

impl Default for State {
    fn default() -> Self {
        let services = BTreeMap::new();
        Self { actor: Actor::Nobody, log: Vec::new(), services, made: 0, chance: 1 }
    }
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { chance: seed | 1, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log(&self, event: Event) {
        self.state().log.push(event);
    }

    /// From now on this one polls.
    pub fn act(&self, actor: Actor) {
        self.state().actor = actor;
    }

    /// What happened since this was last asked.
    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().log)
    }

    /// The services of which somebody holds a clone.
    pub fn alive(&self) -> Vec<u64> {
        let mut state = self.state();
        state.services.retain(|_, made| made.alive.strong_count() > 0);
        state.services.keys().copied().collect()
    }

    pub fn readiness(&self, serial: u64) -> Option<Readiness> {
        self.state().services.get(&serial).map(|made| made.readiness)
    }

    pub fn set(&self, serial: u64, readiness: Readiness) {
        let waiting = match self.state().services.get_mut(&serial) {
            Some(made) => {
                made.readiness = readiness;
                let waits = readiness == Readiness::Pending;
                if waits { Vec::new() } else { std::mem::take(&mut made.waiting) }
            }
            None => Vec::new(),
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn make(self: &Arc<Self>, key: u32, version: u64) -> Scripted {
        let alive = Arc::new(());
        let mut state = self.state();
        state.made += 1;
        let serial = state.made;
        // Marsaglia's xorshift.
        state.chance ^= state.chance << 13;
        state.chance ^= state.chance >> 7;
        state.chance ^= state.chance << 17;
        let readiness = match state.chance % 8 {
            0 => Readiness::Pending,
            1 => Readiness::Failing,
            _ => Readiness::Ready,
        };
        let made = Made { readiness, waiting: Vec::new(), alive: Arc::downgrade(&alive) };
        state.services.insert(serial, made);
        state.log.push(Event::Made { serial, key, version });
        drop(state);
        Scripted { world: self.clone(), serial, _alive: alive }
    }
}

/// Makes services, one for each address of an endpoint.
pub struct Maker(pub Arc<World>);

impl MakeEndpoint<u32, Value> for Maker {
    type Service = Scripted;

    fn make(&mut self, key: &u32, endpoint: &Arc<Value>) -> Scripted {
        self.0.make(*key, endpoint.version)
    }

    fn still_serves(&mut self, _: &u32, old: &Arc<Value>, new: &Arc<Value>) -> bool {
        old.address == new.address
    }
}

/// A request, and the line on which it is answered.
#[derive(Debug)]
pub struct Request {
    pub id: u64,
    pub avoid: Option<u32>,
    pub line: Arc<Line>,
}

#[derive(Debug, Default)]
pub struct Line(Mutex<(Option<Answer>, Option<Waker>)>);

impl Line {
    pub fn answer(&self, answer: Answer) {
        let waker = {
            let mut line = self.0.lock().unwrap();
            line.0 = Some(answer);
            line.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

#[derive(Clone)]
pub struct Scripted {
    world: Arc<World>,
    serial: u64,
    _alive: Arc<()>,
}

impl Service<Request> for Scripted {
    type Response = Reply;
    type Error = Refusal;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let mut state = self.world.state();
        let by = state.actor;
        let Some(made) = state.services.get_mut(&self.serial) else { return Poll::Pending };
        let was = made.readiness;
        if was == Readiness::Pending {
            made.waiting.push(cx.waker().clone());
        }
        state.log.push(Event::Polled { serial: self.serial, by, was });
        match was {
            Readiness::Ready => Poll::Ready(Ok(())),
            Readiness::Pending => Poll::Pending,
            Readiness::Failing => Poll::Ready(Err(Refusal(Outcome::Failure, None))),
        }
    }

    fn call(&mut self, request: Request) -> Answering {
        self.world.log(Event::Called { serial: self.serial, request: request.id });
        Answering { service: self.clone(), request: Some(request) }
    }
}

pub struct Answering {
    service: Scripted,
    request: Option<Request>,
}

impl Future for Answering {
    type Output = Result<Reply, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.request.as_ref().expect("polled after it was over");
        let answer = {
            let mut line = request.line.0.lock().unwrap();
            line.1 = Some(cx.waker().clone());
            line.0.take()
        };
        let Some(answer) = answer else { return Poll::Pending };
        let (serial, id) = (self.service.serial, request.id);
        self.service.world.log(Event::Answered { serial, request: id, answer });
        let request = self.request.take();
        Poll::Ready(match answer {
            Answer::Response(outcome) => Ok(Reply(Some(outcome))),
            Answer::Open => Ok(Reply(None)),
            Answer::Error(outcome) => Err(Refusal(outcome, None)),
            Answer::Back(outcome) => Err(Refusal(outcome, request)),
        })
    }
}

/// A response, with its outcome if that is known.
#[derive(Debug)]
pub struct Reply(Option<Outcome>);

#[derive(Debug)]
pub struct Refusal(Outcome, Option<Request>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refusal {}

/// Reads outcomes as they were told.
pub struct Script;

/// What the caller is given.
pub enum Given {
    Over(Origin<u32>),
    Open(Completion<u32>),
}

impl Protocol<Request, Reply, Refusal, u32> for Script {
    type Response = Given;

    fn avoids(&self, request: &Request, key: &u32) -> bool {
        request.avoid == Some(*key)
    }

    fn outcome(&self, response: &Reply) -> Option<Outcome> {
        response.0
    }

    fn respond(_: Reply, origin: Origin<u32>) -> Given {
        Given::Over(origin)
    }

    fn follow(&self, _: Reply, call: Completion<u32>) -> Given {
        Given::Open(call)
    }

    fn failed(&self, error: &Refusal) -> Outcome {
        error.0
    }

    fn take_back(&self, error: &mut Refusal) -> Option<Request> {
        error.1.take()
    }
}

/// Picks at random and tells what it was asked: which service it was, for whom, among whom.
pub struct Watched(pub Arc<World>);

/// The number of the service.
pub struct Serial(u64);

impl Policy<Request, u32, Value> for Watched {
    type Load = Serial;
    type State = ();

    const TIMED: bool = true;

    fn load(&self) -> Self::Load {
        // It is asked right after the service was made.
        Serial(self.0.state().made)
    }

    fn state<'a>(
        &self,
        members: impl ExactSizeIterator<Item = &'a Member<u32, Value, Self::Load>>,
        _: Option<Arc<()>>,
    ) -> Arc<()>
    where
        u32: 'a,
        Value: 'a,
    {
        self.0.log(Event::Members(members.map(|member| member.load().0).collect()));
        Arc::new(())
    }

    fn pick(
        &self,
        _: &Request,
        among: &impl Candidates<u32, Value, Self::Load, State = ()>,
    ) -> Option<usize> {
        let serial = |place| among.get(place).map(|member| member.load().0);
        let start = among.draw();
        let place = (start..among.len()).chain(0..start).find(|&place| among.is_free(place));
        let (all, chosen) = ((0..among.len()).filter_map(serial).collect(), place.and_then(serial));
        self.0.log(Event::Picked { among: all, chosen });
        place
    }

    fn started(&self, load: &Self::Load, pending: u32, _: u64) {
        self.0.log(Event::Started { serial: load.0, pending });
    }

    fn finished(&self, load: &Self::Load, call: Finished) {
        let (serial, pending, outcome) = (load.0, call.pending, call.outcome);
        self.0.log(Event::Finished { serial, pending, outcome });
    }

    fn cost(&self, member: &Member<u32, Value, Self::Load>, _: u64) -> f64 {
        f64::from(member.pending())
    }
}
