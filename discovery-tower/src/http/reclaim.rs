//! A body that can be taken back while nobody has begun to read it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

/// A request body that its sender gets back, whole, if it was never read: also a streaming one, which
/// cannot be copied.
pub struct Reclaim<B> {
    slot: Slot<B>,
    /// The body itself from the first read on; no lock is taken after that.
    body: Option<Pin<Box<B>>>,
    size: SizeHint,
    ended: bool,
}

type Slot<B> = Arc<Mutex<State<B>>>;

enum State<B> {
    Unread(B),
    Taken,
    /// It could not be read to its end, for this reason.
    Failed(String),
}

/// Tells who reads a response whether its request has failed by its own body meanwhile, which ends the
/// response too: an extension of the response, on its way to a balancer.
#[derive(Clone)]
pub(super) struct OwnFault(Arc<dyn Fails>);

trait Fails: Send + Sync {
    fn has_failed(&self) -> bool;
}

impl<B: Send> Fails for Mutex<State<B>> {
    fn has_failed(&self) -> bool {
        matches!(*self.lock().unwrap_or_else(PoisonError::into_inner), State::Failed(_))
    }
}

impl OwnFault {
    pub(super) fn is_so(&self) -> bool {
        self.0.has_failed()
    }
}

impl fmt::Debug for OwnFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnFault").field(&self.is_so()).finish()
    }
}

/// Takes the body of a [`Reclaim`] back.
pub(super) struct Claim<B>(Slot<B>);

impl<B: Body> Reclaim<B> {
    pub(super) fn new(body: B) -> (Self, Claim<B>) {
        let (size, ended) = (body.size_hint(), body.is_end_stream());
        let slot = Arc::new(Mutex::new(State::Unread(body)));
        (Self { slot: slot.clone(), body: None, size, ended }, Claim(slot))
    }
}

impl<B> Claim<B> {
    /// The body, unless it has been read from.
    pub(super) fn take(self) -> Option<B> {
        take(&self.0)
    }

    /// Why the body could not be read, if it could not.
    pub(super) fn failure(&self) -> Option<String> {
        match &*lock(&self.0) {
            State::Failed(why) => Some(why.clone()),
            State::Unread(_) | State::Taken => None,
        }
    }

    /// Whether the body fails later.
    pub(super) fn own_fault(&self) -> OwnFault
    where
        B: Send + 'static,
    {
        OwnFault(self.0.clone())
    }

    /// Whether nobody has begun to read the body.
    pub(super) fn is_unread(&self) -> bool {
        matches!(*lock(&self.0), State::Unread(_))
    }
}

fn take<B>(slot: &Slot<B>) -> Option<B> {
    let mut state = lock(slot);
    match std::mem::replace(&mut *state, State::Taken) {
        State::Unread(body) => Some(body),
        other => {
            *state = other;
            None
        }
    }
}

fn lock<B>(slot: &Slot<B>) -> MutexGuard<'_, State<B>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> Body for Reclaim<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        if this.body.is_none() {
            this.body = take(&this.slot).map(Box::pin);
        }
        let Some(body) = &mut this.body else {
            return Poll::Ready(Some(Err("the body was taken back by its sender".into())));
        };
        body.as_mut().poll_frame(cx).map_err(|error| {
            let error = error.into();
            *lock(&this.slot) = State::Failed(error.to_string());
            error
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().map_or(self.ended, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(self.size, Body::size_hint)
    }
}

impl<B> fmt::Debug for Reclaim<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaim").field("read", &self.body.is_some()).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Claim<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn unread_it_is_given_back_and_read_it_is_not() {
        let (body, claim) = Reclaim::new(Full::new(Bytes::from_static(b"abc")));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream() && claim.is_unread());
        let back = claim.take().unwrap();
        assert_eq!(back.collect().await.unwrap().to_bytes(), "abc");
        assert!(body.collect().await.unwrap_err().to_string().contains("taken back"));

        let (mut body, claim) = Reclaim::new(Full::new(Bytes::from_static(b"abc")));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.is_end_stream() && !claim.is_unread());
        assert!(claim.failure().is_none() && claim.take().is_none());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn its_sender_learns_why_it_could_not_be_read() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>("the disk is gone")]);
        let (mut body, claim) = Reclaim::new(StreamBody::new(frames));
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(claim.failure().as_deref(), Some("the disk is gone"));
        assert!(claim.take().is_none());
    }
}
