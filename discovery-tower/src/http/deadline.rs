//! Until when a request has time.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::later;

/// Until when the head of the response has to be there: an extension of the request.
///
/// It counts everything: waiting for an instance, and what the instance does. Attempts of a
/// [`RetryLayer`](super::RetryLayer) have the same one, and none is begun after it. When it passes:
///
/// - while the request waits for an instance, the error is
///   [`CallError::Deadline`](crate::CallError::Deadline), which says what it waited for;
/// - while an instance has it, [`Timeout`](super::HttpErrorKind::Timeout), which names the instance. That
///   is a failure of the instance, unlike a call that is dropped.
///
/// Balancers with the protocol [`Http`](super::Http) or [`Grpc`](super::Grpc) and
/// [pooled](super::pool) endpoints heed it, and so does [`HttpClient`](super::HttpClient). The body of the
/// response is not meant, but with a [`Channel`](crate::grpc::Channel), where all of the call is.
///
/// ```
/// use std::time::Duration;
/// use discovery_tower::http::Deadline;
///
/// let mut request = http::Request::get("http://orders/").body(())?;
/// request.extensions_mut().insert(Deadline::within(Duration::from_millis(300)));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now on.
    pub fn within(time: Duration) -> Self {
        Self(later(Instant::now(), time))
    }

    /// At that moment.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The moment.
    pub fn instant(&self) -> Instant {
        self.0
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        Instant::now() >= self.0
    }
}
