//! What is tried again, where, and how often.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use discovery_core::{InstanceKey, Source as _};
use discovery_test_support::eventually;
use discovery_tower::balance::{Builder, Ejection, Standing, Unavailable};
use discovery_tower::http::{Http, Replay, Retried, Retry, RetryLayer, Tracked, Tries};
use discovery_tower::{CallError, HttpError, HttpVersion, PoolConfig, PooledBody, PooledMaker};
use http::{Method, Request, Response, Version};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use super::server::{Body, Server, data, echo, empty, frames, full, gated, reply, soon};
use super::{
    Bal, SECOND, VERSIONS, Watching, addresses, avoiding, get, post, registry, served_by, text,
};

pub(super) type Inner = Bal<Http, Replay<Body>>;

/// The balancer that a retry layer is put on.
pub(super) fn inner(version: HttpVersion, servers: &[Server]) -> Inner {
    balance(PooledMaker::with(PoolConfig::default().protocol(version)), servers)
}

pub(super) fn balance(maker: PooledMaker<Replay<Body>>, servers: &[Server]) -> Inner {
    Builder::new(registry(addresses(servers)).watch(&"orders".parse().unwrap()), maker)
        .protocol(Http::new())
        .policy(Watching::default())
        .ejection(Ejection::never())
        .spawn()
}

pub(super) type Service = Retry<Inner>;
type Answered = Result<Response<Tracked<PooledBody, InstanceKey>>, CallError<InstanceKey>>;

/// So many servers that answer with this status.
pub(super) async fn saying(version: HttpVersion, code: u16, count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::saying(version, code).await);
    }
    servers
}

pub(super) fn asked(servers: &[Server]) -> Vec<usize> {
    servers.iter().map(Server::asked).collect()
}

pub(super) fn total(servers: &[Server]) -> u32 {
    u32::try_from(asked(servers).iter().sum::<usize>()).unwrap()
}

pub(super) async fn send(service: &Service, request: Request<Body>) -> Answered {
    soon(service.clone().oneshot(request)).await
}

/// Sends a request: how many instances had it, and the response.
async fn tried(service: &Service, mut request: Request<Body>) -> (u32, Answered) {
    let tries = Tries::default();
    request.extensions_mut().insert(tries.clone());
    let answered = send(service, request).await;
    (tries.get(), answered)
}

fn request(method: &Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/").body(body).unwrap()
}

fn told() -> (impl Fn(Retried) + Send + Sync + 'static, Arc<Mutex<Vec<Retried>>>) {
    let told = Arc::<Mutex<Vec<Retried>>>::default();
    let observed = told.clone();
    (move |what| observed.lock().unwrap().push(what), told)
}

#[tokio::test]
async fn methods_that_may_be_done_twice_are_tried_again_and_no_others() {
    for version in VERSIONS {
        let servers = saying(version, 503, 2).await;
        let service = RetryLayer::new(1).layer(inner(version, &servers));
        for (method, often) in [
            (Method::GET, 2),
            (Method::HEAD, 2),
            (Method::OPTIONS, 2),
            (Method::PUT, 2),
            (Method::DELETE, 2),
            (Method::POST, 1),
            (Method::PATCH, 1),
            (Method::TRACE, 1),
            (Method::from_bytes(b"PURGE").unwrap(), 1),
        ] {
            for body in [empty(), frames([data("a"), data("b")])] {
                let had = total(&servers);
                let (tries, answered) = tried(&service, request(&method, body)).await;
                assert_eq!(answered.unwrap().status(), 503);
                assert_eq!((total(&servers) - had, tries), (often, often), "{method}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_head_says_may_be_done_twice_is_tried_again_too() {
    for version in VERSIONS {
        let servers = saying(version, 503, 2).await;
        let with_key = RetryLayer::new(1).repeating(|head| head.headers.contains_key("x-key"));
        let none = RetryLayer::new(0).repeating(|_| true);
        let keyed = |method| {
            let mut request = request(&method, frames([data("a"), data("b")]));
            request.headers_mut().insert("x-key", "1".parse().unwrap());
            request
        };
        let plain = || request(&Method::POST, empty());
        for (layer, request, often) in [
            (&with_key, keyed(Method::POST), 2),
            (&with_key, keyed(Method::PATCH), 2),
            (&with_key, plain(), 1),
            // The methods that may be done twice stay such.
            (&with_key, request(&Method::GET, empty()), 2),
            (&none, keyed(Method::POST), 1),
        ] {
            let service = layer.layer(inner(version, &servers));
            let (tries, answered) = tried(&service, request).await;
            assert_eq!((answered.unwrap().status().as_u16(), tries), (503, often));
        }
    }
}

#[tokio::test]
async fn a_status_of_grpc_in_the_head_is_tried_again_if_it_is_unavailable() {
    let version = HttpVersion::Http2;
    for (status, often) in [("14", 2), ("0", 1), ("4", 1), ("13", 1)] {
        let mut servers = Vec::new();
        for _ in 0..2 {
            let answer = move || {
                let mut response = reply(200, empty());
                response.headers_mut().insert("grpc-status", status.parse().unwrap());
                response
            };
            servers.push(
                Server::start(version, move |_| {
                    let answer = answer();
                    async move { Some(answer) }
                })
                .await,
            );
        }
        let service = RetryLayer::new(1).repeating(|_| true).layer(inner(version, &servers));
        let (tries, _) = tried(&service, request(&Method::POST, full("a"))).await;
        assert_eq!(tries, often, "{status}");
    }
}

#[tokio::test]
async fn statuses_that_say_the_instance_failed_are_tried_again_and_no_others() {
    for (code, often) in [
        (500, 2),
        (502, 2),
        (503, 2),
        (504, 2),
        (501, 1),
        (505, 1),
        (429, 1),
        (408, 1),
        (404, 1),
        (304, 1),
        (200, 1),
    ] {
        let servers = saying(HttpVersion::Http1, code, 2).await;
        let service = RetryLayer::new(1).layer(inner(HttpVersion::Http1, &servers));
        let (tries, answered) = tried(&service, get("/")).await;
        assert_eq!(answered.unwrap().status(), code);
        assert_eq!((total(&servers), tries), (often, often), "{code}");
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_head_is_tried_again_and_the_last_error_stands() {
    for version in VERSIONS {
        let servers = [
            Server::start(version, |_| async { None }).await,
            Server::start(version, |_| async { None }).await,
        ];
        let service = RetryLayer::new(5).layer(inner(version, &servers));
        let (tries, answered) = tried(&service, get("/")).await;
        let error = answered.unwrap_err();
        let lost = error.downcast_ref::<HttpError<Replay<Body>>>().unwrap();
        assert!(lost.is_reset(), "{error}");
        assert_eq!((asked(&servers), tries), (vec![1, 1], 2));

        let had = total(&servers);
        let error = send(&service, post(empty())).await.unwrap_err();
        assert!(error.endpoint().is_some());
        assert_eq!(total(&servers) - had, 1, "a POST may have been acted on");
    }
}

#[tokio::test]
async fn the_good_one_of_three_serves_and_none_is_asked_twice() {
    for version in VERSIONS {
        let servers = [
            Server::saying(version, 502).await,
            Server::start(version, |_| async { None }).await,
            Server::saying(version, 200).await,
        ];
        let service = RetryLayer::new(2).layer(inner(version, &servers));
        for n in 1..=20 {
            let (_, answered) = tried(&service, request(&Method::PUT, full("text"))).await;
            let response = answered.unwrap();
            assert_eq!((response.status().as_u16(), served_by(&response)), (200, "2"));
            assert_eq!(text(response).await, "text");
            assert_eq!(servers[2].asked(), n);
            assert!(servers[0].asked() <= n && servers[1].asked() <= n);
        }
    }
}

#[tokio::test]
async fn when_nobody_is_left_the_last_answer_stands_and_can_be_read() {
    for version in VERSIONS {
        let servers = saying(version, 503, 3).await;
        let service = RetryLayer::new(10).layer(inner(version, &servers));
        let (tries, answered) = tried(&service, request(&Method::PUT, full("text"))).await;
        let response = answered.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!((asked(&servers), tries), (vec![1, 1, 1], 3));
        assert_eq!(text(response).await, "text");
    }
}

#[tokio::test]
async fn an_answer_stands_also_if_its_instance_is_gone_when_another_one_is_looked_for() {
    let version = HttpVersion::Http1;
    let registry = discovery_core::MemoryRegistry::new();
    let removing = registry.clone();
    let server = Server::start(version, move |request| {
        removing.replace([]);
        async move { Some(echo(503, request).await) }
    })
    .await;
    // Asked for the second time, the balancer has heard that it is gone, or is told to avoid it.
    registry.insert(discovery_core::Instance::parse("orders", "0", &server.address).unwrap());
    let balance = Builder::new(registry.watch(&"orders".parse().unwrap()), PooledMaker::new())
        .protocol(Http::new())
        .policy(Watching::default())
        .spawn();
    let service = RetryLayer::new(3).layer(balance);
    let (tries, answered) = tried(&service, request(&Method::PUT, full("text"))).await;
    assert_eq!((answered.unwrap().status().as_u16(), tries), (503, 1));
}

#[tokio::test]
async fn the_number_of_retries_is_kept_and_0_changes_nothing() {
    let version = HttpVersion::Http1;
    for retries in 0..3 {
        let servers = saying(version, 500, 4).await;
        let (observer, told) = told();
        let service =
            RetryLayer::new(retries).observed_by(observer).layer(inner(version, &servers));
        let (tries, answered) = tried(&service, get("/")).await;
        assert_eq!(answered.unwrap().status(), 500);
        assert_eq!((total(&servers), tries), (retries + 1, retries + 1));
        assert_eq!(*told.lock().unwrap(), vec![Retried::Again; retries as usize]);
        let (tries, answered) = tried(&service, post(frames([data("a")]))).await;
        assert_eq!((answered.unwrap().status().as_u16(), tries), (500, 1));
    }
}

#[tokio::test]
async fn one_count_of_tries_in_two_requests_takes_no_retry_from_the_second() {
    let servers = saying(HttpVersion::Http1, 500, 2).await;
    let service = RetryLayer::new(1).layer(inner(HttpVersion::Http1, &servers));
    let tries = Tries::default();
    for n in [2, 4] {
        let mut request = get("/");
        request.extensions_mut().insert(tries.clone());
        send(&service, request).await.unwrap();
        assert_eq!((tries.get(), total(&servers)), (n, n));
    }
}

#[tokio::test]
async fn retries_keep_to_a_fifth_of_the_requests_and_10_a_second() {
    let servers = saying(HttpVersion::Http1, 503, 2).await;
    let (observer, told) = told();
    let service =
        RetryLayer::new(1).observed_by(observer).layer(inner(HttpVersion::Http1, &servers));
    let begun = Instant::now();
    for n in 1..=400 {
        let (tries, answered) = tried(&service, get("/")).await;
        let response = answered.unwrap();
        assert_eq!(response.status(), 503);
        let told = told.lock().unwrap().clone();
        assert_eq!(told.len(), n);
        assert_eq!(tries, if told[n - 1] == Retried::Again { 2 } else { 1 });
        assert_eq!(text(response).await, "");
    }
    let told = told.lock().unwrap().clone();
    let again = told.iter().filter(|what| **what == Retried::Again).count();
    let again = u32::try_from(again).unwrap();
    // 10 a second over 10 s, and a fifth of 400; a machine that is slow sees some of that expire.
    let most = 180 + 10 * (u32::try_from(begun.elapsed().as_secs()).unwrap() + 1);
    assert!((150..=most).contains(&again), "{again}");
    assert_eq!(total(&servers), 400 + again);
}

#[tokio::test]
async fn a_retry_that_nobody_is_left_for_costs_nothing_and_is_none() {
    let servers = saying(HttpVersion::Http1, 503, 2).await;
    let registry = registry(addresses(&servers[..1]));
    let balance = Builder::new(registry.watch(&"orders".parse().unwrap()), PooledMaker::new())
        .protocol(Http::new())
        .policy(Watching::default())
        .ejection(Ejection::never())
        .spawn();
    let (observer, told) = told();
    // All there are in a minute.
    let layer = RetryLayer::new(3).budget(60 * SECOND, 1, 0.0).observed_by(observer);
    let service = layer.layer(balance.clone());
    for _ in 0..70 {
        let (tries, answered) = tried(&service, request(&Method::PUT, full("text"))).await;
        let response = answered.unwrap();
        assert_eq!((response.status().as_u16(), tries), (503, 1));
        assert_eq!(text(response).await, "text");
    }
    assert_eq!(*told.lock().unwrap(), []);
    registry.insert(discovery_core::Instance::parse("orders", "1", &servers[1].address).unwrap());
    eventually(10 * SECOND, "another one", async || {
        balance.endpoints().iter().filter(|view| view.standing == Standing::Up).count() == 2
    })
    .await;
    let (tries, _) = tried(&service, get("/")).await;
    assert_eq!((tries, told.lock().unwrap().as_slice()), (2, &[Retried::Again][..]));
}

#[tokio::test]
async fn a_retry_that_is_given_up_was_one() {
    let version = HttpVersion::Http1;
    let asked = Arc::<std::sync::atomic::AtomicUsize>::default();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let asked = asked.clone();
        let answer = move |request| {
            let is_first = asked.fetch_add(1, SeqCst) == 0;
            async move {
                if is_first { Some(echo(503, request).await) } else { std::future::pending().await }
            }
        };
        servers.push(Server::start(version, answer).await);
    }
    let (observer, told) = told();
    let service = RetryLayer::new(1).observed_by(observer).layer(inner(version, &servers));
    let calling = tokio::spawn(service.oneshot(get("/")));
    eventually(10 * SECOND, "tried again", async || asked.load(SeqCst) == 2).await;
    calling.abort();
    assert!(soon(calling).await.is_err());
    assert_eq!(*told.lock().unwrap(), [Retried::Again]);
}

#[tokio::test]
async fn refused_by_the_budget_the_answer_stands_and_can_be_read() {
    let servers = saying(HttpVersion::Http1, 503, 2).await;
    let (observer, told) = told();
    let layer = RetryLayer::new(1).budget(10 * SECOND, 0, 0.0).observed_by(observer);
    // Clones share the budget, and so do services made by one layer.
    for service in [
        layer.layer(inner(HttpVersion::Http1, &servers)),
        layer.layer(inner(HttpVersion::Http1, &servers)),
    ] {
        let response = send(&service, request(&Method::PUT, full("text"))).await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (503, "text"));
    }
    assert_eq!(*told.lock().unwrap(), [Retried::Refused; 2]);
    assert_eq!(total(&servers), 2);
}

#[tokio::test]
async fn whom_the_caller_avoids_no_attempt_goes_to() {
    for version in VERSIONS {
        let servers = saying(version, 503, 4).await;
        let service = RetryLayer::new(9).layer(inner(version, &servers));
        let (tries, answered) = tried(&service, avoiding(get("/"), &["0", "2"])).await;
        assert_eq!(answered.unwrap().status(), 503);
        assert_eq!((asked(&servers), tries), (vec![0, 1, 0, 1], 2));

        let (tries, answered) = tried(&service, avoiding(get("/"), &["0", "1", "2", "3"])).await;
        let error = answered.unwrap_err();
        let avoided = Unavailable::Avoided;
        assert!(matches!(error, CallError::Unavailable { reason, .. } if reason == avoided));
        assert_eq!((tries, total(&servers)), (0, 2));
    }
}

#[tokio::test]
async fn each_attempt_has_the_head_as_it_was_in_a_stack_that_is_boxed() {
    let version = HttpVersion::Http1;
    let servers = saying(version, 503, 2).await;
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let seeing = seen.clone();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(3))
        .map_request(move |request: Request<Replay<Body>>| {
            let (method, uri) = (request.method().clone(), request.uri().to_string());
            let own = request.extensions().get::<u32>().copied();
            let kept = request.headers().get_all("x-kept").iter().count();
            seeing.lock().unwrap().push((method, uri, request.version(), own, kept));
            request
        })
        .service(inner(version, &servers));
    let service = BoxCloneSyncService::new(service);
    let request = Request::put("/a?b=c")
        .version(Version::HTTP_10)
        .header("x-kept", "1")
        .header("x-kept", "2")
        .extension(7_u32)
        .body(frames([data("text")]))
        .unwrap();
    let response = soon(service.clone().oneshot(request)).await.unwrap();
    assert_eq!(text(response).await, "text");
    let head = (Method::PUT, "/a?b=c".to_owned(), Version::HTTP_10, Some(7), 2);
    // The third is the one that nobody is left for.
    assert_eq!(*seen.lock().unwrap(), vec![head; 3]);
    assert_eq!(asked(&servers), [1, 1]);
}

#[tokio::test]
async fn dropping_the_future_cancels_the_attempt_under_way() {
    for version in VERSIONS {
        let held = Server::start(version, |_| std::future::pending()).await;
        let servers = [Server::saying(version, 503).await, held];
        let inner = inner(version, &servers);
        let service = RetryLayer::new(1).layer(inner.clone());
        // The first attempt goes to either.
        for _ in 0..5 {
            let had = servers[1].asked();
            let calling = tokio::spawn(service.clone().oneshot(get("/")));
            eventually(10 * SECOND, "held", async || servers[1].asked() > had).await;
            calling.abort();
            assert!(soon(calling).await.is_err());
            assert!(inner.endpoints().iter().all(|view| view.pending == 0));
            eventually(10 * SECOND, "let go", async || servers[1].under_way() == 0).await;
        }
    }
}

#[tokio::test]
async fn a_streaming_answer_is_passed_on_as_it_comes() {
    for version in VERSIONS {
        let (gates, mut opened) = tokio::sync::mpsc::unbounded_channel();
        let servers = [Server::start(version, move |_| {
            let (gate, opened) = tokio::sync::oneshot::channel();
            gates.send(gate).unwrap();
            async { Some(reply(200, gated(data("begin "), opened, [data("end")]))) }
        })
        .await];
        let inner = inner(version, &servers);
        let service = RetryLayer::new(1).layer(inner.clone());
        let response = send(&service, get("/")).await.unwrap();
        assert_eq!(inner.endpoints()[0].pending, 1);
        opened.recv().await.unwrap().send(()).unwrap();
        assert_eq!(text(response).await, "begin end");
        assert_eq!(inner.endpoints()[0].pending, 0);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_last_is_let_go() {
    let version = HttpVersion::Http1;
    let servers = [Server::saying(version, 503).await, Server::saying(version, 200).await];
    let inner = inner(version, &servers);
    let service = RetryLayer::new(1).layer(inner.clone());
    for _ in 0..20 {
        let response = send(&service, request(&Method::PUT, full("text"))).await.unwrap();
        assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "text"));
        assert!(inner.endpoints().iter().all(|view| view.pending == 0));
    }
}
