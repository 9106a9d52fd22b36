//! Bodies that can be sent again.
//!
//! A body is passed on as it comes, never held back to be counted first. What passes is recorded up to
//! a limit: as long as all of it is there, another attempt begins with the record and goes on with
//! what is still to come.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

/// A request body that can be sent again, as long as not more of it has passed than is recorded.
///
/// [`again`](Self::again) gives the body for another attempt. As soon as that begins to read it has the
/// body: an earlier one, whose connection has not let go of it yet, gets an error from then on. Should
/// more have passed by then than is recorded, the later one gets an error, and never a part of the body.
pub struct Replay<B>(Kind<B>);

enum Kind<B> {
    Empty,
    /// Passed on without a record.
    Once(B),
    Recorded(Recorded<B>),
    /// It was passed on.
    Spent,
}

/// A body read through its record, for one attempt.
struct Recorded<B> {
    record: Arc<Mutex<Record<B>>>,
    /// Its number: later attempts have higher ones, and so has one that is sent once more.
    number: u64,
    /// How many pieces of the record it has had.
    had: usize,
    /// Whether it has had the trailers.
    over: bool,
}

struct Record<B> {
    body: B,
    ended: bool,
    /// What was read so far, as long as `whole`.
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    length: usize,
    limit: usize,
    whole: bool,
    /// The number of the last attempt there is.
    attempts: u64,
    /// The latest attempt that has begun to read; 0 if none has. Earlier ones may not any more.
    reader: u64,
}

/// From one attempt to the next: far more than one attempt is ever sent once more.
const ATTEMPT: u64 = 1 << 16;

const GONE: &str = "too much of the body has passed for it to be sent again";

impl<B: Body<Data = Bytes> + Unpin> Replay<B> {
    /// A body that can be sent again while not more than `limit` bytes of it have passed.
    pub fn recorded(body: B, limit: usize) -> Self {
        if body.is_end_stream() {
            return Self(Kind::Empty);
        }
        if body.size_hint().lower() > limit as u64 {
            return Self::once(body);
        }
        let record = Record {
            body,
            ended: false,
            pieces: Vec::new(),
            trailers: None,
            length: 0,
            limit,
            whole: true,
            attempts: 0,
            reader: 0,
        };
        Self(Kind::Recorded(Recorded::of(Arc::new(Mutex::new(record)))))
    }

    /// A body that is not recorded, and can be sent again only if it is empty.
    pub fn once(body: B) -> Self {
        if body.is_end_stream() { Self(Kind::Empty) } else { Self(Kind::Once(body)) }
    }

    /// In place of a body that cannot be had again.
    pub(super) fn spent() -> Self {
        Self(Kind::Spent)
    }

    /// The body for another attempt; `None` if it cannot be had again.
    pub fn again(&self) -> Option<Self> {
        match &self.0 {
            Kind::Empty => Some(Self(Kind::Empty)),
            Kind::Once(_) | Kind::Spent => None,
            Kind::Recorded(recorded) => {
                let whole = recorded.lock().whole;
                whole.then(|| Self(Kind::Recorded(Recorded::of(recorded.record.clone()))))
            }
        }
    }

    /// The body once more for the same attempt, which the instance did not act on: unlike
    /// [`again`](Self::again), it comes before those of later attempts.
    #[cfg(feature = "tonic")]
    pub(crate) fn resend(&self) -> Option<Self> {
        match &self.0 {
            Kind::Empty => Some(Self(Kind::Empty)),
            Kind::Once(_) | Kind::Spent => None,
            Kind::Recorded(recorded) => {
                let number = recorded.number + 1;
                let record = recorded.record.clone();
                let whole = recorded.lock().whole;
                whole
                    .then(|| Self(Kind::Recorded(Recorded { record, number, had: 0, over: false })))
            }
        }
    }

    /// Whether what has passed of it can still be sent.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Once(_) | Kind::Spent => false,
            Kind::Recorded(recorded) => recorded.lock().whole,
        }
    }
}

impl<B> Body for Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Once(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Recorded(recorded) => recorded.poll(cx),
            Kind::Spent => Poll::Ready(Some(Err(GONE.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Once(body) => body.is_end_stream(),
            Kind::Recorded(recorded) => recorded.is_end(),
            Kind::Spent => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once(body) => body.size_hint(),
            Kind::Recorded(recorded) => recorded.size_hint(),
            Kind::Spent => SizeHint::new(),
        }
    }
}

impl<B> Recorded<B> {
    fn of(record: Arc<Mutex<Record<B>>>) -> Self {
        let number = {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.attempts += ATTEMPT;
            record.attempts
        };
        Self { record, number, had: 0, over: false }
    }

    fn lock(&self) -> MutexGuard<'_, Record<B>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Recorded<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        let Self { record, number, had, over } = self;
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.reader > *number {
            return Poll::Ready(Some(Err("the request is being sent to another instance".into())));
        }
        if record.reader < *number {
            if !record.whole {
                return Poll::Ready(Some(Err(GONE.into())));
            }
            record.reader = *number;
        }
        if let Some(piece) = record.pieces.get(*had) {
            *had += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if !record.ended {
            match ready!(Pin::new(&mut record.body).poll_frame(cx)) {
                None => record.ended = true,
                Some(Err(error)) => {
                    record.whole = false;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        // Who knows the length does not ask again after the last piece.
                        record.ended = record.body.is_end_stream();
                        record.keep(&piece);
                        *had = record.pieces.len();
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    Err(frame) => {
                        record.ended = true;
                        record.trailers = frame.into_trailers().ok();
                    }
                },
            }
        }
        if std::mem::replace(over, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(record.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end(&self) -> bool {
        let record = self.lock();
        if record.reader > self.number || (record.reader < self.number && !record.whole) {
            // It has yet to get its error.
            return false;
        }
        let ended = (record.ended && record.trailers.is_none()) || record.body.is_end_stream();
        self.over || (self.had == record.pieces.len() && ended)
    }

    fn size_hint(&self) -> SizeHint {
        let record = self.lock();
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
        self.whole &= self.length <= self.limit;
        if self.whole {
            self.pieces.push(piece.clone());
        } else {
            self.pieces = Vec::new();
        }
    }
}

impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "Replay::Empty",
            Kind::Once(_) => "Replay::Once",
            Kind::Recorded(_) => "Replay::Recorded",
            Kind::Spent => "Replay::Spent",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use ::http::HeaderValue;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    const LIMIT: usize = 64 * 1024;

    /// A body that gives its frames one by one and does not know its length.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn pieces<const N: usize>(pieces: [&'static [u8]; N]) -> Replay<Frames> {
        let frames = pieces.map(|piece| Frame::data(Bytes::from_static(piece)));
        Replay::recorded(Frames(frames.into()), LIMIT)
    }

    async fn text<B>(body: Replay<B>) -> String
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn another_attempt_has_the_record_and_then_the_rest() {
        let mut first = pieces([b"one ", b"two ", b"three"]);
        let (second, third) = (first.again().unwrap(), first.again().unwrap());
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "two ");
        // The first attempt still has its body, as a connection does that is being closed.
        assert_eq!(text(second).await, "one two three");
        assert!(first.frame().await.unwrap().is_err());
        assert!(third.is_whole());
        assert_eq!(text(third).await, "one two three");
    }

    #[tokio::test]
    async fn trailers_come_again_too() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers)];
        let first = Replay::recorded(Frames(frames.into()), LIMIT);
        let second = first.again().unwrap();
        for body in [first, second] {
            assert!(!body.is_end_stream());
            let whole = body.collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-sum"], "1");
            assert_eq!(whole.to_bytes(), "a");
        }
    }

    #[tokio::test]
    async fn a_body_of_known_length_stays_one() {
        let mut first = Replay::recorded(Full::new(Bytes::from_static(b"abc")), LIMIT);
        assert_eq!(first.size_hint().exact(), Some(3));
        assert!(first.frame().await.unwrap().is_ok());
        assert!(first.is_end_stream());
        let second = first.again().unwrap();
        assert_eq!(second.size_hint().exact(), Some(3));
        assert!(!second.is_end_stream());
        assert_eq!(text(second).await, "abc");
    }

    #[tokio::test]
    async fn what_is_too_long_passes_and_cannot_be_had_again() {
        static PIECE: [u8; LIMIT] = [b'x'; LIMIT];
        let mut first = pieces([&PIECE, b"y", b"z"]);
        assert!(first.frame().await.unwrap().is_ok());
        let mut second = first.again().unwrap();
        for expected in [&PIECE[..], b"y"] {
            assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        assert!(!first.is_whole() && first.again().is_none());
        assert_eq!(text(second).await, "z");
        // Known to be too long, it is not recorded at all.
        let long = Full::new(Bytes::from(vec![0; LIMIT + 1]));
        assert!(Replay::recorded(long, LIMIT).again().is_none());
    }

    #[tokio::test]
    async fn an_attempt_that_comes_too_late_gets_no_part_of_the_body() {
        static PIECE: [u8; LIMIT] = [b'x'; LIMIT];
        let mut first = pieces([&PIECE, b"y", b"z"]);
        assert!(first.frame().await.unwrap().is_ok());
        let mut second = first.again().unwrap();
        // The first connection goes on reading until the second attempt begins.
        assert!(first.frame().await.unwrap().is_ok());
        assert!(!second.is_end_stream() && second.frame().await.unwrap().is_err());
        assert_eq!(text(first).await, "z");
    }

    #[tokio::test]
    async fn an_earlier_attempt_that_begins_late_does_not_take_the_body_away() {
        let mut first = pieces([b"one ", b"two"]);
        let mut second = first.again().unwrap();
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
        assert!(!first.is_end_stream() && first.frame().await.unwrap().is_err());
        assert_eq!(text(second).await, "two");
    }

    #[test]
    fn what_is_not_recorded_can_be_sent_again_only_if_it_is_empty() {
        assert!(Replay::once(Full::new(Bytes::from_static(b"abc"))).again().is_none());
        assert!(Replay::once(Full::new(Bytes::new())).again().is_some());
    }
}
