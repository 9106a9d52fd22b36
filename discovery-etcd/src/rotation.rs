//! Which etcd endpoint is used: one at a time, another one after each failure.

use std::sync::Arc;

/// A place in the list of endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// Never empty.
    names: Arc<[String]>,
    at: usize,
}

impl Rotation {
    /// Begins with number `first`.
    pub(crate) fn new(names: &[String], first: usize) -> Self {
        debug_assert!(!names.is_empty(), "checked with the configuration");
        Self { names: names.into(), at: first }
    }

    /// The number of the endpoint in use.
    pub(crate) fn current(&self) -> usize {
        self.at
    }

    /// What the endpoint in use is called.
    pub(crate) fn name(&self) -> &str {
        self.names.get(self.at).map_or("", String::as_str)
    }

    /// Goes on to the next one.
    pub(crate) fn rotate(&mut self) {
        self.at = (self.at + 1) % self.names.len().max(1);
    }
}
