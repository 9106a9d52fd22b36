//! One client for all instances of all services.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Instance, InstanceKey};
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::BoxError;

use super::connect::Connector;
use super::endpoint::HttpEndpoint;
use super::reclaim::Reclaim;
use super::target::Target;
use crate::maker::{MakeEndpoint, same_address};

/// How an [`HttpMaker`]'s client connects.
///
/// ```
/// # use std::time::Duration;
/// use discovery_tower::{HttpConfig, HttpMaker};
/// use http_body_util::Empty;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let config = HttpConfig::default().connect_timeout(Duration::from_millis(500)).max_idle(32);
/// let maker = HttpMaker::<Empty<bytes::Bytes>>::with(config);
/// # drop(maker) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// How long making a connection may take, the look-up of the host name included: 2 s.
    pub connect_timeout: Duration,
    /// How long a connection is kept without a request: 60 s.
    pub idle_timeout: Duration,
    /// How many connections without a request are kept to one address: no limit.
    pub max_idle: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            max_idle: usize::MAX,
        }
    }
}

impl HttpConfig {
    /// Sets how long making a connection may take.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets how long a connection is kept without a request.
    #[must_use]
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// Sets how many connections without a request are kept to one address.
    #[must_use]
    pub fn max_idle(self, max_idle: usize) -> Self {
        Self { max_idle, ..self }
    }
}

/// Makes an [`HttpEndpoint`] for an instance. Clones, and all their endpoints, share one client and
/// its connections: a program needs one. `B` is the body of requests.
///
/// Used within a tokio runtime. As a [maker](MakeEndpoint), it keeps an endpoint while the address of
/// its instance stays.
pub struct HttpMaker<B> {
    client: Client<Connector, Reclaim<B>>,
}

impl<B> HttpMaker<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A client with the default [`HttpConfig`].
    pub fn new() -> Self {
        Self::with(HttpConfig::default())
    }

    /// A client that connects as `config` says.
    pub fn with(config: HttpConfig) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.max_idle)
            // A connection found closed before a request went out costs the request nothing.
            .retry_canceled_requests(true)
            .set_host(false)
            .build(Connector::new(config.connect_timeout));
        Self { client }
    }

    /// The endpoint of this instance. Nothing is connected yet, and an address that cannot be used is
    /// the error of each request.
    pub fn endpoint(&self, instance: &Instance) -> HttpEndpoint<B> {
        let target = Target::new(instance.key(), instance.address.clone());
        HttpEndpoint::new(self.client.clone(), Arc::new(target))
    }
}

impl<B> MakeEndpoint<InstanceKey, Instance> for HttpMaker<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Service = HttpEndpoint<B>;

    fn make(&mut self, key: &InstanceKey, endpoint: &Arc<Instance>) -> HttpEndpoint<B> {
        let target = Target::new(key.clone(), endpoint.address.clone());
        HttpEndpoint::new(self.client.clone(), Arc::new(target))
    }

    fn still_serves(
        &mut self,
        key: &InstanceKey,
        old: &Arc<Instance>,
        new: &Arc<Instance>,
    ) -> bool {
        same_address(key, old, new)
    }
}

impl<B> Default for HttpMaker<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Clone for HttpMaker<B> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone() }
    }
}

impl<B> fmt::Debug for HttpMaker<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpMaker").finish_non_exhaustive()
    }
}
