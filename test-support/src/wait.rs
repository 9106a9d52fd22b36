//! How a test waits: for a condition, with a deadline, and with something to read when it fails.

use std::{
    any::Any,
    env, fmt,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    pin::pin,
    sync::OnceLock,
    task::Poll,
    time::{Duration, Instant},
};

use crate::version::{Version, versions};

const POLL: Duration = Duration::from_millis(5);

/// `limit` as long as this machine needs it: multiplied by `DISCOVERY_TEST_SLACK`.
///
/// # Panics
///
/// If the variable is not a number that is at least 0.
pub fn slack(limit: Duration) -> Duration {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    let factor = *FACTOR.get_or_init(|| match env::var("DISCOVERY_TEST_SLACK") {
        Ok(text) => factor(&text)
            .unwrap_or_else(|| panic!("DISCOVERY_TEST_SLACK={text} is not a factor up to 1000")),
        Err(_) => 1.0,
    });
    limit.mul_f64(factor)
}

fn factor(text: &str) -> Option<f64> {
    text.parse().ok().filter(|factor| (0.0..=1000.0).contains(factor))
}

/// Whether the long forms of the tests are asked for with `DISCOVERY_TEST_LONG`.
pub fn long() -> bool {
    env::var("DISCOVERY_TEST_LONG").is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// What a condition that is waited for can answer.
///
/// `bool` is yes or no; `Option` is a value or not yet; `Result` is a value, or what was seen instead,
/// which is then part of the failure's message.
pub trait Check {
    /// What the wait returns.
    type Value;

    /// The value, or what was seen instead of it.
    fn check(self) -> Result<Self::Value, String>;
}

impl Check for bool {
    type Value = ();

    fn check(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".into()) }
    }
}

impl<T> Check for Option<T> {
    type Value = T;

    fn check(self) -> Result<T, String> {
        self.ok_or_else(|| "None".into())
    }
}

impl<T, E: fmt::Debug> Check for Result<T, E> {
    type Value = T;

    fn check(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Asks `condition` again and again until it holds, and returns what it answered.
///
/// # Panics
///
/// When [`slack`]`(limit)` is over, saying where the wait is, for `what` it was and what was seen last;
/// also when a single question takes longer than what is left of the time.
#[track_caller]
pub fn eventually<C: Check>(
    limit: Duration,
    what: impl fmt::Display,
    condition: impl AsyncFnMut() -> C,
) -> impl Future<Output = C::Value> {
    poll(Location::caller(), limit, what, condition)
}

/// Waits until `actual` answers `expected`.
///
/// # Panics
///
/// As [`eventually`].
#[track_caller]
pub fn eventually_eq<T: PartialEq + fmt::Debug>(
    limit: Duration,
    what: impl fmt::Display,
    expected: T,
    mut actual: impl AsyncFnMut() -> T,
) -> impl Future<Output = ()> {
    let what = format!("{what} = {expected:?}");
    poll(Location::caller(), limit, what, async move || {
        let seen = actual().await;
        if seen == expected { Ok(()) } else { Err(seen) }
    })
}

async fn poll<C: Check>(
    place: &'static Location<'static>,
    limit: Duration,
    what: impl fmt::Display,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let limit = slack(limit);
    let deadline = Instant::now() + limit;
    let mut last = String::from("nothing");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // The last question is always given the time to be answered, however late it is asked.
        let Ok(answer) = tokio::time::timeout(left.max(POLL), condition()).await else {
            panic!(
                "{place}: not within {limit:?}: {what}; the last question was not answered, seen before: {last}"
            );
        };
        match answer.check() {
            Ok(value) => return value,
            Err(seen) => last = seen,
        }
        assert!(
            Instant::now() < deadline,
            "{place}: not within {limit:?}: {what}; last seen: {last}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Runs `test` on every version of etcd that there is, one after the other.
///
/// # Panics
///
/// When `test` does, with the version before its message; and if there is no etcd at all.
pub async fn on_each_version(mut test: impl AsyncFnMut(Version)) {
    for version in versions() {
        on(version, test(version)).await;
    }
}

/// Runs `test` on every version of etcd that there is, all at once: for tests that wait for most of their
/// time.
///
/// # Panics
///
/// As [`on_each_version`]; the first of them ends all.
pub async fn on_all_versions(test: impl AsyncFn(Version)) {
    let mut runs: Vec<_> =
        versions().into_iter().map(|version| Box::pin(on(version, test(version)))).collect();
    std::future::poll_fn(|cx| {
        runs.retain_mut(|run| run.as_mut().poll(cx).is_pending());
        if runs.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn on(version: Version, test: impl Future<Output = ()>) {
    let mut run = pin!(test);
    let outcome =
        std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(payload)),
        })
        .await;
    if let Err(payload) = outcome {
        panic!("on etcd {version}: {}", message(&*payload));
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked with something else than text")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(future: impl Future<Output = ()> + Send + 'static) -> String {
        let payload = tokio::spawn(future).await.expect_err("it panics").into_panic();
        message(&*payload).to_owned()
    }

    #[tokio::test]
    async fn it_returns_what_the_condition_answers_at_last() {
        let mut asked = 0;
        let answer = eventually(Duration::from_secs(5), "the third question", async || {
            asked += 1;
            (asked == 3).then_some("three")
        })
        .await;
        assert_eq!((answer, asked), ("three", 3));
    }

    #[tokio::test]
    async fn the_failure_says_where_what_and_what_was_seen() {
        let message = failure(async {
            eventually(Duration::from_millis(20), "the moon is blue", async || {
                Err::<(), _>("white")
            })
            .await;
        })
        .await;
        assert!(message.contains("wait.rs"), "{message}");
        assert!(message.contains("the moon is blue; last seen: \"white\""), "{message}");

        let message =
            failure(eventually_eq(Duration::from_millis(20), "moons", 2, async || 1)).await;
        assert!(message.contains("moons = 2; last seen: 1"), "{message}");
    }

    #[test]
    fn a_factor_is_a_number_that_makes_sense() {
        assert_eq!(factor("2"), Some(2.0));
        assert_eq!(factor("0.5"), Some(0.5));
        for wrong in ["", "x", "-1", "inf", "NaN"] {
            assert_eq!(factor(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_question_without_an_answer_does_not_hang_the_test() {
        let message = failure(async {
            eventually(Duration::from_millis(20), "an answer", async || {
                std::future::pending::<()>().await;
                true
            })
            .await;
        })
        .await;
        assert!(message.contains("an answer; the last question was not answered"), "{message}");
    }
}
