//! What status codes and errors say of an instance.

use std::io;
use std::time::Duration;

use discovery_test_support::eventually;
use discovery_tower::balance::{Ejection, Outcome, Standing};
use discovery_tower::http::Http;
use discovery_tower::{HttpError, HttpErrorKind, HttpVersion, PooledBody};
use http::Response;
use tower::ServiceExt as _;

use super::server::{Body, Server, data, echo, empty, frames, soon};
use super::{
    Answered, SECOND, VERSIONS, ask, avoiding, call, get, key, plain, post, served_by, text, view,
    watched,
};

/// Answers `/503` with 503, and `/503?5` so that it is to be left alone for 5 s.
async fn told(version: HttpVersion) -> Server {
    Server::start(version, |request| async move {
        let code = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        let retry_after = request.uri().query().map(|query| query.replace('+', " "));
        let mut response = echo(code, request).await;
        if let Some(retry_after) = retry_after {
            response.headers_mut().insert("retry-after", retry_after.parse().unwrap());
        }
        Some(response)
    })
    .await
}

#[tokio::test]
async fn the_status_says_how_a_call_went() {
    use Outcome::{Failure, Success};
    for version in VERSIONS {
        let servers = [told(version).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        for (code, outcome) in [
            (200, Success),
            (204, Success),
            (304, Success),
            (400, Success),
            (404, Success),
            (429, Success),
            (500, Failure),
            (501, Success),
            (502, Failure),
            (503, Failure),
            (504, Failure),
            (505, Success),
        ] {
            assert_eq!(ask(&balance, get(&format!("/{code}"))).await.0, code);
            assert_eq!(watching.take(), [outcome], "{code}");
        }
        let view = view(&balance, "0");
        assert_eq!((view.successes, view.failures, view.pending), (8, 4, 0));
    }
}

#[tokio::test]
async fn retry_after_is_read_from_503_and_429_alone() {
    let servers = [told(HttpVersion::Http1).await];
    let (balance, watching) = plain(HttpVersion::Http1, Http::new(), &servers).await;
    let overloaded = |seconds: Option<u64>| Outcome::Overloaded {
        retry_after: seconds.map(Duration::from_secs),
    };
    for (path, outcome) in [
        ("/503?7", overloaded(Some(7))),
        ("/429?7", overloaded(Some(7))),
        ("/503?0", overloaded(Some(0))),
        ("/503?18446744073709551615", overloaded(Some(u64::MAX))),
        // What is no number is told without a time.
        ("/503?18446744073709551616", overloaded(None)),
        ("/429?-1", overloaded(None)),
        ("/429?Fri,+31+Dec+1999+23:59:59+GMT", overloaded(None)),
        ("/500?7", Outcome::Failure),
        ("/200?7", Outcome::Success),
        ("/301?7", Outcome::Success),
    ] {
        ask(&balance, get(path)).await;
        assert_eq!(watching.take(), [outcome], "{path}");
    }
}

#[tokio::test]
async fn an_overloaded_instance_is_left_alone_as_long_as_it_says_and_no_longer_than_10_s() {
    for (path, least, most) in [
        ("/503?5", 4, 5),
        ("/429?6", 5, 6),
        ("/503?18446744073709551615", 9, 10),
        ("/503?86400", 9, 10),
    ] {
        let version = HttpVersion::Http1;
        let servers = [told(version).await, told(version).await, told(version).await];
        let (balance, _) = watched(version, Http::new(), Ejection::default(), &servers).await;
        let response = call(&balance, avoiding(get(path), &["1", "2"])).await.unwrap();
        assert_eq!(served_by(&response), "0");
        let time = eventually(5 * SECOND, "left alone", async || {
            let view = view(&balance, "0");
            view.ejected_for.filter(|_| view.standing == Standing::Ejected)
        })
        .await;
        // A second in between, for a machine that is busy.
        let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
        assert!(time > least && time <= most, "{path}: {time:?}");
        for _ in 0..20 {
            assert_ne!(served_by(&call(&balance, get("/")).await.unwrap()), "0");
        }
    }
}

#[tokio::test]
async fn five_failures_in_a_row_put_an_instance_out() {
    let version = HttpVersion::Http1;
    let servers = [told(version).await, told(version).await, told(version).await];
    let (balance, _) = watched(version, Http::new(), Ejection::default(), &servers).await;
    let send = async |path: &str| ask(&balance, avoiding(get(path), &["1", "2"])).await;
    for _ in 0..4 {
        send("/500").await;
    }
    send("/404").await;
    for _ in 0..4 {
        send("/502").await;
    }
    assert_eq!(view(&balance, "0").standing, Standing::Up);
    send("/504").await;
    let out = async || view(&balance, "0").standing == Standing::Ejected;
    eventually(5 * SECOND, "ejected", out).await;
}

#[tokio::test]
async fn judged_by_a_function_that_has_the_head_or_the_error() {
    let version = HttpVersion::Http1;
    let judge = |result: Result<&Response<PooledBody>, &HttpError<Body>>| match result {
        Ok(response) if response.status() == 404 => Outcome::Failure,
        Ok(_) => Outcome::Success,
        Err(error) if error.kind() == HttpErrorKind::Reset => Outcome::Cancelled,
        Err(_) => Outcome::Ignore,
    };
    let servers = [told(version).await];
    let (balance, watching) = plain(version, Http::judged_by(judge), &servers).await;
    ask(&balance, get("/404")).await;
    ask(&balance, get("/500")).await;
    assert_eq!(watching.take(), [Outcome::Failure, Outcome::Success]);

    let silent = [Server::start(version, |_| async { None }).await];
    let (balance, watching) = plain(version, Http::judged_by(judge), &silent).await;
    call(&balance, get("/")).await.unwrap_err();
    assert_eq!(watching.take(), [Outcome::Cancelled]);
}

#[tokio::test]
async fn responses_and_errors_say_which_instance_it_was() {
    for version in VERSIONS {
        let good = told(version).await;
        let silent = Server::start(version, |_| async { None }).await;
        let servers = [good, silent];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let response = call(&balance, avoiding(get("/503"), &["1"])).await.unwrap();
        assert_eq!(served_by(&response), "0");
        let error = call(&balance, avoiding(post(frames([data("a")])), &["0"])).await.unwrap_err();
        assert_eq!(error.endpoint(), Some(&key("1")));
        assert!(!error.is_unsent());
        let inner = error.downcast_ref::<HttpError<Body>>().unwrap();
        assert_eq!((inner.key(), inner.kind()), (&key("1"), HttpErrorKind::Reset), "{error}");
        assert!(error.to_string().contains("orders/1"), "{error}");
        assert_eq!(watching.take(), [Outcome::Failure; 2]);
        assert_eq!(view(&balance, "1").failures, 1);
        assert_eq!(view(&balance, "1").pending, 0);
    }
}

#[tokio::test]
async fn a_request_that_spoils_itself_says_nothing_of_the_instance() {
    for version in VERSIONS {
        let servers = [told(version).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        for _ in 0..6 {
            let broken = [data("abc"), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
            let error = call(&balance, post(frames(broken))).await.unwrap_err();
            assert_eq!(view(&balance, "0").standing, Standing::Up, "{error}");
            let inner = error.downcast_ref::<HttpError<Body>>().unwrap();
            assert_eq!(inner.kind(), HttpErrorKind::Request, "{error:?}");
            assert!(inner.cause().contains("the request body: "), "{error}");
            assert_eq!(watching.take(), [Outcome::Ignore], "{error}");
        }
        // A length that is a lie. (Over HTTP/2 it is the instance that finds it out, and resets.)
        let mut short = post(frames([data("abc")]));
        short.headers_mut().insert("content-length", "10".parse().unwrap());
        if version == HttpVersion::Http1 {
            let error = call(&balance, short).await.unwrap_err();
            let kind = error.downcast_ref::<HttpError<Body>>().unwrap().kind();
            assert_eq!(kind, HttpErrorKind::Request, "{error:?}");
            assert_eq!(watching.take(), [Outcome::Ignore], "{error}");
        }
        assert_eq!(view(&balance, "0").failures, 0);
        assert_eq!(ask(&balance, get("/200")).await.0, 200);
    }
}

#[tokio::test]
async fn what_no_instance_can_do_fails_at_once_and_blames_nobody() {
    for version in VERSIONS {
        let servers = [told(version).await, told(version).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let request = http::Request::connect("a:80").body(empty()).unwrap();
        let error = call(&balance, request).await.unwrap_err();
        assert!(error.endpoint().is_some(), "{error}");
        assert!(error.to_string().contains("CONNECT"), "{error}");
        assert_eq!(watching.take(), [Outcome::Ignore]);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_failure() {
    let address = super::support::server::shutting(super::support::server::Shut::Nonsense).await;
    let watching = super::Watching::default();
    let changes = super::registry([address.as_str()]);
    let changes = discovery_core::Source::watch(&changes, &"orders".parse().unwrap());
    let balance = discovery_tower::balance::Builder::new(changes, super::PooledMaker::new())
        .protocol(Http::new())
        .policy(watching.clone())
        .spawn();
    let error = call(&balance, get("/")).await.unwrap_err();
    let kind = error.downcast_ref::<HttpError<Body>>().unwrap().kind();
    assert_eq!(kind, HttpErrorKind::Other, "{error}");
    assert_eq!(watching.take(), [Outcome::Failure]);
}

#[tokio::test]
async fn a_caller_that_goes_away_says_nothing_and_leaves_nothing() {
    for version in VERSIONS {
        let servers = [Server::start(version, |_| std::future::pending()).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        for n in 1..=6 {
            let calling = tokio::spawn(balance.clone().oneshot(get("/")));
            eventually(10 * SECOND, "asked", async || servers[0].asked() == n).await;
            assert_eq!(view(&balance, "0").pending, 1);
            calling.abort();
            assert!(soon(calling).await.is_err());
            assert_eq!(watching.take(), [Outcome::Cancelled]);
            let view = view(&balance, "0");
            assert_eq!((view.pending, view.successes, view.failures), (0, 0, 0));
            assert_eq!(view.unjudged, n as u64);
            // Its server hears of it.
            eventually(10 * SECOND, "let go", async || servers[0].under_way() == 0).await;
        }
    }
}

#[tokio::test]
async fn who_is_to_be_avoided_is_not_asked_and_with_nobody_left_it_fails_at_once() {
    use discovery_tower::CallError;
    use discovery_tower::balance::Unavailable;
    let version = HttpVersion::Http1;
    let servers = [told(version).await, told(version).await];
    let (balance, watching) = plain(version, Http::new(), &servers).await;
    for _ in 0..10 {
        let response = call(&balance, avoiding(get("/"), &["0"])).await.unwrap();
        assert_eq!(served_by(&response), "1");
    }
    watching.take();
    let answered: Answered = call(&balance, avoiding(get("/"), &["0", "1"])).await;
    let error = answered.unwrap_err();
    let CallError::Unavailable { reason, waited, endpoints, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*reason, *endpoints), (Unavailable::Avoided, 2));
    assert!(*waited < Duration::from_millis(500), "{waited:?}");
    assert!(error.is_unsent() && error.endpoint().is_none());
    assert_eq!((servers[0].asked(), watching.take().len()), (0, 0));
    // The list is of no concern to others.
    assert_eq!(text(call(&balance, get("/")).await.unwrap()).await, "");
}
