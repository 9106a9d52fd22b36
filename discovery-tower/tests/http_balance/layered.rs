//! Layers between a balancer and its endpoints: what an error is, is found behind them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use discovery_core::{Instance, InstanceKey, Source as _};
use discovery_tower::balance::{Builder, Ejection};
use discovery_tower::http::{Http, HttpErrorKind, HttpFault, PooledEndpoint, Replay, RetryLayer};
use discovery_tower::{CallError, HttpError, HttpMaker, PooledMaker};
use http::{Request, Response};
use tower::util::{BoxCloneSyncService, MapErr};
use tower::{BoxError, Layer as _, ServiceExt as _};

use super::retry::saying;
use super::server::{Body, data, frames, soon};
use super::support::server::{Shut, refused, shutting};
use super::{VERSIONS, get, post, registry};

/// What some layer makes of an error.
struct Wrapped<B>(HttpError<B>);

impl<B> fmt::Debug for Wrapped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<B> fmt::Display for Wrapped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something went wrong")
    }
}

impl<B: 'static> Error for Wrapped<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

type Wrap<B> = fn(HttpError<B>) -> BoxError;
type Service = BoxCloneSyncService<Request<Body>, Response<()>, CallError<InstanceKey>>;

/// A retry layer around a balancer over endpoints with a layer.
fn service(wrap: Wrap<Replay<Body>>, addresses: &[&str]) -> Service {
    let maker = PooledMaker::<Replay<Body>>::new();
    let make =
        move |_: &InstanceKey, instance: &Arc<Instance>| -> MapErr<PooledEndpoint<_>, Wrap<_>> {
            maker.endpoint(instance).map_err(wrap)
        };
    let changes = registry(addresses.iter().copied()).watch(&"orders".parse().unwrap());
    let balance = Builder::new(changes, make)
        .protocol(Http::new())
        .ejection(Ejection::never())
        .spawn::<_, Request<Replay<Body>>, _>();
    let service = RetryLayer::new(1).layer(balance);
    BoxCloneSyncService::new(service.map_response(|response| response.map(drop)))
}

fn wraps<B: Send + 'static>() -> [Wrap<B>; 2] {
    [|error| error.into(), |error| Wrapped(error).into()]
}

#[tokio::test]
async fn what_may_be_done_twice_is_tried_again() {
    for wrap in wraps() {
        let servers = saying(VERSIONS[0], 200, 1).await;
        let service = service(wrap, &[&servers[0].address, &shutting(Shut::Reset).await]);
        for _ in 0..10 {
            let response = soon(service.clone().oneshot(get("/"))).await.unwrap();
            assert_eq!(response.status(), 200);
        }
    }
}

#[tokio::test]
async fn the_kind_of_an_error_is_found() {
    for wrap in wraps() {
        let service = service(wrap, &[&shutting(Shut::Reset).await]);
        let error = soon(service.oneshot(get("/"))).await.unwrap_err();
        let lost = error.downcast_ref::<HttpError<Replay<Body>>>().unwrap();
        assert!(lost.is_reset(), "{error}");
        let fault = error.downcast_ref::<HttpFault>().unwrap();
        assert_eq!((fault.kind(), fault.to_string()), (lost.kind(), lost.cause().to_owned()));
        assert_eq!(HttpErrorKind::of(&error), Some(HttpErrorKind::Reset));
        assert_eq!(HttpErrorKind::of(&Wrapped(lost.clone())), Some(HttpErrorKind::Reset));
    }
}

#[tokio::test]
async fn what_an_instance_gives_back_goes_to_another() {
    for wrap in wraps::<Body>() {
        let servers = saying(VERSIONS[0], 200, 1).await;
        // It is ready whatever becomes of its requests.
        let maker = HttpMaker::<Body>::new();
        let make = move |_: &InstanceKey, instance: &Arc<Instance>| -> MapErr<_, Wrap<_>> {
            maker.endpoint(instance).map_err(wrap)
        };
        let registry = registry([servers[0].address.as_str(), refused().as_str()]);
        let balance = Builder::new(registry.watch(&"orders".parse().unwrap()), make)
            .protocol(Http::new())
            .ejection(Ejection::never())
            .spawn::<_, Request<Body>, _>();
        for _ in 0..10 {
            let request = post(frames([data("a"), data("b")]));
            let response = soon(balance.clone().oneshot(request)).await.unwrap();
            assert_eq!(response.status(), 200);
        }
    }
}
