//! A real server of HTTP on loopback that can be watched, stopped and started again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::{eventually, slack};
use discovery_tower::HttpVersion;
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Answers with method, path, version, `Host` and body. `/held` is answered when it is
/// [released](Server::release); `/trickle` begins its body, and ends it then; `/last` asks for the
/// connection to be closed; `/slow` takes some milliseconds.
pub(crate) struct Server {
    pub(crate) address: String,
    protocol: HttpVersion,
    seen: Arc<Seen>,
    order: Arc<watch::Sender<Order>>,
    released: Arc<watch::Sender<bool>>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    requests: AtomicUsize,
    held: AtomicUsize,
}

/// What the connections are told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// So often: finish what is in flight, then close.
    Finish(usize),
    Die,
}

impl Server {
    pub(crate) async fn start(protocol: HttpVersion) -> Self {
        let mut server = Self {
            address: String::new(),
            protocol,
            seen: Arc::default(),
            order: Arc::new(watch::Sender::new(Order::Serve)),
            released: Arc::new(watch::Sender::new(false)),
            listening: None,
        };
        server.listen("127.0.0.1:0".parse().unwrap()).await;
        server
    }

    async fn listen(&mut self, address: SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        self.address = format!("http://{}", listener.local_addr().unwrap());
        let (seen, order, released, protocol) =
            (self.seen.clone(), self.order.clone(), self.released.clone(), self.protocol);
        self.listening = Some(tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                seen.accepted.fetch_add(1, Ordering::SeqCst);
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(open, Ordering::SeqCst);
                let (seen, order, released) = (seen.clone(), order.subscribe(), released.clone());
                tokio::spawn(async move {
                    serve(socket, protocol, order, &seen, &released).await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }));
    }

    fn socket(&self) -> SocketAddr {
        self.address.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// How many connections it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many connections there were at a time.
    pub(crate) fn most(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Waits until it holds so many requests.
    pub(crate) async fn holding(&self, count: usize) {
        eventually(Duration::from_secs(10), format!("{count} requests held"), async || {
            let held = self.seen.held.load(Ordering::SeqCst);
            if held == count { Ok(()) } else { Err(held) }
        })
        .await;
    }

    /// Waits until so many connections are open.
    pub(crate) async fn opened(&self, count: usize) {
        eventually(Duration::from_secs(10), format!("{count} connections"), async || {
            if self.open() == count { Ok(()) } else { Err(self.open()) }
        })
        .await;
    }

    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// Closes the connections as a server does that goes: those without a request at once, the others
    /// when it is answered. New ones are accepted.
    pub(crate) fn close_gracefully(&self) {
        self.order.send_modify(|order| {
            *order = Order::Finish(if let Order::Finish(n) = order { *n + 1 } else { 1 });
        });
    }

    /// Stops at once: no connection stays, and none is accepted.
    pub(crate) async fn kill(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
        self.order.send_replace(Order::Die);
        self.opened(0).await;
    }

    /// Starts again at the same address.
    pub(crate) async fn start_again(&mut self) {
        self.order.send_replace(Order::Serve);
        self.listen(self.socket()).await;
    }
}

async fn serve(
    socket: TcpStream,
    protocol: HttpVersion,
    mut order: watch::Receiver<Order>,
    seen: &Arc<Seen>,
    released: &Arc<watch::Sender<bool>>,
) {
    // An order that was given before the connection was there is not meant for it.
    order.mark_unchanged();
    let used = AtomicBool::new(false);
    let answer = service_fn(|request| {
        used.store(true, Ordering::SeqCst);
        let (seen, released) = (seen.clone(), released.subscribe());
        async move { Ok::<_, Infallible>(answer(request, &seen, released).await) }
    });
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = std::pin::pin!($connection);
            loop {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    changed = order.changed() => {
                        if changed.is_err() || *order.borrow() == Order::Die {
                            return;
                        }
                        // One that is still being made would break off without a word.
                        if used.load(Ordering::SeqCst) {
                            connection.as_mut().graceful_shutdown();
                        }
                    }
                }
            }
        }};
    }
    let io = TokioIo::new(socket);
    if protocol == HttpVersion::Http2 {
        drive!(http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer));
    } else {
        drive!(http1::Builder::new().serve_connection(io, answer));
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: &Seen,
    mut released: watch::Receiver<bool>,
) -> Response<Answer> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/held" => {
            seen.held.fetch_add(1, Ordering::SeqCst);
            // Counted down also when the client goes.
            let _held = Held(&seen.held);
            released.wait_for(|released| *released).await.unwrap();
            Response::new(echo(request).await)
        }
        "/trickle" => {
            let frames = stream::unfold(0, move |n| {
                let mut released = released.clone();
                async move {
                    let piece = match n {
                        0 => "begin ",
                        1 => {
                            released.wait_for(|released| *released).await.unwrap();
                            "end"
                        }
                        _ => return None,
                    };
                    Some((Ok(Frame::data(Bytes::from_static(piece.as_bytes()))), n + 1))
                }
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        "/last" => {
            Response::builder().header("connection", "close").body(echo(request).await).unwrap()
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(3)).await;
            Response::new(echo(request).await)
        }
        _ => Response::new(echo(request).await),
    }
}

struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn echo(request: Request<Incoming>) -> Answer {
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let host = host.unwrap_or_default();
    let (method, uri, version) =
        (request.method().clone(), request.uri().clone(), request.version());
    let body = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    Full::from(format!("{method} {uri} {version:?} host={host} body={body}")).boxed_unsync()
}

/// The result of something that is to happen soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = slack(Duration::from_secs(10));
    tokio::time::timeout(limit, future).await.expect("it happens within 10 s")
}
