//! The one message that a discovery stream is made of, and the laws it keeps.

/// One step in the life of a set of endpoints.
///
/// A discovery stream is a plain [`futures_core::Stream`] of changes. It is *infallible*: trouble at
/// the source is a state, read from the [`StatusReader`](crate::StatusReader) beside the stream, and
/// never an item that a consumer could forget to skip.
///
/// # The laws of a change stream
///
/// Every source written with a [`Publisher`](crate::Publisher) keeps them by construction, and the
/// test kit (feature `testkit`) checks them for any other.
///
/// 1. Applying the changes in order to an empty map gives, at every [`Synced`](Change::Synced),
///    exactly the source's set at one moment of the source.
/// 2. [`Insert`](Change::Insert) of a live key is an update of its value, and is sent only when the
///    value differs.
/// 3. [`Remove`](Change::Remove) is sent only for a live key.
/// 4. The stream ends only when the source was closed on purpose, and it is fused. No fault ends it
///    and no fault empties the set: the last good set stays.
/// 5. What the source changed atomically, a reader that drains until `Pending` sees whole.
/// 6. A reader that does not poll costs memory bounded by the number of keys, never holds up the
///    source or other readers, and after catching up has the same set as everyone.
/// 7. `Pending` always has a waker registered; dropping the last reader stops the work behind it.
///
/// `Synced` follows each batch of changes as soon as nothing more is owed to the reader: who drains
/// to `Pending` saw it last. Before the source has loaded for the first time there is no `Synced`;
/// an empty source that has loaded sends `Synced` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change<K, E> {
    /// The key is now present with this endpoint; for a live key, its endpoint is now this one.
    Insert(K, E),
    /// The key, which was present, is gone.
    Remove(K),
    /// All that was sent up to here is the source's whole set at one moment.
    Synced,
}

impl<K, E> Change<K, E> {
    /// The key this change is about; `None` for [`Change::Synced`].
    pub fn key(&self) -> Option<&K> {
        match self {
            Self::Insert(key, _) | Self::Remove(key) => Some(key),
            Self::Synced => None,
        }
    }

    /// The same change with its endpoint converted by `f`.
    pub fn map_endpoint<F>(self, f: impl FnOnce(E) -> F) -> Change<K, F> {
        match self {
            Self::Insert(key, endpoint) => Change::Insert(key, f(endpoint)),
            Self::Remove(key) => Change::Remove(key),
            Self::Synced => Change::Synced,
        }
    }
}
