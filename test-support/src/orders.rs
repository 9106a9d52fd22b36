//! The service of `examples/proto/orders.proto`, as tonic generates it.
#![allow(missing_docs, clippy::pedantic, reason = "it is generated")]

tonic::include_proto!("orders");
