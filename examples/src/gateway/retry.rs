//! Which outcome of an attempt may be followed by another one.

use std::time::Duration;

use http::{Method, StatusCode};
use tower::retry::budget::TpsBudget;

/// Retries may be this part of the requests …
const PART: f32 = 0.2;
/// … and this many a second beside, so that a service with few requests has any.
const PER_SECOND: u32 = 10;
/// Over how long both are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// The retries that all requests to a service may use together: if everything fails, more load is
/// the last thing that helps.
pub(super) fn budget() -> TpsBudget {
    TpsBudget::new(COUNTED, PER_SECOND, PART)
}

/// What became of an attempt, as far as another one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The request certainly did not reach the instance.
    Unsent,
    /// The connection was lost before the head of the answer.
    Reset,
    /// There was an answer.
    Status(StatusCode),
    /// Anything else.
    Failed,
}

/// Whether to do it twice is the same as to do it once. (TRACE is, too, and nobody retries that.)
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Whether another instance may be tried.
pub(super) fn may_follow(ended: Ended, repeatable: bool) -> bool {
    match ended {
        Ended::Unsent => true,
        Ended::Reset => repeatable,
        Ended::Status(status) => repeatable && matches!(status.as_u16(), 500 | 502 | 503 | 504),
        Ended::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use tower::retry::budget::Budget as _;

    use super::*;

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_that_is_harmless() {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            assert!(is_repeatable(&method.parse().unwrap()), "{method}");
        }
        for method in ["POST", "PATCH", "TRACE", "PURGE"] {
            assert!(!is_repeatable(&method.parse().unwrap()), "{method}");
        }
        assert!(may_follow(Ended::Unsent, false) && may_follow(Ended::Unsent, true));
        assert!(!may_follow(Ended::Reset, false) && may_follow(Ended::Reset, true));
        assert!(!may_follow(Ended::Failed, true));
        for status in [500, 502, 503, 504] {
            let ended = Ended::Status(StatusCode::from_u16(status).unwrap());
            assert!(may_follow(ended, true) && !may_follow(ended, false), "{status}");
        }
        for status in [200, 404, 429, 501, 505] {
            assert!(!may_follow(Ended::Status(StatusCode::from_u16(status).unwrap()), true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_ten_a_second_and_a_fifth() {
        let used =
            |budget: &TpsBudget| std::iter::from_fn(|| budget.withdraw().then_some(())).count();
        let fresh = budget();
        assert_eq!(used(&fresh), 100);
        for _ in 0..1000 {
            fresh.deposit();
        }
        assert_eq!(used(&fresh), 200);
    }
}
