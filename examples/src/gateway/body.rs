//! Bodies on their way to an instance, which may have to be sent again.
//!
//! A body is passed on as it comes, never held back to be counted first. What passes is recorded up
//! to a limit: as long as all of it is there, another attempt begins with the record and goes on with
//! what is still to come.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// How much of a body is recorded, in bytes.
pub(super) const LIMIT: usize = 64 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of one attempt.
#[derive(Debug)]
pub(super) enum Outgoing<B> {
    Empty,
    /// Passed on without a record.
    Stream(B),
    Recorded(Recorded<B>),
}

/// Where the bodies of the attempts come from.
#[derive(Debug)]
pub(super) enum Supply<B> {
    Empty,
    /// For one attempt, and for another only if it is handed back.
    Once(Option<B>),
    Recorder(Recorder<B>),
}

impl<B: Body<Data = Bytes> + Unpin> Supply<B> {
    /// `replay` says whether it may be sent again after it was read.
    pub(super) fn new(body: B, replay: bool) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else if replay && body.size_hint().lower() <= LIMIT as u64 {
            Self::Recorder(Recorder::new(body))
        } else {
            Self::Once(Some(body))
        }
    }

    /// The body for another attempt, `None` if it cannot be had any more.
    pub(super) fn next(&mut self) -> Option<Outgoing<B>> {
        match self {
            Self::Empty => Some(Outgoing::Empty),
            Self::Once(body) => body.take().map(Outgoing::Stream),
            Self::Recorder(recorder) => recorder.play().map(Outgoing::Recorded),
        }
    }

    /// Takes a body back that was not sent.
    pub(super) fn give_back(&mut self, unsent: Outgoing<B>) {
        if let (Self::Once(body), Outgoing::Stream(unsent)) = (self, unsent) {
            *body = Some(unsent);
        }
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Recorded(body) => {
                body.poll(cx).map(|data| data.map(|data| data.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Recorded(body) => body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Recorded(body) => body.size_hint(),
        }
    }
}

/// A body with the record of what was read of it.
#[derive(Debug)]
pub(super) struct Recorder<B>(Arc<Mutex<Record<B>>>);

#[derive(Debug)]
struct Record<B> {
    body: B,
    ended: bool,
    /// What was read so far, as long as `whole`.
    pieces: Vec<Bytes>,
    length: usize,
    whole: bool,
    /// The number of the attempt that may read; an earlier one, whose connection has not yet let go
    /// of its body, must not take from it what the later one needs.
    attempt: u32,
}

/// A body read through its record, for one attempt.
#[derive(Debug)]
pub(super) struct Recorded<B> {
    record: Arc<Mutex<Record<B>>>,
    attempt: u32,
    /// How many pieces of the record this attempt has had.
    had: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Recorder<B> {
    fn new(body: B) -> Self {
        let record =
            Record { body, ended: false, pieces: Vec::new(), length: 0, whole: true, attempt: 0 };
        Self(Arc::new(Mutex::new(record)))
    }

    /// The whole body once more; `None` if it is not all there any more. An attempt that still reads
    /// gets nothing from now on.
    fn play(&self) -> Option<Recorded<B>> {
        let mut record = lock(&self.0);
        if !record.whole {
            return None;
        }
        record.attempt += 1;
        Some(Recorded { record: self.0.clone(), attempt: record.attempt, had: 0 })
    }
}

impl<B> Recorded<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>>
    where
        B::Error: Into<Error>,
    {
        let mut record = lock(&self.record);
        if record.attempt != self.attempt {
            return Poll::Ready(Some(Err("the request is being sent to another instance".into())));
        }
        if let Some(piece) = record.pieces.get(self.had) {
            self.had += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        if record.ended {
            return Poll::Ready(None);
        }
        loop {
            let frame = ready!(Pin::new(&mut record.body).poll_frame(cx));
            let piece = match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    record.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    record.whole = false;
                    return Poll::Ready(Some(Err(error.into())));
                }
                // Trailers are not passed on: HTTP/1 announces them in a header of the connection.
                Some(Ok(Err(_))) => continue,
                Some(Ok(Ok(piece))) => piece,
            };
            // Who knows the length does not ask again after the last piece.
            record.ended = record.body.is_end_stream();
            record.keep(&piece);
            self.had = record.pieces.len();
            return Poll::Ready(Some(Ok(piece)));
        }
    }

    fn is_end(&self) -> bool {
        let record = lock(&self.record);
        self.had == record.pieces.len() && (record.ended || record.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let record = lock(&self.record);
        let recorded: usize = record.pieces.iter().skip(self.had).map(Bytes::len).sum();
        let recorded = recorded as u64;
        let rest = record.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(recorded));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(recorded)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> Record<B> {
    fn keep(&mut self, piece: &Bytes) {
        self.length = self.length.saturating_add(piece.len());
        self.whole &= self.length <= LIMIT;
        if self.whole {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }
}

fn lock<B>(record: &Mutex<Record<B>>) -> MutexGuard<'_, Record<B>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};

    use super::*;

    /// A body that gives its pieces one by one and does not know its length.
    #[derive(Debug)]
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Frame::data).map(Ok))
        }
    }

    fn pieces<const N: usize>(pieces: [&'static [u8]; N]) -> Supply<Pieces> {
        Supply::new(Pieces(pieces.map(Bytes::from_static).into()), true)
    }

    async fn text<B>(body: Outgoing<B>) -> String
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Error>,
    {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn another_attempt_has_the_record_and_then_the_rest() {
        let mut supply = pieces([b"one ", b"two ", b"three"]);
        let mut first = supply.next().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "two ");
        // The first attempt still has its body, as a connection does that is being closed.
        assert_eq!(text(supply.next().unwrap()).await, "one two three");
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(text(supply.next().unwrap()).await, "one two three");
    }

    #[tokio::test]
    async fn a_body_of_known_length_stays_one() {
        let mut supply = Supply::new(Full::new(Bytes::from_static(b"abc")), true);
        let mut first = supply.next().unwrap();
        assert_eq!(first.size_hint().exact(), Some(3));
        assert!(first.frame().await.unwrap().is_ok());
        assert!(first.is_end_stream());
        let second = supply.next().unwrap();
        assert_eq!(second.size_hint().exact(), Some(3));
        assert!(!second.is_end_stream());
        assert_eq!(text(second).await, "abc");
    }

    #[tokio::test]
    async fn what_is_too_long_passes_and_cannot_be_had_again() {
        static PIECE: [u8; LIMIT] = [b'x'; LIMIT];
        let mut supply = pieces([&PIECE, b"y", b"z"]);
        let mut first = supply.next().unwrap();
        assert!(first.frame().await.unwrap().is_ok());
        let mut second = supply.next().unwrap();
        for expected in [&PIECE[..], b"y"] {
            assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        assert!(supply.next().is_none());
        assert_eq!(text(second).await, "z");
        // Known to be too long, it is not recorded at all.
        let long = Full::new(Bytes::from(vec![0; LIMIT + 1]));
        assert!(matches!(Supply::new(long, true), Supply::Once(_)));
    }

    #[tokio::test]
    async fn what_must_not_be_repeated_is_sent_again_only_if_it_comes_back() {
        let mut supply = Supply::new(Full::new(Bytes::from_static(b"abc")), false);
        let body = supply.next().unwrap();
        assert!(supply.next().is_none());
        supply.give_back(body);
        assert_eq!(text(supply.next().unwrap()).await, "abc");
        let mut supply = Supply::new(Full::new(Bytes::new()), false);
        assert!(supply.next().is_some() && supply.next().is_some());
    }
}
