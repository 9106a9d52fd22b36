//! From outcomes to the numbers of a table: medians over seeds, and whether goals are reached.

use discovery_benches::percentile;

use crate::load::Nanos;
use crate::run::Outcome;
use crate::scenario::{Bound, Goal, Metric, Scenario, Shape};
use crate::subject::Role;

/// The median over seeds of each metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medians {
    values: [f64; 6],
}

impl Medians {
    pub(crate) fn of(outcomes: &[Outcome]) -> Self {
        let median = |value: fn(&Outcome) -> f64| {
            percentile(&outcomes.iter().map(value).collect::<Vec<_>>(), 50)
        };
        let values = [
            median(|one| quantile(&one.latencies, 0.5)),
            median(|one| quantile(&one.latencies, 0.99)),
            median(|one| quantile(&one.latencies, 0.999)),
            median(|one| one.errors as f64 / (one.errors + one.latencies.len()) as f64),
            median(|one| one.share),
            median(|one| one.back),
        ];
        Self { values }
    }

    pub(crate) fn get(&self, metric: Metric) -> f64 {
        self.values[metric as usize]
    }
}

/// In seconds.
fn quantile(sorted: &[Nanos], part: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * part) as usize;
    sorted.get(index).map_or(0.0, |nanos| *nanos as f64 / 1e9)
}

/// A balancer in a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) subject: String,
    pub(crate) role: Role,
    /// In the order of [`Shape::ALL`].
    pub(crate) shapes: [Medians; 2],
}

impl Line {
    pub(crate) fn get(&self, shape: Shape, metric: Metric) -> f64 {
        self.shapes[shape as usize].get(metric)
    }
}

/// What a goal comes to beside these; `None` if what it is measured against was not run.
pub(crate) fn limit(goal: Goal, lines: &[Line]) -> Option<f64> {
    let best = |role| {
        let of = lines.iter().filter(|line| line.role == role);
        of.map(|line| line.get(goal.shape, goal.metric)).min_by(f64::total_cmp)
    };
    match goal.bound {
        Bound::Fixed(limit) => Some(limit),
        Bound::Ideal(times) => best(Role::Ideal).map(|value| value * times),
        Bound::Tower(times) => best(Role::Tower).map(|value| value * times),
    }
}

/// The goals of a scenario that a balancer misses.
pub(crate) fn missed(line: &Line, scenario: &Scenario, lines: &[Line]) -> Vec<Goal> {
    let misses = |goal: &&Goal| {
        let limit = limit(**goal, lines).unwrap_or(f64::INFINITY);
        line.get(goal.shape, goal.metric) > limit
    };
    scenario.goals.iter().filter(misses).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(role: Role, p50: f64) -> Line {
        let medians = Medians { values: [p50, 0.0, 0.0, 0.0, 0.0, 0.0] };
        Line { subject: String::new(), role, shapes: [medians.clone(), medians] }
    }

    #[test]
    fn goals_are_measured_against_the_ideal_and_the_better_of_tower() {
        let lines = [
            line(Role::Ideal, 7.0),
            line(Role::Tower, 9.0),
            line(Role::Tower, 8.0),
            line(Role::Ours, 8.04),
        ];
        let mut scenario = Scenario::all().swap_remove(0);
        let goal = |bound| Goal { shape: Shape::Shared, metric: Metric::P50, bound };
        let (ideal, tower) = (goal(Bound::Ideal(1.1)), goal(Bound::Tower(1.01)));
        scenario.goals = vec![ideal, tower, goal(Bound::Fixed(9.0))];
        assert_eq!(missed(&lines[3], &scenario, &lines), [ideal]);
        // What was not run is no measure.
        assert!(missed(&lines[3], &scenario, &lines[3..]).is_empty());
    }

    #[test]
    fn medians_are_over_seeds_and_quantiles_over_requests() {
        let outcome = |ms: Nanos| Outcome {
            latencies: (1..=1000).map(|n| n * ms * 1_000_000).collect(),
            errors: 1000,
            share: 0.1,
            back: f64::INFINITY,
            census: [0; 3],
        };
        let medians = Medians::of(&[outcome(1), outcome(3), outcome(2)]);
        assert!((medians.get(Metric::P50) - 1.0).abs() < 1e-9);
        assert!((medians.get(Metric::P999) - 1.998).abs() < 1e-9);
        assert!((medians.get(Metric::Errors) - 0.5).abs() < 1e-9);
        assert!(medians.get(Metric::Back).is_infinite());
    }
}
