//! The side that serves: a server that registers when it is ready, keeps what is registered true, and
//! goes without a failed request.
//!
//! ```no_run
//! use discovery_tower::{Advertise, Server, server::shutdown_signal};
//! # async fn db_is_up() -> bool { true }
//! # async fn run(router: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
//! # let registry = discovery_core::MemoryRegistry::new();
//!
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
//! Server::new("orders".parse()?)
//!     .advertise(Advertise::interface("eth0"))
//!     .health(async || db_is_up().await)
//!     .serve(listener, &registry, router, shutdown_signal()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is served is any `tower::Service` of HTTP requests: an `axum::Router`, tonic's `Routes`, a
//! `tower::service_fn`. The registry is any [`Registrar`](discovery_core::Registrar).
//!
//! # How it goes
//!
//! 1. It says in the registry that it is draining, and waits until that is shown (1 s at most). From now
//!    on HTTP/1 answers carry `connection: close`, and HTTP/2 connections are told to go once they have
//!    had a request; whoever comes anew is answered all the same.
//! 2. It goes on serving, so that its clients hear of it: [`Server::drain_for`].
//! 3. It deregisters.
//! 4. It stops accepting, except for those who connected before, closes what is idle, and waits for the
//!    requests that are under way: [`Server::finish_within`].
//!
//! # Another server
//!
//! [`Server::register`] does the same for a server that another stack runs, such as `axum::serve`.
//!
//! [`HttpServer`] is the accept loop alone, for what is not registered.
//!
//! TLS is a [`Listener`] of the program's own, which gives connections that are decrypted.

mod accept;
mod advertise;
mod builder;
mod connection;
mod drain;
mod error;
mod http;
mod lifecycle;
mod linger;
mod listener;
mod member;
mod patience;
mod signal;
mod stage;

pub use advertise::Advertise;
pub use builder::Server;
pub use drain::{Drain, DrainFuture, DrainLayer};
pub use error::{ServerError, Stopped};
pub use http::HttpServer;
pub use listener::{Listener, Peer};
pub use member::{Left, Member};
pub use signal::shutdown_signal;
