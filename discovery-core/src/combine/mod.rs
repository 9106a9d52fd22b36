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
//! | [`Changes::stabilise`] | the input's plus suspects | as the input | as the input |
//! | [`merge_changes`], [`merge`] | the union of the inputs' as last seen; of equal keys the first input's | once one is | while one is loading or stale |
//! | [`failover_changes`], [`failover`] | that of the first input that has loaded | once one is | as the one in use |
//!
//! A source that remembers its sets on disk, for a start while the registry is away, is
//! `disk::LastGood` (feature `disk`).

mod failover;
mod map;
mod merge;
mod stabilised;

use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream as _;

pub use failover::{Failover, failover, failover_changes};
use map::same_as_input;
pub use map::{Filtered, Mapped, filter, map};
pub use merge::{Merged, merge, merge_changes};

use crate::{Change, Changes, Source};

/// A source that is one of several.
type DynSource<E> = Arc<dyn Source<E>>;

/// What a key or an endpoint must be to stand in a derived set.
pub trait Part: Send + Sync + 'static {}

impl<T: Send + Sync + 'static> Part for T {}

/// What a key must be to stand in a derived set.
pub trait KeyPart: Part + Hash + Eq + Clone {}

impl<T: Part + Hash + Eq + Clone> KeyPart for T {}

/// After how many whole batches an input is left for the next poll. One whose source changes all the
/// time, on another thread, would never be `Pending`.
const BATCHES: usize = 16;

/// Gives what the input has to `each` until it is `Pending` (with the waker registered) or has
/// ended: then `false`.
pub(crate) fn take<K: KeyPart, E: Part + PartialEq>(
    input: &mut Changes<K, E>,
    cx: &mut Context<'_>,
    mut each: impl FnMut(Change<K, Arc<E>>),
) -> bool {
    let mut batches = 0;
    loop {
        match Pin::new(&mut *input).poll_next(cx) {
            Poll::Ready(Some(change)) => {
                batches += usize::from(matches!(change, Change::Synced));
                each(change);
            }
            Poll::Ready(None) => return false,
            Poll::Pending => return true,
        }
        if batches == BATCHES {
            cx.waker().wake_by_ref();
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;
    use crate::{Publisher, Update};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_source_that_never_rests_is_left_for_the_next_poll_after_a_whole_batch() {
        let mut publisher = Publisher::<u16, usize>::new();
        publisher.fresh();
        let mut input = publisher.subscribe();
        let wakes = Arc::<Count>::default();
        let waker = Waker::from(wakes.clone());
        let (mut batches, mut last_was_synced) = (0, false);
        let more = take(&mut input, &mut Context::from_waker(&waker), |change| {
            last_was_synced = matches!(change, Change::Synced);
            if last_was_synced {
                batches += 1;
                assert!(batches < 1000, "it is taken from without end");
                publisher.apply([Update::Insert(0, batches)], None);
            }
        });
        assert!(more && last_was_synced);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "polled again at once");
    }

    #[test]
    fn a_derived_stream_does_not_wake_itself() {
        let mut publisher = Publisher::<u16, usize>::new();
        publisher.fresh();
        let mut derived = publisher.subscribe().map_endpoints(|_, endpoint| *endpoint);
        let wakes = Arc::<Count>::default();
        let waker = Waker::from(wakes.clone());
        let mut drain = || {
            let mut cx = Context::from_waker(&waker);
            while Pin::new(&mut derived).poll_next(&mut cx).is_ready() {}
        };
        drain();
        publisher.apply([Update::Insert(0, 0)], None);
        drain();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "once for one change");
    }
}
