//! Small servers on loopback, well-behaved and otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// Answers with what it was asked; `/held` only when it is [released](Server::release).
pub struct Server {
    pub address: String,
    connections: Arc<AtomicUsize>,
    held: Arc<watch::Sender<usize>>,
    released: Arc<watch::Sender<bool>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            connections: Arc::default(),
            held: Arc::new(watch::Sender::new(0)),
            released: Arc::new(watch::Sender::new(false)),
        };
        let connections = server.connections.clone();
        let (held, released) = (server.held.clone(), server.released.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (held, released) = (held.clone(), released.clone());
                let answer = service_fn(move |request| {
                    let (held, mut released) = (held.clone(), released.subscribe());
                    async move {
                        if request_path(&request) == "/held" {
                            held.send_modify(|held| *held += 1);
                            released.wait_for(|released| *released).await.unwrap();
                        }
                        Ok::<_, Infallible>(Response::new(echo(request).await))
                    }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                tokio::spawn(serving);
            }
        });
        server
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until it holds so many requests.
    pub async fn holding(&self, count: usize) {
        let mut held = self.held.subscribe();
        let held = held.wait_for(|held| *held >= count);
        tokio::time::timeout(Duration::from_secs(20), held).await.unwrap().unwrap();
    }

    pub fn release(&self) {
        self.released.send_replace(true);
    }
}

fn request_path(request: &Request<Incoming>) -> &str {
    request.uri().path()
}

async fn echo(request: Request<Incoming>) -> Full<Bytes> {
    let header = |name| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (host, kept) = (header("host"), header("x-kept"));
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let version = request.version();
    let body = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    Full::from(format!("{method} {uri} {version:?} host={host} kept={kept} body={body}"))
}

/// An address at which nobody listens, and nobody will: the port stays taken.
pub fn refused() -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    format!("http://{address}")
}

/// An address whose queue of connections is full, with those that fill it.
pub async fn unresponsive() -> (String, Box<dyn Send>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(300), connecting).await {
            Ok(connected) => filling.push(connected.unwrap()),
            Err(_) => break,
        }
        assert!(filling.len() < 100, "the queue does not fill");
    }
    (format!("http://{address}"), Box::new((listener, filling)))
}

/// What a server does in place of answering.
#[derive(Clone, Copy)]
pub enum Shut {
    Reset,
    Close,
    Nonsense,
    /// Closes without reading the request.
    OnArrival,
}

/// A server that does this with each connection, after reading the request.
pub async fn shutting(shut: Shut) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                if !matches!(shut, Shut::OnArrival) {
                    read_request(&mut socket).await;
                }
                match shut {
                    Shut::Reset => socket.set_zero_linger().unwrap(),
                    Shut::Nonsense => socket.write_all(b"what?\r\n\r\n").await.unwrap(),
                    Shut::Close | Shut::OnArrival => {}
                }
            });
        }
    });
    address
}

/// Reads to the end of the head, and of a body in chunks if there is one.
async fn read_request(socket: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && (!head.contains("chunked") || body.ends_with("0\r\n\r\n"))
        {
            return;
        }
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
