//! The requests: when each comes, to which client, how much work it is. Each of these has a random
//! stream of its own that no balancer draws from, so that all balancers get the same requests.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::scenario::{Scenario, Work};

/// Nanoseconds, of time or since the start.
pub(crate) type Nanos = u64;

/// A random stream: the same for the same seed and number, and unlike any other.
pub(crate) fn stream(seed: u64, number: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number))
}

/// Numbers of streams. A client's balancer has `CLIENTS` and its own number.
const ARRIVALS: u64 = 1;
const WORK: u64 = 2;
const CLIENT: u64 = 3;
pub(crate) const CLIENTS: u64 = 1000;

/// A request that comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Nanos,
    pub(crate) client: usize,
    pub(crate) work: Nanos,
}

/// All requests of a run, as they come.
pub(crate) struct Load {
    at: f64,
    /// Nanoseconds between two, on average.
    gap: f64,
    work: Work,
    clients: usize,
    left: usize,
    arrivals: SmallRng,
    works: SmallRng,
    client: SmallRng,
}

impl Load {
    pub(crate) fn new(scenario: &Scenario, clients: usize, requests: usize, seed: u64) -> Self {
        Self {
            at: 0.0,
            gap: 1e9 / scenario.rate(),
            work: scenario.work,
            clients,
            left: requests,
            arrivals: stream(seed, ARRIVALS),
            works: stream(seed, WORK),
            client: stream(seed, CLIENT),
        }
    }
}

impl Iterator for Load {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.left = self.left.checked_sub(1)?;
        self.at += exponential(&mut self.arrivals, self.gap);
        let drawn = match self.work {
            Work::Exponential { mean } => exponential(&mut self.works, mean.as_secs_f64() * 1e9),
            Work::Mixed { most, some, share_of_some } => {
                let is_some = self.works.random::<f64>() < share_of_some;
                (if is_some { some } else { most }).as_secs_f64() * 1e9
            }
        };
        let client = self.client.random_range(0..self.clients);
        Some(Arrival { at: nanos(self.at), client, work: nanos(drawn) })
    }
}

fn exponential(random: &mut SmallRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

/// Rounded; never less than 1.
pub(crate) fn nanos(number: f64) -> Nanos {
    number.max(1.0).round() as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_balancers_get_the_same_requests_and_another_seed_gives_others() {
        for scenario in Scenario::all() {
            let times = |clients, seed| {
                Load::new(&scenario, clients, 100, seed).map(|one| (one.at, one.work))
            };
            assert!(times(50, 1).eq(times(50, 1)));
            // Also where they are spread over other clients.
            assert!(times(50, 1).eq(times(1, 1)));
            assert!(times(50, 1).ne(times(50, 2)));
        }
    }

    #[test]
    fn as_many_come_and_are_as_much_work_as_the_scenario_says() {
        for scenario in Scenario::all() {
            let all: Vec<Arrival> = Load::new(&scenario, 50, 100_000, 1).collect();
            let took = all.last().unwrap().at as f64 / 1e9;
            let work = all.iter().map(|one| one.work as f64 / 1e9).sum::<f64>();
            let (rate, mean) = (1e5 / took, work / 1e5);
            assert!((rate / scenario.rate() - 1.0).abs() < 0.02, "{rate}");
            assert!((mean / scenario.work.mean().as_secs_f64() - 1.0).abs() < 0.02, "{mean}");
        }
    }
}
