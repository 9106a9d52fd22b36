//! A server of HTTP that is not registered: for what stands in front of instances, or beside them.

use std::future::Future;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower::{BoxError, Service};

use super::accept::Acceptor;
use super::error::Stopped;
use super::listener::Listener;
use super::patience::Patience;
use super::stage::Progress;

/// An HTTP server (1.1 and 2) that stops in good order; for one that registers, see
/// [`Server`](super::Server).
#[derive(Debug)]
#[must_use = "it does nothing until it serves"]
pub struct HttpServer {
    pub(super) finish_within: Duration,
    pub(super) head_within: Duration,
    pub(super) patience: Patience,
}

impl HttpServer {
    /// With the defaults.
    pub fn new() -> Self {
        Self {
            finish_within: Duration::from_secs(30),
            head_within: Duration::from_secs(120),
            patience: Patience::endless(),
        }
    }

    /// How long it waits at the end for the requests that are under way; then it cuts them off. 30 s by
    /// default.
    pub fn finish_within(mut self, time: Duration) -> Self {
        self.finish_within = time;
        self
    }

    /// How long a peer may take for the head of an HTTP/1 request, which is also how long such a
    /// connection may be idle, and how long any connection may stay without a request after it was made.
    /// 120 s by default: clients keep idle connections for 90 s or less, and should be the first to
    /// close them, since a request may be on its way when the server does. An idle connection of HTTP/2
    /// stays for as long as its peer answers a ping, once a minute.
    pub fn head_within(mut self, time: Duration) -> Self {
        // The clock cannot count for ever; a year is as good.
        self.head_within = time.min(Duration::from_secs(3600 * 24 * 365));
        self
    }

    /// Stops in a hurry when `enough` resolves after it began to stop, as for the second Ctrl-C: nothing
    /// is waited for any longer.
    pub fn hurry_on(mut self, enough: impl Future<Output = ()> + Send + 'static) -> Self {
        self.patience = Patience::until(enough);
        self
    }

    /// Serves the connections of `listener` with `service` until `shutdown` resolves. Then it stops
    /// accepting, closes what is idle, and waits for the requests that are under way. What is served is
    /// as with [`Server::serve`](super::Server::serve).
    ///
    /// Not cancel safe: dropped, it cuts off every connection.
    pub async fn serve<L, S, B>(
        self,
        listener: L,
        service: S,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Stopped
    where
        L: Listener,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self { finish_within, head_within, mut patience } = self;
        let progress = Progress::new();
        let mut acceptor = Acceptor::new(listener, service, head_within, &progress);
        acceptor.accept_while(shutdown).await;
        progress.drain();
        drop(progress);
        let cut_off = acceptor.close(finish_within, &mut patience).await;
        Stopped { unconfirmed: None, cut_off }
    }
}

impl Default for HttpServer {
    fn default() -> Self {
        Self::new()
    }
}
