//! Several things measured in turns: whatever else the machine does hits all alike.

use discovery_benches::{Pairs, is_measuring};

/// Something to measure, which says how long it took in seconds.
pub(crate) type Side<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// What each of `N` took, round by round.
pub(crate) struct Turns<const N: usize>(Vec<[f64; N]>);

impl<const N: usize> Turns<N> {
    /// Measures each once a round, a different one first each time. A first round warms up.
    pub(crate) fn take(rounds: usize, mut sides: [Side<'_>; N]) -> Self {
        let rounds = if is_measuring() { rounds } else { 1 };
        let mut all = Vec::new();
        for round in 0..=rounds {
            let mut took = [0.0; N];
            for turn in 0..N {
                let side = (round + turn) % N;
                took[side] = sides[side]();
            }
            if round > 0 {
                all.push(took);
            }
        }
        Self(all)
    }

    /// Two of them beside each other.
    pub(crate) fn pairs(&self, ours: usize, against: usize) -> Pairs {
        let mut pairs = Pairs::default();
        for took in &self.0 {
            pairs.push(took[ours], took[against]);
        }
        pairs
    }
}
