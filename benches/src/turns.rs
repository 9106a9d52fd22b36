//! Several things measured in turns: whatever else the machine does hits all alike.

use crate::{Pairs, is_measuring};

/// Something to measure, which says how long it took in seconds.
pub type Side<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// What each of `N` took, round by round.
#[derive(Debug)]
pub struct Turns<const N: usize>(Vec<[f64; N]>);

impl<const N: usize> Turns<N> {
    /// Measures each once a round, a different one first each time. A first round warms up.
    pub fn take(rounds: usize, mut sides: [Side<'_>; N]) -> Self {
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
    pub fn pairs(&self, ours: usize, against: usize) -> Pairs {
        let mut pairs = Pairs::default();
        for took in &self.0 {
            pairs.push(took[ours], took[against]);
        }
        pairs
    }
}
