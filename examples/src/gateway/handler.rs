//! From a request to its answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::ServiceName;
use discovery_tower::server::Peer;
use futures_util::{StreamExt as _, stream};
use http::header::{ALLOW, HOST, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::catalog::Catalog;
use super::headers;
use super::metrics::Metrics;
use super::pages::{self, Called};
use super::route::Route;
use super::send::{Failure, Order, no_instances, send, served_by};
use super::service::{Answered, Service};
use crate::reply::{self, Reply};

/// How long a request waits for the first set of instances.
const LOAD_WITHIN: Duration = Duration::from_secs(5);

/// Those that are usual; others are forwarded too.
const FORWARDED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// How many services `GET /send` calls at the same time.
const CALLS_AT_ONCE: usize = 64;

/// An answer: one of our own, or what an instance sends, as it comes.
pub(super) type Answer = Response<Either<Full<Bytes>, Answered>>;

/// What every request is answered with.
pub(super) struct Handler {
    pub(super) catalog: Arc<Catalog>,
    pub(super) metrics: Arc<Metrics>,
    /// How long all attempts at a request may take together.
    pub(super) timeout: Duration,
}

impl Handler {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let only_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let page = match Route::of(request.uri()) {
            // It asks for a tunnel and has no meaning for a path.
            Route::Forward(..) if request.method() == Method::CONNECT => {
                not_allowed(request.method(), FORWARDED_METHODS)
            }
            Route::Forward(service, path) => return self.forward(service, path, request).await,
            Route::BadService(error) => reply::error(StatusCode::BAD_REQUEST, &error.to_string()),
            Route::Unknown => not_found(request.uri().path()),
            _ if !only_read => not_allowed(request.method(), "GET, HEAD"),
            Route::SendAll => self.send_all(&request).await,
            Route::Services => pages::services(&self.catalog),
            Route::Health => pages::health(&self.catalog),
            Route::Metrics => pages::metrics(&self.catalog, &self.metrics),
        };
        page.map(Either::Left)
    }

    /// `/send/SERVICE/REST`.
    async fn forward(
        &self,
        name: ServiceName,
        path: PathAndQuery,
        request: Request<Incoming>,
    ) -> Answer {
        let started = Instant::now();
        let client = client(&request);
        let host = host(&request);
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        headers::forward(&mut headers, client, host.as_deref());
        let order = Order { method: parts.method, path, headers, body: Either::Left(body) };

        let found = self.find(&name).await;
        let metrics = match &found {
            Ok(service) => &service.metrics,
            Err(_) => self.metrics.unknown(),
        };
        let answer = match &found {
            Ok(service) => send(service, order, self.timeout).await,
            Err(failure) => Err(failure.clone()),
        };
        let answer = match answer {
            Ok(answer) => answer.map(Either::Right),
            Err(failure) => {
                tracing::debug!(service = %name, status = %failure.status, error = failure.error, "not forwarded");
                reply::error(failure.status, &failure.error).map(Either::Left)
            }
        };
        metrics.answered(answer.status(), started.elapsed());
        answer
    }

    /// The service; waits for the first set of instances if need be.
    async fn find(&self, name: &ServiceName) -> Result<Arc<Service>, Failure> {
        if let Some(service) = self.catalog.get(name) {
            return Ok(service);
        }
        self.loaded().await?;
        // A name that is not there leaves nothing behind.
        self.catalog.get(name).ok_or_else(|| no_instances(name.as_str()))
    }

    async fn loaded(&self) -> Result<(), Failure> {
        let limit = LOAD_WITHIN.min(self.timeout);
        self.catalog.loaded(limit).await.map_err(|error| Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: error.to_string(),
        })
    }

    /// `GET /send`: one call to each service.
    async fn send_all(&self, request: &Request<Incoming>) -> Reply {
        if let Err(failure) = self.loaded().await {
            return reply::error(failure.status, &failure.error);
        }
        let mut headers = HeaderMap::new();
        headers::forward(&mut headers, client(request), host(request).as_deref());
        let calls = self.catalog.all().into_iter().map(|service| {
            let headers = headers.clone();
            async move { (service.name.clone(), self.call(&service, headers).await) }
        });
        let called = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE);
        let called: BTreeMap<ServiceName, Called> = called.collect().await;
        reply::json(StatusCode::OK, &called)
    }

    async fn call(&self, service: &Arc<Service>, headers: HeaderMap) -> Called {
        let started = Instant::now();
        let path = PathAndQuery::from_static("/");
        let order = Order { method: Method::GET, path, headers, body: Either::Right(Empty::new()) };
        let called = match send(service, order, self.timeout).await {
            Ok(answer) => Called {
                status: answer.status().as_u16(),
                served_by: served_by(&answer),
                error: None,
            },
            Err(Failure { status, error }) => {
                Called { status: status.as_u16(), served_by: None, error: Some(error) }
            }
        };
        let status = StatusCode::from_u16(called.status).unwrap_or_default();
        service.metrics.answered(status, started.elapsed());
        called
    }
}

fn client<B>(request: &Request<B>) -> IpAddr {
    let peer = request.extensions().get::<Peer<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(peer)| peer.ip())
}

/// What the client asked for, by the header or, over HTTP/2 or as a proxy, in the request line.
fn host<B>(request: &Request<B>) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str().to_owned());
    }
    let host = request.headers().get(HOST)?;
    host.to_str().ok().map(ToOwned::to_owned)
}

fn not_found(path: &str) -> Reply {
    let text = format!(
        "nothing at {path}: there are /send/SERVICE/REST, /send, /services, /healthz and /metrics"
    );
    reply::error(StatusCode::NOT_FOUND, &text)
}

fn not_allowed(method: &Method, allowed: &'static str) -> Reply {
    let mut reply = reply::error(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("method {method} is not for this page"),
    );
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
