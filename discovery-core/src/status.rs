//! How a source is doing, to read or to await, beside the stream of what it found.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

/// What went wrong at a source: cloneable, so that every caller who is refused can be told.
#[derive(Clone)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl SourceError {
    /// Wraps an error, or a plain message (`"…".into()`).
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }

    /// The error inside, to downcast.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The state of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// It has not loaded once, so that nothing is known of the set. The error is the last thing that
    /// stood in the way, if anything did.
    Loading(Option<SourceError>),
    /// The set is the source's set as of now.
    Fresh,
    /// The last good set is being served; the error says why it may be out of date.
    Stale(SourceError),
    /// The source was closed on purpose; its streams have ended.
    Closed,
}

impl State {
    /// `loading`, `fresh`, `stale` or `closed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading(_) => "loading",
            Self::Fresh => "fresh",
            Self::Stale(_) => "stale",
            Self::Closed => "closed",
        }
    }

    /// Why the set is not known or may be out of date.
    pub fn error(&self) -> Option<&SourceError> {
        match self {
            Self::Loading(error) => error.as_ref(),
            Self::Stale(error) => Some(error),
            Self::Fresh | Self::Closed => None,
        }
    }

    /// Whether the other state has the same name, whatever the errors.
    pub fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A source's state at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How it is doing.
    pub state: State,
    /// When the state became what it is, by the wall clock: for people to read.
    pub since: SystemTime,
    /// The same moment by the monotonic clock: for programs to count from.
    pub since_instant: Instant,
    /// Whether it has ever loaded.
    pub loaded: bool,
    /// The most recent error, kept after recovery.
    pub last_error: Option<SourceError>,
    /// The source's own number for the set (an etcd revision, say), where it has one.
    pub revision: Option<u64>,
    /// How many endpoints the set has.
    pub endpoints: usize,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Loading(None),
            since: SystemTime::now(),
            since_instant: Instant::now(),
            loaded: false,
            last_error: None,
            revision: None,
            endpoints: 0,
        }
    }

    /// That of a stream derived from no streams at all: it has ended.
    pub(crate) fn of_nothing() -> Self {
        Self { state: State::Closed, ..Self::new() }
    }

    /// How long the state has been what it is.
    pub fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.since_instant)
    }

    /// Whether the set is the source's set as of now.
    pub fn is_fresh(&self) -> bool {
        matches!(self.state, State::Fresh)
    }

    /// Whether the last good set is served because the source is in trouble.
    pub fn is_stale(&self) -> bool {
        matches!(self.state, State::Stale(_))
    }

    /// Turns to `state`; `since` moves only when the kind of state does.
    pub(crate) fn turn(&mut self, state: State) {
        if let Some(error) = state.error() {
            self.last_error = Some(error.clone());
        }
        if !self.state.is_same_kind(&state) {
            self.since = SystemTime::now();
            self.since_instant = Instant::now();
        }
        self.state = state;
    }
}

/// The source was closed, or went away (its publisher and all readers were dropped), before the awaited status came.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the source is gone; its last state was {}", .0.state.name())]
pub struct SourceGone(pub Box<Status>);

type Combine = fn(&[Status]) -> Status;

#[derive(Clone)]
enum Inner {
    One(watch::Receiver<Status>),
    Derived { inputs: Vec<StatusReader>, own: watch::Receiver<Status>, combine: Combine },
}

/// Reads and awaits the [`Status`] of a source. Cheap to clone; it does not keep the source working.
#[derive(Clone)]
pub struct StatusReader(Inner);

impl fmt::Debug for StatusReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatusReader").field(&self.get()).finish()
    }
}

impl StatusReader {
    pub(crate) fn one(receiver: watch::Receiver<Status>) -> Self {
        Self(Inner::One(receiver))
    }

    /// A status computed from those of `inputs`; only the number of endpoints is the derived one's
    /// own, as last polled.
    pub(crate) fn derived(
        inputs: Vec<Self>,
        own: watch::Receiver<Status>,
        combine: Combine,
    ) -> Self {
        Self(Inner::Derived { inputs, own, combine })
    }

    /// The status now.
    pub fn get(&self) -> Status {
        match &self.0 {
            Inner::One(receiver) => receiver.borrow().clone(),
            Inner::Derived { inputs, own, combine } => {
                let statuses: Vec<Status> = inputs.iter().map(Self::get).collect();
                Status { endpoints: own.borrow().endpoints, ..combine(&statuses) }
            }
        }
    }

    /// Waits until the status satisfies `wanted` and returns it; at once if it does already.
    ///
    /// Cancel safe: nothing is lost by dropping the future.
    ///
    /// # Errors
    /// [`SourceGone`] if the source was closed or went away first.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status, SourceGone> {
        loop {
            self.mark_seen();
            let status = self.get();
            if wanted(&status) {
                return Ok(status);
            }
            // Closed is for ever, also while somebody still holds a reader.
            if matches!(status.state, State::Closed) || !self.changed().await {
                return Err(SourceGone(Box::new(status)));
            }
        }
    }

    /// Waits until the source has loaded once. See [`wait_for`](Self::wait_for).
    pub async fn loaded(&mut self) -> Result<Status, SourceGone> {
        self.wait_for(|status| status.loaded).await
    }

    /// Waits for the next change of the status that this reader has not seen; `false` when there
    /// will be none. Cancel safe.
    pub async fn changed(&mut self) -> bool {
        let mut receivers = Vec::new();
        self.receivers(&mut receivers);
        let mut waits: Vec<_> =
            receivers.into_iter().map(|receiver| Box::pin(receiver.changed())).collect();
        poll_fn(move |cx| {
            let mut index = 0;
            while index < waits.len() {
                match waits[index].as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(true),
                    Poll::Ready(Err(_)) => drop(waits.swap_remove(index)),
                    Poll::Pending => index += 1,
                }
            }
            if waits.is_empty() { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    fn mark_seen(&mut self) {
        let mut receivers = Vec::new();
        self.receivers(&mut receivers);
        for receiver in receivers {
            receiver.mark_unchanged();
        }
    }

    fn receivers<'a>(&'a mut self, into: &mut Vec<&'a mut watch::Receiver<Status>>) {
        match &mut self.0 {
            Inner::One(receiver) => into.push(receiver),
            Inner::Derived { inputs, own, .. } => {
                into.push(own);
                for input in inputs {
                    input.receivers(into);
                }
            }
        }
    }
}
