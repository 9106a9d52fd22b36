//! A service of gRPC with a method of each kind: what serves it, and what calls it.

mod client;
mod server;
mod shop;

pub use client::ClientOptions;
pub use server::ServerOptions;
pub use shop::Shop;

/// What tonic generates of `proto/orders.proto`.
#[allow(missing_docs, clippy::pedantic, reason = "it is generated")]
pub mod orders {
    tonic::include_proto!("orders");
}
