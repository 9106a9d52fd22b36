//! What a node answers.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use discovery_core::{InstanceId, ServiceName};
use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::net::TcpListener;

use super::Behaviour;
use crate::reply::{self, Reply};
use crate::server::Server;

const X_INSTANCE: HeaderName = HeaderName::from_static("x-instance");
const CONTROL: &str = "/control";
const CONTROL_LIMIT: usize = 64 * 1024;

#[derive(Serialize)]
struct Answer<'a> {
    service: &'a ServiceName,
    id: &'a InstanceId,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// The serving part of a node.
#[derive(Debug)]
pub struct Node {
    service: ServiceName,
    id: InstanceId,
    behaviour: Mutex<Behaviour>,
}

impl Node {
    /// A node that does not serve yet.
    pub fn new(service: ServiceName, id: InstanceId, behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self { service, id, behaviour: Mutex::new(behaviour) })
    }

    /// Starts to serve.
    pub fn serve(self: &Arc<Self>, listener: TcpListener) -> Server {
        Server::start(listener, self.clone().answering())
    }

    /// The answers as a function, for a server.
    pub fn answering<B>(
        self: Arc<Self>,
    ) -> impl Fn(Request<B>) -> BoxFuture<'static, Reply> + Clone + Send + Sync + 'static
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |request| {
            let node = self.clone();
            Box::pin(async move { node.answer(request).await })
        }
    }

    /// The answer to one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut reply = if request.method() == Method::POST && request.uri().path() == CONTROL {
            self.control(request.into_body()).await
        } else {
            self.work(request).await
        };
        if let Ok(id) = HeaderValue::from_bytes(self.id.as_str().as_bytes()) {
            reply.headers_mut().insert(X_INSTANCE, id);
        }
        reply
    }

    async fn work<B: Body<Data = Bytes> + Unpin>(&self, request: Request<B>) -> Reply {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // A body that is left unread would cost the connection.
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let behaviour = *self.lock();
        let fails = rand::random::<f64>() < behaviour.fail_rate;
        if !behaviour.delay.is_zero() && (!fails || behaviour.fails_slowly) {
            tokio::time::sleep(behaviour.delay).await;
        }
        let status = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        let error = fails.then_some("this node was told to fail");
        reply::json(status, &Answer { service: &self.service, id: &self.id, path: &path, error })
    }

    async fn control<B>(&self, body: B) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = match Limited::new(body, CONTROL_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let text = format!("the body is longer than {CONTROL_LIMIT} bytes");
                return reply::error(StatusCode::PAYLOAD_TOO_LARGE, &text);
            }
            Err(error) => {
                let text = format!("cannot read the body: {error}");
                return reply::error(StatusCode::BAD_REQUEST, &text);
            }
        };
        let mut behaviour = self.lock();
        match behaviour.changed(&body) {
            Ok(changed) => {
                *behaviour = changed;
                tracing::info!(id = %self.id, delay = ?changed.delay, fail_rate = changed.fail_rate, "told to behave otherwise");
                reply::json(StatusCode::OK, &changed.to_json())
            }
            Err(error) => reply::error(StatusCode::BAD_REQUEST, &error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
