//! The rows of `docs/guarantees.md` on real etcd, an idea a module, in one binary: each would bring all of
//! etcd's client, and together they wait side by side.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod blocked;
mod clock;
mod formats;
mod hanging;
mod last_good;
mod leader;
mod leaving;
mod options;
mod registering;
#[cfg(feature = "tls")]
mod roles;
mod settings;
mod sharing;
mod stabilised;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod watching;
