//! How every source is written: a [`Publisher`] that is told what is there, and [`Changes`] that
//! tell each reader what it is owed.
//!
//! The publisher holds one [table](table) of keys and values. Each reader holds only which keys are
//! *dirty* for it, with what it was last told of them. What a reader is owed is computed when it
//! polls, from the table as it is then and what it was last told. So the [laws](crate::Change) on
//! diffing, coalescing and bounded memory hold by construction, for a resync after a lost connection
//! just as for a single change:
//!
//! - a key that changed twice before the reader polled is told once; one that changed back, not at all;
//! - a reader that does not poll costs one small entry for each key that changed meanwhile;
//! - a new reader needs no entries: a cursor walks the table.

mod publisher;
mod reader;
mod shared;
mod table;

pub use publisher::{Publisher, Replacement, Subscriber, Update};
pub use reader::Changes;
pub(crate) use reader::Derive;
