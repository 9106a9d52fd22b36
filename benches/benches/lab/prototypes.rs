//! Candidates for the rule by which our balancer chooses, in the plainest form: a full scan of scores,
//! nothing shared, no atomics. To find the rule and its constants; the balancer is a subject of its own.
//!
//! An endpoint counts by its requests in flight alone, while its estimated latency is near that of its
//! peers: chance in latencies then moves nothing. From a multiple of their median on it counts as that
//! much more load. An estimate that nothing keeps up goes back towards the median, so that the endpoint
//! is tried again.

use std::cell::RefCell;
use std::rc::Rc;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tower::Service as _;

use crate::endpoint::{Backends, Request};
use crate::load::{Nanos, stream};
use crate::subject::{Call, Role, Subject};

/// The constants of a rule; times in seconds.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Which mean of latencies: 1 for the plain one, 2 for the root of the mean of squares, which tells
    /// who is slow now and then from who is never.
    moment: i32,
    /// A latency counts with `1 - exp(-dt / decay)`, `dt` since the one before; the first few equally.
    decay: f64,
    /// The distance of an estimate from the median shrinks with this time constant while none comes.
    relax: f64,
    /// From this multiple of the median on latency counts.
    threshold: f64,
    /// Also the time since a call last ended counts as a latency, while one is in flight.
    silence: bool,
    /// A failure counts as a latency of this multiple of the median; 0: not at all.
    penalty: f64,
    /// Failures in a row that eject, for how long, and how long at most: it doubles each time.
    failures: u32,
    ejection: f64,
    longest: f64,
    /// How long a median is used before it is computed anew.
    median_for: f64,
    /// The better of two drawn at random, and not the best of all.
    two: bool,
}

/// In flight alone.
const LEAST: Rule = Rule { threshold: f64::INFINITY, failures: u32::MAX, ..HYBRID };

const HYBRID: Rule = Rule {
    moment: 1,
    decay: 10.0,
    relax: 10.0,
    threshold: 2.0,
    silence: false,
    penalty: 0.0,
    failures: 3,
    ejection: 1.0,
    longest: 30.0,
    median_for: 0.0,
    two: false,
};

/// The best that was found.
const SQUARES: Rule = Rule {
    moment: 2,
    decay: 7.0,
    relax: 20.0,
    silence: true,
    penalty: 10.0,
    failures: 5,
    ejection: 30.0,
    longest: 300.0,
    median_for: 0.1,
    ..HYBRID
};

/// All of them.
pub(crate) fn prototypes() -> Vec<Subject> {
    let all = [
        ("prototype least", LEAST),
        ("prototype hybrid", HYBRID),
        ("prototype squares", SQUARES),
        ("prototype squares, not ejecting", Rule { failures: u32::MAX, ..SQUARES }),
        ("prototype squares, two choices", Rule { two: true, ..SQUARES }),
    ];
    let subject = |(name, rule): (&str, Rule)| {
        Subject::new(name, Role::Candidate, move |backends, seed| client(backends, seed, rule))
    };
    all.into_iter().map(subject).collect()
}

fn client(backends: &Backends, seed: u64, rule: Rule) -> impl FnMut(Request) -> Call + use<> {
    let mut endpoints = backends.endpoints();
    let clock = endpoints[0].clone();
    let state = State {
        rule,
        known: endpoints.iter().map(|_| Known::default()).collect(),
        random: stream(seed, 0),
        median: None,
        median_at: 0,
    };
    let state = Rc::new(RefCell::new(state));
    move |request| {
        let (state, clock, start) = (state.clone(), clock.clone(), clock.now());
        let index = state.borrow_mut().start(start);
        let call = endpoints[index].call(request);
        Box::pin(async move {
            let answer = call.await;
            let now = clock.now();
            state.borrow_mut().end(index, now - start, now, answer.is_ok());
            answer.map_err(Into::into)
        })
    }
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
struct Known {
    in_flight: u32,
    /// The mean of latencies or their squares, of how many, and when the last one came.
    mean: f64,
    samples: u32,
    updated: Nanos,
    /// Since when it is silent, if anything is in flight.
    silent: Nanos,
    failures: u32,
    ejections: i32,
    ejected_until: Nanos,
}

struct State {
    rule: Rule,
    known: Vec<Known>,
    random: SmallRng,
    median: Option<f64>,
    median_at: Nanos,
}

impl State {
    /// Chooses an endpoint for a request.
    fn start(&mut self, now: Nanos) -> usize {
        let median = self.median(now);
        let mut among: Vec<usize> = (0..self.known.len()).collect();
        among.retain(|index| self.known[*index].ejected_until <= now);
        if among.is_empty() {
            among = (0..self.known.len()).collect();
        }
        if self.rule.two && among.len() > 2 {
            let first = among.swap_remove(self.random.random_range(0..among.len()));
            among = vec![first, among[self.random.random_range(0..among.len())]];
        }
        let (mut best, mut best_score, mut ties) = (0, f64::INFINITY, 0);
        for index in among {
            let score = self.rule.score(&self.known[index], median, now);
            if score < best_score {
                (best, best_score, ties) = (index, score, 1);
            } else if score <= best_score {
                // Each of those alike with the same probability.
                ties += 1;
                if self.random.random_range(0..ties) == 0 {
                    best = index;
                }
            }
        }
        let chosen = &mut self.known[best];
        if chosen.in_flight == 0 {
            chosen.silent = now;
        }
        chosen.in_flight += 1;
        best
    }

    /// Learns from the end of a call.
    fn end(&mut self, index: usize, took: Nanos, now: Nanos, served: bool) {
        let rule = self.rule;
        let median = self.median(now);
        let one = &mut self.known[index];
        one.in_flight -= 1;
        one.silent = now;
        let mut latency = seconds(took);
        if served {
            (one.failures, one.ejections) = (0, 0);
        } else {
            one.failures += 1;
            if one.failures >= rule.failures {
                let length = (rule.ejection * 2f64.powi(one.ejections)).min(rule.longest);
                one.ejected_until = now + (length * 1e9) as Nanos;
                one.ejections += 1;
            }
            if rule.penalty == 0.0 {
                return;
            }
            latency = latency.max(median.unwrap_or_default() * rule.penalty);
        }
        one.samples += 1;
        let recency = 1.0 - (-seconds(now - one.updated) / rule.decay).exp();
        let weight = recency.max(1.0 / f64::from(one.samples));
        one.mean += (latency.powi(rule.moment) - one.mean) * weight;
        one.updated = now;
    }

    /// The middle one of all estimates, those of ejected and slow endpoints among them.
    fn median(&mut self, now: Nanos) -> Option<f64> {
        let rule = self.rule;
        if self.median.is_none() || seconds(now - self.median_at) >= rule.median_for {
            let known = self.known.iter().filter(|one| one.samples > 0);
            let mut all: Vec<f64> = known.map(|one| rule.estimate(one)).collect();
            let middle = all.len() / 2;
            self.median =
                (!all.is_empty()).then(|| *all.select_nth_unstable_by(middle, f64::total_cmp).1);
            self.median_at = now;
        }
        self.median
    }
}

impl Rule {
    /// Seconds, as of the last latency.
    fn estimate(self, one: &Known) -> f64 {
        one.mean.powf(1.0 / f64::from(self.moment))
    }

    /// Of two endpoints the one with the lower score is chosen.
    fn score(self, one: &Known, median: Option<f64>, now: Nanos) -> f64 {
        let in_flight = f64::from(one.in_flight);
        let ratio = median.map_or(1.0, |median| self.ratio(one, median, now));
        if ratio < self.threshold { in_flight } else { (in_flight + 1.0) * ratio }
    }

    /// Its latency as a multiple of the median.
    fn ratio(self, one: &Known, median: f64, now: Nanos) -> f64 {
        let mut ratio = 1.0;
        if one.samples > 0 {
            let kept = (-seconds(now - one.updated) / self.relax).exp();
            ratio += (self.estimate(one) / median - 1.0) * kept;
        }
        if self.silence && one.in_flight > 0 {
            ratio = ratio.max(seconds(now - one.silent) / median);
        }
        ratio
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
