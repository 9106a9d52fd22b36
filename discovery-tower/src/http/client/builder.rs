//! What a client is told, before it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Uri};
use discovery_core::{Instance, InstanceChanges, ServiceName, Source, StaticSource};
use http_body::Body;
use tower::BoxError;

use super::secure::LeftOut;
use super::service::{HttpClient, Made};
use crate::balance::{Builder, Ejection, Limits, SlowStart};
#[cfg(feature = "tls")]
use crate::http::Tls;
use crate::http::{Http, HttpBalance, PoolConfig, PooledMaker};

/// Makes an [`HttpClient`]. What is not set is as with [`http::balance`](crate::http::balance).
#[derive(Clone)]
pub struct HttpClientBuilder {
    pub(super) making: Making,
    pub(super) timeout: Option<Duration>,
    pub(super) body_idle: Option<Duration>,
    pub(super) idle: Duration,
    pub(super) max_services: usize,
    pub(super) max_hosts: usize,
    pub(super) pass_through: Option<PassThrough>,
}

pub(super) type PassThrough = Arc<dyn Fn(&Uri) -> bool + Send + Sync>;

/// How a balancer is made.
#[derive(Clone)]
pub(super) struct Making {
    source: Arc<dyn Source>,
    pool: PoolConfig,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    limits: Limits,
    ejection: Ejection,
    slow_start: SlowStart,
}

impl HttpClientBuilder {
    /// Services are looked up in `source`: any [`Source`], `Arc<dyn Source>` included.
    pub fn new(source: impl Source + 'static) -> Self {
        Self {
            making: Making {
                source: Arc::new(source),
                pool: PoolConfig::default(),
                #[cfg(feature = "tls")]
                tls: None,
                limits: Limits::default(),
                ejection: Ejection::default(),
                slow_start: SlowStart::default(),
            },
            timeout: None,
            body_idle: None,
            idle: Duration::from_secs(600),
            max_services: 4096,
            max_hosts: 256,
            pass_through: None,
        }
    }

    /// Sets how connections to instances are made and kept.
    #[must_use]
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.making.pool = pool;
        self
    }

    /// Has TLS: instances with `https` and `grpcs` addresses are reached, and URIs may say `https`. It
    /// takes the place of the pool's [`open`](PoolConfig::open), whatever is set first.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.making.tls = Some(tls);
        self
    }

    /// Sets how long calls wait for an instance, and how many of each service do at a time.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.making.limits = limits;
        self
    }

    /// Sets how long a call may take up to the head of the response, waiting for an instance included: no
    /// limit of its own. A request with a [`Deadline`](crate::http::Deadline) has the earlier of the two;
    /// that says what errors there are. In a [`RetryLayer`](crate::http::RetryLayer) this is for each
    /// attempt.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets for how long nothing of the body of a response may come while it is waited for: no limit of
    /// its own. It ends with [`BodyError::Idle`](super::BodyError::Idle) then.
    #[must_use]
    pub fn body_idle(self, body_idle: Duration) -> Self {
        Self { body_idle: Some(body_idle), ..self }
    }

    /// Sets when instances that fail are left out.
    #[must_use]
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.making.ejection = ejection;
        self
    }

    /// Sets how an instance that is new among others comes to its share.
    #[must_use]
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.making.slow_start = slow_start;
        self
    }

    /// Sets for how long nobody has to have used a service for its balancer to be dropped, with its
    /// connections and its watch: 10 minutes. It is never dropped before, nor while a call is under way
    /// or a body is read, and at most an eighth of that time later.
    #[must_use]
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Sets how many services there are a balancer for at most: 4096. One more drops the one that has
    /// not been used for longest; when all are in use, its requests are refused with
    /// [`TooMany`](super::ClientError::TooMany). 0 is taken as 1.
    #[must_use]
    pub fn max_services(self, max_services: usize) -> Self {
        Self { max_services, ..self }
    }

    /// Lets requests pass through to ordinary hosts: those of whose URI `allowed` says `true` go to the
    /// host and port that stand there, and are not looked up in the source. By default there are none.
    ///
    /// Such a host is served like a service of one instance, `host/authority`: that is what
    /// [`ServedBy`](crate::ServedBy) and errors name. Host names are resolved for each connection.
    #[must_use]
    pub fn pass_through(self, allowed: impl Fn(&Uri) -> bool + Send + Sync + 'static) -> Self {
        Self { pass_through: Some(Arc::new(allowed)), ..self }
    }

    /// Sets how many hosts there are connections to at most, those passed through: 256. Else as
    /// [`max_services`](Self::max_services).
    #[must_use]
    pub fn max_hosts(self, max_hosts: usize) -> Self {
        Self { max_hosts, ..self }
    }

    /// The client. `B` is the body of requests.
    pub fn build<B>(self) -> HttpClient<B>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        HttpClient::made(self)
    }
}

impl Making {
    /// Whether connections can be of TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.pool().open.supports("https")
    }

    fn pool(&self) -> PoolConfig {
        let pool = self.pool.clone();
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return pool.open(tls.clone());
        }
        pool
    }

    /// A balancer over the instances of a service, or over those alone that are reached over TLS.
    pub(super) fn service<B>(&self, service: &ServiceName, secure: bool) -> Made<B>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (changes, left_out) = (self.source.watch(service), LeftOut::default());
        let changes = if secure { left_out.only_secure(changes) } else { changes };
        (self.balance(changes, service.as_str()), left_out)
    }

    /// The same over this one, which is called by its id: its host may be named like a service.
    pub(super) fn host<B>(&self, host: Instance) -> HttpBalance<B>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let key = host.key();
        self.balance(StaticSource::new([host]).watch(&key.service), key.id.as_str())
    }

    fn balance<B>(&self, changes: InstanceChanges, name: &str) -> HttpBalance<B>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let status = changes.status();
        Builder::new(changes, PooledMaker::with(self.pool()))
            .protocol(Http::new())
            .limits(self.limits)
            .ejection(self.ejection.clone())
            .slow_start(self.slow_start)
            .named(name)
            .status(status)
            .spawn::<_, Request<B>, _>()
    }
}

impl fmt::Debug for HttpClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientBuilder")
            .field("pool", &self.making.pool())
            .field("limits", &self.making.limits)
            .field("timeout", &self.timeout)
            .field("body_idle", &self.body_idle)
            .field("idle", &self.idle)
            .field("max_services", &self.max_services)
            .field("max_hosts", &self.max_hosts)
            .field("passes_through", &self.pass_through.is_some())
            .finish_non_exhaustive()
    }
}
