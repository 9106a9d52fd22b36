//! Dialling: one attempt, one connection. A channel that dials again by itself would hide that a
//! connection was lost, and make more attempts than were asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use crate::wait::BoxFuture;

/// Dials a single time.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    dialled: Arc<AtomicBool>,
}

impl Dial {
    pub(super) fn once() -> Self {
        Self { dialled: Arc::default() }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let again = self.dialled.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if again {
                let lost = "connection closed";
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, lost));
            }
            let host = uri.host().unwrap_or_default();
            let host =
                host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
