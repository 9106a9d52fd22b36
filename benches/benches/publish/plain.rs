//! A map and nothing else: what one change costs where nobody is told of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use discovery_benches::instances;
use discovery_core::{Instance, InstanceKey};

use crate::feed::{Feed, Keys};

pub(crate) struct PlainMap {
    map: HashMap<InstanceKey, Arc<Instance>>,
    feed: Feed,
}

impl PlainMap {
    pub(crate) fn with(count: usize) -> Self {
        Self { map: instances(count).into_iter().collect(), feed: Feed::new(count) }
    }

    /// Makes so many changes and returns how long it took. As in the publisher, each is compared
    /// with the former value, which is dropped.
    pub(crate) fn change(&mut self, keys: Keys, times: u64) -> Duration {
        let changes: Vec<_> = (0..times).map(|_| self.feed.next(keys)).collect();
        let mut changed = 0;
        let start = Instant::now();
        for (key, value) in changes {
            let former = self.map.insert(key, value.clone());
            changed += u64::from(former.is_some_and(|former| former != value));
        }
        let taken = start.elapsed();
        assert_eq!(changed, times);
        taken
    }
}
