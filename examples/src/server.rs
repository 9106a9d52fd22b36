//! An HTTP server (1.1 and 2) that stops in good order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fault::Fault;

/// How many connections the system keeps for us to accept, about.
const BACKLOG: usize = 1024;

/// How long the connections accepted last have for their first request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_millis(100);

/// Who sent the request; every request has it among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

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

/// A running server. Dropped, it stops accepting and leaves its connections to themselves.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    /// Gives back who knows the connections.
    accepting: JoinHandle<GracefulShutdown>,
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
        Self { stop, accepting: tokio::spawn(accept(listener, answer, stopped)) }
    }

    /// Stops accepting, closes the connections that are idle, and waits until the others have
    /// answered what they were asked.
    pub async fn finish(self) {
        // The receiver ends only with the task that is awaited next.
        let _ = self.stop.send(());
        if let Ok(connections) = self.accepting.await {
            // A connection that is new has its first request still under way.
            tokio::time::sleep(FIRST_REQUEST_WITHIN).await;
            connections.shutdown().await;
        }
    }
}

async fn accept<A, F, B>(
    listener: TcpListener,
    answer: A,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, peer)) => serve(stream, peer, answer.clone(), &connections),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of file descriptors, mostly: others must be closed first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // What was connected before the end is still served: its peer cannot know better.
    for _ in 0..BACKLOG {
        let Some(Ok((stream, peer))) = listener.accept().now_or_never() else { break };
        serve(stream, peer, answer.clone(), &connections);
    }
    connections
}

fn serve<A, F, B>(stream: TcpStream, peer: SocketAddr, answer: A, connections: &GracefulShutdown)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%peer, %error, "connection ended");
        }
    });
}
