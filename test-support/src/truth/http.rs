//! The smallest HTTP client that can ask etcd: one request at a time on a connection, connections kept.
//!
//! Connections are kept because a test writes more often than there are ports for one connection each.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection, and its socket once more, to see what hyper has not had the time to look at.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    socket: std::net::TcpStream,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(super) struct Http {
    server: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Http {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, idle: Mutex::default() }
    }

    pub(super) const fn server(&self) -> SocketAddr {
        self.server
    }

    /// Sends once. A request that may have reached etcd is never repeated: it may have been a write.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let mut request = request.body(Full::from(body))?;
        loop {
            let (mut connection, kept) = match self.take() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            if let Err(error) = connection.sender.ready().await {
                // A kept connection may have ended while nobody looked.
                if kept {
                    continue;
                }
                return Err(error.into());
            }
            let response = match connection.sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message().filter(|_| kept) {
                    Some(unsent) => {
                        request = unsent;
                        continue;
                    }
                    None => return Err(error.into_error().into()),
                },
            };
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            return Ok((status, body));
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(Connection::is_open)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        let (sender, driver) = handshake(TokioIo::new(TcpStream::from_std(stream)?)).await?;
        // How a connection ended is told by the request that used it.
        tokio::spawn(driver);
        Ok(Connection { sender, socket })
    }
}

impl Connection {
    /// Whether it can be used. The first call after etcd was restarted must not fail for the connection
    /// that the last call before it left.
    fn is_open(&self) -> bool {
        // Nothing is asked, so nothing can be there to read but the end.
        let seen = self.socket.peek(&mut [0]);
        !self.sender.is_closed() && seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}
