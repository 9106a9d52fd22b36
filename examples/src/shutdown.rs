//! Ctrl-C and SIGTERM, which ask a program to stop in good order.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

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

    /// Runs `work` until it is done, or until another signal says that there is no time for it.
    pub async fn or_again(&mut self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            signal = self.next() => {
                tracing::warn!(signal, "told to stop again: what is in flight is cut off");
            }
        }
    }

    /// Two futures: the first resolves with the next signal, the second with the one after that.
    pub fn twice(
        mut self,
    ) -> (
        impl Future<Output = &'static str> + Send + 'static,
        impl Future<Output = ()> + Send + 'static,
    ) {
        let (pass, passed) = oneshot::channel();
        let first = async move {
            let signal = self.next().await;
            // Nobody has to wait for another one.
            let _ = pass.send(self);
            signal
        };
        let again = async move {
            match passed.await {
                Ok(mut signals) => drop::<&str>(signals.next().await),
                Err(_) => std::future::pending().await,
            }
        };
        (first, again)
    }
}
