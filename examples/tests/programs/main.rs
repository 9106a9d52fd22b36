//! The example programs as processes, and their parts.

#[path = "../support/mod.rs"]
mod support;

mod complete;
mod demo;
mod etcd;
mod failures;
mod formats;
mod forward;
mod grpc;
mod node;
mod options;
mod retries;
mod suspects;
mod zero_failures;
