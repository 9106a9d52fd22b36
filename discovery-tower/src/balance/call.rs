//! One call: nearly always an endpoint is picked, ready, and given the request at once. Where that
//! does not go, [`settle`](super::settle) finds one that is ready.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service as _;

use super::error::{CallError, share};
use super::flight::{Flight, Picked, guarded};
use super::parts::Parts;
use super::protocol::{Origin, Protocol};
use super::settle::{Settling, Trail, alone, settle};

pin_project! {
    /// A call through a [`Balance`](super::Balance).
    ///
    /// Dropping it cancels the call: it leaves nothing behind but what the endpoint has of it.
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<T: Parts> {
        // What has become of the request before, if it had to go on.
        trail: Option<Box<Trail<T>>>,
        #[pin]
        state: State<T>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<T: Parts> {
        // An endpoint is picked; its service has yet to say that it is ready.
        Picked { held: Option<Held<T>> },
        Settling { settling: Settling<T> },
        Sent { #[pin] future: T::Future, flight: Option<Flight<T>> },
        Over { error: Option<CallError<T::Key>> },
    }
}

/// A request, where it is to go, and the service that takes it there.
pub(crate) struct Held<T: Parts> {
    pub(crate) picked: Picked<T>,
    pub(crate) service: T::Service,
    pub(crate) request: T::Request,
}

/// What the caller is given.
#[allow(unreachable_pub, reason = "it stands in the public interface")]
pub type Response<T> = <<T as Parts>::Protocol as Protocol<
    <T as Parts>::Request,
    <T as Parts>::Response,
    <T as Parts>::Error,
    <T as Parts>::Key,
>>::Response;

impl<T: Parts> Call<T> {
    #[inline]
    pub(crate) fn picked(held: Held<T>) -> Self {
        Self { trail: None, state: State::Picked { held: Some(held) } }
    }

    pub(crate) fn settling(settling: Settling<T>) -> Self {
        Self { trail: None, state: State::Settling { settling } }
    }

    pub(crate) fn refused(error: CallError<T::Key>) -> Self {
        Self { trail: None, state: State::Over { error: Some(error) } }
    }
}

impl<T: Parts> Future for Call<T> {
    type Output = Result<Response<T>, CallError<T::Key>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Picked { held } => {
                    let Some(mut now) = held.take() else { return Poll::Pending };
                    match now.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => send(now),
                        Poll::Pending => match elsewhere(now, None) {
                            Ok(settling) => State::Settling { settling },
                            // The balancer is gone; this endpoint is all there is.
                            Err((now, _)) => State::Settling { settling: alone(now) },
                        },
                        Poll::Ready(Err(error)) => match elsewhere(now, Some(error)) {
                            Ok(settling) => State::Settling { settling },
                            Err((now, error)) => over(failed(&now.picked, error)),
                        },
                    }
                }
                StateProj::Settling { settling } => match ready!(settling.as_mut().poll(cx)) {
                    Ok((held, trail)) => {
                        *this.trail = Some(trail);
                        send(held)
                    }
                    Err(error) => over(Some(error)),
                },
                StateProj::Sent { future, flight } => {
                    if flight.is_none() {
                        return Poll::Pending;
                    }
                    let result = ready!(future.poll(cx));
                    let Some(flight) = flight.take() else { return Poll::Pending };
                    match result {
                        Ok(response) => return Poll::Ready(respond(flight, response)),
                        Err(error) => match after(flight, error, this.trail.take()) {
                            Ok(settling) => State::Settling { settling },
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                    }
                }
                StateProj::Over { error } => {
                    return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            };
            this.state.set(next);
        }
    }
}

#[inline]
fn send<T: Parts>(mut held: Held<T>) -> State<T> {
    let flight = held.picked.sent();
    State::Sent { future: held.service.call(held.request), flight: Some(flight) }
}

fn over<T: Parts>(error: Option<CallError<T::Key>>) -> State<T> {
    State::Over { error }
}

fn failed<T: Parts>(picked: &Picked<T>, error: Option<T::Error>) -> Option<CallError<T::Key>> {
    let endpoint = picked.endpoint()?.member.key().clone();
    Some(CallError::Failed { endpoint, error: share(error?) })
}

/// Finds another endpoint beside one that is not ready, or instead of one that never will be.
#[cold]
fn elsewhere<T: Parts>(
    held: Held<T>,
    error: Option<T::Error>,
) -> Result<Settling<T>, (Held<T>, Option<T::Error>)> {
    let Some(endpoint) = held.picked.endpoint().cloned() else { return Err((held, error)) };
    let Some(shared) = endpoint.hub.shared() else { return Err((held, error)) };
    let mut trail = Box::new(Trail::new());
    drop(held.picked);
    if let Some(error) = error {
        trail.unready(&endpoint, share(error));
    } else {
        trail.waits_for(endpoint, held.service);
    }
    Ok(settle(shared, held.request, trail))
}

#[inline]
fn respond<T: Parts>(
    flight: Flight<T>,
    response: T::Response,
) -> Result<Response<T>, CallError<T::Key>> {
    const PANICKED: &str = "protocol";
    let outcome = {
        let Some(endpoint) = flight.endpoint() else {
            return Err(CallError::Panicked { what: PANICKED });
        };
        guarded(|| endpoint.hub.protocol.outcome(&response))
    };
    let given = match outcome {
        Some(Some(outcome)) => flight
            .end(outcome)
            .and_then(|endpoint| guarded(|| T::Protocol::respond(response, Origin::new(endpoint)))),
        Some(None) => flight.endpoint().cloned().and_then(|endpoint| {
            let call = flight.completion()?;
            guarded(|| endpoint.hub.protocol.follow(response, call))
        }),
        None => None,
    };
    given.ok_or_else(|| CallError::Panicked { what: PANICKED })
}

/// What becomes of a call that an endpoint failed: another endpoint, if it gave the request back.
#[cold]
fn after<T: Parts>(
    flight: Flight<T>,
    mut error: T::Error,
    trail: Option<Box<Trail<T>>>,
) -> Result<Settling<T>, CallError<T::Key>> {
    let panicked = || CallError::Panicked { what: "protocol" };
    let hub = flight.endpoint().ok_or_else(panicked)?.hub.clone();
    let judged = guarded(|| {
        let outcome = hub.protocol.failed(&error);
        (outcome, hub.protocol.take_back(&mut error))
    });
    let (outcome, request) = judged.ok_or_else(panicked)?;
    let endpoint = flight.end(outcome).ok_or_else(panicked)?;
    let error = share(error);
    if let (Some(request), Some(shared)) = (request, hub.shared()) {
        let mut trail = trail.unwrap_or_else(|| Box::new(Trail::new()));
        trail.gave_back(&endpoint, error);
        return Ok(settle(shared, request, trail));
    }
    Err(CallError::Failed { endpoint: endpoint.member.key().clone(), error })
}

impl<T: Parts> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Picked { .. } => "Call::Picked",
            State::Settling { .. } => "Call::Settling",
            State::Sent { .. } => "Call::Sent",
            State::Over { .. } => "Call::Over",
        })
    }
}
