//! The body of a response: as long as it is read, the balancer it came through is kept.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::InstanceKey;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::usage::InUse;
use crate::balance::later;
use crate::http::classify;
use crate::http::{PooledBody, Tracked};

/// The body of a response, as it comes in.
///
/// Until it has been read to its end or dropped, the call counts as pending, and its service as in use.
#[derive(Debug)]
pub struct ClientBody {
    /// Until the end.
    body: Option<Reading>,
    size: SizeHint,
}

#[derive(Debug)]
struct Reading {
    body: Tracked<PooledBody, InstanceKey>,
    endpoint: Option<InstanceKey>,
    idle: Option<Idle>,
    _in_use: InUse,
}

/// How long nothing may come while it is waited for.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    /// Made at the first wait, and used for all.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// Why the body of a response has no end. Cloneable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection was lost, or what came is no body.
    Broken {
        /// Whose body it is.
        endpoint: Option<InstanceKey>,
        /// What happened.
        error: Arc<hyper::Error>,
    },
    /// Nothing came for as long as
    /// [`HttpClientBuilder::body_idle`](super::HttpClientBuilder::body_idle) says. That counts as a
    /// failure of the instance.
    Idle {
        /// Whose body it is.
        endpoint: Option<InstanceKey>,
        /// How long nothing came.
        after: Duration,
    },
}

impl ClientBody {
    pub(super) fn new(
        body: Tracked<PooledBody, InstanceKey>,
        endpoint: Option<InstanceKey>,
        idle: Option<Duration>,
        in_use: InUse,
    ) -> Self {
        let size = body.size_hint();
        if body.is_end_stream() {
            return Self { body: None, size };
        }
        let idle = idle.map(|limit| Idle { limit, sleep: None, waiting: false });
        Self { body: Some(Reading { body, endpoint, idle, _in_use: in_use }), size }
    }
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let endpoint = || self.endpoint.clone();
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(idle) = &mut self.idle {
                    idle.waiting = false;
                }
                Poll::Ready(frame.map(|frame| {
                    frame.map_err(|error| BodyError::Broken {
                        endpoint: endpoint(),
                        error: error.into(),
                    })
                }))
            }
            Poll::Pending => {
                let Some(idle) = &mut self.idle else { return Poll::Pending };
                ready!(idle.poll(cx));
                let after = idle.limit;
                let error = BodyError::Idle { endpoint: endpoint(), after };
                self.body.fail();
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(later(Instant::now(), limit));
        }
        sleep.as_mut().poll(cx)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(reading) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(reading.poll(cx));
        this.size = reading.body.size_hint();
        if !matches!(frame, Some(Ok(_))) || reading.body.is_end_stream() {
            this.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl BodyError {
    /// The instance whose body it is.
    pub fn endpoint(&self) -> Option<&InstanceKey> {
        match self {
            Self::Broken { endpoint, .. } | Self::Idle { endpoint, .. } => endpoint.as_ref(),
        }
    }

    /// Whether it is that nothing came for too long.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Idle { .. })
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the response")?;
        if let Some(endpoint) = self.endpoint() {
            write!(f, " of {endpoint}")?;
        }
        match self {
            Self::Broken { error, .. } => {
                write!(f, " broke off: {}", classify::of_connection(error).1)
            }
            Self::Idle { after, .. } => write!(f, " stopped: nothing came for {after:?}"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken { error, .. } => Some(&**error),
            Self::Idle { .. } => None,
        }
    }
}
