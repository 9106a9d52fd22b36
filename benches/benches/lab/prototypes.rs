//! Candidates for the rule by which our balancer chooses, in the plainest form: a full scan of scores,
//! no atomics. To find the rule and its constants; the balancer itself is another subject.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tower::Service as _;

use crate::endpoint::{Backends, Request};
use crate::load::{Nanos, stream};
use crate::subject::{Call, Role, Subject};

/// What besides finished calls tells of an endpoint that hangs: a floor of its latency.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Floor {
    None,
    /// The age of the oldest call in flight.
    Oldest,
    /// How long none has finished while one was in flight.
    Silence,
}

/// The constants of a rule; times in seconds.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Which mean of latencies: 0 for none at all, 1 for the plain one, 2 for the root of squares.
    moment: i32,
    /// A latency counts with `1 - exp(-dt / decay)`, `dt` since the one before, at most `weight`.
    decay: f64,
    weight: f64,
    /// An estimate goes towards the median of the set, with this time constant.
    relax: f64,
    /// Its distance shrinks as a ratio (the logarithm does), not as a difference.
    relax_ratio: bool,
    /// Only from this multiple of the median on does latency count.
    threshold: f64,
    /// An estimate is at most this multiple of the median.
    cap: f64,
    floor: Floor,
    /// Failures in a row that eject, for how long, and how long at most: it doubles each time.
    failures: u32,
    ejection: f64,
    longest: f64,
    /// A failure counts as a latency of this multiple of the median; 0: not at all.
    penalty: f64,
    /// The better of two drawn at random, and not the best of all.
    two: bool,
    /// How long a median is used before it is computed anew.
    median_for: f64,
}

const HYBRID: Rule = Rule {
    moment: 1,
    decay: 10.0,
    weight: 1.0,
    relax: 10.0,
    relax_ratio: false,
    threshold: 2.0,
    cap: f64::INFINITY,
    floor: Floor::None,
    failures: 3,
    ejection: 1.0,
    longest: 30.0,
    penalty: 0.0,
    two: false,
    median_for: 0.0,
};

/// All of them.
pub(crate) fn prototypes() -> Vec<Subject> {
    let rms = Rule { moment: 2, relax: 20.0, floor: Floor::Silence, ejection: 30.0, longest: 300.0, ..HYBRID };
    let all = vec![
        ("rms", rms),
        ("rms two", Rule { two: true, ..rms }),
        ("rms median 1 s", Rule { median_for: 1.0, ..rms }),
        ("rms median 0.1 s", Rule { median_for: 0.1, ..rms }),
        ("rms penalty 5 no ejection", Rule { penalty: 5.0, failures: u32::MAX, ..rms }),
        ("rms penalty 10 no ejection", Rule { penalty: 10.0, failures: u32::MAX, ..rms }),
        ("rms penalty 10", Rule { penalty: 10.0, ..rms }),
        ("rms penalty 10 5/30/300", Rule { penalty: 10.0, failures: 5, ..rms }),
        ("rms penalty 10 5/30/30", Rule { penalty: 10.0, failures: 5, longest: 30.0,  ..rms }),
        ("rms decay 5 relax 15 1.8", Rule { decay: 5.0, relax: 15.0, threshold: 1.8, ..rms }),
        ("rms decay 7 relax 20", Rule { decay: 7.0, ..rms }),
    ];
    let subject = |(name, rule): (&str, Rule)| {
        Subject::new(format!("~{name}"), Role::Candidate, move |backends, seed| {
            client(backends, seed, rule)
        })
    };
    all.into_iter().map(subject).collect()
}

fn client(backends: &Backends, seed: u64, rule: Rule) -> impl FnMut(Request) -> Call + use<> {
    let mut endpoints = backends.endpoints();
    let one = endpoints[0].clone();
    let known = endpoints.iter().map(|_| Known::default()).collect();
    let random = stream(seed, 0);
    let state = State { rule, known, random, calls: 0, median: None, median_at: 0 };
    let state = Rc::new(RefCell::new(state));
    move |request| {
        let (state, clock, start) = (state.clone(), one.clone(), one.now());
        let (index, id) = state.borrow_mut().start(start);
        let call = endpoints[index].call(request);
        Box::pin(async move {
            let answer = call.await;
            state.borrow_mut().end(index, (start, id), clock.now(), answer.is_ok());
            answer.map_err(Into::into)
        })
    }
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
struct Known {
    in_flight: BTreeSet<(Nanos, u64)>,
    /// The mean of latencies (or their squares), how many there were, and when it was brought up to date.
    mean: f64,
    samples: u32,
    updated: Nanos,
    /// Since when it has been silent, if anything is in flight.
    silent: Nanos,
    failures: u32,
    ejections: i32,
    ejected_until: Nanos,
}

struct State {
    rule: Rule,
    known: Vec<Known>,
    random: SmallRng,
    calls: u64,
    median: Option<f64>,
    median_at: Nanos,
}

impl State {
    fn start(&mut self, now: Nanos) -> (usize, u64) {
        let median = self.median(now);
        let is_free = |one: &usize| self.known[*one].ejected_until <= now;
        let mut free: Vec<usize> = (0..self.known.len()).filter(is_free).collect();
        if free.is_empty() {
            free = (0..self.known.len()).collect();
        }
        if self.rule.two && free.len() > 2 {
            let first = free.swap_remove(self.random.random_range(0..free.len()));
            free = vec![first, free[self.random.random_range(0..free.len())]];
        }
        let (mut best, mut best_score, mut ties) = (0, f64::INFINITY, 0);
        for index in free {
            let score = self.rule.score(&self.known[index], median, now);
            if score < best_score {
                (best, best_score, ties) = (index, score, 1);
            } else if score <= best_score {
                ties += 1;
                if self.random.random_range(0..ties) == 0 {
                    best = index;
                }
            }
        }
        self.calls += 1;
        let chosen = &mut self.known[best];
        if chosen.in_flight.is_empty() {
            chosen.silent = now;
        }
        chosen.in_flight.insert((now, self.calls));
        (best, self.calls)
    }

    fn end(&mut self, index: usize, call: (Nanos, u64), now: Nanos, served: bool) {
        let rule = self.rule;
        let median = self.median(now);
        let one = &mut self.known[index];
        one.in_flight.remove(&call);
        one.silent = now;
        if !served {
            one.failures += 1;
            if one.failures >= rule.failures {
                let length = (rule.ejection * 2f64.powi(one.ejections)).min(rule.longest);
                one.ejected_until = now + (length * 1e9) as Nanos;
                one.ejections += 1;
            }
        } else {
            one.failures = 0;
            one.ejections = 0;
        }
        let mut latency = (now - call.0) as f64 / 1e9;
        if !served {
            if rule.penalty == 0.0 {
                return;
            }
            latency = latency.max(median.unwrap_or_default() * rule.penalty);
        }
        if rule.moment == 0 {
            return;
        }
        let latency = latency.powi(rule.moment);
        let idle = (now - one.updated) as f64 / 1e9;
        let weight = (1.0 - (-idle / rule.decay).exp()).min(rule.weight);
        one.samples += 1;
        let weight = weight.max(1.0 / f64::from(one.samples));
        one.mean += (latency - one.mean) * weight;
        if let Some(median) = median {
            one.mean = one.mean.min((median * rule.cap).powi(rule.moment));
        }
        one.updated = now;
    }

    /// Of the plain estimates of all.
    fn median(&mut self, now: Nanos) -> Option<f64> {
        let (rule, kept) = (self.rule, (self.rule.median_for * 1e9) as Nanos);
        if self.median.is_none() || self.median_at + kept <= now {
            let mut all: Vec<f64> =
                self.known.iter().filter_map(|one| rule.estimate(one)).collect();
            let middle = all.len() / 2;
            self.median = (!all.is_empty())
                .then(|| *all.select_nth_unstable_by(middle, f64::total_cmp).1);
            self.median_at = now;
        }
        self.median
    }
}

impl Rule {
    /// Seconds; as of the last finished call.
    fn estimate(self, one: &Known) -> Option<f64> {
        (one.samples > 0).then(|| one.mean.powf(1.0 / f64::from(self.moment)))
    }

    fn score(self, one: &Known, median: Option<f64>, now: Nanos) -> f64 {
        let in_flight = one.in_flight.len() as f64;
        let Some(median) = median else { return in_flight };
        let ratio = self.ratio(one, median, now);
        if ratio < self.threshold { in_flight } else { (in_flight + 1.0) * ratio }
    }

    fn ratio(self, one: &Known, median: f64, now: Nanos) -> f64 {
        let known = self.estimate(one).map_or(1.0, |estimate| {
            let idle = (now - one.updated) as f64 / 1e9;
            let kept = (-idle / self.relax).exp();
            let ratio = estimate / median;
            if self.relax_ratio { ratio.powf(kept) } else { 1.0 + (ratio - 1.0) * kept }
        });
        let floor = match (self.floor, one.in_flight.first()) {
            (Floor::None, _) | (_, None) => return known,
            (Floor::Oldest, Some((start, _))) => now - start,
            (Floor::Silence, Some(_)) => now - one.silent,
        };
        known.max(floor as f64 / 1e9 / median)
    }
}
