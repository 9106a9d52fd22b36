//! Logs go to stderr, as much as `RUST_LOG` asks for.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

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
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init();
    if let (Ok(()), Some(error)) = (started, bad) {
        tracing::warn!(%error, "RUST_LOG={wanted} is not a filter, using info");
    }
}
