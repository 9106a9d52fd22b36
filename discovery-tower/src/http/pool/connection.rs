//! A connection that is made: the end of it that sends, and what is known of its life.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ::http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::time::{Duration, Instant};
use tower::BoxError;

use super::state::Link;
use crate::http::reclaim::Reclaim;

/// The end that sends.
///
/// A request that is sent just when the other end goes can get stuck in between. It is given back when
/// there is no end left to send from, so nobody holds one longer than the other end is there.
pub(super) enum Sender<B> {
    Http1(http1::SendRequest<Reclaim<B>>),
    Http2(Arc<Line<B>>),
    /// Of a connection of HTTP/1.1 that was closed during a request.
    Over,
}

/// The one end of a connection of HTTP/2 that sends, until what [drives](super::driver) it takes it
/// away: there are no copies that somebody could hold.
pub(super) struct Line<B>(Mutex<Option<http2::SendRequest<Reclaim<B>>>>);

impl<B> Line<B> {
    pub(super) fn new(sender: http2::SendRequest<Reclaim<B>>) -> Self {
        Self(Mutex::new(Some(sender)))
    }

    /// Nothing more is sent.
    pub(super) fn cut(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<http2::SendRequest<Reclaim<B>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes of a request.
pub(super) type Sent<B> = Result<Response<Incoming>, TrySendError<Request<Reclaim<B>>>>;

/// A hold on a connection: for HTTP/1.1 the only one.
pub(super) struct Connection<B> {
    sender: Sender<B>,
    life: Arc<Life>,
}

/// What is known of the life of a connection.
#[derive(Debug)]
pub(super) struct Life {
    made: Instant,
    /// Closed by the other side before this age, it was not meant to be used.
    young: Duration,
    period: u64,
    served: AtomicBool,
    broken: AtomicBool,
    /// Told by what drives it, for HTTP/2.
    closed: AtomicBool,
    /// Its end is no failure to connect: it has served, was cancelled, or was counted already.
    excused: AtomicBool,
    /// How many requests it carries at a time.
    room: AtomicUsize,
    /// When the first request was given up since it last answered one, in milliseconds since it was made
    /// and one more; 0: none was.
    given_up: AtomicU64,
    /// Requests were given up for too long.
    forgotten: AtomicBool,
}

/// One of HTTP/2 on which for so long requests were given up and none was answered is not used for further
/// ones: it may be one that the network has forgotten, of which TCP tells only after a quarter of an hour.
const UNANSWERED_FOR: u64 = 2_000;

impl Life {
    pub(super) fn new(period: u64, young: Duration) -> Self {
        Self {
            made: Instant::now(),
            young,
            period,
            served: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            excused: AtomicBool::new(false),
            room: AtomicUsize::new(1),
            given_up: AtomicU64::new(0),
            forgotten: AtomicBool::new(false),
        }
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn set_room(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
    }
}

impl<B> Connection<B> {
    pub(super) fn new(sender: Sender<B>, life: Arc<Life>) -> Self {
        Self { sender, life }
    }

    /// Waits, with HTTP/1.1, until the exchange on it is over in both directions; an error if that
    /// closes it.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.poll_ready(cx),
            Sender::Http2(_) | Sender::Over => Poll::Ready(Ok(())),
        }
    }

    /// Whether a further request has to wait until the exchange on it is over.
    pub(super) fn is_busy(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_ready() && !sender.is_closed(),
            Sender::Http2(_) | Sender::Over => false,
        }
    }

    /// It has answered. Returns whether that was the first time.
    pub(super) fn note_served(&self) -> bool {
        if self.life.given_up.load(Ordering::Relaxed) > 0 {
            self.life.given_up.store(0, Ordering::Relaxed);
        }
        self.life.excused.store(true, Ordering::Relaxed);
        !self.life.served.load(Ordering::Relaxed) && !self.life.served.swap(true, Ordering::Relaxed)
    }

    /// Its caller went away during a request, or spoilt one, which closes it if it is HTTP/1.1.
    pub(super) fn note_cancelled(&self) {
        self.life.excused.store(true, Ordering::Relaxed);
    }

    /// Its caller went away before there was an answer.
    pub(super) fn note_given_up(&self) {
        self.note_cancelled();
        let life = &self.life;
        let now =
            u64::try_from(life.made.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let first = life.given_up.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err_and(|since| now.saturating_sub(since) >= UNANSWERED_FOR) {
            life.forgotten.store(true, Ordering::Relaxed);
        }
    }

    /// A request failed on it.
    pub(super) fn note_broken(&self) {
        self.life.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends a request and waits for the head of the response. `None` if the connection is closed.
    pub(super) async fn send(&mut self, request: Request<Reclaim<B>>) -> Option<Sent<B>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                let mut sent = pin!(sender.try_send_request(request));
                let answer = poll_fn(|cx| match sent.as_mut().poll(cx) {
                    Poll::Ready(answer) => Poll::Ready(Some(answer)),
                    Poll::Pending if matches!(sender.poll_ready(cx), Poll::Ready(Err(_))) => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                });
                if let Some(answer) = answer.await {
                    return Some(answer);
                }
                self.sender = Sender::Over;
                Some(sent.await)
            }
            Sender::Http2(line) => {
                let sent = line.lock().as_mut().map(|sender| sender.try_send_request(request));
                Some(sent?.await)
            }
            Sender::Over => None,
        }
    }
}

impl<B> Link for Connection<B> {
    fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Over => false,
            Sender::Http2(_) => {
                !self.life.closed.load(Ordering::Acquire)
                    && !self.life.forgotten.load(Ordering::Relaxed)
            }
        }
    }

    fn room(&self) -> usize {
        self.life.room.load(Ordering::Relaxed)
    }

    fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) | Sender::Over => None,
            Sender::Http2(line) => {
                Some(Self { sender: Sender::Http2(line.clone()), life: self.life.clone() })
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.life, &other.life)
    }

    fn is_to_blame(&self, now: Instant) -> bool {
        let life = &self.life;
        let young = now.saturating_duration_since(life.made) < life.young;
        let failed = life.broken.load(Ordering::Relaxed) || (young && !self.is_open());
        failed && !life.excused.swap(true, Ordering::Relaxed)
    }

    fn period(&self) -> u64 {
        self.life.period
    }
}

impl<B> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("life", &self.life).finish_non_exhaustive()
    }
}
