//! The decisions of a pool, without a pool.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// A connection that anybody can close.
#[derive(Clone, Debug)]
struct Wire(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    open: Cell<bool>,
    served: Cell<bool>,
    blamed: Cell<bool>,
    shared: bool,
    period: u64,
}

impl Wire {
    fn new(shared: bool, period: u64) -> Self {
        Self(Rc::new(Inner {
            open: Cell::new(true),
            served: Cell::new(false),
            blamed: Cell::new(false),
            shared,
            period,
        }))
    }

    fn close(&self) {
        self.0.open.set(false);
    }
}

impl Link for Wire {
    fn is_open(&self) -> bool {
        self.0.open.get()
    }

    fn room(&self) -> usize {
        2
    }

    fn share(&self) -> Option<Self> {
        self.0.shared.then(|| self.clone())
    }

    fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn is_to_blame(&self, _: Instant) -> bool {
        !self.is_open() && !self.0.served.get() && !self.0.blamed.replace(true)
    }

    fn period(&self) -> u64 {
        self.0.period
    }
}

const LIMITS: Limits =
    Limits { max_connections: 2, max_idle: 2, idle_timeout: Duration::from_secs(60) };

fn own() -> State<Wire, u32> {
    State::new(false, LIMITS)
}

fn shared() -> State<Wire, u32> {
    State::new(true, Limits { max_connections: 1, ..LIMITS })
}

fn refused() -> Failure {
    Failure::connect("refused")
}

/// What is done, in short.
fn done(state: &mut State<Wire, u32>, now: Instant) -> Vec<String> {
    let steps = std::iter::from_fn(|| state.next(now));
    steps
        .map(|step| match step {
            Step::Give(waiter, _) => format!("give {waiter}"),
            Step::Fail(waiters, failure) => format!("fail {waiters:?}: {}", failure.cause()),
            Step::Connect(period) => format!("connect {period}"),
        })
        .collect()
}

fn wait(state: &mut State<Wire, u32>, waiter: u32, now: Instant) -> u64 {
    match state.ask(now, || waiter) {
        Asked::Wait(number) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_connections_are_begun_as_callers_wait_and_no_more_than_the_maximum() {
    let (mut state, now) = (own(), Instant::now());
    wait(&mut state, 0, now);
    assert_eq!(done(&mut state, now), ["connect 0"]);
    for waiter in 1..5 {
        wait(&mut state, waiter, now);
    }
    assert_eq!(done(&mut state, now), ["connect 0"]);
    assert_eq!(state.counts(), (2, 5));
    let wire = Wire::new(false, 0);
    state.made(wire.clone(), now);
    assert_eq!(done(&mut state, now), ["give 0"]);
    state.put(wire, now);
    assert_eq!(done(&mut state, now), ["give 1"], "one after the other");
}

#[test]
fn who_leaves_is_passed_over_and_the_connection_kept() {
    let (mut state, now) = (own(), Instant::now());
    let number = wait(&mut state, 0, now);
    done(&mut state, now);
    state.leave(number);
    state.made(Wire::new(false, 0), now);
    assert!(done(&mut state, now).is_empty());
    assert!(matches!(state.ask(now, || 1), Asked::Have(_)));
    assert_eq!(state.counts(), (1, 0));
}

#[test]
fn the_last_failure_is_told_to_all_and_then_at_once_until_the_rest_is_over() {
    let (mut state, now) = (own(), Instant::now());
    for waiter in 0..5 {
        wait(&mut state, waiter, now);
    }
    assert_eq!(done(&mut state, now), ["connect 0", "connect 0"]);
    assert_eq!(state.failed(0, refused(), now), Some(0));
    assert!(done(&mut state, now).is_empty(), "another attempt is under way");
    assert_eq!(state.failed(0, refused(), now), Some(1));
    assert_eq!(done(&mut state, now), ["fail [2, 3, 4]: refused"]);
    assert_eq!(state.counts(), (0, 0));
    assert!(matches!(state.ask(now, || 5), Asked::Failed(_)));

    // Both failed together: the rest is that of one failure.
    let over = now + Duration::from_millis(50);
    for waiter in 6..9 {
        wait(&mut state, waiter, over);
    }
    assert_eq!(done(&mut state, over), ["connect 1"], "one looks whether it is back");
    state.made(Wire::new(false, 1), over);
    assert_eq!(done(&mut state, over), ["give 6", "connect 1"]);
    state.made(Wire::new(false, 1), over);
    assert_eq!(done(&mut state, over), ["give 7"]);
    state.served();
    assert!(done(&mut state, over).is_empty());
}

#[test]
fn a_connection_that_ends_in_the_hands_of_its_first_caller_is_a_failure_and_idle_it_is_not() {
    let (mut state, now) = (own(), Instant::now());
    wait(&mut state, 0, now);
    done(&mut state, now);
    let wire = Wire::new(false, 0);
    state.made(wire.clone(), now);
    done(&mut state, now);
    state.put(wire.clone(), now);
    wire.close();
    state.sweep();
    assert_eq!(state.counts(), (0, 0));
    wait(&mut state, 1, now);
    assert_eq!(done(&mut state, now), ["connect 0"]);
    let wire = Wire::new(false, 0);
    state.made(wire.clone(), now);
    done(&mut state, now);
    wire.close();
    state.put(wire, now);
    assert!(matches!(state.ask(now, || 2), Asked::Failed(_)));
}

#[test]
fn shared_it_has_room_for_so_many_and_is_replaced_when_it_closes() {
    let (mut state, now) = (shared(), Instant::now());
    for waiter in 0..3 {
        wait(&mut state, waiter, now);
    }
    assert_eq!(done(&mut state, now), ["connect 0"]);
    let old = Wire::new(true, 0);
    old.0.served.set(true);
    state.made(old.clone(), now);
    assert_eq!(done(&mut state, now), ["give 0", "give 1"]);
    old.close();
    state.sweep();
    assert_eq!(done(&mut state, now), ["connect 0"]);
    state.made(Wire::new(true, 0), now);
    assert_eq!(done(&mut state, now), ["give 2"]);
    // The old one still serves two; they are not counted any more.
    state.put(old.clone(), now);
    state.put(old, now);
    assert_eq!(state.counts(), (1, 0));
    assert!(matches!(state.ask(now, || 3), Asked::Have(_)));
    assert!(matches!(state.ask(now, || 4), Asked::Wait(_)));
}

#[test]
fn what_is_not_used_expires_and_what_is_used_does_not() {
    for mut state in [own(), shared()] {
        let now = Instant::now();
        let is_shared = matches!(state.store, Store::Shared(_));
        assert_eq!(state.expires(now), None);
        wait(&mut state, 0, now);
        done(&mut state, now);
        let wire = Wire::new(is_shared, 0);
        state.made(wire.clone(), now);
        done(&mut state, now);
        let later = now + LIMITS.idle_timeout * 2;
        state.expire(later);
        assert_eq!(state.counts(), (1, 0));
        state.put(wire, later);
        assert_eq!(state.expire(later), Some(later + LIMITS.idle_timeout));
        assert_eq!(state.expire(later + LIMITS.idle_timeout), None);
        assert_eq!(state.counts(), (0, 0));
    }
}

#[test]
fn one_that_is_used_is_not_asked_about_without_end_though_none_is_kept() {
    let limits = Limits { max_connections: 1, idle_timeout: Duration::ZERO, ..LIMITS };
    let (mut state, now) = (State::<Wire, u32>::new(true, limits), Instant::now());
    wait(&mut state, 0, now);
    done(&mut state, now);
    let wire = Wire::new(true, 0);
    state.made(wire.clone(), now);
    assert_eq!(done(&mut state, now), ["give 0"]);
    assert!(state.expire(now).is_some_and(|next| next > now));
    state.put(wire, now);
    assert_eq!((state.expire(now), state.counts()), (None, (0, 0)));
}

/// Whatever happens in whatever order: the limits hold, nobody is forgotten, and the count is right.
#[test]
fn a_random_history_forgets_nobody() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let is_shared = rng.random_bool(0.5);
        let mut state = if is_shared { shared() } else { own() };
        let mut now = Instant::now();
        let mut waiting = BTreeSet::new();
        let mut numbers = Vec::new();
        let mut attempts = Vec::new();
        let mut held: Vec<Wire> = Vec::new();
        let mut next = 0;
        let finale = 300;
        for round in 0..=finale {
            let last = round == finale;
            match rng.random_range(0..8) {
                _ if last => {
                    // Everything comes to an end, well.
                    now += Duration::from_secs(10);
                    for wire in held.drain(..) {
                        wire.0.served.set(true);
                        state.put(wire, now);
                    }
                }
                0..=2 => {
                    next += 1;
                    match state.ask(now, || next) {
                        Asked::Have(wire) => {
                            assert!(wire.is_open(), "{seed}");
                            held.push(wire);
                        }
                        Asked::Failed(_) => {}
                        Asked::Wait(number) => {
                            waiting.insert(next);
                            numbers.push((number, next));
                        }
                    }
                }
                3 if !attempts.is_empty() => {
                    let period = attempts.swap_remove(rng.random_range(0..attempts.len()));
                    if rng.random_bool(0.6) {
                        state.made(Wire::new(is_shared, period), now);
                    } else if let Some(waiter) = state.failed(period, refused(), now) {
                        assert!(waiting.remove(&waiter), "{seed}");
                    }
                }
                4 | 5 if !held.is_empty() => {
                    let wire = held.swap_remove(rng.random_range(0..held.len()));
                    if rng.random_bool(0.7) {
                        wire.0.served.set(true);
                        state.served();
                    }
                    if rng.random_bool(0.3) {
                        wire.close();
                    }
                    state.put(wire, now);
                }
                6 if !numbers.is_empty() => {
                    let (number, waiter) = numbers.swap_remove(rng.random_range(0..numbers.len()));
                    state.leave(number);
                    waiting.remove(&waiter);
                }
                _ => now += Duration::from_millis(rng.random_range(0..100)),
            }
            let mut oldest = 0;
            while let Some(step) = state.next(now) {
                match step {
                    Step::Give(waiter, wire) => {
                        assert!(waiting.remove(&waiter), "{seed}: given to one who left");
                        assert!(waiter > oldest && wire.is_open(), "{seed}");
                        oldest = waiter;
                        held.push(wire);
                    }
                    Step::Fail(waiters, _) => {
                        for waiter in waiters {
                            assert!(waiting.remove(&waiter), "{seed}");
                        }
                    }
                    Step::Connect(period) => attempts.push(period),
                }
            }
            let (places, waiters) = state.counts();
            assert_eq!(waiters, waiting.len(), "{seed}");
            assert!(places <= state.limits.max_connections, "{seed}");
            if !is_shared {
                let Store::Own(idle) = &state.store else { unreachable!() };
                assert_eq!(places, held.len() + idle.len() + attempts.len(), "{seed}");
            }
            // Whoever waits has something to wait for.
            assert!(waiters == 0 || !attempts.is_empty() || !held.is_empty(), "{seed} {round}");
        }
    }
}
