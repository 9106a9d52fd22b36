//! Making one connection: opening the stream, the beginnings of HTTP, and the task that drives it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::Poll;

use discovery_core::Address;
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;
use tower::BoxError;

use super::config::{PoolConfig, Protocol};
use super::connection::{Connection, Life, Sender};
use super::failure::Failure;
use super::listen::Listening;
use super::open::ByteStream;
use super::shared::Pool;
use crate::http::reclaim::Reclaim;

/// Makes a connection within the time there is for it, and starts the task that drives it.
pub(super) async fn dial<B>(
    pool: Weak<Pool<B>>,
    address: &Address,
    protocol: Protocol,
    config: &PoolConfig,
    period: u64,
) -> Result<Connection<B>, Failure>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let limit = config.connect_timeout;
    let connecting = async {
        let stream = config.open.open(address, limit).await?;
        match protocol {
            Protocol::Http1 => http1(pool, stream, Life::new(period, limit)).await,
            Protocol::Http2 => {
                http2(pool, stream, Life::new(period, limit), config.max_streams.max(1)).await
            }
        }
    };
    match timeout(limit, connecting).await {
        Ok(connected) => connected.map_err(|error| Failure::of(error, limit)),
        Err(_) => Err(Failure::too_slow(limit)),
    }
}

async fn http1<B>(
    pool: Weak<Pool<B>>,
    stream: ByteStream,
    life: Life,
) -> Result<Connection<B>, BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (sender, connection) =
        http1::Builder::new().handshake::<_, Reclaim<B>>(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its errors are those of the requests on it; without one, it is just over.
        let _ = connection.with_upgrades().await;
        if let Some(pool) = pool.upgrade() {
            pool.swept();
        }
    });
    Ok(Connection::new(Sender::Http1(sender), Arc::new(life)))
}

async fn http2<B>(
    pool: Weak<Pool<B>>,
    stream: ByteStream,
    life: Life,
    max_streams: usize,
) -> Result<Connection<B>, BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (stream, listening) = Listening::new(stream);
    // Until its settings say how many, no streams: so the settings are seen to arrive.
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .initial_max_send_streams(0)
        .handshake::<_, Reclaim<B>>(TokioIo::new(stream))
        .await?;
    poll_fn(|cx| {
        listening.register(cx.waker());
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(Err("the connection was closed, or is not HTTP/2"));
        }
        if connection.current_max_send_streams() > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;

    let life = Arc::new(life);
    let room = move |streams: usize| streams.min(max_streams);
    life.set_room(room(connection.current_max_send_streams()));
    let driven = life.clone();
    tokio::spawn(async move {
        {
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                driven.set_room(room(connection.current_max_send_streams()));
                polled
            })
            .await
            .ok();
        }
        if let Some(pool) = pool.upgrade() {
            pool.swept();
        }
    });
    Ok(Connection::new(Sender::Http2(sender), life))
}
