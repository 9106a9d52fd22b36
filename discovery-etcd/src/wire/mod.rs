//! The narrow waist between our machines and etcd: about ten calls, in our own types. A connection is
//! to one etcd endpoint and is given up at the first sign of trouble; rotating, retrying and waiting
//! are the machines' business. Tests put a scripted etcd behind the same traits.

mod classify;
mod dial;
mod etcd;
mod pages;
mod stream;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use classify::{Kind, WireError};
pub(crate) use etcd::{ANY, ChannelMaker, EtcdConnector, EtcdWire, shown};

pub(crate) type Result<T> = std::result::Result<T, WireError>;

/// Makes connections to etcd endpoints.
pub(crate) trait Connect: Send + Sync + 'static {
    type Wire: Wire;

    /// A new connection to this endpoint. Credentials are read and presented anew.
    fn connect(&self, endpoint: &str) -> impl Future<Output = Result<Self::Wire>> + Send;
}

/// A connection to one etcd endpoint. No call has a deadline of its own: callers set theirs.
pub(crate) trait Wire: Clone + Send + Sync + 'static {
    type Stream: WatchStream;

    /// Which endpoint it is to.
    fn endpoint(&self) -> Arc<str>;

    /// The stream that all watches of this connection share.
    fn stream(&self) -> Self::Stream;

    /// Presents the credentials once more if that can help: what is asked after that carries a token
    /// that is good. However many ask at a time, it is done once; and what was refused is not
    /// presented again for some time, unless the credentials have changed.
    fn refresh(&self) -> impl Future<Output = Result<()>> + Send;

    /// Counts how often the token was found to be good, or replaced, after it had been in doubt. A
    /// stream keeps the token that it was opened with: one of an earlier count may have a dead one.
    fn tokens(&self) -> u64;

    /// Where the members of the cluster serve clients.
    fn members(&self) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// A part of a prefix, linearizable when `at` is `None`, else as of that revision.
    fn list(&self, list: List) -> impl Future<Output = Result<Page>> + Send;

    /// Counts keys, linearizably; returns the store's revision.
    fn count(&self, keys: &Keys) -> impl Future<Output = Result<i64>> + Send;

    /// One key, linearizable.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Found>> + Send;

    /// Puts a key under a lease, or deletes it, if the guard holds; says what is there if not.
    fn put(&self, put: GuardedPut) -> impl Future<Output = Result<PutReply>> + Send;

    /// Grants a lease with an id of our choice; returns the granted time to live.
    fn grant(&self, lease: i64, ttl: Duration) -> impl Future<Output = Result<Duration>> + Send;

    /// The time to live that a lease was granted with; `None` if there is no such lease.
    fn granted_ttl(&self, lease: i64) -> impl Future<Output = Result<Option<Duration>>> + Send;

    /// Renews a lease; fails with [`Kind::LeaseNotFound`] if it is gone.
    fn renew(&self, lease: i64) -> impl Future<Output = Result<()>> + Send;

    /// Revokes a lease and deletes its keys; fails with [`Kind::LeaseNotFound`] if it is gone.
    fn revoke(&self, lease: i64) -> impl Future<Output = Result<()>> + Send;
}

/// The stream of all watches of a connection. Watches are asked for with ids of our choice, above 0,
/// each used once, one at a time: a server need not say which one it refuses. What counts is the id that
/// the server gives: etcd takes ours, its gRPC proxy makes its own.
pub(crate) trait WatchStream: Send + 'static {
    /// Asks for a watch at "now". The answer is [`Heard::Created`] or [`Heard::Refused`].
    fn create(&mut self, id: i64, keys: Keys);

    /// Ends a watch.
    fn cancel(&mut self, id: i64);

    /// Asks for a [`Progress`](Heard::Progress) message. Never waits; a failure shows as silence.
    fn probe(&mut self);

    /// The next message. Cancel safe. The end of the stream is an error, and after an error there is
    /// nothing more to be had.
    fn next(&mut self) -> impl Future<Output = Result<Heard>> + Send;
}

/// Which keys to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    One(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Keys {
    /// The key or the prefix.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::One(bytes) | Self::Prefix(bytes) => bytes,
        }
    }
}

/// A message of the stream of watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The watch that was asked for stands since this revision, by this id.
    Created { id: i64, revision: i64 },
    /// The watch that was asked for is refused.
    Refused(WireError),
    /// A watch is ended by the server.
    Canceled { id: i64, error: WireError },
    /// What changed, in the order of revisions; all events of one revision are in one message.
    Events { id: i64, events: Vec<Event> },
    /// The connection is alive; nothing else may be concluded from it.
    Progress,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Put(KeyValue),
    Delete { key: Vec<u8>, revision: i64 },
}

impl Event {
    /// What changed.
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision at which it happened.
    pub(crate) fn revision(&self) -> i64 {
        match self {
            Self::Put(kv) => kv.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// A key as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// The revision of its last change.
    pub(crate) revision: i64,
    /// 0: none.
    pub(crate) lease: i64,
}

/// What part of a prefix to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) prefix: Vec<u8>,
    /// Only keys behind this one.
    pub(crate) after: Option<Vec<u8>>,
    /// As of this revision; `None` is now.
    pub(crate) at: Option<i64>,
    /// Without values.
    pub(crate) keys_only: bool,
}

/// A part of a list, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<KeyValue>,
    /// Whether keys follow behind the last one here.
    pub(crate) more: bool,
    /// The store's revision when this was answered.
    pub(crate) revision: i64,
}

/// One key and the store's revision when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) entry: Option<KeyValue>,
    pub(crate) revision: i64,
}

/// A put under a lease, or a delete, that happens only if `guard` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuardedPut {
    pub(crate) key: Vec<u8>,
    /// `None` deletes the key.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) lease: i64,
    pub(crate) guard: Guard,
}

/// What must be so for a put to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The key is absent.
    Absent,
    /// The key is attached to this lease.
    Lease(i64),
    /// The key last changed at this revision.
    Revision(i64),
}

/// What became of a guarded put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PutReply {
    /// Done, at this revision.
    Done { revision: i64 },
    /// The guard did not hold; this is what is there instead.
    Refused(Found),
}
