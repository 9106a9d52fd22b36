//! The handle that people hold, and how it is made.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_core::{Change, StatusReader};
use futures_channel::mpsc;
use futures_core::Stream;
use tower::{BoxError, Service};

use super::attributes::{Attributes, Describe};
use super::call::{Call, Held, Response};
use super::driver::{Describing, Driver, Rules, SlowStart};
use super::ejection::Ejection;
use super::entropy::{Entropy, Random};
use super::error::CallError;
use super::hub::Hub;
use super::observe::{self, Seen};
use super::parts::Of;
use super::policy::{PeakEwma, Policy};
use super::protocol::{AnyCall, Protocol};
use super::settle::{Trail, settle};
use super::shared::{Limits, Shared};
use super::snapshot::{Panicked, Snapshot};
use super::view::EndpointView;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{ArcSwap, Notify};
use crate::{KeepIf, MakeEndpoint};

/// Balances calls over the endpoints of a stream of changes.
///
/// It is a [`Service`] that is always ready: a call picks an endpoint when the request is known, and
/// waits by itself if none can be used, as long as the [`Limits`] say. Clones are one balancer: they
/// share the endpoints, their connections and what is known of them. No error is final.
///
/// Made by a [`Builder`]. `K` is the key of an endpoint, `E` what it says of itself, `S` the
/// service that reaches it, `Req` the request; `P` decides where a call goes, and `C` reads outcomes.
pub struct Balance<K, E, S, Req, P = PeakEwma, C = AnyCall>(Arc<Shared<Of<K, E, S, Req, P, C>>>)
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    S::Future: Send + 'static,
    P: Policy<Req, K, E>,
    C: Protocol<Req, S::Response, S::Error, K>;

/// What a [`Balance`] is made of.
pub struct Builder<D, M, K, E, P = PeakEwma, C = AnyCall> {
    changes: D,
    maker: M,
    describe: Box<dyn Fn(&K, &E) -> Attributes + Send>,
    policy: P,
    protocol: C,
    random: Random,
    rules: Rules,
    limits: Limits,
    name: Option<Arc<str>>,
    status: Option<StatusReader>,
}

impl<D, M, K, E> Builder<D, M, K, E>
where
    E: Describe,
{
    /// Begins a balancer over the endpoints in `changes`, which `maker` makes services for.
    ///
    /// `changes` is any stream of [`Change`]s that keeps their laws, such as the
    /// [`Changes`](discovery_core::Changes) of a source; what stands in it is an `E` or an `Arc<E>`.
    /// When the stream ends, the endpoints stay as they are.
    ///
    /// Unlike with tower's balancers, a service may fail to become ready: it gets no request, and is
    /// made anew after a while.
    pub fn new<V>(changes: D, maker: M) -> Self
    where
        D: Stream<Item = Change<K, V>>,
        V: Into<Arc<E>>,
        M: MakeEndpoint<K, E>,
    {
        Self::described_by(changes, maker, |_, endpoint: &E| endpoint.attributes())
    }
}

impl<D, M, K, E> Builder<D, M, K, E> {
    /// The same for endpoints of a type that is not [`Describe`]d: `describe` says what an endpoint
    /// says of itself.
    pub fn described_by<V, F>(changes: D, maker: M, describe: F) -> Self
    where
        D: Stream<Item = Change<K, V>>,
        V: Into<Arc<E>>,
        M: MakeEndpoint<K, E>,
        F: Fn(&K, &E) -> Attributes + Send + 'static,
    {
        Self {
            changes,
            maker,
            describe: Box::new(describe),
            policy: PeakEwma::new(),
            protocol: AnyCall::new(),
            random: Random::default(),
            rules: Rules { ejection: Ejection::default(), slow_start: SlowStart::default() },
            limits: Limits::default(),
            name: None,
            status: None,
        }
    }
}

impl<D, M, K, E, P, C> Builder<D, M, K, E, P, C> {
    /// Keeps the service of an endpoint at an update, and with it what is known of the endpoint, when
    /// `rule`, given the key, the endpoint that the service was made for and the new one, says so: in
    /// place of the maker's own rule. A closure as maker has none, so that a change of weight would make
    /// a new service.
    #[must_use]
    pub fn keep_if<F>(self, rule: F) -> Builder<D, KeepIf<M, F>, K, E, P, C>
    where
        F: FnMut(&K, &E, &E) -> bool,
    {
        let Self { changes, maker, describe, policy, protocol, random, rules, limits, .. } = self;
        let (name, status, maker) = (self.name, self.status, KeepIf::new(maker, rule));
        Builder { changes, maker, describe, policy, protocol, random, rules, limits, name, status }
    }

    /// Sets who decides where a call goes; [`PeakEwma`] by default.
    #[must_use]
    pub fn policy<Q>(self, policy: Q) -> Builder<D, M, K, E, Q, C> {
        let Self {
            changes, maker, describe, protocol, random, rules, limits, name, status, ..
        } = self;
        Builder { changes, maker, describe, policy, protocol, random, rules, limits, name, status }
    }

    /// Sets who reads outcomes of calls; [`AnyCall`] by default.
    #[must_use]
    pub fn protocol<B>(self, protocol: B) -> Builder<D, M, K, E, P, B> {
        let Self { changes, maker, describe, policy, random, rules, limits, name, status, .. } =
            self;
        Builder { changes, maker, describe, policy, protocol, random, rules, limits, name, status }
    }

    /// Sets where random choices come from, for tests and simulations.
    #[must_use]
    pub fn entropy(self, entropy: impl Entropy) -> Self {
        Self { random: Random::Given(Arc::new(entropy)), ..self }
    }

    /// Sets when endpoints that fail are left out.
    #[must_use]
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.rules.ejection = ejection;
        self
    }

    /// Sets how an endpoint that is new among others comes to its share.
    #[must_use]
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.rules.slow_start = slow_start;
        self
    }

    /// Sets how long calls wait.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets the name by which errors call the service; also the label `service` of its figures.
    #[must_use]
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Has errors tell what stands in the way of the source, as this says; figures tell for how long.
    #[must_use]
    pub fn status(self, status: StatusReader) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The balancer, and the [`Driver`] that has to be polled beside it.
    pub fn build<S, Req>(
        self,
    ) -> (Balance<K, E, S, Req, P, C>, Driver<Of<K, E, S, Req, P, C>, D, M>)
    where
        M: MakeEndpoint<K, E, Service = S>,
        K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
        E: Send + Sync + 'static,
        Req: Send + 'static,
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Response: Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        S::Future: Send + 'static,
        P: Policy<Req, K, E>,
        C: Protocol<Req, S::Response, S::Error, K>,
    {
        observe::describe();
        let (events, happened) = mpsc::unbounded();
        let seen = Seen::new(self.name.as_ref());
        let strikes = self.rules.ejection.consecutive;
        let hub: Hub<Of<K, E, S, Req, P, C>> =
            Hub::new(self.policy, self.protocol, self.random, strikes, seen, events, self.limits);
        let state = hub.policy.state(std::iter::empty(), None);
        let shared = Arc::new(Shared {
            hub: Arc::new(hub),
            snapshot: ArcSwap::from_pointee(Snapshot::empty(state)),
            published: Notify::new(),
            waiting: AtomicUsize::new(0),
            name: self.name,
            status: self.status,
        });
        shared.hub.set_shared(&shared);
        let describe: Describing<Of<K, E, S, Req, P, C>> = self.describe;
        let driver = Driver::new(self.changes, self.maker, describe, self.rules, happened, &shared);
        (Balance(shared), driver)
    }

    /// The balancer, with its driver on a task of its own.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn<S, Req, V>(self) -> Balance<K, E, S, Req, P, C>
    where
        D: Stream<Item = Change<K, V>> + Send + 'static,
        V: Into<Arc<E>> + 'static,
        M: MakeEndpoint<K, E, Service = S> + Send + 'static,
        K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
        E: Send + Sync + 'static,
        Req: Send + 'static,
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Response: Send + 'static,
        S::Error: Into<BoxError> + Send + 'static,
        S::Future: Send + 'static,
        P: Policy<Req, K, E>,
        C: Protocol<Req, S::Response, S::Error, K>,
    {
        let (balance, driver) = self.build();
        tokio::spawn(driver);
        balance
    }
}

impl<D, M, K, E, P: fmt::Debug, C> fmt::Debug for Builder<D, M, K, E, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("policy", &self.policy)
            .field("rules", &self.rules)
            .field("limits", &self.limits)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<K, E, S, Req, P, C> Balance<K, E, S, Req, P, C>
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    S::Future: Send + 'static,
    P: Policy<Req, K, E>,
    C: Protocol<Req, S::Response, S::Error, K>,
{
    /// All endpoints as they are now, for pages and metrics: cheap, and not in any order.
    pub fn endpoints(&self) -> Vec<EndpointView<K, E>> {
        let hub = &self.0.hub;
        let now = hub.now();
        let snapshot = self.0.snapshot.load();
        snapshot.members().map(|endpoint| EndpointView::of(endpoint, now)).collect()
    }

    /// Whether the source has said once what endpoints there are.
    pub fn is_loaded(&self) -> bool {
        self.0.snapshot.load().loaded
    }

    /// Waits until the set is another one, or some endpoint stands differently, than when this was
    /// called. Cancel safe.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.published.notified()
    }
}

impl<K, E, S, Req, P, C> Service<Req> for Balance<K, E, S, Req, P, C>
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    S::Future: Send + 'static,
    P: Policy<Req, K, E>,
    C: Protocol<Req, S::Response, S::Error, K>,
{
    type Response = Response<Of<K, E, S, Req, P, C>>;
    type Error = CallError<K>;
    type Future = Call<Of<K, E, S, Req, P, C>>;

    /// Always ready: a call waits by itself.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError<K>>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let picked = self.0.snapshot.load().pick(&self.0.hub, &request, &[], false);
        match picked {
            Ok(Some((picked, service))) => Call::picked(Held { picked, service, request }),
            Ok(None) => Call::settling(settle(self.0.clone(), request, Box::new(Trail::new()))),
            Err(Panicked(what)) => {
                let error = CallError::Panicked { what };
                self.0.hub.seen.refused(&error);
                Call::refused(error)
            }
        }
    }
}

impl<K, E, S, Req, P, C> Clone for Balance<K, E, S, Req, P, C>
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    S::Future: Send + 'static,
    P: Policy<Req, K, E>,
    C: Protocol<Req, S::Response, S::Error, K>,
{
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, E, S, Req, P, C> fmt::Debug for Balance<K, E, S, Req, P, C>
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Req: Send + 'static,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    S::Future: Send + 'static,
    P: Policy<Req, K, E>,
    C: Protocol<Req, S::Response, S::Error, K>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.0.snapshot.load();
        f.debug_struct("Balance")
            .field("name", &self.0.name)
            .field("endpoints", &snapshot.len())
            .field("usable", &snapshot.ready.len())
            .finish_non_exhaustive()
    }
}
