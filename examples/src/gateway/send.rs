//! Sending a request to an instance, and to another one if that is allowed.

use std::sync::Arc;
use std::time::Duration;

use discovery_tower::{Avoid, BalanceError, HttpErrorKind, ServedBy};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::timeout;
use tower::Service as _;
use tower::retry::budget::Budget as _;

use super::asked::Asked;
use super::body::Supply;
use super::headers;
use super::retry::{self, Ended};
use super::service::{SendBody, Service};

/// Names the instance that answered.
pub(super) const X_SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// How often and for how long an answer is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) retries: u32,
    pub(super) timeout: Duration,
}

/// A request, to be sent as often as it takes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Supply<Incoming>,
}

/// Why there is no answer of an instance to give.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) error: String,
}

type Attempt = Result<Response<Incoming>, BalanceError>;

/// Sends the request until an instance has answered it for good. The answer has its headers in order.
pub(super) async fn send(
    service: &Arc<Service>,
    order: Order,
    patience: Patience,
) -> Result<Response<Incoming>, Failure> {
    let mut attempts =
        Attempts { service, order, tried: Avoid::new(), asked: Asked::default(), sent: 0 };
    let outcome = timeout(patience.timeout, attempts.run(patience.retries)).await;
    match outcome {
        Ok(Ok(answer)) => Ok(finish(answer)),
        Ok(Err(error)) => Err(attempts.failure(&error)),
        Err(_) => {
            attempts.hung();
            let limit = patience.timeout.as_millis();
            let error = format!("no answer of {} within {limit} ms", service.name);
            Err(Failure { status: StatusCode::GATEWAY_TIMEOUT, error })
        }
    }
}

struct Attempts<'a> {
    service: &'a Arc<Service>,
    order: Order,
    /// The instances that had the request.
    tried: Avoid,
    /// Who has the attempt that is under way.
    asked: Asked,
    sent: u32,
}

impl Attempts<'_> {
    async fn run(&mut self, retries: u32) -> Attempt {
        self.service.budget.deposit();
        let Some(mut body) = self.order.body.next() else {
            return Err(BalanceError::NoInstances {
                service: Some(self.service.name.as_str().into()),
            });
        };
        let mut last: Option<Attempt> = None;
        loop {
            let attempt = self.attempt(body).await;
            if let (Some(last), true) = (last.take(), is_avoided(&attempt)) {
                // Nobody is left to try.
                return last;
            }
            self.sent += 1;
            let ended = self.note(&attempt);
            let repeatable = retry::is_repeatable(&self.order.method);
            if self.sent > retries || !retry::may_follow(ended, repeatable) {
                return attempt;
            }
            let Some(next) = self.order.body.next() else { return attempt };
            if !self.service.budget.withdraw() {
                self.service.metrics.refused();
                return attempt;
            }
            self.service.metrics.retried();
            tracing::debug!(service = %self.service.name, ?ended, "trying another instance");
            body = next;
            last = Some(attempt);
        }
    }

    /// Sends it once. Those that rest are asked only if there is nobody else.
    async fn attempt(&mut self, body: SendBody) -> Attempt {
        let avoid = self.service.resting.and(&self.tried);
        let rested = avoid != self.tried;
        let attempt = self.call(body, avoid).await;
        if !(rested && is_avoided(&attempt)) {
            return attempt;
        }
        match self.order.body.next() {
            Some(body) => self.call(body, self.tried.clone()).await,
            None => attempt,
        }
    }

    async fn call(&mut self, body: SendBody, avoid: Avoid) -> Attempt {
        let mut request = Request::new(body);
        *request.method_mut() = self.order.method.clone();
        *request.uri_mut() = Uri::from(self.order.path.clone());
        request.headers_mut().clone_from(&self.order.headers);
        self.asked = Asked::default();
        request.extensions_mut().insert(self.asked.clone());
        if !avoid.is_empty() {
            request.extensions_mut().insert(avoid);
        }
        let attempt = self.service.balance().call(request).await;
        if let Err(error) = &attempt
            && let Some(error) = error.http::<SendBody>()
            && let Some(unsent) = error.take_request()
        {
            self.order.body.give_back(unsent.into_body());
        }
        attempt
    }

    /// Remembers who had the request and what came of it.
    fn note(&mut self, attempt: &Attempt) -> Ended {
        match attempt {
            Ok(answer) => {
                if let Some(ServedBy(key)) = answer.extensions().get() {
                    self.tried.add(key.clone());
                    if matches!(answer.status().as_u16(), 500 | 502..=504) {
                        self.service.failed(key, false);
                    }
                }
                Ended::Status(answer.status())
            }
            Err(error) => {
                let Some(error) = error.http::<SendBody>() else { return Ended::Failed };
                self.tried.add(error.key().clone());
                let out_of_reach = is_out_of_reach(error.kind());
                if out_of_reach || error.is_reset() {
                    self.service.failed(error.key(), out_of_reach);
                }
                if error.is_unsent() {
                    Ended::Unsent
                } else if error.is_reset() {
                    Ended::Reset
                } else {
                    Ended::Failed
                }
            }
        }
    }

    /// Whoever has the request has not answered in time.
    fn hung(&self) {
        if let Some(key) = self.asked.key() {
            self.service.failed(key, false);
        }
    }

    fn failure(&self, error: &BalanceError) -> Failure {
        match error {
            BalanceError::Failed(error) => {
                let attempts = self.sent;
                let error = match attempts {
                    0 | 1 => error.to_string(),
                    _ => format!("{attempts} attempts, the last: {error}"),
                };
                Failure { status: StatusCode::BAD_GATEWAY, error }
            }
            _ => Failure { status: StatusCode::SERVICE_UNAVAILABLE, error: error.to_string() },
        }
    }
}

/// What is said of a service that is not known, as of one without instances.
pub(super) fn no_instances(service: &str) -> Failure {
    let error = BalanceError::NoInstances { service: Some(service.into()) }.to_string();
    Failure { status: StatusCode::SERVICE_UNAVAILABLE, error }
}

/// Whether the next request would fare no better with that instance.
fn is_out_of_reach(kind: HttpErrorKind) -> bool {
    use HttpErrorKind::{Connect, ConnectTimeout, Unsupported};
    matches!(kind, Connect | ConnectTimeout | Unsupported)
}

fn is_avoided(attempt: &Attempt) -> bool {
    let error = attempt.as_ref().err().and_then(BalanceError::http::<SendBody>);
    error.is_some_and(discovery_tower::HttpError::is_avoided)
}

fn finish(mut answer: Response<Incoming>) -> Response<Incoming> {
    let served_by = served_by(&answer);
    let headers = answer.headers_mut();
    headers::drop_hop_by_hop(headers);
    match served_by.map(|id| HeaderValue::from_bytes(id.as_bytes())) {
        Some(Ok(id)) => headers.insert(X_SERVED_BY, id),
        // What the instance says of itself there is not ours.
        _ => headers.remove(X_SERVED_BY),
    };
    answer
}

/// The id of the instance that answered.
pub(super) fn served_by(answer: &Response<Incoming>) -> Option<String> {
    answer.extensions().get::<ServedBy>().map(|ServedBy(key)| key.id.to_string())
}
