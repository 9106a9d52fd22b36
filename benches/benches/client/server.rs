//! Servers that answer at once, on a thread of their own.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Some servers; they stop when this is dropped.
pub(crate) struct Servers {
    runtime: Option<Runtime>,
    pub(crate) addresses: Vec<SocketAddr>,
}

#[derive(Clone, Copy)]
pub(crate) enum Speaking {
    Http1,
    /// gRPC, over HTTP/2: whatever is called gives its request back.
    Grpc,
}

impl Servers {
    pub(crate) fn start(count: usize, speaking: Speaking) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("server")
            .enable_all()
            .build()?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
            addresses.push(listener.local_addr()?);
            runtime.spawn(serve(listener, speaking));
        }
        Ok(Self { runtime: Some(runtime), addresses })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, speaking: Speaking) {
    while let Ok((stream, _)) = listener.accept().await {
        // If it cannot be set, calls are as slow for all of them.
        drop(stream.set_nodelay(true));
        tokio::spawn(connection(stream, speaking));
    }
}

/// How it ends is the client's affair.
async fn connection(stream: TcpStream, speaking: Speaking) {
    let stream = TokioIo::new(stream);
    match speaking {
        Speaking::Http1 => {
            let answer = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            });
            drop(http1::Builder::new().serve_connection(stream, answer).await);
        }
        Speaking::Grpc => {
            let server = http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(stream, service_fn(echo)).await);
        }
    }
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let message = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
