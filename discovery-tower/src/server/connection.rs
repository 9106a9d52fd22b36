//! One connection: from its first byte until it is let go in good order.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, Service, ServiceExt as _};

use super::linger::Linger;
use super::listener::Peer;
use super::stage::{Stage, Stages};

/// How long a connection that was just accepted has for its first request when the server closes.
/// Its peer could not know better; it may be far away, or have a handshake of TLS before it.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// How long nothing may come over HTTP/2 before the peer is asked whether it is there. Nothing else
/// would tell of one that vanished: its connection may be idle for as long as it likes.
const ASKED_AFTER: Duration = Duration::from_secs(60);

/// How long it has to say so.
const THERE_WITHIN: Duration = Duration::from_secs(20);

/// What a connection is served with.
#[derive(Clone)]
pub(super) struct Serving<S> {
    pub(super) service: S,
    /// How long a peer may take for the head of a request.
    pub(super) head_within: Duration,
    pub(super) stages: Stages,
}

impl<S, B> Serving<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Serves a connection until it ends or the server does.
    pub(super) async fn serve<I, P>(self, io: I, peer: P)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let Self { service, head_within, stages } = self;
        let accepted = Instant::now();
        let streams = Streams::default();
        let first = Arc::new(First::default());
        {
            let (sender, asked) = (peer.clone(), first.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                asked.is(request.version());
                request.extensions_mut().insert(Peer(sender.clone()));
                service.clone().oneshot(request)
            });
            let mut builder = auto::Builder::new(streams.clone());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(head_within);
            let mut http2 = builder.http2();
            http2.timer(TokioTimer::new());
            http2.keep_alive_interval(ASKED_AFTER).keep_alive_timeout(THERE_WITHIN);
            let io = TokioIo::new(Linger::new(io, first.clone()));
            let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
            let served = async {
                let asked_to_go = goodbye(&stages, &first, accepted, head_within);
                tokio::select! {
                    // First, so that a request that has arrived is read before the rest is decided.
                    biased;
                    ended = connection.as_mut() => return ended,
                    () = asked_to_go => {}
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => ended,
                    // HTTP/2 waits for the peer to confirm that, which who is silent may never do.
                    () = silent(&first, head_within) => Ok(()),
                }
            };
            tokio::select! {
                biased;
                ended = served => if let Err(error) = ended {
                    tracing::debug!(?peer, error, "connection ended");
                },
                () = stages.reached(Stage::Cut) => {}
            }
        }
        streams.end().await;
    }
}

/// Ends when the connection is to be told to go.
///
/// HTTP/2 is told as soon as the server drains: it takes the requests that cross with the news, and its
/// client opens another connection if it still wants us. HTTP/1 could only be closed, perhaps with a
/// request on its way: there the answers say it, and who is still connected at the end is closed.
/// Nobody is told before its first request, or a client that is told before it could ask anything would
/// come back again and again.
async fn goodbye(stages: &Stages, first: &First, accepted: Instant, head_within: Duration) {
    let told = async {
        stages.reached(Stage::Draining).await;
        let http2 = async {
            if first.version().await != Version::HTTP_2 {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = http2 => return,
            () = stages.reached(Stage::Closing) => {}
        }
        tokio::select! {
            _ = first.version() => {}
            () = sleep_until(accepted + FIRST_REQUEST_WITHIN) => {}
        }
    };
    tokio::select! {
        () = silent(first, head_within) => {}
        () = told => {}
    }
}

/// Ends when a connection has had no request for so long; never if it had one.
async fn silent(first: &First, within: Duration) {
    tokio::select! {
        _ = first.version() => std::future::pending().await,
        () = sleep(within) => {}
    }
}

/// The version of the connection's first request, once there was one.
#[derive(Default)]
pub(super) struct First {
    version: OnceLock<Version>,
    told: Notify,
}

impl First {
    pub(super) fn is(&self, version: Version) {
        if self.version.get().is_none() && self.version.set(version).is_ok() {
            self.told.notify_waiters();
        }
    }

    /// What it is, if there was one already.
    pub(super) fn known(&self) -> Option<Version> {
        self.version.get().copied()
    }

    async fn version(&self) -> Version {
        loop {
            // Listens before it looks, so that nothing comes between.
            let told = self.told.notified();
            if let Some(version) = self.version.get() {
                return *version;
            }
            told.await;
        }
    }
}

/// The tasks of an HTTP/2 connection's requests, which end with it.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl Streams {
    /// What still runs has nobody left to answer.
    async fn end(self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.tasks();
        // Those that are done must not pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
