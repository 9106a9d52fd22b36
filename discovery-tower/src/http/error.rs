//! What went wrong with a request to one instance, and whether it can have got there.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::Request;
use discovery_core::{Address, InstanceKey};
use hyper_util::client::legacy;

use super::connect::TooSlow;
use super::endpoint::Target;

/// A request that has no response, the instance, and the cause.
///
/// Cloneable; clones share the request that is given back, so that the first to
/// [take](Self::take_request) it has it.
pub struct HttpError<B>(Arc<Inner<B>>);

struct Inner<B> {
    target: Arc<Target>,
    kind: HttpErrorKind,
    /// Plain words.
    cause: String,
    source: Option<legacy::Error>,
    request: Mutex<Option<Request<B>>>,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// No connection could be made.
    Connect,
    /// No connection was made in time.
    ConnectTimeout,
    /// The connection was closing, and gave the request back before sending any of it.
    Returned,
    /// The request says that this instance is to be [avoided](crate::Avoid).
    Avoided,
    /// The address or the request is of a kind that this endpoint does not do.
    Unsupported,
    /// The connection was reset or closed before the head of the response. The instance may have
    /// acted on the request.
    Reset,
    /// Anything else, such as a response that is not HTTP or a request body that failed. The instance
    /// may have acted on the request.
    Other,
}

impl<B> HttpError<B> {
    pub(super) fn new(
        target: Arc<Target>,
        kind: HttpErrorKind,
        cause: impl Into<String>,
        source: Option<legacy::Error>,
        request: Option<Request<B>>,
    ) -> Self {
        let cause = cause.into();
        Self(Arc::new(Inner { target, kind, cause, source, request: Mutex::new(request) }))
    }

    /// The instance.
    pub fn key(&self) -> &InstanceKey {
        &self.0.target.key
    }

    /// Where it was to be reached.
    pub fn address(&self) -> &Address {
        &self.0.target.address
    }

    /// What kind of error it is.
    pub fn kind(&self) -> HttpErrorKind {
        self.0.kind
    }

    /// Whether the request certainly did not reach the instance, so that it can go to another one
    /// whatever its method.
    pub fn is_unsent(&self) -> bool {
        use HttpErrorKind as Kind;
        match self.0.kind {
            Kind::Connect
            | Kind::ConnectTimeout
            | Kind::Returned
            | Kind::Avoided
            | Kind::Unsupported => true,
            Kind::Reset | Kind::Other => false,
        }
    }

    /// Whether the instance refused the request because it is to be avoided: nobody else was ready.
    pub fn is_avoided(&self) -> bool {
        self.0.kind == HttpErrorKind::Avoided
    }

    /// Whether the connection was reset or closed before the head of the response.
    pub fn is_reset(&self) -> bool {
        self.0.kind == HttpErrorKind::Reset
    }

    /// The cause in plain words, without the instance: `connection refused`.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// The request as it was given to the endpoint, if its body was not begun to be read: always when
    /// [unsent](Self::is_unsent), and also otherwise when the body is empty. `None` the second time.
    pub fn take_request(&self) -> Option<Request<B>> {
        self.0.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<B> Clone for HttpError<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for HttpError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("key", self.key())
            .field("address", self.address())
            .field("kind", &self.0.kind)
            .field("cause", &self.0.cause)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Display for HttpError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0.kind {
            HttpErrorKind::Connect | HttpErrorKind::ConnectTimeout => "cannot connect",
            HttpErrorKind::Returned => "the request was not sent",
            HttpErrorKind::Avoided | HttpErrorKind::Unsupported => "refused",
            HttpErrorKind::Reset => "no response",
            HttpErrorKind::Other => "failed",
        };
        write!(f, "{} at {}: {what}: {}", self.key(), self.address(), self.cause())
    }
}

impl<B> Error for HttpError<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

/// Tells what an error of the client means, and says it in plain words.
pub(super) fn classify(error: &legacy::Error) -> (HttpErrorKind, String) {
    let hyper: Option<&hyper::Error> = find(error);
    let io: Option<&io::Error> = find(error);
    let words = io.filter(|io| io.raw_os_error().is_some()).map(|io| io.kind().to_string());
    if let Some(slow) = find::<TooSlow>(error) {
        return (HttpErrorKind::ConnectTimeout, slow.to_string());
    }
    if hyper.is_some_and(hyper::Error::is_canceled) {
        return (HttpErrorKind::Returned, "the connection was closing".to_owned());
    }
    // A body that its sender failed to supply may fail with the words of a lost connection: another
    // one than that to the instance.
    if hyper.is_some_and(hyper::Error::is_user) {
        return (HttpErrorKind::Other, chain(error));
    }
    // Without a connection nothing can have been sent; the client names one from when it has it.
    if error.is_connect() || error.connect_info().is_none() {
        return (HttpErrorKind::Connect, words.unwrap_or_else(|| chain(error)));
    }
    if let Some(words) = words.filter(|_| io.is_some_and(|io| is_loss(io.kind()))) {
        return (HttpErrorKind::Reset, words);
    }
    if hyper.is_some_and(|hyper| hyper.is_incomplete_message() || hyper.is_closed()) {
        return (HttpErrorKind::Reset, "the connection was closed".to_owned());
    }
    (HttpErrorKind::Other, chain(error))
}

fn is_loss(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut | UnexpectedEof
    )
}

type Cause<'a> = &'a (dyn Error + 'static);

fn causes(error: &legacy::Error) -> impl Iterator<Item = Cause<'_>> {
    fn next<'a>(error: &Cause<'a>) -> Option<Cause<'a>> {
        (**error).source()
    }
    std::iter::successors(error.source(), next)
}

fn find<T: Error + 'static>(error: &legacy::Error) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The causes, each that says more than the one before.
fn chain(error: &legacy::Error) -> String {
    let mut text = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    if text.is_empty() { error.to_string() } else { text }
}
