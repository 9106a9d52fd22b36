//! The step of connecting that knows about networks: from an address to a stream of bytes. Whoever
//! wants Unix sockets or a proxy brings another one; the pool stays as it is. For TLS there is
//! `http::tls::Tls` (feature `tls`).

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use ::http::Uri;
use ::http::uri::{PathAndQuery, Scheme};
use discovery_core::Address;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{BoxError, Service as _};

use super::config::HttpVersion;

/// Opens a stream of bytes to an address.
pub trait Open: fmt::Debug + Send + Sync + 'static {
    /// Whether it can, for addresses of this scheme. What it cannot is refused before a request is
    /// given away.
    fn supports(&self, scheme: &str) -> bool;

    /// Opens a stream, on which `protocol` is to be spoken. `patience` is how long the whole of
    /// connecting may take; it ends without the opener's doing, and is told for an opener that divides
    /// it among several addresses.
    ///
    /// # Errors
    /// Any. An [`io::Error`](std::io::Error) among the causes is put in plain words.
    ///
    /// # Cancel safety
    /// The future is dropped when the time is over.
    fn open(&self, address: &Address, protocol: HttpVersion, patience: Duration) -> Opening;
}

/// A stream of bytes to come.
pub type Opening = Pin<Box<dyn Future<Output = Result<ByteStream, BoxError>> + Send>>;

/// A stream of bytes.
pub type ByteStream = Box<dyn ReadWrite>;

/// What can be read from and written to.
pub trait ReadWrite: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> ReadWrite for T {}

/// Plain TCP, for `http` and `grpc`. All addresses of a host name are tried, IPv6 and IPv4 side by
/// side; data is sent without delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Open for Tcp {
    fn supports(&self, scheme: &str) -> bool {
        matches!(scheme, "http" | "grpc")
    }

    fn open(&self, address: &Address, _: HttpVersion, patience: Duration) -> Opening {
        let mut uri = ::http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
        let authority = address.authority().parse();
        Box::pin(async move {
            uri.authority = Some(authority?);
            let mut tcp = HttpConnector::new();
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(patience));
            let stream = tcp.call(Uri::from_parts(uri)?).await?;
            Ok(Box::new(stream.into_inner()) as ByteStream)
        })
    }
}

/// Whether addresses of this scheme are reached over TLS.
pub(in crate::http) fn is_secure(scheme: &str) -> bool {
    matches!(scheme, "https" | "grpcs")
}
