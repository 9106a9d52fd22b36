//! A dense list that is published in pieces, so that a change of one item copies one piece and not
//! the list.
//!
//! The one who changes it has the items in one vector; readers have shared pieces of it. Publishing
//! copies the pieces that were touched and the list of pieces: 256 items and `n / 256` pointers.

use std::collections::BTreeSet;
use std::sync::Arc;

/// How many items a piece has: about the square root of the largest set that is to be cheap.
const PIECE: usize = 256;

/// What readers have: a list as it was at one moment.
#[derive(Debug)]
pub(crate) struct Pieces<T> {
    pieces: Vec<Arc<[T]>>,
    len: usize,
}

/// What the one who changes the list has.
#[derive(Debug)]
pub(crate) struct Dense<T> {
    items: Vec<T>,
    /// The pieces that differ from the published ones.
    touched: BTreeSet<usize>,
    pieces: Vec<Arc<[T]>>,
}

impl<T> Pieces<T> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.pieces.get(index / PIECE)?.get(index % PIECE)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        self.pieces().flatten()
    }

    /// The pieces, in order.
    #[inline]
    pub(crate) fn pieces(&self) -> impl ExactSizeIterator<Item = &[T]> + '_ {
        self.pieces.iter().map(|piece| &**piece)
    }
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T> Clone for Pieces<T> {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone(), len: self.len }
    }
}

impl<T> Default for Dense<T> {
    fn default() -> Self {
        Self { items: Vec::new(), touched: BTreeSet::new(), pieces: Vec::new() }
    }
}

impl<T: Clone> Dense<T> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// Adds an item and tells its place.
    pub(crate) fn push(&mut self, item: T) -> usize {
        let place = self.items.len();
        self.items.push(item);
        self.touched.insert(place / PIECE);
        place
    }

    /// Puts another item in this place.
    pub(crate) fn set(&mut self, place: usize, item: T) {
        if let Some(old) = self.items.get_mut(place) {
            *old = item;
            self.touched.insert(place / PIECE);
        }
    }

    /// Takes the item out of this place, where the last one moves: that one is told.
    pub(crate) fn remove(&mut self, place: usize) -> Option<&T> {
        if place >= self.items.len() {
            return None;
        }
        self.items.swap_remove(place);
        self.touched.insert(place / PIECE);
        self.touched.insert(self.items.len() / PIECE);
        self.items.get(place)
    }

    /// Says that an item has changed in a way that its piece has to be looked at again.
    pub(crate) fn touch(&mut self, place: usize) {
        if place < self.items.len() {
            self.touched.insert(place / PIECE);
        }
    }

    /// The list as it is now, for readers. `renewed` is told which pieces are new, with their items;
    /// pieces behind the last of the list are gone.
    pub(crate) fn publish(&mut self, mut renewed: impl FnMut(usize, &[T])) -> Pieces<T> {
        self.pieces.truncate(self.items.len().div_ceil(PIECE));
        for index in std::mem::take(&mut self.touched) {
            let Some(rest) = self.items.get(index * PIECE..).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let items = &rest[..rest.len().min(PIECE)];
            renewed(index, items);
            match self.pieces.get_mut(index) {
                Some(piece) => *piece = items.into(),
                // Touched in order, so that no piece before this one is missing.
                None => self.pieces.push(items.into()),
            }
        }
        Pieces { pieces: self.pieces.clone(), len: self.items.len() }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn what_is_published_is_the_list_and_what_was_published_stays() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut list, mut plain) = (Dense::default(), Vec::new());
        let mut former: Option<(Pieces<u32>, Vec<u32>)> = None;
        for step in 0..20_000_u32 {
            let place = rng.random_range(0..=plain.len());
            match rng.random_range(0..10) {
                0..5 => {
                    assert_eq!(list.push(step), plain.len());
                    plain.push(step);
                }
                5..9 if place < plain.len() => {
                    plain.swap_remove(place);
                    assert_eq!(list.remove(place), plain.get(place));
                }
                _ if place < plain.len() => {
                    list.set(place, step);
                    plain[place] = step;
                }
                _ => assert_eq!(list.remove(place), None),
            }
            if rng.random_bool(0.02) {
                let published = list.publish(|_, _| ());
                assert_eq!(published.iter().copied().collect::<Vec<_>>(), plain);
                assert_eq!(published.len(), plain.len());
                assert_eq!(published.get(place), plain.get(place));
                if let Some((published, plain)) = former.replace((published, plain.clone())) {
                    assert_eq!(published.iter().copied().collect::<Vec<_>>(), plain);
                }
            }
        }
    }

    #[test]
    fn one_change_renews_one_piece() {
        let mut list = Dense::default();
        for i in 0..10_000 {
            list.push(i);
        }
        list.publish(|_, _| ());
        list.set(5_000, 7);
        let mut renewed = Vec::new();
        let published = list.publish(|index, items| renewed.push((index, items.len())));
        assert_eq!(renewed, [(5_000 / PIECE, PIECE)]);
        assert_eq!(published.get(5_000), Some(&7));
    }
}
