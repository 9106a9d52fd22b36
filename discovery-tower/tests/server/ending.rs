//! The end: what is under way finishes, what hangs is cut off, nothing is left.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{InstanceStatus, MemoryRegistry};
use discovery_test_support::eventually;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::{self, get};
use crate::support::{Running, SOON, only, server, shown};

async fn gone(registry: &MemoryRegistry) {
    eventually(SOON, "deregistered", async || only(registry).is_none()).await;
}

#[tokio::test]
async fn answers_and_bodies_under_way_finish() {
    let registry = Arc::new(MemoryRegistry::new());
    let mut running = Running::start(server(), registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let address = running.address;
    let (mut one, _one) = client::http1(address).await.unwrap();
    let (mut two, _two) = client::http2(address).await.unwrap();
    let (mut three, _three) = client::http2(address).await.unwrap();
    let body = one.send_request(get(address, "/trickle")).await.unwrap();
    let other = two.send_request(get(address, "/trickle")).await.unwrap();
    let held =
        tokio::spawn(async move { three.send_request(get(address, "/hold")).await.unwrap() });
    running.handlers(3).await;
    running.stop();
    gone(&registry).await;
    assert!(!running.task.is_finished());
    running.app.release();
    assert_eq!(client::text(body).await, "part part ");
    assert_eq!(client::text(other).await, "part part ");
    assert_eq!(client::text(held.await.unwrap()).await, "whole");
    let app = running.app.clone();
    assert_eq!(running.ended().await.unwrap().cut_off, 0);
    assert_eq!(app.running(), 0, "no handler is left");
}

#[tokio::test]
async fn what_hangs_is_cut_off_and_no_task_is_left() {
    let registry = Arc::new(MemoryRegistry::new());
    let within = Duration::from_millis(200);
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let mut running = Running::start(server().finish_within(within), registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let address = running.address;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut torn = TcpStream::connect(address).await.unwrap();
    torn.write_all(b"GET /trickle HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (mut two, two_ends) = client::http2(address).await.unwrap();
    let body = two.send_request(get(address, "/trickle")).await.unwrap();
    let never = tokio::spawn({
        let mut two = two.clone();
        async move { two.send_request(get(address, "/never")).await }
    });
    running.handlers(4).await;
    running.stop();
    let app = running.app.clone();
    let stopped = running.ended().await.unwrap();
    assert_eq!(stopped.cut_off, 3, "connections");
    assert_eq!(app.running(), 0, "no handler is left");
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert!(body.into_body().collect().await.is_err());
    assert!(never.await.unwrap().is_err());
    drop(two);
    two_ends.await.unwrap();
    eventually(SOON, "no task left", async || {
        let now = tasks.num_alive_tasks();
        if now == before { Ok(()) } else { Err((now, before)) }
    })
    .await;
}

#[tokio::test]
async fn dropped_it_lets_go_of_everything() {
    let registry = Arc::new(MemoryRegistry::new());
    let running = Running::start(server(), registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let address = running.address;
    let (mut one, one_ends) = client::http1(address).await.unwrap();
    let (mut two, two_ends) = client::http2(address).await.unwrap();
    let one = tokio::spawn(async move { one.send_request(get(address, "/never")).await });
    let two = tokio::spawn(async move { two.send_request(get(address, "/never")).await });
    running.handlers(2).await;
    running.task.abort();
    gone(&registry).await;
    assert!(one.await.unwrap().is_err() && two.await.unwrap().is_err());
    one_ends.await.unwrap();
    two_ends.await.unwrap();
    running.handlers(0).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn in_a_hurry_it_waits_for_nobody_and_deregisters_all_the_same() {
    let registry = Arc::new(MemoryRegistry::new());
    let (enough, told) = oneshot::channel::<()>();
    let long = Duration::from_secs(3600);
    let server = server().drain_for(long).finish_within(long).hurry_on(async { drop(told.await) });
    let mut running = Running::start(server, registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let address = running.address;
    let (mut one, _one) = client::http1(address).await.unwrap();
    let one = tokio::spawn(async move { one.send_request(get(address, "/never")).await });
    running.handlers(1).await;
    running.stop();
    shown(&registry, InstanceStatus::Draining).await;
    enough.send(()).unwrap();
    let stopped = running.ended().await.unwrap();
    assert!(stopped.unconfirmed.is_none() && stopped.cut_off == 1, "{stopped:?}");
    assert!(registry.instances().is_empty());
    assert!(one.await.unwrap().is_err());
}
