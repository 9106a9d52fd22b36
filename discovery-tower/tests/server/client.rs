//! Clients that hold their connections themselves, so that a test knows which request went where.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Body = Empty<Bytes>;

pub(crate) fn get(address: SocketAddr, path: &str) -> Request<Body> {
    Request::get(format!("http://{address}{path}"))
        .header("host", address.to_string())
        .body(Empty::new())
        .unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Whether the answer asks to use another connection.
pub(crate) fn asks_to_go(response: &Response<Incoming>) -> bool {
    response.headers().get(CONNECTION).is_some_and(|value| value == "close")
}

async fn connected(address: SocketAddr) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("the connection is taken");
    stream.set_nodelay(true).unwrap();
    TokioIo::new(stream)
}

pub(crate) type Http1 = (http1::SendRequest<Body>, JoinHandle<()>);
pub(crate) type Http2 = (http2::SendRequest<Body>, JoinHandle<()>);

/// A connection, and the task that ends with it.
pub(crate) async fn http1(address: SocketAddr) -> hyper::Result<Http1> {
    let io = connected(address).await;
    let (sender, connection) = http1::handshake(io).await?;
    Ok((sender, tokio::spawn(async move { drop(connection.await) })))
}

/// A connection, and the task that ends with it.
pub(crate) async fn http2(address: SocketAddr) -> hyper::Result<Http2> {
    let io = connected(address).await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    Ok((sender, tokio::spawn(async move { drop(connection.await) })))
}
