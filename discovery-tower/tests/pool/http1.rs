//! HTTP/1.1: a bounded number of connections, each for one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::eventually;
use discovery_tower::PoolConfig;
use futures::future::join_all;
use http::{Method, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service as _, ServiceExt as _};

use super::server::soon;
use super::{begin, call, empty, endpoint, get, post, served, served_by, streaming, text};

#[tokio::test]
async fn a_request_keeps_all_but_its_place() {
    let (server, endpoint) = served(&PoolConfig::default()).await;
    let host = server.address.strip_prefix("http://").unwrap();
    for uri in ["/a/b?c=d", "http://elsewhere:1/a/b?c=d", "https://elsewhere/a/b?c=d"] {
        let mut request = get(uri);
        *request.method_mut() = Method::PATCH;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert("host", "elsewhere".parse().unwrap());
        *request.body_mut() = streaming(3);
        let response = call(&endpoint, request).await.unwrap();
        assert_eq!(served_by(&response), "orders/7");
        let seen = format!("PATCH /a/b?c=d HTTP/1.1 host={host} body=abc");
        assert_eq!(text(response).await, seen, "the target is a path alone");
    }
    let response = call(&endpoint, get("http://elsewhere")).await.unwrap();
    assert!(text(response).await.starts_with("GET / "));
    assert_eq!(server.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_a_time_have_their_turn_on_four_connections() {
    let (server, endpoint) = served(&PoolConfig::default().max_connections(4)).await;
    for _ in 0..3 {
        let calls = (0..100).map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let mut request = post(streaming(2));
                *request.uri_mut() = "/slow".parse().unwrap();
                text(call(&endpoint, request).await.unwrap()).await
            })
        });
        for answer in join_all(calls).await {
            assert!(answer.unwrap().ends_with("body=ab"));
        }
    }
    assert_eq!((server.most(), server.requests()), (4, 300));
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn callers_have_their_turn_in_the_order_in_which_they_came() {
    let (server, endpoint) = served(&PoolConfig::default().max_connections(1)).await;
    let first = begin(&endpoint, get("/held")).await;
    server.holding(1).await;
    let order = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for number in 0..50 {
        let (mut endpoint, order) = (endpoint.clone(), order.clone());
        assert!(futures::poll!(endpoint.ready()).is_pending());
        waiting.push(tokio::spawn(async move {
            soon(endpoint.ready()).await.unwrap();
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), number);
            text(soon(endpoint.call(get("/"))).await.unwrap()).await;
        }));
    }
    server.release();
    soon(first).await.unwrap().unwrap();
    for waiting in waiting {
        soon(waiting).await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_is_free_when_the_body_of_the_response_has_ended_and_not_before() {
    let (server, endpoint) = served(&PoolConfig::default().max_connections(1)).await;
    let response = call(&endpoint, get("/trickle")).await.unwrap();
    let mut next = endpoint.clone();
    assert!(futures::poll!(next.ready()).is_pending());
    server.release();
    assert!(futures::poll!(next.ready()).is_pending());
    let mut body = response.into_body();
    while let Some(frame) = soon(body.frame()).await {
        frame.unwrap();
    }
    soon(next.ready()).await.unwrap();
    drop(body);
    text(soon(next.call(get("/"))).await.unwrap()).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_response_that_nobody_reads_costs_no_more_than_its_connection() {
    let (server, endpoint) = served(&PoolConfig::default().max_connections(2)).await;
    for _ in 0..10 {
        drop(call(&endpoint, get("/trickle")).await.unwrap());
    }
    text(call(&endpoint, get("/")).await.unwrap()).await;
    eventually(Duration::from_secs(10), "at most two are open", async || server.open() <= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_dropped_at_random_points_leave_nothing_behind() {
    const MOST: usize = 3;
    let (server, endpoint) = served(&PoolConfig::default().max_connections(MOST)).await;
    let seed = super::seed();
    let callers = (0..32).map(|caller| {
        let endpoint = endpoint.clone();
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(caller));
        tokio::spawn(async move {
            for _ in 0..60 {
                let patience = Duration::from_micros(rng.random_range(0..6_000));
                let path = if rng.random_bool(0.5) { "/slow" } else { "/" };
                let mut request = post(streaming(rng.random_range(0..3)));
                *request.uri_mut() = path.parse().unwrap();
                let mut clone = endpoint.clone();
                let only_ready = rng.random_bool(0.2);
                let work = async {
                    clone.ready().await.unwrap();
                    if !only_ready {
                        text(clone.call(request).await.unwrap()).await;
                    }
                };
                let _ = tokio::time::timeout(patience, work).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert!(format!("{endpoint:?}").contains("waiting: 0"), "{endpoint:?}");
    // All places are free again, all at the same time.
    let held = soon(join_all((0..MOST).map(|_| begin(&endpoint, get("/held"))))).await;
    server.holding(MOST).await;
    eventually(Duration::from_secs(10), "no other is open", async || server.open() == MOST).await;
    let mut one_more = endpoint.clone();
    assert!(futures::poll!(one_more.ready()).is_pending());
    server.release();
    for held in held {
        soon(held).await.unwrap().unwrap();
    }
    soon(one_more.ready()).await.unwrap();
    drop((one_more, endpoint));
    server.opened(0).await;
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_fails_no_request() {
    let (server, endpoint) = served(&PoolConfig::default()).await;
    for round in 0..1_000 {
        let response = call(&endpoint, post(streaming(3))).await;
        let response = response.unwrap_or_else(|error| panic!("{round}: {error:?}"));
        assert!(text(response).await.ends_with("body=abc"));
        if round % 2 == 0 {
            server.close_gracefully();
            if round % 4 == 0 {
                server.opened(0).await;
            } else {
                // Just closed, or about to be.
                eventually(Duration::from_secs(10), "closed", async || server.open() == 0).await;
            }
        }
    }
    assert!(server.accepted() >= 500, "{}", server.accepted());
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_noticed_without_a_request() {
    let (server, endpoint) = served(&PoolConfig::default()).await;
    text(call(&endpoint, get("/")).await.unwrap()).await;
    assert!(format!("{endpoint:?}").contains("connections: 1"), "{endpoint:?}");
    server.close_gracefully();
    eventually(Duration::from_secs(10), "it is forgotten", async || {
        format!("{endpoint:?}").contains("connections: 0")
    })
    .await;
}

#[tokio::test]
async fn asked_to_close_a_connection_is_not_used_again() {
    let (server, endpoint) = served(&PoolConfig::default()).await;
    for _ in 0..50 {
        text(call(&endpoint, get("/last")).await.unwrap()).await;
    }
    assert_eq!(server.accepted(), 50);
    server.opened(0).await;
}

#[tokio::test]
async fn restarted_between_requests_it_fails_none() {
    let (mut server, endpoint) = served(&PoolConfig::default()).await;
    for _ in 0..20 {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(begin(&endpoint, post(streaming(2))).await);
        }
        for held in held {
            soon(held).await.unwrap().unwrap();
        }
        server.kill().await;
        server.start_again().await;
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
    }
}

/// Reads up to and including this.
async fn read_to(socket: &mut TcpStream, end: &[u8]) -> Option<()> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(socket.read_u8().await.ok()?);
    }
    Some(())
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        // The only connection there will be.
        let (mut socket, _) = listener.accept().await.unwrap();
        while read_to(&mut socket, b"\r\n\r\n").await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
            socket.write_all(answer).await.unwrap();
            read_to(&mut socket, b"0\r\n\r\n").await.unwrap();
        }
    });
    let endpoint = endpoint(&address, PoolConfig::default().max_connections(1));
    for _ in 0..3 {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let request = post(StreamBody::new(receiver).boxed_unsync());
        let piece = Frame::data(Bytes::from_static(b"a"));
        sender.unbounded_send(Ok(piece)).unwrap();
        assert_eq!(text(call(&endpoint, request).await.unwrap()).await, "early");
        // The request has not ended, so the connection is not free.
        let mut next = endpoint.clone();
        assert!(futures::poll!(next.ready()).is_pending());
        drop(sender);
        soon(next.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn a_head_has_no_body_and_frees_its_connection() {
    let (server, endpoint) = served(&PoolConfig::default().max_connections(1)).await;
    for _ in 0..20 {
        let request = Request::head("/").body(empty()).unwrap();
        let response = call(&endpoint, request).await.unwrap();
        assert!(response.headers().contains_key("content-length"));
        assert_eq!(text(response).await, "");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn what_comes_before_the_answer_and_an_upgrade_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_to(&mut socket, b"\r\n\r\n").await.unwrap();
                let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
                let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                socket.write_all(early.as_bytes()).await.unwrap();
                socket.write_all(switch.as_bytes()).await.unwrap();
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let endpoint = endpoint(&address, PoolConfig::default().max_connections(1));
    for _ in 0..3 {
        let mut request = get("/");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "echo".parse().unwrap());
        let response = call(&endpoint, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut upgraded = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
        upgraded.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        soon(upgraded.read_exact(&mut echo)).await.unwrap();
        assert_eq!(&echo, b"hello");
    }
}

/// Serves each connection one answer that does not say that it closes, and closes it.
async fn closing_behind_answers() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 1024];
                if socket.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let _ = socket.write_all(answer).await;
                }
            });
        }
    });
    address
}

/// A request that is handed over just when its connection ends was once waited for for ever: one of some
/// hundred thousand, on a machine that is busy enough to stop a thread in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_meets_the_end_of_its_connection_has_an_end_too() {
    let address = closing_behind_answers().await;
    let callers = (0..8).map(|_| {
        let endpoint = endpoint(&address, PoolConfig::default());
        tokio::spawn(async move {
            for _ in 0..1_000 {
                // An answer, or an error: `call` waits no longer than a moment.
                drop(call(&endpoint, get("/")).await);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}
