//! Drawing endpoints in proportion to their weights, without a table as long as the weights' sum.

use std::sync::Arc;

use super::entropy::Random;

/// The weights of a published list, piece by piece as that is.
#[derive(Clone, Debug)]
pub(crate) enum Weights {
    /// All are the same.
    Equal,
    /// Sums from the first on: over the pieces, and within each piece over its items.
    Sums { of_pieces: Vec<u64>, within: Vec<Arc<[u64]>> },
}

impl Weights {
    /// `within` are the sums within each piece.
    pub(crate) fn of(within: &[Arc<[u64]>]) -> Self {
        let mut sum = 0_u64;
        let add = |piece: &Arc<[u64]>| {
            sum = sum.saturating_add(piece.last().copied().unwrap_or(0));
            sum
        };
        Self::Sums { of_pieces: within.iter().map(add).collect(), within: within.to_vec() }
    }

    pub(crate) fn is_equal(&self) -> bool {
        matches!(self, Self::Equal)
    }

    /// A place below `len`, drawn in proportion to the weights.
    #[inline]
    pub(crate) fn draw(&self, len: usize, random: &Random) -> usize {
        match self {
            Self::Equal => random.below(len as u64) as usize,
            Self::Sums { of_pieces, within } => draw(of_pieces, within, random),
        }
    }
}

fn draw(of_pieces: &[u64], within: &[Arc<[u64]>], random: &Random) -> usize {
    let at = random.below(of_pieces.last().copied().unwrap_or(0));
    let piece = of_pieces.partition_point(|sum| *sum <= at);
    let before = piece.checked_sub(1).and_then(|i| of_pieces.get(i)).copied().unwrap_or(0);
    let Some(sums) = within.get(piece) else { return 0 };
    let earlier: usize = within.first().map_or(0, |first| piece * first.len());
    earlier + sums.partition_point(|sum| *sum <= at - before)
}

/// The sums from the first on.
pub(crate) fn sums(weights: impl Iterator<Item = u32>) -> Arc<[u64]> {
    let mut sum = 0_u64;
    weights
        .map(|weight| {
            sum += u64::from(weight);
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::entropy::Seeded;
    use super::*;

    fn shares(weights: &[u32], piece: usize) -> Vec<f64> {
        let random = Random::Given(Arc::new(Seeded::new(3)));
        let within: Vec<_> =
            weights.chunks(piece).map(|piece| sums(piece.iter().copied())).collect();
        let table = Weights::of(&within);
        let mut drawn = vec![0_u32; weights.len()];
        for _ in 0..200_000 {
            drawn[table.draw(weights.len(), &random)] += 1;
        }
        drawn.iter().map(|&n| f64::from(n) / 200_000.0).collect()
    }

    #[test]
    fn shares_are_as_the_weights_also_over_pieces() {
        for piece in [1, 2, 3, 8] {
            let all = [4, 2, 0, 1, 1, 65_535];
            let total: u32 = all.iter().sum();
            for (share, weight) in shares(&all, piece).into_iter().zip(all) {
                let wanted = f64::from(weight) / f64::from(total);
                assert!((share - wanted).abs() < 0.005, "{piece}: {share} for {wanted}");
            }
            for (share, wanted) in shares(&[4, 2, 1, 1], piece).into_iter().zip([0.5, 0.25, 0.125])
            {
                assert!((share - wanted).abs() < 0.005, "{piece}: {share} for {wanted}");
            }
        }
    }

    #[test]
    fn huge_weights_do_not_overflow() {
        let shares = shares(&[u32::MAX, u32::MAX, u32::MAX, u32::MAX], 2);
        assert!(shares.iter().all(|share| (share - 0.25).abs() < 0.01), "{shares:?}");
    }

    #[test]
    fn equal_weights_need_no_table() {
        let random = Random::Given(Arc::new(Seeded::new(4)));
        let mut drawn = [0_u32; 5];
        (0..50_000).for_each(|_| drawn[Weights::Equal.draw(5, &random)] += 1);
        assert!(drawn.iter().all(|&n| (9_500..10_500).contains(&n)), "{drawn:?}");
    }
}
