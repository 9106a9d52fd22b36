//! What the tests of this project stand on: real etcd processes, a network that can be made to fail,
//! and a reader of etcd that shares no code with what is tested.
//!
//! - [`Etcd`] and [`Cluster`] run etcd and do to it what machines do: kill, stop, pause, wipe.
//! - [`GrpcProxy`] runs etcd's own proxy in front of one of them.
//! - [`Proxy`] stands between a client and etcd and cuts, resets, delays or swallows what passes.
//! - [`Authority`] signs certificates, good and bad ones.
//! - [`Truth`] reads and writes etcd over its JSON gateway, so that it can be the oracle.
//! - `orders` (feature `grpc`) is a service of gRPC.
//! - [`replay`] gives a test the corpus of a fuzz target.
//! - [`FakeClock`] turns the wall clock of one process.
//! - [`eventually`], [`eventually_eq`] and [`on_each_version`] say how a test waits and on what it runs.
//!
//! Everything here runs on the real clock: a test that pauses tokio's time must not use it. Everything
//! here panics when it cannot do what it was asked, because it is only ever called from tests; the one
//! exception is [`Truth`], whose errors can be what a test expects.
//!
//! # Environment
//!
//! | variable | meaning |
//! |---|---|
//! | `DISCOVERY_TEST_ETCD_35`, `DISCOVERY_TEST_ETCD_34` | the binary of that version |
//! | `DISCOVERY_TEST_LIBFAKETIME` | the library that turns the clock of a process |
//! | `ETCD_BIN` | one binary; it is asked which version it is |
//! | `DISCOVERY_TEST_SLACK` | every deadline is multiplied by this, default 1 |
//! | `DISCOVERY_TEST_LONG` | anything but `0` or nothing: run the long forms, see [`long`] |
//! | `DISCOVERY_TEST_KEEP` | anything: leave the data and the logs of etcd on disk |

mod certificates;
mod clock;
mod cluster;
mod corpus;
mod data;
mod etcd;
mod grpc_proxy;
mod guard;
#[cfg(feature = "grpc")]
pub mod orders;
mod port;
mod process;
mod proxy;
mod truth;
mod version;
mod wait;

pub use certificates::{Authority, Certificate, Validity, replace_file};
pub use clock::FakeClock;
pub use cluster::Cluster;
pub use corpus::replay;
pub use etcd::{Builder, Etcd};
pub use grpc_proxy::GrpcProxy;
pub use port::Port;
pub use process::Process;
pub use proxy::{Direction, Proxy};
pub use truth::{Auth, Kv, Lease, Op, Permission, Snapshot, Status, Truth, TruthError, prefix_end};
pub use version::{Version, binary, versions};
pub use wait::{Check, eventually, eventually_eq, long, on_all_versions, on_each_version, slack};
