//! Streams and sources made of other ones.
//!
//! Each works on a stream of changes and, under the same name with a source in place of the stream,
//! on a whole source. A derived stream has no task: it drains its inputs when it is polled. It keeps
//! the [laws](crate::Change) for its own documented set, and its status follows the status of its
//! inputs even while nobody polls it.
//!
//! | | its set | loaded | stale |
//! |---|---|---|---|
//! | [`Changes::map_endpoints`], [`Mapped`] | the input's, each endpoint mapped | as the input | as the input |
//! | [`Changes::filter_endpoints`], [`Filtered`] | the part of the input's that is wanted | as the input | as the input |
//! | [`merge_changes`], [`merge`] | the union of the inputs' as last seen; of equal keys the first input's | once one is | while one is loading or stale |
//! | [`failover_changes`], [`failover`] | that of the first input that has loaded | once one is | as the one in use |

mod failover;
mod map;
mod merge;

use std::hash::Hash;
use std::sync::Arc;

pub use failover::{Failover, failover, failover_changes};
pub use map::{Filtered, Mapped, filter, map};
pub use merge::{Merged, merge, merge_changes};

use crate::Source;

/// A source that is one of several.
type DynSource<E> = Arc<dyn Source<E>>;

/// What a key or an endpoint must be to stand in a derived set.
pub trait Part: Send + Sync + 'static {}

impl<T: Send + Sync + 'static> Part for T {}

/// What a key must be to stand in a derived set.
pub trait KeyPart: Part + Hash + Eq + Clone {}

impl<T: Part + Hash + Eq + Clone> KeyPart for T {}
