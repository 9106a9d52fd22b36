//! Requests made with [`reqwest`], sent by the names of services.
//!
//! What people like of reqwest is how requests are made and responses are read. That stays; only the
//! sending is another: through an [`HttpClient`](crate::HttpClient), so that each request goes to an
//! instance that is alive, on a connection that is there before it is sent.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use http_body_util::{BodyExt as _, Full};
//! # use hyper::{body::Incoming, server::conn::http1, service::service_fn};
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # let answer = service_fn(|request: http::Request<Incoming>| async move {
//! #     request.collect().await.map(|body| http::Response::new(Full::new(body.to_bytes())))
//! # });
//! # tokio::spawn(async move {
//! #     let io = hyper_util::rt::TokioIo::new(listener.accept().await.unwrap().0);
//! #     http1::Builder::new().serve_connection(io, answer).await
//! # });
//! use discovery_core::{Instance, MemoryRegistry};
//! use discovery_tower::HttpClient;
//! use discovery_tower::reqwest::SendThrough as _;
//!
//! let registry = MemoryRegistry::new();
//! registry.insert(Instance::parse("orders", "7", &format!("http://{address}"))?);
//!
//! let services = HttpClient::new(registry);
//! let requests = reqwest::Client::new(); // makes requests; it never connects
//!
//! let request = requests.post("http://orders/v1").json(&["shoes", "socks"]);
//! let response = request.send_through(&services).await?.error_for_status()?;
//! let echoed: Vec<String> = response.json().await?;
//! assert_eq!(echoed, ["shoes", "socks"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! - The host of the URL is the name of the service, as [`http::client`](crate::http::client) says. But
//!   the URLs of reqwest hold **lower case only**, and not every name: see `docs/reqwest.md`.
//! - [`RequestBuilder::timeout`](::reqwest::RequestBuilder::timeout) holds over head and body, and over
//!   all attempts of a [`RetryLayer`](crate::http::RetryLayer) around the client.
//! - The response tells [who served it](crate::http::FromEndpoint), and the URL it was asked for.
//! - Of the `reqwest::Client` that made the request nothing else is applied: no default headers, limits
//!   of time, redirects, cookies, decompression, proxies or TLS. They happen when it sends.

mod body;
mod error;

use std::future::poll_fn;
use std::pin::Pin;

use ::reqwest::{Body, Request, RequestBuilder, Response, ResponseBuilderExt as _};
use bytes::Bytes;
use discovery_core::InstanceKey;
use tower::{BoxError, Service};

pub use error::SendError;

use crate::ServedBy;
use crate::http::FromEndpoint;
use body::Deadline;

/// The response to come. Dropping it cancels the request.
pub type Sending<E> = Pin<Box<dyn Future<Output = Result<Response, SendError<E>>> + Send>>;

/// Sends a request of reqwest through a client by the names of services.
pub trait SendThrough {
    /// Sends it through `client`: an [`HttpClient`](crate::HttpClient), with or without layers around it.
    ///
    /// A request with the limits or extensions of another one, such as [`Avoid`](crate::Avoid), is made
    /// of an [`http::Request`] by `reqwest::Request::try_from`.
    ///
    /// The timeout of the request begins when the future is first polled.
    ///
    /// # Errors
    /// A [`SendError`]. A response with a status of an error is none; while its body is read, a
    /// timeout is an error of reqwest for which `is_timeout()` is true.
    ///
    /// # Panics
    /// The future does, outside a tokio runtime.
    fn send_through<S, R>(self, client: &S) -> Sending<S::Error>
    where
        S: Service<::http::Request<Body>, Response = ::http::Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        R::Error: Into<BoxError>;
}

impl SendThrough for Request {
    fn send_through<S, R>(self, client: &S) -> Sending<S::Error>
    where
        S: Service<::http::Request<Body>, Response = ::http::Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        R::Error: Into<BoxError>,
    {
        // In a box, the compiler sees that it is `Send` wherever it is awaited (rust-lang/rust#110338).
        Box::pin(send(self, client.clone()))
    }
}

impl SendThrough for RequestBuilder {
    fn send_through<S, R>(self, client: &S) -> Sending<S::Error>
    where
        S: Service<::http::Request<Body>, Response = ::http::Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
        R::Error: Into<BoxError>,
    {
        match self.build() {
            Ok(request) => request.send_through(client),
            Err(error) => Box::pin(std::future::ready(Err(SendError::Request(error)))),
        }
    }
}

async fn send<S, R>(request: Request, mut client: S) -> Result<Response, SendError<S::Error>>
where
    S: Service<::http::Request<Body>, Response = ::http::Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    R::Error: Into<BoxError>,
{
    let url = request.url().clone();
    let limit = request.timeout().copied();
    let request = ::http::Request::<Body>::try_from(request).map_err(SendError::Request)?;
    let answering = async {
        poll_fn(|cx| client.poll_ready(cx)).await?;
        client.call(request).await
    };
    let (answer, deadline) = match limit {
        None => (answering.await, None),
        Some(limit) => {
            let mut deadline = Deadline::new(limit);
            let answer = tokio::select! {
                biased;
                answer = answering => answer,
                () = deadline.passed() => {
                    let host = url.host_str().unwrap_or_default().into();
                    return Err(SendError::TimedOut { host, limit });
                }
            };
            (answer, Some(deadline))
        }
    };
    let (mut head, body) = answer.map_err(SendError::Call)?.into_parts();
    if let Ok(with_url) = ::http::Response::builder().url(url).body(()) {
        head.extensions.extend(with_url.into_parts().0.extensions);
    }
    let body = match deadline {
        None => Body::wrap(body),
        Some(deadline) => Body::wrap(deadline.over(body)),
    };
    Ok(::http::Response::from_parts(head, body).into())
}

impl FromEndpoint for Response {
    fn endpoint(&self) -> Option<&InstanceKey> {
        self.extensions().get::<ServedBy>().map(|ServedBy(key)| key)
    }
}
