//! Requests to instances: over HTTP/1.1 on hyper-util's client, and in [`pool`] over HTTP/1.1 and HTTP/2
//! on connections that are made before there is a request.
//!
//! An [`HttpMaker`] holds one client with a pool of connections per authority, and makes an
//! [`HttpEndpoint`] for each instance. Connections are made when requests need them, so an endpoint is
//! always ready; a connection that cannot be made is the error of the request that needed it, and the
//! error gives the request back.

mod classify;
mod connect;
mod endpoint;
mod error;
mod maker;
pub mod pool;
mod protocol;
mod reclaim;
mod replay;
mod retry;
mod target;

use ::http::Request;
use discovery_core::{Instance, InstanceChanges, InstanceKey, InstanceStatus};
use http_body::Body;
use tower::BoxError;
use tower::balance::p2c::Balance;

pub use endpoint::{HttpEndpoint, HttpFuture};
pub use error::{HttpError, HttpErrorKind};
pub use maker::{HttpConfig, HttpMaker};
pub use protocol::{ByStatus, Grpc, Http, Tracked};
pub use reclaim::Reclaim;
pub use replay::Replay;
pub use retry::{Attempts, Retried, Retry, RetryLayer, Tries};
pub use target::ServedBy;

use crate::load::{LoadMeasure, MeasuredMaker};
use crate::{Avoid, Endpoints, SharedBalance};

/// What [`balance`] makes: tower's two-choices balancer over [`HttpEndpoint`]s, shared.
pub type HttpBalance<B> = SharedBalance<
    Balance<
        Endpoints<InstanceChanges, InstanceKey, Instance, MeasuredMaker<HttpMaker<B>>>,
        Request<B>,
    >,
    Request<B>,
>;

/// Balances requests over those instances in `changes` that are up and have a weight above 0, two
/// random choices at a time, by `measure`.
///
/// A request with the extension [`Avoid`] is kept away from the instances on that list. Responses have
/// the extension [`ServedBy`]; the error of an instance is found by
/// [`BalanceError::http`](crate::BalanceError::http). Of weights, only 0 makes a difference.
pub fn balance<B>(
    changes: InstanceChanges,
    maker: HttpMaker<B>,
    measure: LoadMeasure,
) -> HttpBalance<B>
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
    SharedBalance::new(Balance::new(endpoints), status)
        .steered_by(|request: &Request<B>| request.extensions().get::<Avoid>())
}
