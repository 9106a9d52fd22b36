//! The client that people hold.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Request, Response, Uri};
use discovery_core::{ServiceName, Source};
use http_body::Body;
use tokio::task::AbortHandle;
use tower::{BoxError, Service};

use super::body::ClientBody;
use super::builder::{HttpClientBuilder, Making, PassThrough};
use super::cache::{Cache, Full};
use super::error::ClientError;
use super::future::ClientFuture;
use super::route::{self, Route};
use super::secure::LeftOut;
use super::usage::InUse;
use crate::http::{Deadline, HttpBalance};

/// Sends `http://orders/v1/7` to an instance of the service `orders`. Cheap to clone; clones share the
/// balancers and connections. See the [module](super) for what holds.
///
/// It is a [`Service`] that is always ready: a call waits by itself, as long as the
/// [`Limits`](crate::Limits) say. It asks nothing of `B` but where it is made, so that a task that awaits
/// its calls can be spawned whatever the body is made of.
pub struct HttpClient<B>(Arc<dyn Calls<B>>);

/// What a client does, apart from what a body has to be for it to be done: with the bounds on `B` on the
/// client itself, the compiler could not see that a task is `Send` in which a call is awaited with a body
/// that holds a `dyn Error` (rust-lang/rust#110338).
trait Calls<B>: Send + Sync {
    fn call(self: Arc<Self>, request: Request<B>) -> ClientFuture;

    /// How many services and hosts there are.
    fn counts(&self) -> (usize, usize);

    /// The services with their balancers.
    fn services(&self) -> Vec<(ServiceName, HttpBalance<B>)>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>;
}

struct Shared<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    services: Cache<Made<B>>,
    /// Those that are passed through: what is a host for one request may be the name of a service for
    /// another.
    hosts: Cache<Made<B>>,
    making: Making,
    /// Whether connections can be of TLS.
    tls: bool,
    pass_through: Option<PassThrough>,
    timeout: Option<Duration>,
    body_idle: Option<Duration>,
    idle: Duration,
    /// Drops what is not used, from the first use on.
    sweeper: OnceLock<AbortHandle>,
}

/// A balancer, and the instances that it leaves out.
pub(super) type Made<B> = (HttpBalance<B>, LeftOut);

impl<B> HttpClient<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A client for the services in `source`, with the defaults of an [`HttpClientBuilder`].
    pub fn new(source: impl Source + 'static) -> Self {
        HttpClientBuilder::new(source).build()
    }

    pub(super) fn made(builder: HttpClientBuilder) -> Self {
        let HttpClientBuilder { making, idle, max_services, max_hosts, pass_through, .. } = builder;
        let HttpClientBuilder { timeout, body_idle, .. } = builder;
        Self(Arc::new(Shared {
            services: Cache::new(max_services),
            hosts: Cache::new(max_hosts),
            tls: making.has_tls(),
            making,
            pass_through,
            timeout,
            body_idle,
            idle,
            sweeper: OnceLock::new(),
        }))
    }

    /// The services that there is a balancer for now, in no order, with their balancers: for pages and
    /// metrics. One that is asked for by `https` and by `http` has two. Who keeps a balancer keeps its
    /// watch and its connections.
    pub fn services(&self) -> Vec<(ServiceName, HttpBalance<B>)> {
        self.0.services()
    }
}

impl<B> Calls<B> for Shared<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn call(self: Arc<Self>, mut request: Request<B>) -> ClientFuture {
        if let Some(timeout) = self.timeout {
            let ours = Deadline::within(timeout);
            let deadline = request.extensions_mut().get_or_insert(ours);
            *deadline = ours.min(*deadline);
        }
        match self.balance(request.uri()) {
            Ok(((mut balance, left_out), in_use)) => {
                ClientFuture::called(balance.call(request), left_out, self.body_idle, in_use)
            }
            Err(error) => ClientFuture::refused(error),
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.hosts.len())
    }

    fn services(&self) -> Vec<(ServiceName, HttpBalance<B>)> {
        let named =
            |(key, (balance, _)): (Arc<str>, Made<B>)| Some((route::service_of(&key)?, balance));
        self.services.values().into_iter().filter_map(named).collect()
    }
}

impl<B> Shared<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// The balancer that a request with this URI goes through, in use.
    fn balance(self: &Arc<Self>, uri: &Uri) -> Result<(Made<B>, InUse), ClientError> {
        let route = Route::of(uri, self.tls)?;
        let passed = self.pass_through.as_ref().is_some_and(|allowed| allowed(uri));
        let cache = if passed { &self.hosts } else { &self.services };
        let key = route.key();
        match cache.get(&key) {
            Some(found) => Ok(found),
            None => self.make(route, &key, passed),
        }
    }

    #[cold]
    fn make(
        self: &Arc<Self>,
        route: Route<'_>,
        key: &str,
        passed: bool,
    ) -> Result<(Made<B>, InUse), ClientError> {
        let made = if passed {
            let host = route.host()?;
            self.hosts.get_or_make(key, || (self.making.host(host), LeftOut::default()))
        } else {
            let service = route.service()?;
            self.services.get_or_make(key, || self.making.service(&service, route.secure))
        };
        self.sweeper
            .get_or_init(|| tokio::spawn(sweep(Arc::downgrade(self), self.idle)).abort_handle());
        made.map_err(|Full { limit }| ClientError::TooMany { host: route.authority.into(), limit })
    }
}

/// Drops what is not used, late by a step at most.
async fn sweep<B>(shared: Weak<Shared<B>>, idle: Duration)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let step = (idle / 8).max(Duration::from_millis(1));
    loop {
        tokio::time::sleep(step).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.services.sweep(idle);
        shared.hosts.sweep(idle);
    }
}

impl<B> Drop for Shared<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.get() {
            sweeper.abort();
        }
    }
}

impl<B> Service<Request<B>> for HttpClient<B> {
    type Response = Response<ClientBody>;
    type Error = ClientError;
    type Future = ClientFuture;

    /// Always ready: a call waits by itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    /// # Panics
    ///
    /// Outside a tokio runtime.
    fn call(&mut self, request: Request<B>) -> ClientFuture {
        self.0.clone().call(request)
    }
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (services, hosts) = self.0.counts();
        f.debug_struct("HttpClient")
            .field("services", &services)
            .field("hosts", &hosts)
            .finish_non_exhaustive()
    }
}
