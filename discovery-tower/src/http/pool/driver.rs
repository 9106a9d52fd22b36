//! What drives a connection of HTTP/2.
//!
//! hyper gives two tasks to a connection: one reads and writes, one begins requests. Side by side, the
//! first may read that the instance closes the connection while the second is about to begin a
//! request, and the error does not tell whether that went out. So both run in one task here, one after
//! the other: what is begun is on its way, and what is not is given back. And it is seen when the
//! instance has answered, of which hyper says nothing.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use http_body::Body;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tower::BoxError;

use super::connection::{Life, Line};
use super::open::ByteStream;
use crate::http::reclaim::Reclaim;

type Requests<B> = http2::Connection<TokioIo<ByteStream>, Reclaim<B>, Together>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Both tasks of a connection; each is dropped when it is over.
pub(super) struct Driver<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    reading: Option<Task>,
    requests: Option<Requests<B>>,
    line: Weak<Line<B>>,
    life: Arc<Life>,
    max_streams: usize,
    /// How many requests it takes now.
    room: usize,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It takes more requests at a time.
    Room,
    /// It takes no more.
    Closed,
}

impl<B> Driver<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Begins to speak HTTP/2.
    pub(super) async fn begin(
        stream: ByteStream,
        life: Arc<Life>,
        max_streams: usize,
    ) -> Result<(Arc<Line<B>>, Self), BoxError> {
        let tasks = Together::default();
        let (sender, requests) = http2::Builder::new(tasks.clone())
            // None until the instance has told its settings: so they are seen to arrive.
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(stream))
            .await?;
        let line = Arc::new(Line::new(sender));
        let driver = Self {
            reading: tasks.first(),
            requests: Some(requests),
            // Without anybody who could send, the connection closes.
            line: Arc::downgrade(&line),
            life,
            max_streams,
            room: 0,
        };
        Ok((line, driver))
    }

    /// Waits until the instance has told its settings.
    pub(super) async fn answered(&mut self) -> Result<(), BoxError> {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err("the connection was closed, or is not HTTP/2".into()))
            }
            Poll::Pending if self.streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Drives it until that changes which requests it takes.
    pub(super) async fn changed(&mut self) -> Change {
        poll_fn(|cx| {
            let before = self.room;
            let polled = self.poll(cx);
            if polled.is_ready() {
                return Poll::Ready(Change::Closed);
            }
            if self.room > before { Poll::Ready(Change::Room) } else { Poll::Pending }
        })
        .await
    }

    /// Drives it until those in flight are over.
    pub(super) async fn closed(mut self) {
        if let Some(reading) = self.reading.take() {
            reading.await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What the instance has said is known before a request is begun, and what is begun goes out
        // at once: it would be lost behind the answer to a goodbye.
        self.poll_reading(cx);
        let polled = self.poll_requests(cx);
        self.poll_reading(cx);
        self.room = self.streams().min(self.max_streams);
        self.life.set_room(self.room);
        polled
    }

    fn poll_reading(&mut self, cx: &mut Context<'_>) {
        if self.reading.as_mut().is_some_and(|reading| reading.as_mut().poll(cx).is_ready()) {
            self.reading = None;
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(requests) = &mut self.requests else { return Poll::Ready(()) };
        let polled = Pin::new(requests).poll(cx);
        if polled.is_pending() {
            return Poll::Pending;
        }
        self.close();
        Poll::Ready(())
    }

    fn close(&mut self) {
        // First, so that a request that is given back does not come here again.
        self.life.set_closed();
        self.requests = None;
        if let Some(line) = self.line.upgrade() {
            line.cut();
        }
    }

    fn streams(&self) -> usize {
        self.requests.as_ref().map_or(0, Requests::current_max_send_streams)
    }
}

/// Also when a request body panics, which is read here.
impl<B> Drop for Driver<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        self.close();
    }
}

/// Keeps the first task that it is given, the one that reads and writes. It spawns the others, which
/// are those of single requests.
#[derive(Clone, Default)]
struct Together(Arc<Mutex<First>>);

#[derive(Default)]
enum First {
    #[default]
    Expected,
    Kept(Task),
    Taken,
}

impl Together {
    fn first(&self) -> Option<Task> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *first, First::Taken) {
            First::Kept(task) => Some(task),
            First::Expected | First::Taken => None,
        }
    }
}

impl<F> Executor<F> for Together
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*first, First::Expected) {
            *first = First::Kept(Box::pin(task));
        } else {
            drop(first);
            tokio::spawn(task);
        }
    }
}
