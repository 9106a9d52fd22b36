//! Making one connection: opening the stream, the beginnings of HTTP, and the task that drives it.

use std::sync::{Arc, Weak};

use discovery_core::Address;
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tower::BoxError;

use super::config::{HttpVersion, PoolConfig};
use super::connection::{Connection, Life, Sender};
use super::driver::{Change, Driver};
use super::failure::Failure;
use super::open::ByteStream;
use super::shared::Pool;
use crate::http::reclaim::Reclaim;

/// Makes a connection within the time there is for it, and starts the task that drives it.
pub(super) async fn dial<B>(
    pool: Weak<Pool<B>>,
    address: &Address,
    protocol: HttpVersion,
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
        let stream = config.open.open(address, protocol, limit).await?;
        match protocol {
            HttpVersion::Http1 => http1(pool, stream, Life::new(period, limit)).await,
            HttpVersion::Http2 => {
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
            pool.changed();
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
    let life = Arc::new(life);
    let (line, mut driver) = Driver::begin(stream, life.clone(), max_streams).await?;
    driver.answered().await?;
    tokio::spawn(async move {
        loop {
            let change = driver.changed().await;
            if let Some(pool) = pool.upgrade() {
                pool.changed();
            }
            if change == Change::Closed {
                break;
            }
        }
        driver.closed().await;
    });
    Ok(Connection::new(Sender::Http2(line), life))
}
