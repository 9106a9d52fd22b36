//! A run: the loop that owns virtual time.
//!
//! Tokio's own timers are good to a millisecond, so they carry no request: the loop takes the next
//! event, moves tokio's paused clock to its exact time, and polls by hand what was woken. Tasks that a
//! balancer spawned run after each event, and may use tokio's timers for what takes seconds.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::endpoint::{Backends, Request};
use crate::load::{Arrival, CLIENTS, Load, Nanos, nanos, stream};
use crate::scenario::Scenario;
use crate::subject::{Call, Client, Subject};
use crate::world::{SECOND, World};

/// How much of a run does not count, in per cent: balancers and queues start empty.
const WARM_UP: usize = 5;

/// What a run has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) clients: usize,
    pub(crate) requests: usize,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Of each request that counts and was served, sorted.
    pub(crate) latencies: Vec<Nanos>,
    /// Of the requests that count, how many were answered with an error.
    pub(crate) errors: usize,
    /// The part of the requests that the odd endpoint had.
    pub(crate) share: f64,
    /// Seconds from the middle of the run until it had half of its fair share; infinite if never.
    pub(crate) back: f64,
    /// What was left when all was over: requests that entered, were still inside, had no taker.
    #[cfg(test)]
    pub(crate) census: [u64; 3],
}

/// Tries a balancer. The same plan gives the same outcome, on any machine.
pub(crate) fn run(subject: &Subject, plan: Plan<'_>) -> std::io::Result<Outcome> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(async { Loop::new(subject, plan).run().await }))
}

struct Loop {
    backends: Backends,
    clients: Vec<Box<dyn Client>>,
    load: std::iter::Peekable<Load>,
    slots: Vec<Slot>,
    unused: Vec<usize>,
    woken: Arc<Mutex<Vec<usize>>>,
    now: Nanos,
    middle: Nanos,
    /// Requests until they count.
    warm_up: usize,
    latencies: Vec<Nanos>,
    errors: usize,
}

/// A place for a call under way.
struct Slot {
    call: Option<Call>,
    arrived: Nanos,
    counts: bool,
    waker: Waker,
}

/// Notes which call is to be polled.
struct Note {
    slot: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

impl Loop {
    fn new(subject: &Subject, plan: Plan<'_>) -> Self {
        let Plan { scenario, clients, requests, seed } = plan;
        let warm_up = requests * WARM_UP / 100;
        let after = |requests: usize| nanos(requests as f64 * 1e9 / scenario.rate());
        let (middle, counted_from) = (after(requests / 2), after(warm_up));
        let world = World::new(scenario, middle, counted_from);
        let backends = Backends::new(world, scenario.endpoints.into());
        let client = |number: usize| {
            let seed = rand::Rng::next_u64(&mut stream(seed, CLIENTS + number as u64));
            subject.client(&backends, seed)
        };
        Self {
            clients: (0..clients).map(client).collect(),
            backends,
            load: Load::new(scenario, clients, requests, seed).peekable(),
            slots: Vec::new(),
            unused: Vec::new(),
            woken: Arc::default(),
            now: 0,
            middle,
            warm_up,
            latencies: Vec::with_capacity(requests - warm_up),
            errors: 0,
        }
    }

    async fn run(mut self) -> Outcome {
        self.settle().await;
        while self.unused.len() < self.slots.len() || self.load.peek().is_some() {
            let comes = self.load.peek().map(|arrival| arrival.at);
            let happens = self.backends.world().next_at();
            match (comes, happens) {
                (Some(comes), happens) if happens.is_none_or(|happens| comes <= happens) => {
                    self.advance(comes);
                    self.backends.world().set_now(comes);
                    if let Some(arrival) = self.load.next() {
                        self.start(arrival);
                    }
                }
                (_, Some(happens)) => {
                    self.advance(happens);
                    let woken = self.backends.world().step();
                    if let Some(waker) = woken {
                        waker.wake();
                    }
                }
                // Only the balancer can know what the calls wait for.
                (_, None) => {
                    let later = self.now + SECOND;
                    self.advance(later);
                    self.backends.world().set_now(later);
                }
            }
            // Even a queue that grew all the time is worked off before that.
            let forever = 100 * self.middle + 3600 * SECOND;
            assert!(self.now < forever, "a request that is never answered");
            self.settle().await;
        }
        self.latencies.sort_unstable();
        let world = self.backends.world();
        Outcome {
            latencies: std::mem::take(&mut self.latencies),
            errors: self.errors,
            share: world.share(),
            back: world.back(self.middle),
            #[cfg(test)]
            census: world.census(),
        }
    }

    /// Moves tokio's clock.
    fn advance(&mut self, to: Nanos) {
        let step = Duration::from_nanos(to - self.now);
        self.now = to;
        // The clock moves in the first poll. The rest only lets tasks run, which `settle` does for
        // those who have any.
        let _ = pin!(tokio::time::advance(step)).poll(&mut Context::from_waker(Waker::noop()));
    }

    fn start(&mut self, arrival: Arrival) {
        let slot = self.unused.pop().unwrap_or_else(|| {
            let slot = self.slots.len();
            let waker = Waker::from(Arc::new(Note { slot, woken: self.woken.clone() }));
            self.slots.push(Slot { call: None, arrived: 0, counts: false, waker });
            slot
        });
        let call = self.clients[arrival.client].call(Request { work: arrival.work });
        let counts = self.warm_up == 0;
        self.warm_up = self.warm_up.saturating_sub(1);
        let place = &mut self.slots[slot];
        (place.call, place.arrived, place.counts) = (Some(call), arrival.at, counts);
        self.poll(slot);
    }

    /// Lets all that can go on do so, until it waits for a later time.
    async fn settle(&mut self) {
        loop {
            self.poll_woken();
            if Handle::current().metrics().num_alive_tasks() == 0 {
                return;
            }
            // Comes back when no task can go on.
            tokio::task::yield_now().await;
            if self.woken.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }

    fn poll_woken(&mut self) {
        loop {
            let next = self.woken.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(slot) = next else { return };
            self.poll(slot);
        }
    }

    fn poll(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        // A call may be woken twice, the second time after its end.
        let Some(call) = &mut place.call else { return };
        let mut cx = Context::from_waker(&place.waker);
        let Poll::Ready(result) = call.as_mut().poll(&mut cx) else { return };
        place.call = None;
        self.unused.push(slot);
        if place.counts {
            match result {
                Ok(()) => self.latencies.push(self.now - place.arrived),
                Err(_) => self.errors += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rand::RngExt as _;
    use tower::Service as _;

    use super::*;
    use crate::scenario::Odd;
    use crate::subject::Role;
    use crate::subjects;

    fn named(name: &str) -> Subject {
        subjects::all().into_iter().find(|one| one.name == name).unwrap()
    }

    #[test]
    fn one_endpoint_is_the_queue_of_erlang() {
        // M/M/4 at 70 %: the probability to wait, and how long on average.
        let (servers, work, rate) = (4.0, 0.01, 280.0);
        let offered: f64 = rate * work;
        let term = |n: u32| offered.powi(n.cast_signed()) / f64::from((1..=n).product::<u32>());
        let all_busy = term(4) / (1.0 - offered / servers);
        let waits = all_busy / ((0..4).map(term).sum::<f64>() + all_busy);
        let mean = work + waits * work / (servers - offered);

        let uniform = Scenario::all().swap_remove(0);
        let scenario = Scenario { endpoints: 1, odd: Odd::Nothing, ..uniform };
        assert!((scenario.rate() - rate).abs() < 1e-6);
        for subject in ["random", "ideal central queue"] {
            let plan = Plan { scenario: &scenario, clients: 1, requests: 300_000, seed: 1 };
            let outcome = run(&named(subject), plan).unwrap();
            let sum = outcome.latencies.iter().map(|one| *one as f64 / 1e9).sum::<f64>();
            let found = sum / outcome.latencies.len() as f64;
            assert!((found / mean - 1.0).abs() < 0.03, "{subject}: {found}, not {mean}");
        }
    }

    #[test]
    fn tasks_of_a_balancer_take_no_virtual_time_and_their_timers_run_in_it() {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        // As `random`, with a task for each call and one that ticks.
        let subject = Subject::new("tasks", Role::Peer, move |backends, seed| {
            let (endpoints, mut random) = (backends.endpoints(), stream(seed, 0));
            let ticks = counted.clone();
            tokio::spawn(async move {
                let mut every = tokio::time::interval(Duration::from_secs(1));
                loop {
                    every.tick().await;
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            });
            move |request| {
                let mut endpoint = endpoints[random.random_range(0..endpoints.len())].clone();
                let task = tokio::spawn(async move { endpoint.call(request).await });
                Box::pin(async move { Ok(task.await??) }) as Call
            }
        });
        let scenario = Scenario::all().swap_remove(0);
        let plan = Plan { scenario: &scenario, clients: 1, requests: 14_000, seed: 1 };
        let outcome = run(&subject, plan).unwrap();
        assert!(outcome == run(&named("random"), plan).unwrap());
        // 14 000 requests at 2800 a second.
        assert!((5..=6).contains(&ticks.load(Ordering::Relaxed)), "{ticks:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome() {
        for scenario in Scenario::all() {
            for subject in subjects::all() {
                let with = |seed| {
                    let plan = Plan { scenario: &scenario, clients: 5, requests: 2000, seed };
                    run(&subject, plan).unwrap()
                };
                assert!(with(1) == with(1), "{} {}", scenario.name, subject.name);
                assert!(with(1) != with(2), "{} {}", scenario.name, subject.name);
            }
        }
    }

    #[test]
    fn no_request_is_lost_and_none_is_answered_twice() {
        for scenario in Scenario::all() {
            for subject in subjects::all() {
                for clients in [1, 50] {
                    let plan = Plan { scenario: &scenario, clients, requests: 4000, seed: 1 };
                    let outcome = run(&subject, plan).unwrap();
                    let counted = outcome.latencies.len() + outcome.errors;
                    let of = (scenario.name, &subject.name);
                    assert_eq!((counted, outcome.census), (3800, [4000, 0, 0]), "{of:?}");
                }
            }
        }
    }
}
