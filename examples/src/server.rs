//! An HTTP server (1.1 and 2) on a task of its own.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use discovery_tower::server::HttpServer;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::service_fn;

use crate::fault::Fault;

/// Takes the address that `option` asks for.
///
/// # Errors
/// [`Fault::Usage`] if it is none, or not to be had.
pub async fn bind(option: &str, address: &str) -> Result<(TcpListener, SocketAddr), Fault> {
    let fault = |error: std::io::Error| Fault::option(option, address, error);
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

/// A running server. Dropped, it stops in good order by itself.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts to serve: every request is given to `answer`.
    pub fn start<A, F, B>(listener: TcpListener, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (stop, stopped) = oneshot::channel();
        let answer = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let serving = tokio::spawn(async move {
            HttpServer::new().serve(listener, answer, async { drop(stopped.await) }).await;
        });
        Self { stop, serving }
    }

    /// Stops accepting, closes the connections that are idle, and waits, 30 s at most, until the others
    /// have answered what they were asked.
    pub async fn finish(self) {
        // The receiver ends only with the task that is awaited next.
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}
