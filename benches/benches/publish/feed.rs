//! Which instance changes next, and to what: the same for a publisher and for what it is beside.

use std::fmt;
use std::sync::Arc;

use discovery_benches::{VERSIONS, instance};
use discovery_core::{Instance, InstanceKey};

/// Which keys change.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// So many, evenly spread over the set, over and over: what is left is the work itself.
    Same(usize),
    /// Any: in a large set their memory is not in the processor's cache, which costs time in any
    /// structure.
    Any,
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(count) => write!(f, "{count} keys in turn"),
            Self::Any => f.write_str("any key"),
        }
    }
}

/// New values for `count` keys, without end.
pub(crate) struct Feed {
    count: usize,
    changes: usize,
}

impl Feed {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, changes: 0 }
    }

    /// The next one, freshly decoded as from a source.
    pub(crate) fn next(&mut self, keys: Keys) -> (InstanceKey, Arc<Instance>) {
        self.changes += 1;
        let number = match keys {
            Keys::Same(few) => self.changes % few * (self.count / few),
            // A multiplier without a common divisor with the size visits all keys, far apart.
            Keys::Any => self.changes * 7_919 % self.count,
        };
        // Never the 0 that the instances begin with, and another one when a key comes round again.
        instance(number, 1 + self.changes % (VERSIONS - 1))
    }
}
