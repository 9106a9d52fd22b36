//! HTTP to instances: a service for each of them, what responses say of them, and trying again.
//!
//! [`balance`] puts our balancer over [`pool`]ed endpoints, which connect before they are given a
//! request, over HTTP/1.1 or HTTP/2. [`RetryLayer`] tries again, at another instance, what may be done
//! twice. A [`client`] does all of it by the names of services.
//!
//! For tower's own balancers, which drop a service that fails to become ready, there is [`HttpEndpoint`],
//! on hyper-util's client: it is always ready, and a connection that cannot be made is the error of the
//! request that needed it, which the error gives back. [`p2c`] puts tower's balancer over these.

mod budget;
mod classify;
pub mod client;
mod connect;
mod deadline;
mod endpoint;
mod error;
mod maker;
pub mod pool;
mod protocol;
mod reclaim;
mod replay;
mod retry;
mod target;
#[cfg(feature = "tls")]
pub mod tls;

use ::http::Request;
use discovery_core::{Instance, InstanceChanges, InstanceKey, InstanceStatus};
use http_body::Body;
use tower::BoxError;

#[cfg(feature = "tonic")]
pub(crate) use classify::of_connection;
pub use client::{BodyError, ClientBody, ClientError, ClientFuture, HttpClient, HttpClientBuilder};
pub use deadline::Deadline;
pub use endpoint::{HttpEndpoint, HttpFuture};
pub use error::{HttpError, HttpErrorKind, HttpFault};
pub use maker::{HttpConfig, HttpMaker};
pub use pool::{HttpVersion, PoolConfig, PooledBody, PooledEndpoint, PooledMaker};
#[cfg(feature = "tonic")]
pub(crate) use protocol::GRPC_STATUS;
pub use protocol::{ByStatus, Grpc, Http, Tracked};
pub use reclaim::Reclaim;
pub use replay::Replay;
pub use retry::{CallFailure, Retried, Retry, RetryFuture, RetryLayer, Tries};
#[cfg(feature = "tonic")]
pub(crate) use target::Target;
pub use target::{FromEndpoint, ServedBy};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsConfig, TlsError};

use crate::balance::{Balance, Builder, PeakEwma};
use crate::load::{LoadMeasure, MeasuredMaker};
use crate::{Avoid, Endpoints, SharedBalance};

/// What [`balance`] makes: our balancer over connections to instances. `B` is the body of requests.
pub type HttpBalance<B, P = PeakEwma> =
    Balance<InstanceKey, Instance, PooledEndpoint<B>, Request<B>, P, Http>;

/// Balances requests over the instances in `changes`, by how many requests they have and how long those
/// take, on connections that `maker` says how to make. To set more, use a [`Builder`] with the protocol
/// [`Http`]: above all a [name](Builder::named), which changes do not tell, and without which errors,
/// figures and the log do not say of which service they are.
///
/// Of a request's URI only path and query matter. A request that certainly did not reach an instance
/// goes to another one, streaming body and all; one with the extension [`Avoid`] keeps away from the
/// instances in it. Responses have the extension [`ServedBy`].
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn balance<B>(changes: InstanceChanges, maker: PooledMaker<B>) -> HttpBalance<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let status = changes.status();
    Builder::new(changes, maker).protocol(Http::new()).status(status).spawn()
}

/// What [`p2c`] makes: tower's two-choices balancer over [`HttpEndpoint`]s, shared.
pub type HttpP2c<B> = SharedBalance<
    tower::balance::p2c::Balance<
        Endpoints<InstanceChanges, InstanceKey, Instance, MeasuredMaker<HttpMaker<B>>>,
        Request<B>,
    >,
    Request<B>,
>;

/// Balances requests over those instances in `changes` that are up and have a weight above 0 with
/// tower's balancer: two random choices at a time, by `measure`.
///
/// A request with the extension [`Avoid`] is kept away from the instances on that list. Responses have
/// the extension [`ServedBy`]; the error of an instance is found by
/// [`BalanceError::http`](crate::BalanceError::http). Of weights, only 0 makes a difference.
pub fn p2c<B>(changes: InstanceChanges, maker: HttpMaker<B>, measure: LoadMeasure) -> HttpP2c<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let changes = changes.filter_endpoints(|_, instance| {
        instance.status == InstanceStatus::Up && instance.weight.get() > 0
    });
    let status = changes.status();
    let endpoints = Endpoints::new(changes, maker).measured(measure);
    SharedBalance::new(tower::balance::p2c::Balance::new(endpoints), status)
        .steered_by(|request: &Request<B>| request.extensions().get::<Avoid>())
}
