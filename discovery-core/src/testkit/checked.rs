//! The laws that can be told from one stream alone.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::Change;

/// A law that was broken, and how.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) law: u8,
    pub(super) how: String,
}

impl Broken {
    pub(super) fn new(law: u8, how: impl Into<String>) -> Self {
        Self { law, how: how.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.law {
            1 => "at Synced a reader has the source's set at one moment",
            2 => "Insert of a live key brings another value",
            3 => "Remove is sent only for a live key",
            4 => "only closing ends a stream, for good, and no fault ends it or empties the set",
            5 => "an atomic change is seen whole",
            6 => "a slow reader is owed little, holds nobody up and catches up",
            7 => "Pending has a waker registered, and the last reader's drop stops the work",
            _ => "Synced is the last thing told before Pending",
        };
        match self.law {
            SYNCED_LAST => write!(f, "the law of Synced ({text}) is broken: {}", self.how),
            law => write!(f, "law {law} ({text}) is broken: {}", self.how),
        }
    }
}

/// Stands in for a number: `Synced` follows each batch.
pub(super) const SYNCED_LAST: u8 = 0;

/// What a stream told so far.
#[derive(Debug)]
pub(super) struct Ledger<K, V> {
    pub(super) set: BTreeMap<K, V>,
    /// It has said `Synced` once.
    pub(super) loaded: bool,
    /// `Synced` was the last thing that it told.
    pub(super) synced: bool,
    pub(super) ended: bool,
}

impl<K: Ord + Clone + fmt::Debug, V: PartialEq + Clone + fmt::Debug> Ledger<K, V> {
    pub(super) fn new() -> Self {
        Self { set: BTreeMap::new(), loaded: false, synced: false, ended: false }
    }

    /// Notes the answer to one poll.
    pub(super) fn note(&mut self, told: &Poll<Option<Change<K, V>>>) -> Result<(), Broken> {
        if self.ended {
            return match told {
                Poll::Ready(None) => Ok(()),
                other => Err(Broken::new(4, format!("after its end the stream gave {other:?}"))),
            };
        }
        match told {
            Poll::Ready(Some(Change::Insert(key, value))) => {
                self.synced = false;
                if self.set.get(key) == Some(value) {
                    let how = format!("{key:?} already had the inserted value {value:?}");
                    return Err(Broken::new(2, how));
                }
                self.set.insert(key.clone(), value.clone());
            }
            Poll::Ready(Some(Change::Remove(key))) => {
                self.synced = false;
                if self.set.remove(key).is_none() {
                    return Err(Broken::new(3, format!("{key:?} was removed and was not there")));
                }
            }
            Poll::Ready(Some(Change::Synced)) => {
                self.synced = true;
                self.loaded = true;
            }
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {
                if self.loaded && !self.synced {
                    let how = "Pending came after changes without Synced";
                    return Err(Broken::new(SYNCED_LAST, how));
                }
            }
        }
        Ok(())
    }
}

/// Wraps a stream of changes and panics as soon as it breaks one of the laws that can be told from
/// the stream alone: 2, 3, 4 (once ended, it stays ended) and that `Synced` is the last thing told
/// before `Pending`.
///
/// For use in any test; it passes on everything as it is.
///
/// ```
/// use discovery_core::Publisher;
/// use discovery_core::testkit::Checked;
/// use futures::StreamExt as _;
///
/// let mut publisher = Publisher::new();
/// let mut changes = Checked::new(publisher.subscribe());
/// publisher.replace([("a", 1), ("b", 2)], None);
/// publisher.close();
/// futures::executor::block_on(changes.by_ref().for_each(async |_| ()));
/// assert_eq!(changes.set().len(), 2);
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing unless polled"]
pub struct Checked<S, K, V> {
    inner: S,
    ledger: Ledger<K, V>,
}

impl<S, K, V> Checked<S, K, V>
where
    S: Stream<Item = Change<K, V>>,
    K: Ord + Clone + fmt::Debug,
    V: PartialEq + Clone + fmt::Debug,
{
    /// Checks `stream`, of which nothing may have been polled yet.
    pub fn new(stream: S) -> Self {
        Self { inner: stream, ledger: Ledger::new() }
    }

    /// What one has who applied all changes so far.
    pub fn set(&self) -> &BTreeMap<K, V> {
        &self.ledger.set
    }

    /// Whether `Synced` was the last thing told.
    pub fn is_synced(&self) -> bool {
        self.ledger.synced
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.ledger.ended
    }

    /// The stream within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, K, V> Stream for Checked<S, K, V>
where
    S: Stream<Item = Change<K, V>> + Unpin,
    K: Ord + Clone + fmt::Debug + Unpin,
    V: PartialEq + Clone + fmt::Debug + Unpin,
{
    type Item = Change<K, V>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let told = Pin::new(&mut self.inner).poll_next(cx);
        if let Err(broken) = self.ledger.note(&told) {
            panic!("{broken}");
        }
        told
    }
}
