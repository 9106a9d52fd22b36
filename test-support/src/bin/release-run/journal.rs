//! What the run did and what happened to it, with times, for the one who reads about a failure.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

#[derive(Debug)]
pub(crate) struct Journal {
    start: Instant,
    lines: Mutex<Vec<(Duration, String)>>,
}

impl Journal {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, lines: Mutex::default() }
    }

    /// The time since the start of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        let at = self.now();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((at, line.into()));
    }

    pub(crate) fn lines(&self) -> Vec<(Duration, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what the library logs from now on, too.
    pub(crate) fn take_logs(self: &Arc<Self>) {
        let journal = Arc::clone(self);
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("discovery_etcd=debug,discovery_core=debug"))
            .with_ansi(false)
            .without_time()
            .with_writer(move || Line(Arc::clone(&journal)))
            .init();
    }
}

/// One line of a log.
struct Line(Arc<Journal>);

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.note(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
