//! How many keys of a prefix to ask for at once. Small pages make etcd quadratic, since it counts the
//! rest of the range for each; too many large values do not fit into a message. So what is asked for is
//! smaller where values have shown to be large, for that prefix alone, and grows again when they are
//! not any more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{KeyValue, List};

/// A page of etcd's largest values must fit.
pub(super) const LARGEST_MESSAGE: usize = 64 << 20;
/// Keys in a page, unless values are large.
const PAGE: i64 = 10_000;
/// A page that is over the limit is divided by this.
const SMALLER: i64 = 8;
/// What etcd says of a key beside the key and its value takes less than this.
const BESIDE: usize = 64;

/// The prefixes whose pages are smaller than others, and how small; lists without values apart.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<HashMap<(Vec<u8>, bool), i64>>);

impl Pages {
    /// How many keys to ask for.
    pub(super) fn size(&self, list: &List) -> i64 {
        self.small().get(&place(list)).copied().unwrap_or(PAGE)
    }

    /// So many were too large for a message. Whether fewer can be asked for.
    pub(super) fn too_large(&self, list: &List, size: i64) -> bool {
        self.small().insert(place(list), (size / SMALLER).max(1));
        size > 1
    }

    /// A page came that was asked for with this size.
    pub(super) fn came(&self, list: &List, size: i64, page: &[KeyValue]) {
        if size >= PAGE {
            return;
        }
        let bytes = page.iter().map(|entry| entry.key.len() + entry.value.len() + BESIDE);
        let one = bytes.sum::<usize>() / page.len().max(1);
        let larger = size.saturating_mul(SMALLER).min(PAGE);
        // Half of the limit, since the next page is another one.
        if usize::try_from(larger).unwrap_or(usize::MAX).saturating_mul(one) > LARGEST_MESSAGE / 2 {
            return;
        }
        if larger < PAGE {
            self.small().insert(place(list), larger);
        } else {
            self.small().remove(&place(list));
        }
    }

    fn small(&self) -> std::sync::MutexGuard<'_, HashMap<(Vec<u8>, bool), i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(list: &List) -> (Vec<u8>, bool) {
    (list.prefix.clone(), list.keys_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(prefix: &str, keys_only: bool) -> List {
        List { prefix: prefix.into(), after: None, at: None, keys_only }
    }

    /// So many keys with values of this size.
    fn page(keys: usize, value: usize) -> Vec<KeyValue> {
        let entry =
            KeyValue { key: b"/a/1".to_vec(), value: vec![0; value], revision: 1, lease: 0 };
        vec![entry; keys]
    }

    #[test]
    fn large_values_make_pages_smaller_for_their_prefix_alone() {
        let (pages, large) = (Pages::default(), list("/a/", false));
        assert!(pages.too_large(&large, pages.size(&large)));
        assert_eq!(pages.size(&large), 1_250);
        assert!(pages.too_large(&large, 1_250));
        assert_eq!(pages.size(&large), 156);
        for other in [list("/b/", false), list("/", false), list("/a/", true)] {
            assert_eq!(pages.size(&other), PAGE, "{other:?}");
        }
        // A page that fits is no reason to shrink others, nor to grow while values are that large.
        pages.came(&large, 156, &page(156, 300_000));
        pages.came(&large, 156, &page(1, 300_000));
        assert_eq!(pages.size(&large), 156);
    }

    #[test]
    fn a_page_of_one_key_cannot_be_smaller() {
        let (pages, large) = (Pages::default(), list("/a/", false));
        for _ in 0..4 {
            assert!(pages.too_large(&large, pages.size(&large)));
        }
        assert_eq!(pages.size(&large), 2);
        assert!(pages.too_large(&large, 2));
        assert!(!pages.too_large(&large, pages.size(&large)));
        assert_eq!(pages.size(&large), 1);
    }

    #[test]
    fn pages_grow_again_when_values_are_small_again() {
        let (pages, once_large) = (Pages::default(), list("/a/", false));
        for _ in 0..3 {
            pages.too_large(&once_large, pages.size(&once_large));
        }
        for size in [19, 152, 1_216, 9_728] {
            assert_eq!(pages.size(&once_large), size);
            pages.came(&once_large, size, &page(19, 100));
        }
        assert_eq!(pages.size(&once_large), PAGE);
        assert!(pages.small().is_empty(), "nothing is kept of it");
        // Also when nothing is left.
        pages.too_large(&once_large, PAGE);
        pages.came(&once_large, 1_250, &[]);
        assert_eq!(pages.size(&once_large), PAGE);
    }
}
