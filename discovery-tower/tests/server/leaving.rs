//! Leaving under load: no request is lost, and everybody is asked to go elsewhere.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{InstanceStatus, MemoryRegistry};
use discovery_test_support::eventually;
use discovery_tower::server::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{self, asks_to_go, get};
use crate::support::{App, Running, SOON, only, server, shown};

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    /// Answers to requests that were sent when it was draining.
    late: usize,
    /// Connections that asked to go while it drained.
    goodbyes: usize,
    failures: Vec<String>,
}

/// Whether the instance is still there, and whether it is draining.
fn there(registry: &MemoryRegistry) -> Option<bool> {
    only(registry).map(|instance| instance.status == InstanceStatus::Draining)
}

/// Keeps a connection as long as it may, and sends one request after the other until the registry no
/// longer has the instance: worse than any client that heeds `draining`.
async fn over_http1(address: SocketAddr, registry: Arc<MemoryRegistry>) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<client::Http1> = None;
    while let Some(draining) = there(&registry) {
        let (mut sender, task) = match kept.take() {
            Some(connection) => connection,
            None => client::http1(address).await.unwrap(),
        };
        let answer = match sender.send_request(get(address, "/")).await {
            Ok(answer) => answer,
            Err(error) => {
                seen.failures.push(format!("{error:?}"));
                continue;
            }
        };
        let goes = asks_to_go(&answer);
        assert_eq!(client::text(answer).await, "whole");
        seen.answers += 1;
        seen.late += usize::from(draining);
        assert!(goes || !draining, "an answer of a server that drains");
        if goes {
            seen.goodbyes += 1;
        } else if sender.ready().await.is_ok() {
            kept = Some((sender, task));
        }
    }
    seen
}

/// Whether the request was not acted on: the server says so of those that it has not seen.
fn is_beyond_goaway(error: &hyper::Error) -> bool {
    let stream = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    stream.is_some_and(|stream| stream.is_remote() && stream.is_go_away())
}

async fn over_http2(address: SocketAddr, registry: Arc<MemoryRegistry>) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<client::Http2> = None;
    while let Some(draining) = there(&registry) {
        let (mut sender, task) = match kept.take() {
            Some(connection) => connection,
            None => client::http2(address).await.unwrap(),
        };
        if sender.ready().await.is_err() {
            seen.goodbyes += 1;
            continue;
        }
        match sender.try_send_request(get(address, "/")).await {
            Ok(answer) => {
                assert_eq!(client::text(answer).await, "whole");
                seen.answers += 1;
                seen.late += usize::from(draining);
                kept = Some((sender, task));
            }
            Err(mut error) => {
                if error.take_message().is_some() || is_beyond_goaway(error.error()) {
                    seen.goodbyes += 1;
                } else {
                    seen.failures.push(format!("{:?}", error.into_error()));
                }
            }
        }
    }
    seen
}

/// The clients have one thread: with several, hyper's client of HTTP/2 may say of a request that is on
/// its way that it is beyond a GOAWAY which comes at that moment. The server has threads of its own.
#[tokio::test]
async fn row_32_no_request_is_lost_while_it_leaves_and_all_are_asked_to_go() {
    let registry = Arc::new(MemoryRegistry::new());
    let server = server().drain_for(Duration::from_secs(1));
    let threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut running = threads.spawn(Running::start(server, registry.clone())).await.unwrap();
    shown(&registry, InstanceStatus::Up).await;
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        clients.spawn(over_http1(running.address, registry.clone()));
        clients.spawn(over_http2(running.address, registry.clone()));
    }
    eventually(SOON, "steady load", async || running.app.requests() > 500).await;
    running.stop();
    let mut answers = 0;
    for seen in clients.join_all().await {
        assert!(seen.failures.is_empty(), "{seen:?}");
        assert!(seen.late > 0 && seen.goodbyes > 0, "{seen:?}");
        answers += seen.answers;
    }
    assert_eq!(running.app.requests(), answers, "whatever was seen has been answered");
    let stopped = running.ended().await.unwrap();
    assert!(stopped.unconfirmed.is_none(), "{stopped:?}");
    assert_eq!(stopped.cut_off, 0);
    assert!(registry.instances().is_empty());
    threads.shutdown_background();
}

#[tokio::test]
async fn connections_of_http2_end_while_it_drains_and_idle_ones_of_http1_when_it_closes() {
    let registry = Arc::new(MemoryRegistry::new());
    let long = Duration::from_secs(2);
    let mut running = Running::start(server().drain_for(long), registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let (mut one, one_ends) = client::http1(running.address).await.unwrap();
    let (mut two, two_ends) = client::http2(running.address).await.unwrap();
    one.send_request(get(running.address, "/")).await.unwrap();
    two.send_request(get(running.address, "/")).await.unwrap();
    // Nothing was asked of this one: to tell it to go would bring it back at once.
    let (mut new, new_ends) = client::http2(running.address).await.unwrap();

    running.stop();
    two_ends.await.unwrap();
    assert_eq!(there(&registry), Some(true), "it drains");
    assert!(!one_ends.is_finished() && !new_ends.is_finished());
    let answer = new.send_request(get(running.address, "/")).await.unwrap();
    assert_eq!(client::text(answer).await, "whole");
    new_ends.await.unwrap();
    assert_eq!(there(&registry), Some(true), "it drains");

    one_ends.await.unwrap();
    assert_eq!(there(&registry), None);
    assert_eq!(running.ended().await.unwrap().cut_off, 0);
}

/// Has the connections that the test gives it.
struct Given(mpsc::Receiver<DuplexStream>);

impl Listener for Given {
    type Io = DuplexStream;
    type Peer = ();

    async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, ())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 9).into())
    }
}

#[tokio::test(start_paused = true)]
async fn who_connected_at_the_last_moment_is_answered_and_who_stays_silent_is_not_waited_for() {
    let millis = Duration::from_millis;
    let registry = Arc::new(MemoryRegistry::new());
    let (give, given) = mpsc::channel(2);
    let app = App::default();
    let service = tower::service_fn(move |request| app.clone().answer(request));
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let server = server().drain_for(millis(300));
    let serving = tokio::spawn(server.serve(Given(given), registry.clone(), service, shutdown));
    sleep(millis(10)).await;
    assert_eq!(there(&registry), Some(false));
    stop.send(()).unwrap();
    sleep(millis(305)).await;
    assert_eq!(there(&registry), None, "deregistered, and about to close");
    let (mut late, other_end) = tokio::io::duplex(1024);
    give.send(other_end).await.unwrap();
    let (_silent, other_end) = tokio::io::duplex(1024);
    give.send(other_end).await.unwrap();
    let connected = Instant::now();
    sleep(millis(900)).await;
    late.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("whole"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(serving.await.unwrap().unwrap().cut_off, 0);
    assert!(connected.elapsed() < millis(1_100), "{:?}", connected.elapsed());
}
