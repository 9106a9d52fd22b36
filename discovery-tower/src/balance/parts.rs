//! The types that a balancer is made of, under one name: what it is generic over would else stand at
//! each of its pieces.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use tower::{BoxError, Service};

use super::policy::Policy;
use super::protocol::Protocol;

/// The types that a balancer is made of. Not to be named or implemented elsewhere.
#[allow(missing_docs, reason = "each is what the bounds of `Balance` say")]
pub trait Parts: Sized + 'static {
    type Key: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static;
    type Endpoint: Send + Sync + 'static;
    type Request: Send + 'static;
    type Response: Send + 'static;
    type Error: Into<BoxError> + Send + 'static;
    type Service: Service<
            Self::Request,
            Response = Self::Response,
            Error = Self::Error,
            Future = Self::Future,
        > + Clone
        + Send
        + Sync
        + 'static;
    type Future: Future<Output = Result<Self::Response, Self::Error>> + Send + 'static;
    type Load: Send + Sync + 'static;
    type State: Send + Sync + 'static;
    type Policy: Policy<Self::Request, Self::Key, Self::Endpoint, Load = Self::Load, State = Self::State>;
    type Protocol: Protocol<Self::Request, Self::Response, Self::Error, Self::Key>;
}

/// These types.
#[allow(missing_debug_implementations, reason = "there is none of it")]
pub struct Of<K, E, S, Req, P, C>(PhantomData<fn() -> (K, E, S, Req, P, C)>);

impl<K, E, S, Req, P, C> Parts for Of<K, E, S, Req, P, C>
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
    type Key = K;
    type Endpoint = E;
    type Request = Req;
    type Response = S::Response;
    type Error = S::Error;
    type Service = S;
    type Future = S::Future;
    type Load = P::Load;
    type State = P::State;
    type Policy = P;
    type Protocol = C;
}
