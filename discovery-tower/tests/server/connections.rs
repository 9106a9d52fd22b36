//! Connections: their limits, upgrades, and errors while accepting.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use discovery_core::{Instance, InstanceStatus, MemoryRegistry, Registrar, Registration};
use discovery_test_support::slack;
use discovery_tower::server::{Listener, Peer};
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::{self, get};
use crate::support::{Running, SOON, server, shown};

#[tokio::test]
async fn peers_that_send_no_whole_head_are_closed() {
    let registry = MemoryRegistry::new();
    let within = Duration::from_millis(200);
    let running = Running::start(server().head_within(within), registry).await;
    for begun in [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: x\r\n",
        "PRI * HTTP/2.0\r\n",
        // The whole preface of HTTP/2, and that with the settings which must follow it.
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
    ] {
        let mut peer = TcpStream::connect(running.address).await.unwrap();
        peer.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(slack(SOON), peer.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{begun:?}");
    }
    assert_eq!(running.app.requests(), 0);
}

#[tokio::test]
async fn a_slow_answer_is_not_a_slow_peer() {
    let registry = MemoryRegistry::new();
    let within = Duration::from_millis(500);
    let running = Running::start(server().head_within(within), registry).await;
    let (mut one, _one) = client::http1(running.address).await.unwrap();
    let (mut two, _two) = client::http2(running.address).await.unwrap();
    let body = one.send_request(get(running.address, "/trickle")).await.unwrap();
    let other = two.send_request(get(running.address, "/trickle")).await.unwrap();
    tokio::time::sleep(2 * within).await;
    running.app.release();
    assert_eq!(client::text(body).await, "part part ");
    assert_eq!(client::text(other).await, "part part ");
}

/// Fails as long as it is told to.
struct Failing {
    inner: TcpListener,
    failures: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    error: fn() -> io::Error,
}

impl Listener for Failing {
    type Io = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let left =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return Err((self.error)());
        }
        Listener::accept(&mut self.inner).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[tokio::test]
async fn errors_while_accepting_end_nothing_and_do_not_make_it_spin() {
    let registry = MemoryRegistry::new();
    // Out of file descriptors: 24 is EMFILE.
    let cases: [(fn() -> io::Error, bool); 2] = [
        (|| io::Error::from_raw_os_error(24), true),
        (|| io::ErrorKind::ConnectionAborted.into(), false),
    ];
    for (error, pauses) in cases {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = inner.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let failures = Arc::new(AtomicUsize::new(5));
        let listener = Failing { inner, failures, asked: asked.clone(), error };
        let (stop, stopped) = oneshot::channel::<()>();
        let service = tower::service_fn(async |request: Request<Incoming>| {
            let Peer(peer) = request.extensions().get::<Peer>().unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(peer.to_string())))
        });
        let serving = server().serve(listener, registry.clone(), service, async {
            drop(stopped.await);
        });
        let began = Instant::now();
        let serving = tokio::spawn(serving);
        let io = TcpStream::connect(address).await.unwrap();
        let own = io.local_addr().unwrap().to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(get(address, "/")).await.unwrap();
        assert_eq!(client::text(answer).await, own);
        assert_eq!(asked.load(Ordering::SeqCst), 7, "five failures, the connection, the next");
        assert_eq!(began.elapsed() > Duration::from_millis(200), pauses);
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_connection_can_become_something_else_also_while_it_drains() {
    let registry = Arc::new(MemoryRegistry::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tower::service_fn(async |mut request: Request<Incoming>| {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut io = TokioIo::new(upgraded);
            let mut asked = [0; 4];
            io.read_exact(&mut asked).await.unwrap();
            io.write_all(b"pong").await.unwrap();
        });
        let mut answer = Response::new(Empty::<Bytes>::new());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
        answer.headers_mut().insert(UPGRADE, "ping".parse().unwrap());
        Ok::<_, Infallible>(answer)
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let server = server().drain_for(Duration::from_secs(1));
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(server.serve(listener, registry.clone(), service, shutdown));
    shown(&registry, InstanceStatus::Up).await;
    stop.send(()).unwrap();
    shown(&registry, InstanceStatus::Draining).await;

    let io = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = get(address, "/");
    request.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert(UPGRADE, "ping".parse().unwrap());
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()[CONNECTION], "upgrade");
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    serving.await.unwrap().unwrap();
    io.write_all(b"ping").await.unwrap();
    let mut told = [0; 4];
    io.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"pong");
}

/// Registers nobody before its listener was asked for a connection.
struct After(Arc<AtomicUsize>, MemoryRegistry);

impl Registrar for After {
    fn register(&self, instance: Instance) -> Registration {
        assert_eq!(self.0.load(Ordering::SeqCst), 1, "it accepts");
        self.1.register(instance)
    }
}

#[tokio::test]
async fn it_accepts_before_it_registers() {
    // As often as chance could have it right.
    for _ in 0..20 {
        let registry = MemoryRegistry::new();
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let listener = Failing {
            inner,
            failures: Arc::default(),
            asked: asked.clone(),
            error: || io::ErrorKind::Other.into(),
        };
        let service =
            tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
        let after = After(asked, registry.clone());
        let serving = server().serve(listener, after, service, std::future::pending());
        let serving = tokio::spawn(serving);
        shown(&registry, InstanceStatus::Up).await;
        serving.abort();
    }
}

/// Always has another connection, which is at its end already.
struct Endless(SocketAddr);

impl Listener for Endless {
    type Io = tokio::io::DuplexStream;
    type Peer = ();

    async fn accept(&mut self) -> io::Result<(Self::Io, ())> {
        tokio::task::consume_budget().await;
        Ok((tokio::io::duplex(1).0, ()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

#[tokio::test]
async fn who_keeps_connecting_does_not_keep_it_from_stopping() {
    let registry = MemoryRegistry::new();
    let service =
        tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let listener = Endless("127.0.0.1:9".parse().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(server().serve(listener, registry.clone(), service, shutdown));
    shown(&registry, InstanceStatus::Up).await;
    stop.send(()).unwrap();
    let stopped = timeout(slack(2 * SOON), serving).await.unwrap().unwrap().unwrap();
    assert_eq!(stopped.cut_off, 0);
}
