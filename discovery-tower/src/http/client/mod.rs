//! A client by the names of services: `http://orders/v1/7` goes to an instance of `orders`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use http_body_util::{BodyExt as _, Full};
//! # use hyper::{body::Incoming, server::conn::http1, service::service_fn};
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # let answer = service_fn(|request: http::Request<Incoming>| async move {
//! #     let text = format!("{} {}", request.method(), request.uri());
//! #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from(text)))
//! # });
//! # tokio::spawn(async move {
//! #     let io = hyper_util::rt::TokioIo::new(listener.accept().await.unwrap().0);
//! #     http1::Builder::new().serve_connection(io, answer).await
//! # });
//! use bytes::Bytes;
//! use discovery_core::{Instance, MemoryRegistry};
//! use discovery_tower::http::{HttpClient, RetryLayer};
//! use http_body_util::Empty;
//! use tower::{Layer, Service, ServiceExt};
//!
//! let registry = MemoryRegistry::new();
//! registry.insert(Instance::parse("orders", "7", &format!("http://{address}"))?);
//!
//! let mut client = RetryLayer::new(2).layer(HttpClient::new(registry));
//!
//! let request = http::Request::get("http://orders/v1/7").body(Empty::<Bytes>::new())?;
//! let response = client.ready().await?.call(request).await?;
//! assert_eq!(response.status(), 200);
//! let body = response.into_body().collect().await?.to_bytes();
//! assert_eq!(body, "GET /v1/7");
//!
//! let unknown = http::Request::get("http://invoices/").body(Empty::<Bytes>::new())?;
//! let error = client.ready().await?.call(unknown).await.unwrap_err();
//! assert_eq!(error.to_string(), "no instances of invoices");
//! # Ok(())
//! # }
//! ```
//!
//! # Names
//! The host of the URI is the [name](discovery_core::ServiceName) of the service, as it is written:
//! names are case-sensitive, and `http://Orders/` is the service `Orders`, not `orders`. (A library for
//! URLs may make the host lower case before it is a [`Uri`](::http::Uri); `http` does not.) A port, a user,
//! another scheme than `http`, and a host that is no name of a service are refused with a
//! [`ClientError`] that says so.
//!
//! `Host`, or over HTTP/2 the authority, becomes that of the instance.
//!
//! `http://orders/` goes to the instances of `orders`, however they are reached: where the client has
//! [TLS](HttpClientBuilder::tls) (feature `tls`), also to those whose address is `https`, which fail
//! otherwise. `https://orders/` needs TLS, and never goes to an instance that is reached without it.
//!
//! Ordinary hosts are refused unless they are [allowed](HttpClientBuilder::pass_through).
//!
//! # Balancers
//! Each service has one [`Balance`](crate::Balance) of its own, made on first use, shared by all clones of
//! the client, and dropped when nobody has used it for a [while](HttpClientBuilder::idle). What
//! [`http::balance`](super::balance) says holds here: a request that certainly did not reach an instance
//! goes to another one; [`Avoid`](crate::Avoid) is heeded; responses have the extension
//! [`ServedBy`](crate::ServedBy). To try again what an instance failed, put a
//! [`RetryLayer`](super::RetryLayer) around the client.
//!
//! # Time
//! A call waits for an instance as long as the [`Limits`](crate::Limits) say, and for an answer without end.
//! [`HttpClientBuilder::timeout`] bounds both for all calls, a [`Deadline`](crate::http::Deadline) those of
//! one request, and [`HttpClientBuilder::body_idle`] how long a body may stand still.
//!
//! # The end
//! When the last clone is dropped, the watches end and connections that are not used close; calls
//! and bodies that are under way go on to their ends. What runs beside the calls runs on the tokio runtime
//! of the first use of each service. A connection that was upgraded is on its own: it neither keeps its
//! service in use nor ends with it.

mod body;
mod builder;
mod cache;
mod error;
mod future;
mod route;
mod secure;
mod service;
mod usage;

pub use body::{BodyError, ClientBody};
pub use builder::HttpClientBuilder;
pub use error::ClientError;
pub use future::ClientFuture;
pub use service::HttpClient;
