//! The streams of watches of one connection: a single one, unless something was denied. A stream keeps
//! the token that it was opened with, so once that was in doubt the next watch is created on another
//! stream; the watches that stand go on where they are.

use std::future::pending;

use futures_util::future::select_all;

use crate::wire::{Heard, Keys, Result, WatchStream};

/// A watch: its stream, and its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) stream: u32,
    pub(super) id: i64,
}

/// See the [module](self).
pub(super) struct Streams<S> {
    all: Vec<(u32, S)>,
    /// Counts the streams.
    last: u32,
    /// The count of [tokens](crate::wire::Wire::tokens) as of which the last one was opened.
    token: u64,
}

impl<S: WatchStream> Streams<S> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), last: 0, token: 0 }
    }

    /// The first stream of a connection.
    pub(super) fn begin(&mut self, token: u64, stream: S) {
        self.last += 1;
        self.all = vec![(self.last, stream)];
        self.token = token;
    }

    /// Creates a watch, on a new stream if the last one may have another `token`; streams that `is_used`
    /// does not know are ended then.
    pub(super) fn create(
        &mut self,
        id: i64,
        keys: Keys,
        token: u64,
        open: impl FnOnce() -> S,
        is_used: impl Fn(u32) -> bool,
    ) {
        if self.token != token {
            self.all.retain(|(number, _)| is_used(*number));
            self.last += 1;
            self.token = token;
            self.all.push((self.last, open()));
        }
        if let Some((_, stream)) = self.all.last_mut() {
            stream.create(id, keys);
        }
    }

    /// Ends a watch.
    pub(super) fn cancel(&mut self, place: Place) {
        let stream = self.all.iter_mut().find(|(number, _)| *number == place.stream);
        if let Some((_, stream)) = stream {
            stream.cancel(place.id);
        }
    }

    /// Asks for a sign of life.
    pub(super) fn probe(&mut self) {
        for (_, stream) in &mut self.all {
            stream.probe();
        }
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// The next message of any of them. Cancel safe.
    pub(super) async fn next(&mut self) -> (u32, Result<Heard>) {
        match self.all.as_mut_slice() {
            [] => pending().await,
            [(number, stream)] => (*number, stream.next().await),
            all => {
                let next = all
                    .iter_mut()
                    .map(|(number, stream)| Box::pin(async { (*number, stream.next().await) }));
                select_all(next).await.0
            }
        }
    }
}
