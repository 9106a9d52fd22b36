//! Who has a request now, also while there is no answer yet.
//!
//! An answer and an error name their instance. A request that gets neither in time is dropped with
//! all that would have named it, so the endpoint that takes it writes its key down beside it.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use discovery_core::{Instance, InstanceChanges, InstanceKey};
use discovery_tower::{
    Avoid, Endpoints, HttpEndpoint, HttpError, HttpMaker, LoadMeasure, MakeEndpoint, MeasuredMaker,
    SharedBalance,
};
use http::Request;
use tower::Service;
use tower::balance::p2c::Balance;

use super::service::{SendBody, is_wanted};

/// The instance that took the request, if one did: an extension of the request of one attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<OnceLock<InstanceKey>>);

impl Asked {
    pub(super) fn key(&self) -> Option<&InstanceKey> {
        self.0.get()
    }
}

type ToInstance = Request<SendBody>;

/// tower's two-choices balancer over endpoints that note who is [`Asked`].
pub(super) type InstanceBalance = SharedBalance<
    Balance<
        Endpoints<InstanceChanges, InstanceKey, Instance, MeasuredMaker<NotingMaker>>,
        ToInstance,
    >,
    ToInstance,
>;

/// The same as [`discovery_tower::balance`] for such endpoints.
pub(super) fn balance(
    changes: InstanceChanges,
    maker: HttpMaker<SendBody>,
    measure: LoadMeasure,
) -> InstanceBalance {
    let changes = changes.filter_endpoints(|_, instance| is_wanted(instance));
    let status = changes.status();
    let endpoints = Endpoints::new(changes, NotingMaker(maker)).measured(measure);
    SharedBalance::new(Balance::new(endpoints), status)
        .steered_by(|request: &ToInstance| request.extensions().get::<Avoid>())
}

/// Makes [`Noting`] endpoints.
pub(super) struct NotingMaker(HttpMaker<SendBody>);

impl MakeEndpoint<InstanceKey, Instance> for NotingMaker {
    type Service = Noting;

    fn make(&mut self, key: &InstanceKey, endpoint: &Arc<Instance>) -> Noting {
        Noting(self.0.make(key, endpoint))
    }

    fn still_serves(
        &mut self,
        key: &InstanceKey,
        old: &Arc<Instance>,
        new: &Arc<Instance>,
    ) -> bool {
        self.0.still_serves(key, old, new)
    }
}

/// An endpoint that notes in each request's [`Asked`] that it is the one.
pub(super) struct Noting(HttpEndpoint<SendBody>);

impl Service<ToInstance> for Noting {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = HttpError<SendBody>;
    type Future = <HttpEndpoint<SendBody> as Service<ToInstance>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: ToInstance) -> Self::Future {
        if let Some(Asked(asked)) = request.extensions().get() {
            // Each attempt has a new one, so it is empty.
            let _ = asked.set(self.0.key().clone());
        }
        self.0.call(request)
    }
}
