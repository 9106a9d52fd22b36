//! What the kit needs of a source to check it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;

use crate::{Change, StatusReader, Update};

/// A set of endpoints: what a reader holds, or what a source has at one moment.
pub type Set<K, E> = BTreeMap<K, E>;

/// A source under test, together with the means to change it.
///
/// A source in the same process is *synchronous*: when [`apply`](Self::apply) returns, every reader
/// can be polled for what it changed, and was woken. One behind a network says by
/// [`settles_within`](Self::settles_within) how long the kit waits for that.
///
/// The kit alone changes the source while it is being checked.
pub trait Subject {
    /// The key of an endpoint.
    type Key: Clone + Ord + fmt::Debug;
    /// What is known of an endpoint.
    type Endpoint: Clone + PartialEq + fmt::Debug;
    /// A reader; usually [`Changes`](crate::Changes).
    type Reader: Stream<Item = Change<Self::Key, Arc<Self::Endpoint>>> + Unpin;

    /// The key with this number: another one for each number, always the same for one.
    fn key(&self, number: u16) -> Self::Key;

    /// An endpoint for the key with this number: another one for each version.
    fn endpoint(&self, key: u16, version: u16) -> Self::Endpoint;

    /// Opens a reader of the whole set.
    fn open(&mut self) -> Self::Reader;

    /// Makes the change as one atomic step (one transaction, where the source has such) and returns
    /// when the source has accepted it. No key comes twice in a batch; keys that are to be removed
    /// need not be there, and endpoints may be what they are already.
    fn apply(&mut self, batch: Vec<Update<Self::Key, Self::Endpoint>>) -> impl Future<Output = ()>;

    /// What the source has when the kit starts. Default: nothing.
    fn initial(&self) -> Set<Self::Key, Self::Endpoint> {
        Set::new()
    }

    /// What readers see when `set` was given to the source. A filter sees a part, say. Default: all.
    fn visible(&self, set: &Set<Self::Key, Self::Endpoint>) -> Set<Self::Key, Self::Endpoint> {
        set.clone()
    }

    /// The status beside the reader, if it has one. Default: none, so that no status is checked.
    fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
        let _ = reader;
        None
    }

    /// `None` (default) for a synchronous source; else how long it takes, at the very most, until
    /// every reader has seen what was accepted. The kit then needs a tokio runtime with its clock.
    fn settles_within(&self) -> Option<Duration> {
        None
    }

    /// Whether [`apply`](Self::apply) can change the source. Default: yes.
    fn can_change(&self) -> bool {
        true
    }

    /// Whether the source can be made to fail, and what it can do then. Default: it cannot.
    fn faults(&self) -> Faults {
        Faults::None
    }

    /// Cuts the readers off from what goes on. Called only where [`faults`](Self::faults) allow it.
    fn fail(&mut self) -> impl Future<Output = ()> {
        async {}
    }

    /// Ends what [`fail`](Self::fail) began.
    fn recover(&mut self) -> impl Future<Output = ()> {
        async {}
    }

    /// Whether [`close`](Self::close) closes the source. Default: no.
    fn can_close(&self) -> bool {
        false
    }

    /// Closes the source on purpose.
    fn close(&mut self) -> impl Future<Output = ()> {
        async {}
    }

    /// Whether the work behind the readers (a watch, a task, a connection) goes on. Default: it
    /// cannot be told, so that it is not checked.
    fn is_working(&self) -> Option<bool> {
        None
    }
}

/// What faults a [`Subject`] can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Faults {
    /// It cannot be made to fail.
    None,
    /// It can; it cannot be changed meanwhile.
    Idle,
    /// It can, and it can be changed meanwhile: readers learn of that later.
    Changing,
}
