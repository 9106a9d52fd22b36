//! The beginnings of TLS on a connection, and what instances say of our certificate.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufRead as _;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::load::Loaded;
use super::words::words;
use crate::http::pool::{ByteStream, HttpVersion};

/// Why there is no TLS with an instance, in plain words.
#[derive(Clone, Debug)]
pub(crate) struct HandshakeError {
    words: String,
    source: Arc<io::Error>,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // What is in it is the cause; it itself says the same.
        match self.source.get_ref() {
            Some(inner) => Some(inner),
            None => Some(&*self.source),
        }
    }
}

/// Makes a connection one of TLS.
pub(super) async fn handshake(
    loaded: &Loaded,
    name: ServerName<'static>,
    protocol: HttpVersion,
    stream: ByteStream,
    patience: Duration,
) -> Result<TlsStream<ByteStream>, HandshakeError> {
    let identity = &loaded.identity;
    let begun = Instant::now();
    let connecting = TlsConnector::from(loaded.config(protocol)).connect(name, stream);
    let failed = |error| {
        let without = identity.is_none() && identity.was_asked_for();
        HandshakeError { words: words(&error, protocol, without), source: Arc::new(error) }
    };
    let mut stream = connecting.await.map_err(failed)?;
    let is_new = stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    if is_new && identity.was_asked_for() {
        let most = (begun.elapsed() * 4).max(SHORT).min(patience / 4);
        // None in time is no bad one.
        if let Ok(Err(error)) = timeout(most, verdict(&mut stream)).await {
            return Err(failed(error));
        }
    }
    Ok(stream)
}

/// How long a verdict is waited for at least.
const SHORT: Duration = Duration::from_millis(250);

/// Waits until the instance has said something.
///
/// In TLS 1.3 a client is done before its certificate has been looked at. One that is turned down would
/// be told when its first request is lost. Nearly all servers give a ticket when they are content, and over
/// HTTP/2 they speak first in any case.
async fn verdict(stream: &mut TlsStream<ByteStream>) -> io::Result<()> {
    poll_fn(|cx| {
        if let Poll::Ready(read) = Pin::new(&mut *stream).poll_fill_buf(cx) {
            return Poll::Ready(read.map(drop));
        }
        let content = stream.get_ref().1.tls13_tickets_received() > 0;
        if content { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}
