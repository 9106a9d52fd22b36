//! Peers that vanish, come late or have gone already: in memory, so that the clock can be paused.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::MemoryRegistry;
use discovery_tower::server::Listener;
use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::client::{self, get};
use crate::support::{App, server};

/// Gives these, one after the other, and nobody else.
struct Given {
    accepted: VecDeque<io::Result<DuplexStream>>,
    /// Nobody is accepted before it closes, as if they had just come.
    late: bool,
    all: Arc<Notify>,
}

impl Listener for Given {
    type Io = DuplexStream;
    type Peer = ();

    async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
        if std::mem::take(&mut self.late) {
            pending::<()>().await;
        }
        let Some(accepted) = self.accepted.pop_front() else {
            self.all.notify_one();
            return pending().await;
        };
        accepted.map(|io| (io, ()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("127.0.0.1:80".parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn who_connected_before_it_closes_is_answered_whoever_was_before_them() {
    let (near, far) = duplex(1024);
    let all = Arc::new(Notify::new());
    let accepted = [
        Err(ErrorKind::ConnectionAborted.into()),
        // Out of file descriptors.
        Err(io::Error::from_raw_os_error(24)),
        Ok(far),
    ];
    let listener = Given { accepted: accepted.into(), late: true, all: all.clone() };
    let app = App::default();
    let service = tower::service_fn(move |request| app.clone().answer(request));
    let shutdown = std::future::ready(());
    let serving = tokio::spawn(server().serve(listener, MemoryRegistry::new(), service, shutdown));
    let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    let all = timeout(Duration::from_secs(60), all.notified()).await;
    assert!(all.is_ok(), "not all of them were accepted");
    // Its request has a long way.
    sleep(Duration::from_millis(500)).await;
    let answer = sender.send_request(get("127.0.0.1:80".parse().unwrap(), "/")).await.unwrap();
    assert_eq!(client::text(answer).await, "whole");
    assert_eq!(serving.await.unwrap().unwrap().cut_off, 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_http2_that_vanished_is_let_go_and_an_idle_one_is_not() {
    let (near, far) = duplex(1024);
    let listener = Given { accepted: [Ok(far)].into(), late: false, all: Arc::default() };
    let app = App::default();
    let service = tower::service_fn(move |request| app.clone().answer(request));
    tokio::spawn(server().serve(listener, MemoryRegistry::new(), service, pending()));
    let (mut sender, mut connection) = h2::client::handshake(near).await.unwrap();
    let request = Request::get("http://orders/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    tokio::select! {
        answer = answer => drop(answer.unwrap()),
        ended = &mut connection => panic!("{ended:?}"),
    }
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, &mut connection).await.is_err(), "it is there, though it asks nothing");
    // Nobody reads what comes.
    sleep(Duration::from_secs(90)).await;
    let ended = timeout(Duration::from_secs(1), &mut connection).await;
    assert!(ended.is_ok(), "the server has closed it");
}

#[tokio::test(start_paused = true)]
async fn limits_of_time_may_be_as_long_as_can_be() {
    let (near, far) = duplex(1024);
    let listener = Given { accepted: [Ok(far)].into(), late: false, all: Arc::default() };
    let app = App::default();
    let service = tower::service_fn(move |request| app.clone().answer(request));
    let most = Duration::MAX;
    let server = server().head_within(most).finish_within(most);
    let serving = server.serve(listener, MemoryRegistry::new(), service, async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(get("127.0.0.1:80".parse().unwrap(), "/")).await.unwrap();
        assert_eq!(client::text(answer).await, "whole");
    });
    assert_eq!(serving.await.unwrap().cut_off, 0);
}
