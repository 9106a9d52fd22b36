//! Opens connections of TLS, and plain ones.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::Address;
use rustls::pki_types::ServerName;
use tower::BoxError;

use super::config::TlsConfig;
use super::error::TlsError;
use super::handshake::handshake;
use super::load::{Contents, Loaded};
use crate::http::pool::{ByteStream, HttpVersion, Open, Opening, Tcp, is_secure};

/// Opens connections: of TLS for `https` and `grpcs`, and plain ones for `http` and `grpc`. Cheap to
/// clone; clones share what was read.
///
/// The certificate of an instance has to be signed by somebody who is trusted, and valid now for the host
/// of its address, or for the [name](TlsConfig::server_name) that was set. By ALPN nothing is offered but
/// the protocol of the pool.
///
/// # Files
/// They are read and examined when this is made, and looked at again before each new connection, on a
/// thread where that is no harm. New files that can be used are used from then on; those that cannot are
/// logged once, and the former ones go on being used, so that half of a change does no harm. Connections
/// that there are stay.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    config: TlsConfig,
    name: Option<ServerName<'static>>,
    current: Mutex<Current>,
}

struct Current {
    loaded: Arc<Loaded>,
    /// What the files were when they were last looked at.
    seen: Seen,
}

#[derive(PartialEq, Eq)]
enum Seen {
    Contents(u64),
    /// They could not be read, for this reason.
    Unread(String),
}

impl Tls {
    /// Reads and examines it all. Files are read on this thread.
    ///
    /// # Errors
    /// [`TlsError`] says which setting cannot be used, and why.
    pub fn new(config: TlsConfig) -> Result<Self, TlsError> {
        let name = config.server_name.clone().map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| {
                let reason = format!("{name:?} is neither the name of a host nor an IP address");
                TlsError::new("server name", None, reason)
            })
        });
        let name = name.transpose()?;
        let contents = Contents::read(&config)?;
        let loaded = Arc::new(contents.load(&config)?);
        let seen = Seen::Contents(contents.fingerprint());
        let current = Mutex::new(Current { loaded, seen });
        Ok(Self(Arc::new(Inner { config, name, current })))
    }
}

impl Inner {
    /// What to make a connection with now. Reads files.
    fn refreshed(&self) -> Arc<Loaded> {
        let read = Contents::read(&self.config);
        let seen = match &read {
            Ok(contents) => Seen::Contents(contents.fingerprint()),
            Err(error) => Seen::Unread(error.to_string()),
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.seen == seen {
            return current.loaded.clone();
        }
        current.seen = seen;
        match read.and_then(|contents| contents.load(&self.config)) {
            Ok(loaded) => {
                tracing::info!("TLS to instances: the files have changed, and are used");
                current.loaded = Arc::new(loaded);
            }
            Err(error) => {
                tracing::warn!(%error, "TLS to instances: the files have changed, and cannot be used");
            }
        }
        current.loaded.clone()
    }

    async fn loaded(self: &Arc<Self>) -> Result<Arc<Loaded>, BoxError> {
        if !self.config.has_files() {
            return Ok(self.current.lock().unwrap_or_else(PoisonError::into_inner).loaded.clone());
        }
        let inner = self.clone();
        Ok(tokio::task::spawn_blocking(move || inner.refreshed()).await?)
    }

    /// The name that the certificate of an instance has to be valid for.
    fn name_of(&self, address: &Address) -> Result<ServerName<'static>, BoxError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = address.host();
        ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("no certificate can be for {host}")).into())
    }
}

impl Open for Tls {
    fn supports(&self, scheme: &str) -> bool {
        is_secure(scheme) || Tcp.supports(scheme)
    }

    fn open(&self, address: &Address, protocol: HttpVersion, patience: Duration) -> Opening {
        let plain = Tcp.open(address, protocol, patience);
        if !is_secure(address.scheme()) {
            return plain;
        }
        let (inner, name) = (self.0.clone(), self.0.name_of(address));
        Box::pin(async move {
            let name = name?;
            let (loaded, stream) = (inner.loaded().await?, plain.await?);
            let stream = handshake(&loaded, name, protocol, stream, patience).await?;
            Ok(Box::new(stream) as ByteStream)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.config).finish()
    }
}
