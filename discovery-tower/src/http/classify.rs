//! What the errors of hyper mean for a request, in plain words.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;

use super::connect::TooSlow;
use super::error::HttpErrorKind;
use crate::balance::find;

/// Tells what an error of hyper-util's client means, and says it in plain words.
pub(super) fn of_client(error: &legacy::Error) -> (HttpErrorKind, String) {
    if let Some(slow) = find::<TooSlow>(error) {
        return (HttpErrorKind::ConnectTimeout, slow.to_string());
    }
    let hyper: Option<&hyper::Error> = find(error);
    // Without a connection nothing can have been sent; the client names one from when it has it.
    let unconnected = error.is_connect() || error.connect_info().is_none();
    if unconnected && !hyper.is_some_and(|hyper| hyper.is_canceled() || hyper.is_user()) {
        return (HttpErrorKind::Connect, connecting(error));
    }
    match hyper {
        Some(hyper) => of_connection(hyper),
        None => (HttpErrorKind::Other, chain(error)),
    }
}

/// Tells what an error of a connection means for a request that was sent on it.
pub(crate) fn of_connection(error: &hyper::Error) -> (HttpErrorKind, String) {
    if error.is_canceled() {
        return (HttpErrorKind::Returned, "the connection was closing".to_owned());
    }
    // It was closed behind the request, of which no more is known.
    if error.to_string().starts_with("dispatch task is gone") {
        return (HttpErrorKind::Reset, "the connection was closed".to_owned());
    }
    // A body that its sender failed to supply may fail with the words of a lost connection: another
    // one than that to the instance.
    if error.is_user() {
        return (HttpErrorKind::Request, chain(error));
    }
    if let Some(stream) = find::<h2::Error>(error).filter(|stream| stream.is_remote()) {
        return of_stream(stream);
    }
    // That of HTTP/2 does not name it as its source.
    let io = find::<io::Error>(error).or_else(|| find::<h2::Error>(error)?.get_io());
    if let Some(io) = io.filter(|io| is_loss(io.kind())) {
        return (HttpErrorKind::Reset, words(io));
    }
    if error.is_incomplete_message() || error.is_closed() {
        return (HttpErrorKind::Reset, "the connection was closed".to_owned());
    }
    (HttpErrorKind::Other, chain(error))
}

/// Whether a request was not sent, or is not acted on, because its connection closes. It could be sent
/// on another.
pub(super) fn is_closing(error: &hyper::Error) -> bool {
    let stream = find::<h2::Error>(error);
    error.is_canceled() || stream.is_some_and(|stream| stream.is_remote() && stream.is_go_away())
}

/// What the instance said of a stream. It says of those that its GOAWAY does not count in, and of no
/// others, that they end with it.
fn of_stream(error: &h2::Error) -> (HttpErrorKind, String) {
    let reason = error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    if error.is_go_away() {
        return (HttpErrorKind::Returned, "the instance closes the connection".to_owned());
    }
    if reason == h2::Reason::REFUSED_STREAM {
        return (HttpErrorKind::Returned, "the instance refused the stream".to_owned());
    }
    (HttpErrorKind::Reset, format!("the instance reset the stream: {}", reason.description()))
}

/// Why there is no connection.
pub(super) fn connecting(error: &(dyn Error + 'static)) -> String {
    #[cfg(feature = "tls")]
    if let Some(handshake) = find::<super::tls::HandshakeError>(error) {
        return handshake.to_string();
    }
    let io = find::<io::Error>(error).filter(|io| io.raw_os_error().is_some());
    io.map_or_else(|| chain(error), words)
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "the connection was closed".to_owned()
        }
        kind => kind.to_string(),
    }
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

/// The error and what it comes from.
fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    fn next<'a>(error: &Cause<'a>) -> Option<Cause<'a>> {
        (**error).source()
    }
    std::iter::successors(Some(error), next)
}

/// The causes, each that says more than the one before; of an error that has any, itself not.
fn chain(error: Cause<'_>) -> String {
    let mut text = String::new();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    if text.is_empty() { error.to_string() } else { text }
}
