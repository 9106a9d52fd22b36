//! How long a call counts as pending, and what becomes of its outcome while the body is read.

use std::io;

use discovery_test_support::{eventually, eventually_eq};
use discovery_tower::HttpVersion;
use discovery_tower::balance::{Ejection, Outcome, Standing};
use discovery_tower::http::Http;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::server::{Server, data, empty, frames, full, gated, reply, soon};
use super::{SECOND, VERSIONS, ask, avoiding, call, get, plain, served_by, text, view, watched};

/// Begins a body at once, and ends it when the gate that it hands out is opened.
async fn slow(version: HttpVersion) -> (Server, mpsc::UnboundedReceiver<Gate>) {
    let (gates, opened) = mpsc::unbounded_channel();
    let server = Server::start(version, move |_| {
        let (gate, opened) = tokio::sync::oneshot::channel();
        gates.send(gate).unwrap();
        async { Some(reply(200, gated(data("begin "), opened, [data("end")]))) }
    });
    (server.await, opened)
}

type Gate = tokio::sync::oneshot::Sender<()>;

/// Answers 200, and breaks off after a part of the body.
async fn breaking(version: HttpVersion, code: u16) -> Server {
    Server::start(version, move |_| async move {
        let broken = Err(io::Error::other("gone"));
        // The part is sent before the rest breaks off.
        let (gate, opened) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            gate.send(())
        });
        Some(reply(code, gated(data("half"), opened, [broken])))
    })
    .await
}

#[tokio::test]
async fn a_call_is_pending_until_its_body_ends_and_took_as_long_as_its_head() {
    for version in VERSIONS {
        let (server, mut gates) = slow(version).await;
        let servers = [server];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let begun = Instant::now();
        let response = call(&balance, get("/")).await.unwrap();
        let head = begun.elapsed();
        // Its outcome is known with the head.
        let told = watching.take_all();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].outcome, Outcome::Success);
        assert!(u128::from(told[0].elapsed) <= head.as_nanos());
        let at_head = view(&balance, "0");
        assert_eq!((at_head.pending, at_head.successes), (1, 0));
        // None of those that are waited for.
        assert!(at_head.cost < 0.5);

        gates.recv().await.unwrap().send(()).unwrap();
        assert_eq!(text(response).await, "begin end");
        let at_end = view(&balance, "0");
        assert_eq!((at_end.pending, at_end.successes, at_end.failures), (0, 1, 0));
        assert!(watching.take().is_empty());
    }
}

#[tokio::test]
async fn a_call_whose_body_is_dropped_is_over_and_was_good() {
    for version in VERSIONS {
        let (server, mut gates) = slow(version).await;
        let servers = [server];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let mut response = call(&balance, get("/")).await.unwrap();
        soon(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(view(&balance, "0").pending, 1);
        drop(response);
        let view = view(&balance, "0");
        assert_eq!((view.pending, view.successes, view.failures), (0, 1, 0));
        assert_eq!(watching.take(), [Outcome::Success]);
        drop(gates.recv().await);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_makes_the_call_a_failure() {
    for version in VERSIONS {
        let servers = [breaking(version, 200).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let response = call(&balance, get("/")).await.unwrap();
        assert_eq!(served_by(&response), "0");
        assert!(soon(response.into_body().collect()).await.is_err());
        assert_eq!(watching.take(), [Outcome::Success, Outcome::Failure]);
        let view = view(&balance, "0");
        assert_eq!((view.pending, view.successes, view.failures), (0, 0, 1));
    }
}

#[tokio::test]
async fn a_request_that_spoils_itself_when_its_answer_has_begun_says_nothing_of_the_instance() {
    for version in VERSIONS {
        // It goes on reading the request, and answers meanwhile.
        let server = Server::start(version, |request| async move {
            let (gate, opened) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                drop(request.into_body().collect().await);
                gate.send(())
            });
            Some(reply(200, gated(data("begin "), opened, [data("end")])))
        });
        let servers = [server.await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let (gate, opened) = tokio::sync::oneshot::channel();
        let broken = Err(io::Error::from(io::ErrorKind::ConnectionReset));
        let body = gated(data("a"), opened, [broken]);
        let response = call(&balance, super::post(body)).await.unwrap();
        gate.send(()).unwrap();
        let error = soon(response.into_body().collect()).await.unwrap_err();
        assert_eq!(watching.take(), [Outcome::Success], "{error:?}");
        let view = view(&balance, "0");
        assert_eq!((view.pending, view.failures), (0, 0));
    }
}

#[tokio::test]
async fn a_call_that_failed_does_not_fail_again_when_its_body_breaks_off() {
    for version in VERSIONS {
        let servers = [breaking(version, 500).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        let response = call(&balance, get("/")).await.unwrap();
        assert!(soon(response.into_body().collect()).await.is_err());
        assert_eq!(watching.take(), [Outcome::Failure]);
        assert_eq!(view(&balance, "0").failures, 1);
    }
}

#[tokio::test]
async fn an_instance_whose_bodies_all_break_off_is_put_out_for_it() {
    let version = HttpVersion::Http1;
    let servers = [
        breaking(version, 200).await,
        Server::saying(version, 200).await,
        Server::saying(version, 200).await,
    ];
    let (balance, _) = watched(version, Http::new(), Ejection::default(), &servers).await;
    for n in 0..5 {
        assert_eq!(view(&balance, "0").standing, Standing::Up, "after {n}");
        let response = call(&balance, avoiding(get("/"), &["1", "2"])).await.unwrap();
        assert!(soon(response.into_body().collect()).await.is_err());
    }
    let out = async || view(&balance, "0").standing == Standing::Ejected;
    eventually(5 * SECOND, "ejected", out).await;
}

#[tokio::test]
async fn on_probation_a_call_has_served_when_its_body_has_ended() {
    let version = HttpVersion::Http1;
    let (gates, mut opened) = mpsc::unbounded_channel::<Gate>();
    let server = Server::start(version, move |request| {
        let (gate, opened) = tokio::sync::oneshot::channel();
        let response = if request.uri().path() == "/500" {
            reply(500, empty())
        } else {
            gates.send(gate).unwrap();
            reply(200, gated(data("a"), opened, [data("b")]))
        };
        async { Some(response) }
    })
    .await;
    let servers = [server, Server::saying(version, 200).await, Server::saying(version, 200).await];
    let short = std::time::Duration::from_millis(50);
    let ejection = Ejection::default().consecutive(1).probation(1).lasting(short, short);
    let (balance, _) = watched(version, Http::new(), ejection, &servers).await;
    call(&balance, avoiding(get("/500"), &["1", "2"])).await.unwrap();
    let standing = async || view(&balance, "0").standing;
    eventually_eq(5 * SECOND, "standing", Standing::Probation, standing).await;
    let response = call(&balance, avoiding(get("/"), &["1", "2"])).await.unwrap();
    assert_eq!(standing().await, Standing::Probation);
    opened.recv().await.unwrap().send(()).unwrap();
    assert_eq!(text(response).await, "ab");
    eventually_eq(5 * SECOND, "standing", Standing::Up, standing).await;
}

#[tokio::test]
async fn without_a_body_a_call_is_over_with_its_head() {
    for version in VERSIONS {
        let answer = move |request: Request<Incoming>| async move {
            let code = request.uri().path().trim_start_matches('/').parse().unwrap();
            // Over HTTP/2 hyper leaves it to us that there is no body to HEAD.
            let head = request.method() == Method::HEAD && version == HttpVersion::Http1;
            Some(reply(code, if head { full("text") } else { empty() }))
        };
        let servers = [Server::start(version, answer).await];
        let (balance, watching) = plain(version, Http::new(), &servers).await;
        for (method, path) in [
            (Method::HEAD, "/200"),
            (Method::GET, "/204"),
            (Method::GET, "/304"),
            (Method::GET, "/200"),
            (Method::DELETE, "/200"),
        ] {
            let mut request = get(path);
            *request.method_mut() = method.clone();
            let response: Response<_> = call(&balance, request).await.unwrap();
            // Whoever holds such a response reads nothing of it.
            let view = view(&balance, "0");
            assert_eq!((view.pending, view.failures), (0, 0), "{method} {path}");
            assert_eq!(watching.take(), [Outcome::Success]);
            assert_eq!(text(response).await, "");
        }
        assert_eq!(view(&balance, "0").successes, 5);
    }
}

#[tokio::test]
async fn a_body_of_known_length_is_over_with_its_last_piece() {
    for version in VERSIONS {
        let servers = [Server::start(version, |_| async { Some(reply(200, full("text"))) }).await];
        let (balance, _) = plain(version, Http::new(), &servers).await;
        let mut response = call(&balance, get("/")).await.unwrap();
        assert_eq!(view(&balance, "0").pending, 1);
        let frame = soon(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "text");
        if version == HttpVersion::Http1 {
            assert_eq!(view(&balance, "0").pending, 0, "it is not asked again");
        }
        assert!(soon(response.body_mut().frame()).await.is_none());
        assert_eq!(view(&balance, "0").pending, 0);
    }
}

#[tokio::test]
async fn an_upgrade_passes_and_its_call_is_over() {
    let version = HttpVersion::Http1;
    let servers = [Server::start(version, |mut request| async move {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            let mut word = [0; 4];
            upgraded.read_exact(&mut word).await.unwrap();
            word.reverse();
            upgraded.write_all(&word).await.unwrap();
        });
        let response = Response::builder().status(101);
        let response = response.header("connection", "upgrade").header("upgrade", "mirror");
        Some(response.body(empty()).unwrap())
    })
    .await];
    let (balance, watching) = plain(version, Http::new(), &servers).await;
    let mut request = get("/");
    for (name, value) in [("connection", "upgrade"), ("upgrade", "mirror")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut response = call(&balance, request).await.unwrap();
    assert_eq!((response.status().as_u16(), served_by(&response)), (101, "0"));
    assert_eq!(watching.take(), [Outcome::Success]);
    assert_eq!(view(&balance, "0").pending, 0);
    let upgraded = soon(hyper::upgrade::on(&mut response)).await.unwrap();
    let mut upgraded = TokioIo::new(upgraded);
    upgraded.write_all(b"abcd").await.unwrap();
    let mut word = [0; 4];
    soon(upgraded.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"dcba");
}

#[tokio::test]
async fn calls_at_the_same_time_are_counted_one_by_one() {
    for version in VERSIONS {
        let (server, mut gates) = slow(version).await;
        let servers = [server];
        let (balance, _) = plain(version, Http::new(), &servers).await;
        let mut responses = Vec::new();
        for n in 1..=5 {
            responses.push(call(&balance, get("/")).await.unwrap());
            assert_eq!(view(&balance, "0").pending, n);
        }
        for left in (0..5).rev() {
            drop(responses.pop());
            assert_eq!(view(&balance, "0").pending, left);
        }
        gates.close();
        assert_eq!(view(&balance, "0").successes, 5);
    }
    let version = HttpVersion::Http1;
    let servers =
        [Server::start(version, |_| async { Some(reply(200, frames([data("a")]))) }).await];
    let (balance, _) = plain(version, Http::new(), &servers).await;
    assert_eq!(ask(&balance, get("/")).await.1, "a");
    assert_eq!(view(&balance, "0").pending, 0);
}
