//! A server of HTTP on loopback that answers as its test says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::slack;
use discovery_tower::HttpVersion;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Frames = Result<Frame<Bytes>, io::Error>;
/// `None` breaks the connection, or over HTTP/2 the stream, before the head of the response.
pub(crate) type Answer = Option<Response<Body>>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

pub(crate) struct Server {
    pub(crate) address: String,
    asked: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start<F, A>(version: HttpVersion, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let answer = Arc::new(move |request| Box::pin(answer(request)) as Answering);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, under_way) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counts = (asked.clone(), under_way.clone());
        let listening = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (answer, (asked, under_way)) = (answer.clone(), counts.clone());
                let service = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let counted = Counted::new(&under_way);
                    let answer = answer(request);
                    async move {
                        let _counted = counted;
                        answer.await.ok_or_else(|| io::Error::other("no answer"))
                    }
                });
                let io = TokioIo::new(socket);
                if version == HttpVersion::Http2 {
                    let serving = http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(serving.serve_connection(io, service));
                } else {
                    let serving = http1::Builder::new().serve_connection(io, service);
                    tokio::spawn(serving.with_upgrades());
                }
            }
        });
        Self { address, asked, under_way, listening }
    }

    /// One that answers every request with this status, after reading it to its end.
    pub(crate) async fn saying(version: HttpVersion, code: u16) -> Self {
        Self::start(version, move |request| async move { Some(echo(code, request).await) }).await
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many have no head of a response yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A status, with the body of the request.
pub(crate) async fn echo(code: u16, request: Request<Incoming>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => reply(code, full(body.to_bytes())),
        Err(_) => reply(400, full("the body broke off")),
    }
}

pub(crate) fn reply(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).body(body).unwrap()
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    full("")
}

#[expect(clippy::unnecessary_wraps, reason = "a frame of a body that can fail")]
pub(crate) fn data(text: impl Into<Bytes>) -> Frames {
    Ok(Frame::data(text.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "a frame of a body that can fail")]
pub(crate) fn trailers(pairs: &[(&'static str, &str)]) -> Frames {
    let mut trailers = HeaderMap::new();
    for (name, value) in pairs {
        trailers.insert(*name, value.parse().unwrap());
    }
    Ok(Frame::trailers(trailers))
}

/// A body of these frames, which comes in pieces, does not know its length and cannot be copied.
pub(crate) fn frames(frames: impl IntoIterator<Item = Frames>) -> Body {
    let frames: Vec<_> = frames.into_iter().collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that goes on with these frames when `gate` says so; never, if it is dropped before.
pub(crate) fn gated(
    first: Frames,
    gate: tokio::sync::oneshot::Receiver<()>,
    rest: impl IntoIterator<Item = Frames>,
) -> Body {
    let rest: Vec<_> = rest.into_iter().collect();
    let opened = async move {
        if gate.await.is_err() {
            std::future::pending::<()>().await;
        }
        stream::iter(rest)
    };
    let frames = stream::iter([first]).chain(stream::once(opened).flatten());
    StreamBody::new(frames).boxed_unsync()
}

/// The result of something that is to happen soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = slack(Duration::from_secs(10));
    tokio::time::timeout(limit, future).await.expect("it happens within 10 s")
}
