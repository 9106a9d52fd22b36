//! HTTP/2: one connection for all requests, until the instance closes it.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::eventually;
use discovery_tower::{HttpError, HttpErrorKind, HttpVersion, PoolConfig};
use futures::future::join_all;
use h2::Reason;
use http::{Request, Response, Version};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::server::{Server, soon};
use super::{
    Body, begin, call, empty, endpoint, get, http2, post, served, served_by, streaming, text,
};

#[tokio::test]
async fn a_request_is_to_the_authority_of_its_instance() {
    let (server, endpoint) = served(&http2()).await;
    let mut request = get("https://elsewhere/a/b?c=d");
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert("host", "elsewhere".parse().unwrap());
    *request.body_mut() = streaming(3);
    let response = call(&endpoint, request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(served_by(&response), "orders/7");
    let seen = format!("GET {}/a/b?c=d HTTP/2.0 host= body=abc", server.address);
    assert_eq!(text(response).await, seen);
}

#[tokio::test]
async fn grpc_addresses_are_spoken_to_in_http2() {
    let (server, _) = served(&http2()).await;
    let address = server.address.replace("http://", "grpc://");
    let endpoint = endpoint(&address, PoolConfig::default());
    assert_eq!(endpoint.protocol(), HttpVersion::Http2);
    let response = call(&endpoint, get("/")).await.unwrap();
    assert!(text(response).await.starts_with("GET http://"), "as TCP carries it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_a_time_share_one_connection() {
    let (server, endpoint) = served(&http2()).await;
    let calls = join_all((0..100).map(|_| begin(&endpoint, get("/held")))).await;
    server.holding(100).await;
    server.release();
    for call in calls {
        soon(call).await.unwrap().unwrap();
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn beyond_the_number_of_streams_callers_wait_for_their_turn() {
    let (server, endpoint) = served(&http2().max_streams(2)).await;
    let first = begin(&endpoint, get("/held")).await;
    let response = call(&endpoint, get("/trickle")).await.unwrap();
    let mut third = endpoint.clone();
    assert!(futures::poll!(third.ready()).is_pending());
    server.release();
    soon(first).await.unwrap().unwrap();
    soon(third.ready()).await.unwrap();
    let mut fourth = endpoint.clone();
    assert!(futures::poll!(fourth.ready()).is_pending(), "the body holds its place");
    assert_eq!(text(response).await, "begin end");
    soon(fourth.ready()).await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_goes_finishes_what_it_has_and_new_requests_have_another() {
    let (server, endpoint) = served(&http2()).await;
    let in_flight = join_all((0..20).map(|_| begin(&endpoint, get("/held")))).await;
    server.holding(20).await;
    server.close_gracefully();
    for _ in 0..20 {
        text(call(&endpoint, post(streaming(3))).await.unwrap()).await;
    }
    assert_eq!(server.accepted(), 2);
    assert!(in_flight.iter().all(|call| !call.is_finished()));
    server.release();
    for call in in_flight {
        soon(call).await.unwrap().unwrap();
    }
    server.opened(1).await;
}

/// What the network does to a connection that it forgets, but to no later one: nothing comes of it any more
/// from the second request on.
async fn forgotten() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            if number == 0 {
                // Until the answer is out.
                let _ = connection.accept().await;
                silent.push(connection);
            } else {
                tokio::spawn(async move { while connection.accept().await.is_some() {} });
            }
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_nothing_comes_of_any_more_is_not_used_for_ever() {
    let endpoint = endpoint(&forgotten().await, http2());
    call(&endpoint, get("/")).await.unwrap();
    let mut given_up = 0;
    eventually(Duration::from_secs(10), "an answer", async || {
        let time = Duration::from_millis(50);
        let answered = tokio::time::timeout(time, call(&endpoint, get("/"))).await;
        given_up += usize::from(answered.is_err());
        answered.is_ok_and(|response| response.is_ok())
    })
    .await;
    assert!(given_up >= 2, "{given_up}");
}

/// Closes connections for as long as the future runs, each after some requests.
async fn while_connections_go<T>(server: &Arc<Server>, future: impl Future<Output = T>) -> T {
    // One that is closed before it has served is a failure to connect.
    eventually(Duration::from_secs(10), "a first request", async || server.requests() >= 40).await;
    let closing = tokio::spawn({
        let server = server.clone();
        async move {
            loop {
                let before = server.requests();
                server.close_gracefully();
                while server.requests() < before + 40 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let result = future.await;
    closing.abort();
    assert!(server.accepted() > 1, "{}", server.accepted());
    result
}

/// Whether the kernel broke the connection off under a request that was on its way. It does where a socket
/// is closed with bytes of ours unread, and what the server said last may be lost with it: then it is not
/// known, and not claimed, that nothing came. That a server closes in good order cannot have this end.
fn is_cut_off(error: &HttpError<Body>) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause
        && !error.is::<io::Error>()
    {
        cause = error.source();
    }
    let kind = cause.and_then(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    let is_cut = matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    error.is_reset() && is_cut
}

/// Sends such requests while connections go. Returns how many failed, after a look whether they could
/// be sent again without harm.
async fn failures_while_connections_go(request: fn() -> Request<Body>) -> usize {
    let (server, endpoint) = served(&http2()).await;
    let server = Arc::new(server);
    let calls = (0..16).map(|_| {
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let mut failures = 0;
            for _ in 0..100 {
                match call(&endpoint, request()).await {
                    Ok(response) => drop(text(response).await),
                    Err(error) => {
                        assert!(error.is_unsent() || is_cut_off(&error), "{error:?}");
                        failures += 1;
                    }
                }
            }
            failures
        })
    });
    let calls = while_connections_go(&server, join_all(calls)).await;
    let failures = calls.into_iter().map(Result::unwrap).sum();
    assert_eq!(server.requests() + failures, 1_600, "of those that failed it has seen none");
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_connections_may_go_and_requests_go_to_the_next() {
    let failures = failures_while_connections_go(|| get("/")).await;
    // Only where a connection went before its first answer.
    assert!(failures <= 32, "{failures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_on_its_way_when_its_connection_went_is_unsent() {
    let failures = failures_while_connections_go(|| post(streaming(2))).await;
    assert!(failures <= 160, "{failures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_dropped_at_random_points_leave_nothing_behind() {
    const MOST: usize = 3;
    let (server, endpoint) = served(&http2().max_streams(MOST)).await;
    let seed = super::seed();
    let callers = (0..32).map(|caller| {
        let endpoint = endpoint.clone();
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(caller));
        tokio::spawn(async move {
            for _ in 0..60 {
                let patience = Duration::from_micros(rng.random_range(0..6_000));
                let work = async { text(call(&endpoint, get("/slow")).await.unwrap()).await };
                let _ = tokio::time::timeout(patience, work).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert!(format!("{endpoint:?}").contains("waiting: 0"), "{endpoint:?}");
    let held = join_all((0..MOST).map(|_| begin(&endpoint, get("/held")))).await;
    let mut one_more = endpoint.clone();
    assert!(futures::poll!(one_more.ready()).is_pending());
    server.release();
    for held in held {
        soon(held).await.unwrap().unwrap();
    }
    soon(one_more.ready()).await.unwrap();
    assert_eq!(server.accepted(), 1);
    drop((one_more, endpoint));
    server.opened(0).await;
}

#[tokio::test]
async fn restarted_between_requests_it_fails_none() {
    let (mut server, endpoint) = served(&http2()).await;
    for _ in 0..20 {
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
        server.kill().await;
        server.start_again().await;
        text(call(&endpoint, post(streaming(2))).await.unwrap()).await;
    }
}

/// What a server does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Refuse,
    Reset,
}

/// A server that answers `/first` when it has decided on another request.
async fn deciding(then: Then) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                let (mut first, mut decided) = (None, false);
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.uri().path() == "/first" {
                        first = Some(respond);
                    } else {
                        decided = true;
                        match then {
                            Then::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                            Then::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
                        }
                    }
                    if let Some(mut respond) = first.take_if(|_| decided) {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(Bytes::from_static(b"first"), true).unwrap();
                    }
                }
            });
        }
    });
    (address, accepted)
}

#[tokio::test]
async fn a_refused_stream_is_given_back_and_a_reset_one_is_reset() {
    for then in [Then::Refuse, Then::Reset] {
        let (address, accepted) = deciding(then).await;
        let endpoint = endpoint(&address, http2());
        let first = begin(&endpoint, get("/first")).await;
        let mut request = get("/second");
        request.headers_mut().insert("x-kept", "1".parse().unwrap());
        let error = call(&endpoint, request).await.unwrap_err();
        if then == Then::Refuse {
            assert_eq!(error.kind(), HttpErrorKind::Returned, "{error:?}");
            assert!(error.is_unsent() && error.cause().contains("refused"), "{error}");
        } else {
            assert_eq!(error.kind(), HttpErrorKind::Reset, "{error:?}");
            assert!(!error.is_unsent() && error.cause().contains("reset the stream"), "{error}");
        }
        let back = error.take_request().unwrap();
        assert_eq!(back.uri(), "/second");
        assert!(back.headers().contains_key("x-kept") && !back.headers().contains_key("host"));
        assert_eq!(soon(first).await.unwrap().unwrap(), "first");
        // Of the stream, not of the connection.
        let error = call(&endpoint, post(streaming(2))).await.unwrap_err();
        assert_eq!(error.is_unsent(), then == Then::Refuse, "{error:?}");
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
    }
}

/// Reads a frame: its kind and its stream.
async fn frame(socket: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    socket.read_exact(&mut payload).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// A server that, on its first connection, answers a request, waits for two more, and says goodbye to
/// the last. All others it answers.
async fn parting() -> String {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOODBYE: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((mut socket, _)) = listener.accept().await {
            let parting = std::mem::take(&mut first);
            tokio::spawn(async move {
                socket.read_exact(&mut [0; 24]).await.unwrap();
                socket.write_all(&SETTINGS).await.unwrap();
                while let Some((kind, stream)) = frame(&mut socket).await {
                    if kind != HEADERS || (parting && stream == 3) {
                        continue;
                    }
                    let answered = if parting && stream == 5 {
                        socket.write_all(&GOODBYE).await.unwrap();
                        3
                    } else {
                        u8::try_from(stream).unwrap()
                    };
                    // Status 200, and no body.
                    let answer = [0, 0, 1, 1, 5, 0, 0, 0, answered, 0x88];
                    socket.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_a_goodbye_does_not_count_in_goes_to_another_connection() {
    let endpoint = endpoint(&parting().await, http2());
    call(&endpoint, get("/")).await.unwrap();
    let (one, two) = tokio::join!(call(&endpoint, get("/")), call(&endpoint, post(empty())));
    assert!(one.unwrap().status() == 200 && two.unwrap().status() == 200);
}

#[tokio::test]
async fn who_waits_for_a_stream_is_woken_when_the_instance_allows_more() {
    // One stream at a time, then two.
    const ONE: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
    const TWO: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (more, mut asked) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 24]).await.unwrap();
        socket.write_all(&ONE).await.unwrap();
        let mut requests = 0;
        while requests < 2 {
            tokio::select! {
                frame = frame(&mut socket) => requests += usize::from(frame.unwrap().0 == 1),
                _ = asked.recv(), if requests == 1 => socket.write_all(&TWO).await.unwrap(),
            }
        }
        for stream in [1, 3] {
            socket.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, stream, 0x88]).await.unwrap();
        }
        while frame(&mut socket).await.is_some() {}
    });
    let endpoint = endpoint(&address, http2());
    let first = begin(&endpoint, get("/")).await;
    let mut second = endpoint.clone();
    assert!(futures::poll!(second.ready()).is_pending());
    more.send(()).await.unwrap();
    text(soon(second.oneshot(get("/"))).await.unwrap()).await;
    soon(first).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_goodbye_when_the_body_is_on_its_way_is_told_and_certainly_not_acted_on() {
    let endpoint = endpoint(&parting().await, http2());
    call(&endpoint, get("/")).await.unwrap();
    let outcomes =
        tokio::join!(call(&endpoint, post(streaming(2))), call(&endpoint, post(streaming(2))));
    let error = [outcomes.0, outcomes.1].into_iter().find_map(Result::err).unwrap();
    assert_eq!(error.kind(), HttpErrorKind::Returned, "{error:?}");
    assert_eq!(error.cause(), "the instance closes the connection");
    assert!(error.is_unsent() && error.take_request().is_none());
    // What follows has another connection.
    assert_eq!(call(&endpoint, post(streaming(2))).await.unwrap().status(), 200);
}

#[tokio::test]
async fn connections_that_break_before_they_served_are_not_made_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                drop(connection.accept().await);
            });
        }
    });
    let endpoint = endpoint(&address, http2());
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert!(call(&endpoint, get("/")).await.is_err());
        tokio::task::yield_now().await;
    }
    let accepted = accepted.load(Ordering::SeqCst);
    assert!((2..=14).contains(&accepted), "{accepted}");
}
