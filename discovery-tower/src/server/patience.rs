//! How long a server that stops waits for others, and who may say that it is enough.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

/// The patience of a server that stops.
pub(super) struct Patience {
    enough: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
}

impl Patience {
    /// Nobody says that it is enough.
    pub(super) fn endless() -> Self {
        Self::until(pending())
    }

    /// Over when `enough` resolves, which is looked at only while there is something to wait for.
    pub(super) fn until(enough: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { enough: Box::pin(enough), over: false }
    }

    /// Waits for `work`, for `limit` at most. `None` if it was not done.
    pub(super) async fn wait<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let limit = if self.over { Duration::ZERO } else { limit };
        tokio::select! {
            biased;
            done = timeout(limit, work) => done.ok(),
            () = &mut self.enough, if !self.over => {
                tracing::warn!("told to stop at once: not waiting any longer");
                self.over = true;
                None
            }
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("over", &self.over).finish_non_exhaustive()
    }
}
