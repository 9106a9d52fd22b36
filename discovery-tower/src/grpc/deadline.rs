//! The time that a call has: read from the header `grpc-timeout`, and written there anew with what is
//! left of it when the request is sent. In between it is a [`Deadline`] like that of any request: whoever
//! waits for an instance or its answer keeps to it.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use tokio::time::Instant;

use crate::http::Deadline;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The protocol allows no more.
const DIGITS: usize = 8;
const MAX: u128 = 99_999_999;

/// How long a call may take, and when that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) time: Duration,
    pub(super) deadline: Instant,
}

impl Limit {
    /// Of a request, from now on: as its header says, or else `default`, and no longer than its
    /// [`Deadline`]. One that nobody lives to see is none.
    pub(super) fn of(head: &Parts, default: Option<Duration>) -> Option<Self> {
        let own = head.extensions.get::<Deadline>().map(Deadline::instant);
        let told = read(&head.headers).or(default);
        if own.is_none() && told.is_none() {
            return None;
        }
        let now = Instant::now();
        let told = told.and_then(|time| now.checked_add(time));
        let deadline = told.into_iter().chain(own).min()?;
        Some(Self { time: deadline.saturating_duration_since(now), deadline })
    }
}

/// The time that a request says it has. What cannot be read says nothing.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes how much time a request has.
pub(super) fn write(headers: &mut HeaderMap, left: Duration) {
    let nanos = left.as_nanos().max(1);
    let units =
        [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let fits = units.iter().find(|(unit, _)| nanos / unit <= MAX);
    let (unit, letter) = *fits.unwrap_or(&(3_600_000_000_000, 'H'));
    let number = (nanos / unit).min(MAX);
    if let Ok(value) = HeaderValue::try_from(format!("{number}{letter}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &'static str) -> Option<Duration> {
        read(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]))
    }

    #[test]
    fn times_are_read_in_all_units_and_what_is_none_is_none() {
        assert_eq!(read_text("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read_text("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read_text("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read_text("4m"), Some(Duration::from_millis(4)));
        assert_eq!(read_text("30000000u"), Some(Duration::from_secs(30)));
        assert_eq!(read_text("0n"), Some(Duration::ZERO));
        for none in ["", "S", "5", "5s", "-5S", "+5S", "5 S", "5.0S", "123456789S", "5S "] {
            assert_eq!(read_text(none), None, "{none:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
        let odd = HeaderValue::from_bytes(&[b'5', 0xff]).unwrap();
        assert_eq!(read(&HeaderMap::from_iter([(GRPC_TIMEOUT, odd)])), None);
    }

    #[test]
    fn what_is_written_is_read_as_that_or_hardly_less_and_never_as_nothing() {
        let mut headers = HeaderMap::new();
        for (time, text) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_secs(86_400), "86400000m"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::MAX, "99999999H"),
        ] {
            write(&mut headers, time);
            assert_eq!(headers[GRPC_TIMEOUT], text);
        }
        write(&mut headers, Duration::from_nanos(123_456_789));
        assert_eq!(read(&headers), Some(Duration::from_micros(123_456)));
        assert_eq!(headers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_header_goes_before_the_default_and_the_deadline_is_never_exceeded() {
        let seconds = Duration::from_secs;
        let mut head = http::Request::new(()).into_parts().0;
        let of = |head: &Parts, default| Limit::of(head, default).map(|limit| limit.time);
        assert_eq!(of(&head, None), None);
        head.extensions.insert(Deadline::within(seconds(5)));
        assert_eq!(of(&head, None), Some(seconds(5)));
        assert_eq!(of(&head, Some(seconds(2))), Some(seconds(2)));
        assert_eq!(of(&head, Some(Duration::MAX)), Some(seconds(5)));
        write(&mut head.headers, seconds(4));
        assert_eq!(of(&head, Some(seconds(2))), Some(seconds(4)));
        write(&mut head.headers, seconds(8));
        assert_eq!(of(&head, Some(seconds(2))), Some(seconds(5)));
        head.extensions.insert(Deadline::at(Instant::now()));
        assert_eq!(of(&head, None), Some(Duration::ZERO));
    }

    #[test]
    fn a_time_beyond_all_time_is_no_limit() {
        let head = http::Request::new(()).into_parts().0;
        assert_eq!(Limit::of(&head, Some(Duration::MAX)), None);
        let second = Duration::from_secs(1);
        assert_eq!(Limit::of(&head, Some(second)).unwrap().time, second);
    }
}
