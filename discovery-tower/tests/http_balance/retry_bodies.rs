//! Which bodies are sent again, and that nobody ever gets a part of one for the whole.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use discovery_test_support::eventually;
use discovery_tower::http::RetryLayer;
use discovery_tower::{HttpVersion, PoolConfig, PooledMaker};
use http::Request;
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};
use tower::{Layer as _, ServiceExt as _};

use super::retry::{Inner, asked, balance, inner, saying, send, total};
use super::server::{Body, Server, data, echo, empty, frames, full, gated, reply, soon};
use super::{SECOND, VERSIONS, avoiding, text};

const LIMIT: usize = 64 * 1024;

fn put(body: Body) -> Request<Body> {
    Request::put("/").body(body).unwrap()
}

fn bytes(len: usize) -> Bytes {
    (b'a'..=b'w').cycle().take(len).collect()
}

/// In pieces, and of a length that is not known.
fn pieces(len: usize) -> Body {
    let all = bytes(len);
    frames((0..len).step_by(10_000).map(|at| data(all.slice(at..len.min(at + 10_000)))))
}

#[tokio::test]
async fn up_to_64_kb_are_sent_again_and_no_more() {
    for version in VERSIONS {
        let servers = saying(version, 503, 2).await;
        let service = RetryLayer::new(1).layer(inner(version, &servers));
        for (len, often) in [(1, 2), (LIMIT - 1, 2), (LIMIT, 2), (LIMIT + 1, 1), (3 * LIMIT, 1)] {
            for body in [full(bytes(len)), pieces(len)] {
                let had = total(&servers);
                let response = send(&service, put(body)).await.unwrap();
                assert_eq!(response.status(), 503);
                assert_eq!(total(&servers) - had, often, "{len} bytes");
                assert!(text(response).await == bytes(len), "it came whole");
            }
        }
    }
}

#[tokio::test]
async fn the_limit_can_be_set() {
    for (limit, len, often) in [(0, 1, 1), (0, 0, 2), (5, 5, 2), (5, 6, 1)] {
        let servers = saying(HttpVersion::Http1, 503, 2).await;
        let layer = RetryLayer::new(1).body_limit(limit);
        let service = layer.layer(inner(HttpVersion::Http1, &servers));
        let body = if len == 0 { empty() } else { pieces(len) };
        send(&service, put(body)).await.unwrap();
        assert_eq!(total(&servers), often, "{len} of {limit} bytes");
    }
}

#[tokio::test]
async fn a_body_that_goes_on_while_the_first_answer_is_there_goes_to_the_second_whole() {
    for version in VERSIONS {
        let (gate, opened) = oneshot::channel();
        let gate = Arc::new(Mutex::new(Some(gate)));
        // Who is asked first refuses at once, when a part of the body is still to come.
        let answer = move |request| {
            let gate = gate.lock().unwrap().take();
            async move {
                let Some(gate) = gate else { return Some(echo(200, request).await) };
                gate.send(()).unwrap();
                Some(reply(503, full("early")))
            }
        };
        let servers =
            [Server::start(version, answer.clone()).await, Server::start(version, answer).await];
        let service = RetryLayer::new(1).layer(inner(version, &servers));
        let all = bytes(20_000);
        let body = gated(data(all.slice(..10)), opened, [data(all.slice(10..))]);
        let response = send(&service, put(body)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(text(response).await == all, "it came whole");
        assert_eq!(asked(&servers), [1, 1]);
    }
}

/// The first instance answers early and reads on; before the second has a connection free, more has
/// passed than is recorded.
#[tokio::test]
async fn a_body_of_which_too_much_has_passed_meanwhile_is_sent_to_nobody_in_part() {
    let version = HttpVersion::Http1;
    let (has_read, mut read) = mpsc::unbounded_channel();
    let early = Server::start(version, move |request| {
        let has_read = has_read.clone();
        async move {
            tokio::spawn(async move {
                let body = request.into_body().collect().await;
                has_read.send(body.map(|body| body.to_bytes().len()).ok()).unwrap();
            });
            Some(reply(503, full("early")))
        }
    })
    .await;
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let (got, mut given) = mpsc::unbounded_channel();
    let busy = Server::start(version, move |request| {
        let (released, got) = (released.lock().unwrap().take(), got.clone());
        async move {
            if let Some(released) = released {
                released.await.unwrap();
                return Some(reply(200, empty()));
            }
            let body = request.into_body().collect().await;
            got.send(body.map(http_body_util::Collected::to_bytes).ok()).unwrap();
            Some(reply(200, empty()))
        }
    })
    .await;
    let servers = [early, busy];
    let config = PoolConfig::default().max_connections(1);
    let balance: Inner = balance(PooledMaker::with(config), &servers);
    let service = RetryLayer::new(1).layer(balance);

    let held = tokio::spawn(service.clone().oneshot(avoiding(put(empty()), &["0"])));
    eventually(10 * SECOND, "busy", async || servers[1].asked() == 1).await;
    let (gate, opened) = oneshot::channel();
    let body = gated(data("part"), opened, [data(bytes(LIMIT)), data("end")]);
    let calling = tokio::spawn(service.clone().oneshot(put(body)));
    eventually(10 * SECOND, "answered", async || {
        servers[0].asked() == 1 && servers[0].under_way() == 0
    })
    .await;
    gate.send(()).unwrap();
    assert_eq!(soon(read.recv()).await.unwrap(), Some(LIMIT + 7), "the first has all of it");
    release.send(()).unwrap();
    assert_eq!(soon(held).await.unwrap().unwrap().status(), 200);

    let response = soon(calling).await.unwrap().unwrap();
    assert_eq!(response.status(), 503, "the first answer stands");
    assert_eq!(text(response).await, "early");
    drop(service);
    if servers[1].asked() > 1 {
        assert_eq!(soon(given.recv()).await.unwrap(), None, "no body that looks whole");
    }
}
