//! Those that can be used with their weights, and the rest, as lists that are published. Each endpoint is
//! in one of them: mostly all can be used, and a change is one of one list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::balance::flight::Endpoint;
use crate::balance::parts::Parts;
use crate::balance::pieces::{Dense, Pieces};
use crate::balance::weights::{Weights, sums};

pub(super) struct Lists<T: Parts> {
    pub(super) ready: Dense<Arc<Endpoint<T>>>,
    pub(super) rest: Dense<Arc<Endpoint<T>>>,
    /// How many of those that can be used have which weight.
    weights: BTreeMap<u32, usize>,
    /// Sums of weights for each piece; empty while all weights are the same.
    sums: Vec<Arc<[u64]>>,
}

impl<T: Parts> Default for Lists<T> {
    fn default() -> Self {
        Self {
            ready: Dense::default(),
            rest: Dense::default(),
            weights: BTreeMap::new(),
            sums: Vec::new(),
        }
    }
}

/// So many of them.
struct Counted<I> {
    iter: I,
    left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.iter.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

impl<T: Parts> Lists<T> {
    /// How many there are in all.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.rest.len()
    }

    /// All there are.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint<T>>> {
        Counted { iter: self.ready.iter().chain(self.rest.iter()), left: self.len() }
    }

    /// Adds one to those that can be used and tells its place.
    pub(super) fn add_ready(&mut self, endpoint: &Arc<Endpoint<T>>, weight: u32) -> usize {
        *self.weights.entry(weight).or_default() += 1;
        self.ready.push(endpoint.clone())
    }

    /// Takes one of those that can be used away: the id of the one that moves to its place.
    pub(super) fn remove_ready(&mut self, place: usize, weight: u32) -> Option<usize> {
        self.uncount(weight);
        self.ready.remove(place).map(|moved| moved.id)
    }

    /// The one at this place has another weight from now on.
    pub(super) fn reweigh(&mut self, place: usize, from: u32, to: u32) {
        self.uncount(from);
        *self.weights.entry(to).or_default() += 1;
        self.ready.touch(place);
    }

    fn uncount(&mut self, weight: u32) {
        if let Some(count) = self.weights.get_mut(&weight) {
            *count -= 1;
            if *count == 0 {
                self.weights.remove(&weight);
            }
        }
    }

    /// Those that can be used, for readers.
    pub(super) fn publish_ready(&mut self) -> (Pieces<Arc<Endpoint<T>>>, Weights) {
        if self.weights.len() <= 1 {
            self.sums.clear();
            return (self.ready.publish(|_, _| ()), Weights::Equal);
        }
        let of = |items: &[Arc<Endpoint<T>>]| sums(items.iter().map(|e| e.member.own_weight()));
        let all = std::mem::take(&mut self.sums);
        let first = all.is_empty();
        let mut table = all;
        let ready = self.ready.publish(|index, items| {
            if !first {
                match table.get_mut(index) {
                    Some(sums) => *sums = of(items),
                    None => table.push(of(items)),
                }
            }
        });
        if first {
            table = ready.pieces().map(of).collect();
        }
        table.truncate(ready.pieces().count());
        self.sums = table;
        (ready, Weights::of(&self.sums))
    }
}
