//! Logs go to stderr, as much as `RUST_LOG` asks for.

use std::io::{self, IsTerminal as _};

use tracing::Metadata;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Sets up the logs of this process: `info` unless `RUST_LOG` says otherwise, in colour only on a
/// terminal. A second call does nothing.
pub fn start() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.trim() };
    let (filter, bad) = match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(colours);
    let lines = lines.with_filter(filter_fn(|metadata| !is_told_anyway(metadata)));
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if let (Ok(()), Some(error)) = (started, bad) {
        tracing::warn!(%error, "RUST_LOG={wanted} is not a filter, using info");
    }
}

/// The news that an id is held by somebody else: the node tells it whatever `RUST_LOG` says, and it is
/// to stand there once.
fn is_told_anyway(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && metadata.target().starts_with("discovery_etcd")
        && metadata.fields().field("conflict").is_some()
}
