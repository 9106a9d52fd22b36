//! What the programs `node`, `gateway`, `watch`, `grpc_server` and `grpc_client` share, and what each of
//! them is.
//!
//! The binaries only call [`program::main`]; everything they do is here, so that the gateway's demo
//! can run nodes in its own process and tests can run any of it in theirs.

pub mod etcd;
pub mod fault;
pub mod gateway;
pub mod grpc;
pub mod last_good;
pub mod logging;
pub mod node;
pub mod options;
pub mod output;
pub mod program;
pub mod reply;
pub mod server;
pub mod shutdown;
pub mod watch;

/// The examples in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So do those of the pages for the stacks that people have.
#[cfg(doctest)]
#[doc = include_str!("../../docs/http-client.md")]
struct HttpClientPage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/reqwest.md")]
struct Reqwest;

#[cfg(doctest)]
#[doc = include_str!("../../docs/servers.md")]
struct Servers;

#[cfg(doctest)]
#[doc = include_str!("../../docs/grpc.md")]
struct Grpc;
