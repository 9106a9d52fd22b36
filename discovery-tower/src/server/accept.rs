//! The accept loop, and how all of its connections come to an end.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, Layer as _, Service};

use super::connection::Serving;
use super::drain::{Drain, DrainLayer};
use super::listener::Listener;
use super::patience::Patience;
use super::stage::{Progress, Stage, Stages};

/// How long it waits before it tries again to accept: what is missing, mostly file descriptors, comes
/// back when others are closed.
const PAUSE: Duration = Duration::from_millis(50);

/// When nobody came for so long, nobody is waiting to be accepted any more.
const QUIET: Duration = Duration::from_millis(10);

/// How long those who connected before the end are accepted, if they keep coming.
const BACKLOG_WITHIN: Duration = Duration::from_millis(100);

/// How long a connection may take to end after it was cut off. What takes longer blocks its thread.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// Accepts connections and serves them.
pub(super) struct Acceptor<L, S> {
    listener: L,
    serving: Serving<Drain<S>>,
    stage: watch::Sender<Stage>,
    /// Whether it was said that none can be accepted.
    failing: bool,
}

impl<L, S, B> Acceptor<L, S>
where
    L: Listener,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// When this and `progress` are dropped, every connection is cut off.
    pub(super) fn new(listener: L, service: S, head_within: Duration, progress: &Progress) -> Self {
        let service = DrainLayer::new(&progress.draining).layer(service);
        let stage = progress.stage.clone();
        let serving = Serving { service, head_within, stages: Stages::of(&stage) };
        Self { listener, serving, stage, failing: false }
    }

    /// Accepts until `living` is done, which begins when connections are accepted.
    pub(super) async fn accept_while<T>(&mut self, living: impl Future<Output = T>) -> T {
        let living = async {
            yield_now().await;
            living.await
        };
        // Neither of them always first: who keeps connecting must not keep it from stopping.
        tokio::select! {
            never = self.accept() => match never {},
            done = living => done,
        }
    }

    async fn accept(&mut self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => self.begin(accepted),
                Err(error) => self.failed(&error).await,
            }
        }
    }

    fn begin(&mut self, (io, peer): (L::Io, L::Peer)) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("accepting connections again");
        }
        tokio::spawn(self.serving.clone().serve(io, peer));
    }

    async fn failed(&mut self, error: &io::Error) {
        // That one peer has gone; the next one may be waiting.
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionRefused
        ) {
            return;
        }
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "cannot accept connections");
        }
        sleep(PAUSE).await;
    }

    /// Stops accepting, but for those who connected before, closes what is idle, and gives the rest
    /// `within` to finish, as long as there is patience; says how many connections had to be cut off.
    pub(super) async fn close(mut self, within: Duration, patience: &mut Patience) -> usize {
        let backlog = Instant::now() + BACKLOG_WITHIN;
        // Their peers cannot know better. (A timer would not be asked while there is always another one.)
        while Instant::now() < backlog
            && let Ok(accepted) = timeout(QUIET, self.listener.accept()).await
        {
            match accepted {
                Ok(accepted) => self.begin(accepted),
                // Behind one that has gone there may be others.
                Err(error) => self.failed(&error).await,
            }
        }
        let Self { listener, serving, stage, .. } = self;
        let here = serving.stages.here();
        // What is left is one receiver for each connection.
        drop((listener, serving));
        stage.send_replace(Stage::Closing);
        if patience.wait(within, stage.closed()).await.is_some() {
            return 0;
        }
        let cut_off = here.strong_count();
        tracing::warn!(cut_off, "connections did not end in time");
        stage.send_replace(Stage::Cut);
        let _ = timeout(CUT_WITHIN, stage.closed()).await;
        cut_off
    }
}
