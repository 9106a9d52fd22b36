//! What became of a call, as a balancer sees it.

use std::time::Duration;

/// What became of a call to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did what was asked, or said rightly that it could not.
    Success,
    /// The endpoint failed. It counts as if it had taken long, and towards ejection.
    Failure,
    /// It says nothing of the endpoint, such as a request that the caller spoilt.
    Ignore,
    /// The endpoint asks to be left alone for a while: for this long, or for a second if it did not say.
    /// It is no failure in a row, for which it would be left out for longer.
    Overloaded {
        /// How long.
        retry_after: Option<Duration>,
    },
    /// The caller gave up. It can make the endpoint look worse, never better.
    Cancelled,
}

impl Outcome {
    /// Whether it counts against the endpoint.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Overloaded { .. })
    }
}
