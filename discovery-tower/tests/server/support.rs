//! A server under test: what it serves, and how it is started and stopped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Instance, InstanceStatus, MemoryRegistry, Registrar};
use discovery_test_support::{eventually, slack};
use discovery_tower::server::{Server, ServerError, Stopped};
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What is served: `/` answers at once, `/hold` when it is released, `/trickle` begins its body at once
/// and ends it then, `/never` does not answer.
#[derive(Clone, Default)]
pub(crate) struct App {
    released: Arc<watch::Sender<bool>>,
    /// Requests that have come, and handlers that run.
    requests: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

/// A handler that runs.
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn of(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(running.clone())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl App {
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many handlers run, bodies included.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub(crate) async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let running = Runs::of(&self.running);
        let mut released = self.released.subscribe();
        match request.uri().path() {
            "/hold" => drop(released.wait_for(|released| *released).await),
            "/never" => std::future::pending().await,
            "/trickle" => {
                let parts = stream::unfold((0, released, running), async |(n, mut released, r)| {
                    match n {
                        0 => {}
                        1 => drop(released.wait_for(|released| *released).await),
                        _ => return None,
                    }
                    Some((Ok(Frame::data(Bytes::from("part "))), (n + 1, released, r)))
                });
                return Ok(Response::new(StreamBody::new(parts).boxed_unsync()));
            }
            _ => {}
        }
        drop(running);
        Ok(Response::new(Full::from("whole").boxed_unsync()))
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) app: App,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<Stopped, ServerError>>,
}

impl Running {
    pub(crate) async fn start(server: Server, registry: impl Registrar + 'static) -> Self {
        let app = App::default();
        let serve = app.clone();
        let service = tower::service_fn(move |request| serve.clone().answer(request));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(server.serve(listener, registry, service, shutdown));
        Self { address, app, stop: Some(stop), task }
    }

    /// Tells it to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(self) -> Result<Stopped, ServerError> {
        timeout(slack(2 * SOON), self.task).await.expect("it ends").expect("it does not panic")
    }

    pub(crate) async fn handlers(&self, count: usize) {
        let what = format!("{count} handlers running");
        eventually(SOON, what, async || {
            let running = self.app.running();
            if running == count { Ok(()) } else { Err(running) }
        })
        .await;
    }
}

/// The only instance that is registered.
pub(crate) fn only(registry: &MemoryRegistry) -> Option<Arc<Instance>> {
    registry.instances().first().cloned()
}

pub(crate) fn server() -> Server {
    Server::new("orders".parse().unwrap()).drain_for(Duration::from_millis(300))
}

/// Waits until the registered instance has this status.
pub(crate) async fn shown(registry: &MemoryRegistry, status: InstanceStatus) {
    eventually(SOON, format!("registered as {status}"), async || {
        let now = only(registry).map(|instance| instance.status);
        if now == Some(status) { Ok(()) } else { Err(now) }
    })
    .await;
}
