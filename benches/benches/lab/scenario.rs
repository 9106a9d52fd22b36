//! What a balancer is tried with: ten endpoints, what one of them does, how much work requests are,
//! and what is to be reached. Knows nothing of balancers.

use std::time::Duration;

/// Endpoints of a scenario; their servers; the mean work of a request.
const ENDPOINTS: u8 = 10;
pub(crate) const SERVERS: u8 = 4;
const MEAN: Duration = Duration::from_millis(10);
/// Requests come at this part of what the endpoints can serve.
const LOAD: f64 = 0.7;
/// The endpoint that is not like the others: not the first, which careless ties prefer.
pub(crate) const ODD: usize = 3;

/// What the odd endpoint does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Odd {
    /// The same as the others.
    Nothing,
    /// Everything takes this many times longer.
    Slow { times: u8 },
    /// The same, until the middle of the run.
    SlowThenRecovers { times: u8 },
    /// Answers each request with an error, after this long.
    Fails { after: Duration },
    /// Stands still for a while, each time this long after it last began to.
    Pauses { length: Duration, every: Duration },
}

/// How much work a request is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    /// Exponential.
    Exponential { mean: Duration },
    /// Most the one, some the other.
    Mixed { most: Duration, some: Duration, share_of_some: f64 },
}

/// Who balances: many with a balancer each, which know nothing of one another, or one for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    Apart,
    Shared,
}

impl Shape {
    pub(crate) const ALL: [Self; 2] = [Self::Apart, Self::Shared];

    pub(crate) fn clients(self) -> usize {
        match self {
            Self::Apart => 50,
            Self::Shared => 1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Apart => "50 clients",
            Self::Shared => "shared",
        }
    }
}

/// What is measured of a run; times in seconds, shares of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Metric {
    P50,
    P99,
    P999,
    Errors,
    Share,
    /// From its recovery until the odd endpoint has half of its fair share again.
    Back,
}

/// What a balancer of ours must not exceed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    Fixed(f64),
    /// Times that of one queue in front of all servers.
    Ideal(f64),
    /// Times the better of tower's two.
    Tower(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) shape: Shape,
    pub(crate) metric: Metric,
    pub(crate) bound: Bound,
}

/// A situation to balance in.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) endpoints: u8,
    pub(crate) odd: Odd,
    pub(crate) work: Work,
    pub(crate) goals: Vec<Goal>,
}

impl Scenario {
    /// All that there are.
    pub(crate) fn all() -> Vec<Self> {
        use Bound::{Fixed, Ideal, Tower};
        use Metric::{Back, Errors, P50, P99, P999};
        use Shape::{Apart, Shared};
        let goal = |shape, metric, bound| Goal { shape, metric, bound };
        // As good as tower's better one, up to chance.
        let no_worse = |shape| {
            let times = [(P50, 1.01), (P99, 1.01), (P999, 1.02)];
            times.map(|(metric, times)| goal(shape, metric, Tower(times)))
        };
        let uniform = Self {
            name: "uniform",
            about: "all alike, work exponential with mean 10 ms",
            endpoints: ENDPOINTS,
            odd: Odd::Nothing,
            work: Work::Exponential { mean: MEAN },
            goals: [no_worse(Apart), no_worse(Shared)].concat(),
        };
        let mut all = vec![uniform];
        let like = all[0].clone();
        all[0].goals.push(goal(Shared, P50, Ideal(1.05)));
        all.push(Self {
            name: "slow",
            about: "1 of 10 takes ten times longer",
            odd: Odd::Slow { times: 10 },
            goals: vec![
                goal(Apart, P99, Fixed(0.053)),
                goal(Apart, P999, Fixed(0.090)),
                goal(Shared, P99, Ideal(1.05)),
                goal(Shared, P999, Fixed(0.090)),
            ],
            ..like.clone()
        });
        all.push(Self {
            name: "slow-recovers",
            about: "1 of 10 takes ten times longer until the middle of the run",
            odd: Odd::SlowThenRecovers { times: 10 },
            goals: vec![goal(Apart, Back, Fixed(30.0)), goal(Shared, Back, Fixed(30.0))],
            ..like.clone()
        });
        all.push(Self {
            name: "fails-fast",
            about: "1 of 10 answers an error after 0.5 ms",
            odd: Odd::Fails { after: Duration::from_micros(500) },
            goals: Shape::ALL.map(|shape| goal(shape, Errors, Fixed(0.001))).to_vec(),
            ..like.clone()
        });
        all.push(Self {
            name: "pauses",
            about: "1 of 10 stands still for 300 ms every 5 s",
            odd: Odd::Pauses { length: Duration::from_millis(300), every: Duration::from_secs(5) },
            goals: vec![goal(Apart, P99, Fixed(0.055)), goal(Apart, P999, Fixed(0.110))],
            ..like.clone()
        });
        all.push(Self {
            name: "bimodal",
            about: "90 % of the requests take 5 ms, 10 % take 55 ms",
            work: Work::Mixed {
                most: Duration::from_millis(5),
                some: Duration::from_millis(55),
                share_of_some: 0.1,
            },
            goals: [&no_worse(Apart)[..], &[goal(Shared, P999, Fixed(0.058))]].concat(),
            ..like
        });
        all
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        let odd = match self.odd {
            Odd::Nothing => 1.0,
            Odd::Slow { times } | Odd::SlowThenRecovers { times } => 1.0 / f64::from(times),
            Odd::Fails { .. } => 0.0,
            Odd::Pauses { length, every } => 1.0 - length.as_secs_f64() / every.as_secs_f64(),
        };
        let useful = f64::from(self.endpoints - 1) + odd;
        LOAD * useful * f64::from(SERVERS) / self.work.mean().as_secs_f64()
    }

    /// Whether the odd endpoint is another than the others.
    pub(crate) fn has_odd(&self) -> bool {
        self.odd != Odd::Nothing
    }
}

impl Work {
    pub(crate) fn mean(self) -> Duration {
        match self {
            Self::Exponential { mean } => mean,
            Self::Mixed { most, some, share_of_some } => {
                most.mul_f64(1.0 - share_of_some) + some.mul_f64(share_of_some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_seventy_per_cent_of_what_can_be_served() {
        let rates: Vec<(&str, u64)> = Scenario::all()
            .iter()
            .map(|scenario| (scenario.name, scenario.rate().round() as u64))
            .collect();
        let expected = [
            ("uniform", 2800),
            ("slow", 2548),
            ("slow-recovers", 2548),
            ("fails-fast", 2520),
            ("pauses", 2783),
            ("bimodal", 2800),
        ];
        assert_eq!(rates, expected);
    }
}
