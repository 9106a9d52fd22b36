//! What the status of gRPC, in the head or the trailers, says of an instance.

use std::time::Duration;

use discovery_test_support::eventually;
use discovery_tower::HttpVersion;
use discovery_tower::balance::{Ejection, Outcome, Standing};
use discovery_tower::http::Grpc;
use http_body_util::BodyExt as _;

use super::server::{Body, Server, data, empty, frames, gated, reply, soon, trailers};
use super::{SECOND, avoiding, call, get, plain, served_by, view, watched};

const VERSION: HttpVersion = HttpVersion::Http2;

/// `/14` is answered with status 14 in the trailers, `/14/head` with that alone, `/14?7` with
/// `retry-after` beside it.
async fn statuses() -> Server {
    Server::start(VERSION, |request| async move {
        let path = request.uri().path();
        let status = path.trim_start_matches('/').trim_end_matches("/head");
        let mut pairs = vec![("grpc-status", status)];
        pairs.extend(request.uri().query().map(|time| ("retry-after", time)));
        let Ok(told) = trailers(&pairs) else { return None };
        Some(if path.ends_with("/head") {
            let mut response = reply(200, empty());
            response.headers_mut().extend(told.into_trailers().unwrap());
            response
        } else {
            reply(200, frames([data("message"), Ok(told)]))
        })
    })
    .await
}

fn outcome_of(status: u32) -> Outcome {
    match status {
        2 | 4 | 13 | 14 | 15 => Outcome::Failure,
        8 => Outcome::Ignore,
        _ => Outcome::Success,
    }
}

#[tokio::test]
async fn the_status_in_the_trailers_or_the_head_says_how_a_call_went() {
    let servers = [statuses().await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    for status in 0..=17 {
        let response = call(&balance, get(&format!("/{status}"))).await.unwrap();
        assert_eq!(served_by(&response), "0");
        assert!(watching.take().is_empty(), "it is not known yet");
        let view = || view(&balance, "0");
        assert!(view().pending == 1 && view().cost < 0.5);
        let whole = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], status.to_string());
        assert_eq!(watching.take(), [outcome_of(status)], "{status}");

        let held = call(&balance, get(&format!("/{status}/head"))).await.unwrap();
        assert_eq!(watching.take(), [outcome_of(status)], "{status}, in the head");
        assert_eq!(view().pending, 0);
        drop(held);
        assert!(watching.take().is_empty());
    }
    let view = view(&balance, "0");
    assert_eq!((view.failures, view.pending), (10, 0));
}

#[tokio::test]
async fn resource_exhausted_is_overload_only_if_it_says_for_how_long() {
    let overloaded =
        |seconds| Outcome::Overloaded { retry_after: Some(Duration::from_secs(seconds)) };
    let servers = [statuses().await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    for (path, outcome) in [
        ("/8?7", overloaded(7)),
        ("/8/head?7", overloaded(7)),
        ("/8?soon", Outcome::Ignore),
        ("/8", Outcome::Ignore),
        ("/14?7", Outcome::Failure),
        ("/5?7", Outcome::Success),
    ] {
        let response = call(&balance, get(path)).await.unwrap();
        soon(response.into_body().collect()).await.unwrap();
        assert_eq!(watching.take(), [outcome], "{path}");
    }
}

#[tokio::test]
async fn an_overloaded_instance_is_left_alone() {
    let servers = [statuses().await, statuses().await, statuses().await];
    let (balance, _) = watched(VERSION, Grpc::new(), Ejection::default(), &servers).await;
    let response = call(&balance, avoiding(get("/8?9"), &["1", "2"])).await.unwrap();
    soon(response.into_body().collect()).await.unwrap();
    let time = eventually(5 * SECOND, "left alone", async || view(&balance, "0").ejected_for).await;
    assert!(time > 8 * SECOND && time <= 9 * SECOND, "{time:?}");
}

/// One that gives a part of a stream and then nothing, as long as it is read; `/14` fails.
async fn streams() -> Server {
    Server::start(VERSION, |request| async move {
        if request.uri().path() == "/14" {
            return Some(reply(200, frames([trailers(&[("grpc-status", "14")])])));
        }
        let (gate, opened) = tokio::sync::oneshot::channel();
        let body = gated(data("one"), opened, []);
        drop(gate);
        Some(reply(200, body))
    })
    .await
}

#[tokio::test]
async fn a_stream_that_is_dropped_half_way_says_nothing_good_or_bad() {
    let servers = [streams().await, streams().await, streams().await];
    let (balance, watching) = watched(VERSION, Grpc::new(), Ejection::default(), &servers).await;
    let send = async |path| call(&balance, avoiding(get(path), &["1", "2"])).await.unwrap();
    for _ in 0..4 {
        soon(send("/14").await.into_body().collect()).await.unwrap();
    }
    assert_eq!(watching.take(), [Outcome::Failure; 4]);
    for _ in 0..20 {
        let mut response = send("/").await;
        assert_eq!(soon(response.frame()).await.unwrap().unwrap().into_data().unwrap(), "one");
        drop(response);
    }
    assert_eq!(watching.take(), [Outcome::Cancelled; 20]);
    let now = view(&balance, "0");
    assert_eq!((now.standing, now.failures, now.pending), (Standing::Up, 4, 0));
    // It was no success either: this is the fifth failure in a row.
    soon(send("/14").await.into_body().collect()).await.unwrap();
    let out = async || view(&balance, "0").standing == Standing::Ejected;
    eventually(5 * SECOND, "ejected", out).await;
}

#[tokio::test]
async fn long_streams_are_pending_and_not_waited_for() {
    let servers = [streams().await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    let mut held = Vec::new();
    for n in 1..=10 {
        held.push(call(&balance, get("/")).await.unwrap());
        let view = view(&balance, "0");
        assert_eq!(view.pending, n);
        assert!(view.cost < 0.5, "no answer is waited for");
    }
    assert!(watching.take().is_empty());
    drop(held);
    // What they took is what their heads took.
    let told = watching.take_all();
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|call| call.outcome == Outcome::Cancelled));
    assert_eq!(view(&balance, "0").pending, 0);
}

#[tokio::test]
async fn the_time_of_a_stream_is_the_time_to_its_head() {
    let (gates, mut opened) = tokio::sync::mpsc::unbounded_channel();
    let servers = [Server::start(VERSION, move |_| {
        let (gate, opened) = tokio::sync::oneshot::channel::<()>();
        gates.send(gate).unwrap();
        let body: Body = gated(data("one"), opened, [trailers(&[("grpc-status", "0")])]);
        async { Some(reply(200, body)) }
    })
    .await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    let begun = tokio::time::Instant::now();
    let response = call(&balance, get("/")).await.unwrap();
    let head = begun.elapsed();
    // Far longer than the head took.
    tokio::time::sleep(head + Duration::from_millis(20)).await;
    opened.recv().await.unwrap().send(()).unwrap();
    soon(response.into_body().collect()).await.unwrap();
    let told = watching.take_all();
    assert_eq!((told.len(), told[0].outcome), (1, Outcome::Success));
    assert!(u128::from(told[0].elapsed) <= head.as_nanos(), "{told:?}, {head:?}");
}

#[tokio::test]
async fn without_a_status_that_of_http_counts() {
    let servers = [Server::start(VERSION, |request| async move {
        let code = request.uri().path().trim_start_matches('/').parse().unwrap();
        let mut response = reply(code, frames([data("not grpc")]));
        if let Some(time) = request.uri().query() {
            response.headers_mut().insert("retry-after", time.parse().unwrap());
        }
        Some(response)
    })
    .await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    let overloaded = Outcome::Overloaded { retry_after: Some(7 * SECOND) };
    for (path, outcome) in [
        ("/500", Outcome::Failure),
        ("/502", Outcome::Failure),
        ("/503", Outcome::Failure),
        ("/503?7", overloaded),
        ("/404", Outcome::Success),
        // Whoever cuts it off in good order leaves no other sign.
        ("/200", Outcome::Failure),
    ] {
        let response = call(&balance, get(path)).await.unwrap();
        soon(response.into_body().collect()).await.unwrap();
        assert_eq!(watching.take(), [outcome], "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_and_a_lost_call_are_failures() {
    let servers = [Server::start(VERSION, |request| async move {
        let (gate, opened) = tokio::sync::oneshot::channel();
        gate.send(()).unwrap();
        let broken = Err(std::io::Error::other("gone"));
        (request.uri().path() == "/").then(|| reply(200, gated(data("one"), opened, [broken])))
    })
    .await];
    let (balance, watching) = plain(VERSION, Grpc::new(), &servers).await;
    let broken = match call(&balance, get("/")).await {
        Ok(response) => soon(response.into_body().collect()).await.is_err(),
        Err(_) => true,
    };
    assert!(broken);
    assert_eq!(watching.take(), [Outcome::Failure]);
    call(&balance, get("/lost")).await.unwrap_err();
    assert_eq!(watching.take(), [Outcome::Failure]);
    let view = view(&balance, "0");
    assert_eq!((view.failures, view.pending), (2, 0));
}
