//! Medians and spreads: on a shared machine the mean is mostly other people's load.

/// The value below which `percent` of the samples lie; 0 without samples.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent.min(100) / 100).copied().unwrap_or(0.0)
}

/// Two things measured in turns: whatever else the machine does hits both alike.
#[derive(Debug, Default)]
pub struct Pairs {
    ours: Vec<f64>,
    floor: Vec<f64>,
}

impl Pairs {
    /// Adds one measurement of each, made one after the other.
    pub fn push(&mut self, ours: f64, floor: f64) {
        self.ours.push(ours);
        self.floor.push(floor);
    }

    /// The median of ours.
    pub fn ours(&self) -> f64 {
        percentile(&self.ours, 50)
    }

    /// The median of the floor.
    pub fn floor(&self) -> f64 {
        percentile(&self.floor, 50)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.ours.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ours.is_empty()
    }

    /// The ratio that `percent` of the pairs are below.
    pub fn ratio(&self, percent: usize) -> f64 {
        let ratios: Vec<f64> =
            self.ours.iter().zip(&self.floor).map(|(ours, floor)| ours / floor).collect();
        percentile(&ratios, percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        for percent in [0, 25, 50, 99, 100] {
            let expected = f64::from(u32::try_from(percent).unwrap());
            assert!((percentile(&samples, percent) - expected).abs() < f64::EPSILON);
        }
        assert!(percentile(&[], 50).abs() < f64::EPSILON);
    }

    #[test]
    fn the_ratio_is_that_of_pairs() {
        let mut pairs = Pairs::default();
        // The machine was ten times slower during the second pair: the ratio is the same.
        for (ours, floor) in [(2.0, 1.0), (20.0, 10.0), (2.0, 1.0)] {
            pairs.push(ours, floor);
        }
        assert_eq!(pairs.len(), 3);
        for percent in [0, 50, 100] {
            assert!((pairs.ratio(percent) - 2.0).abs() < f64::EPSILON);
        }
        assert!((pairs.ours() - 2.0).abs() < f64::EPSILON && (pairs.floor() - 1.0).abs() < 1e-9);
    }
}
