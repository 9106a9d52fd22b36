//! What a channel is told, before it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Instance, InstanceChanges, InstanceKey, ServiceName, Source};
use http::Request;

use super::channel::{Channel, Shared};
use super::endpoint::{Maker, Sent};
use super::request::RequestBody;
use crate::balance::{Builder, Ejection, Limits, PeakEwma, Policy, SlowStart};
#[cfg(feature = "tls")]
use crate::http::tls::Tls;
use crate::http::{Grpc, HttpVersion, PoolConfig, PooledMaker, Replay, RetryLayer};

/// Makes a [`Channel`].
///
/// ```
/// # use std::time::Duration;
/// # use discovery_core::MemoryRegistry;
/// use discovery_tower::grpc::Channel;
/// use discovery_tower::http::RetryLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = MemoryRegistry::new();
/// let channel = Channel::builder(&registry, &"orders".parse()?)
///     .deadline(Duration::from_secs(2))
///     .retry(RetryLayer::new(2).repeating(|head| head.uri.path() == "/orders.Orders/Get"))
///     .build();
/// # assert!(channel.endpoints().is_empty());
/// # Ok(()) }
/// ```
pub struct ChannelBuilder<P = PeakEwma> {
    policy: P,
    settings: Settings,
}

/// What does not depend on the policy.
struct Settings {
    changes: InstanceChanges,
    service: ServiceName,
    pool: PoolConfig,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    limits: Limits,
    ejection: Ejection,
    slow_start: SlowStart,
    retry: RetryLayer,
    deadline: Option<Duration>,
}

impl ChannelBuilder {
    /// To the service as `source` knows it.
    pub fn new(source: &(impl Source + ?Sized), service: &ServiceName) -> Self {
        let settings = Settings {
            changes: source.watch(service),
            service: service.clone(),
            pool: PoolConfig::default(),
            #[cfg(feature = "tls")]
            tls: None,
            limits: Limits::default(),
            ejection: Ejection::default(),
            slow_start: SlowStart::default(),
            retry: RetryLayer::new(0),
            deadline: None,
        };
        Self { policy: PeakEwma::new(), settings }
    }
}

impl<P> ChannelBuilder<P> {
    /// Sets who decides where a call goes; [`PeakEwma`] by default. For long streams, take
    /// [`LeastPending`](crate::balance::LeastPending).
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> ChannelBuilder<Q> {
        ChannelBuilder { policy, settings: self.settings }
    }

    /// Sets how connections to instances are made and kept. What is spoken is always HTTP/2.
    #[must_use]
    pub fn pool(mut self, pool: PoolConfig) -> Self {
        self.settings.pool = pool;
        self
    }

    /// Has TLS: instances with `https` and `grpcs` addresses are reached. It takes the place of the pool's
    /// [`open`](PoolConfig::open), whatever is set first.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Sets how long calls wait for an instance.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets when instances that fail are left out.
    #[must_use]
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.settings.ejection = ejection;
        self
    }

    /// Sets how an instance that is new among others comes to its share.
    #[must_use]
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.settings.slow_start = slow_start;
        self
    }

    /// Sets how long a call may take that does not say so itself, as
    /// [`set_timeout`](tonic::Request::set_timeout) does; by default as long as it likes. It holds for
    /// streams, too, from their beginning to their end.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// Tries calls again at other instances, by the rules of `layer`; all attempts share the deadline.
    /// Which calls may be repeated is said by [`RetryLayer::repeating`]: without that, none is, since all
    /// calls are POST.
    ///
    /// Such a call is tried again on `UNAVAILABLE`, and when its connection was lost before all of the
    /// answer was there: the caller is given the answer when it is whole. An answer of more bytes than
    /// the layer [keeps](RetryLayer::body_limit), or of which some is still missing 100 ms after its
    /// head, is passed on as it comes, and the call is not tried again. So repeat calls with one answer;
    /// streams gain little by it, and may begin 100 ms later.
    #[must_use]
    pub fn retry(mut self, layer: RetryLayer) -> Self {
        self.settings.retry = layer;
        self
    }

    /// The channel. Its instances are followed and connected to from now on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(self) -> Channel
    where
        P: Policy<Request<Replay<RequestBody>>, InstanceKey, Instance>,
    {
        let Self { policy, settings } = self;
        let pool = settings.pool();
        let status = settings.changes.status();
        let balance = Builder::new(settings.changes, Maker(PooledMaker::with(pool)))
            .protocol(Grpc::new())
            .policy(policy)
            .limits(settings.limits)
            .ejection(settings.ejection)
            .slow_start(settings.slow_start)
            .named(settings.service.as_str())
            .status(status)
            .spawn::<_, Request<Sent>, _>();
        Channel::made(Shared {
            calls: Arc::new(balance),
            service: settings.service,
            retry: settings.retry,
            deadline: settings.deadline,
        })
    }
}

impl Settings {
    fn pool(&self) -> PoolConfig {
        let pool = self.pool.clone().protocol(HttpVersion::Http2);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return pool.open(tls.clone());
        }
        pool
    }
}

impl<P: fmt::Debug> fmt::Debug for ChannelBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("policy", &self.policy)
            .field("service", &self.settings.service)
            .field("pool", &self.settings.pool)
            .field("limits", &self.settings.limits)
            .field("retry", &self.settings.retry)
            .field("deadline", &self.settings.deadline)
            .finish_non_exhaustive()
    }
}
