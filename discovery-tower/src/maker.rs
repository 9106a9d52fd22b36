//! From an endpoint to the service that reaches it.
//!
//! A stock balancer drops the live service of a key, with its connection and its load statistics,
//! when the key is inserted again. So a maker also says when that would be needless.

use std::fmt;
use std::sync::Arc;

use discovery_core::Instance;

/// Makes the service for an endpoint.
///
/// Any `FnMut(&K, &Arc<E>) -> S` is a maker that makes a new service at every update of an endpoint;
/// see [`Endpoints::keep_if`](crate::Endpoints::keep_if) and
/// [`Builder::keep_if`](crate::balance::Builder::keep_if) for one that does not.
///
/// With our own [`Balance`](crate::Balance), `poll_ready` may fail: the service is made anew after a while.
/// For tower's balancers it must not: they drop such a service for good, while the instance stays in the
/// set, so that it gets no request until it is inserted anew.
pub trait MakeEndpoint<K, E> {
    /// What reaches an endpoint.
    type Service;

    /// Makes the service. It is called while the balancer is polled and must not block; a service
    /// that needs a connection makes it later, when it is first polled or called.
    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> Self::Service;

    /// Whether the service made for `old` still serves `new`, so that it is kept as it is. By default
    /// it does not.
    ///
    /// `old` is the endpoint that the service was made for, however many updates ago.
    fn still_serves(&mut self, key: &K, old: &Arc<E>, new: &Arc<E>) -> bool {
        let _ = (key, old, new);
        false
    }
}

impl<K, E, S, F: FnMut(&K, &Arc<E>) -> S> MakeEndpoint<K, E> for F {
    type Service = S;

    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> S {
        self(key, endpoint)
    }
}

/// Whether two states of an instance are reached in the same way: what else an instance says of itself
/// does not concern the service that connects to it.
pub fn same_address<K>(_: &K, old: &Instance, new: &Instance) -> bool {
    old.address == new.address
}

/// A maker with a rule of its own for when a service is kept; see
/// [`Endpoints::keep_if`](crate::Endpoints::keep_if).
#[derive(Clone)]
pub struct KeepIf<M, F> {
    maker: M,
    rule: F,
}

impl<M, F> KeepIf<M, F> {
    /// `rule` is asked with the key, the endpoint that the service was made for, and the new one.
    pub fn new(maker: M, rule: F) -> Self {
        Self { maker, rule }
    }
}

impl<K, E, M, F> MakeEndpoint<K, E> for KeepIf<M, F>
where
    M: MakeEndpoint<K, E>,
    F: FnMut(&K, &E, &E) -> bool,
{
    type Service = M::Service;

    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> M::Service {
        self.maker.make(key, endpoint)
    }

    fn still_serves(&mut self, key: &K, old: &Arc<E>, new: &Arc<E>) -> bool {
        (self.rule)(key, old, new)
    }
}

impl<M: fmt::Debug, F> fmt::Debug for KeepIf<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepIf").field("maker", &self.maker).finish_non_exhaustive()
    }
}
