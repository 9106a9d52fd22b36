//! The smallest HTTP client that can ask etcd: one request at a time on a connection, connections kept.
//!
//! Connections are kept because a test writes more often than there are ports for one connection each.

use std::{
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

type Connection = SendRequest<Full<Bytes>>;
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
            if let Err(error) = connection.ready().await {
                // A kept connection may have ended while nobody looked.
                if kept {
                    continue;
                }
                return Err(error.into());
            }
            let response = match connection.try_send_request(request).await {
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
        std::iter::from_fn(|| idle.pop()).find(|connection| !connection.is_closed())
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        // How a connection ended is told by the request that used it.
        tokio::spawn(driver);
        Ok(connection)
    }
}
