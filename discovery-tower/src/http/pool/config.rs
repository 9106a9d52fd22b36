//! What a pool is told: which protocol, how many connections, how long to wait.

use std::sync::Arc;
use std::time::Duration;

use super::open::{Open, Tcp};

/// What is spoken to an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/1.1: a connection carries one request at a time.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge: one connection carries all requests.
    Http2,
}

/// How the connections to an instance are made and kept. Cheap to clone.
///
/// ```
/// # use std::time::Duration;
/// use discovery_tower::http::pool::{PoolConfig, HttpVersion};
///
/// let config = PoolConfig::default()
///     .protocol(HttpVersion::Http2)
///     .connect_timeout(Duration::from_millis(500));
/// # drop(config);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// What is spoken, unless the address says it: `grpc` is always HTTP/2. [`HttpVersion::Http1`].
    pub protocol: HttpVersion,
    /// How long making a connection may take: looking up the host, connecting, and the beginnings of
    /// HTTP together. 2 s.
    pub connect_timeout: Duration,
    /// How many connections there are to one instance at most, for HTTP/1.1: 128. At least one.
    pub max_connections: usize,
    /// How many of them are kept without a request: no limit of its own.
    pub max_idle: usize,
    /// How long a connection is kept without a request: 60 s.
    pub idle_timeout: Duration,
    /// How many requests are in flight on one connection at most, for HTTP/2, if the instance allows
    /// so many: no limit of its own.
    pub max_streams: usize,
    /// How a stream of bytes to an address is opened: [`Tcp`].
    pub open: Arc<dyn Open>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            protocol: HttpVersion::Http1,
            connect_timeout: Duration::from_secs(2),
            max_connections: 128,
            max_idle: usize::MAX,
            idle_timeout: Duration::from_secs(60),
            max_streams: usize::MAX,
            open: Arc::new(Tcp),
        }
    }
}

impl PoolConfig {
    /// Sets what is spoken.
    #[must_use]
    pub fn protocol(self, protocol: HttpVersion) -> Self {
        Self { protocol, ..self }
    }

    /// Sets how long making a connection may take.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets how many connections of HTTP/1.1 there are at most. 0 is taken as 1.
    #[must_use]
    pub fn max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// Sets how many connections are kept without a request.
    #[must_use]
    pub fn max_idle(self, max_idle: usize) -> Self {
        Self { max_idle, ..self }
    }

    /// Sets how long a connection is kept without a request.
    #[must_use]
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Sets how many requests are in flight on a connection of HTTP/2 at most. 0 is taken as 1.
    #[must_use]
    pub fn max_streams(self, max_streams: usize) -> Self {
        Self { max_streams, ..self }
    }

    /// Sets how a stream of bytes to an address is opened.
    #[must_use]
    pub fn open(self, open: impl Open) -> Self {
        Self { open: Arc::new(open), ..self }
    }
}
