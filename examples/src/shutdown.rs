//! Ctrl-C and SIGTERM, which ask a program to stop in good order.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals. Made early, so that one that comes while the program starts is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let us; outside a runtime it panics.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }

    /// Runs `work` until it is done, until `limit`, or until another signal says that there is no
    /// time for it. `None` if it was cut short.
    pub async fn or_enough<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = tokio::time::sleep(limit) => None,
            signal = self.next() => {
                tracing::warn!(signal, "told to stop again: not waiting any longer");
                None
            }
        }
    }
}
