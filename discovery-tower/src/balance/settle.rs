//! The long way of a request: there is nobody to send it to, or who was picked is not ready, failed to
//! become ready, or gave it back.
//!
//! An endpoint that is not ready is waited for, and the next one asked meanwhile; who is ready first
//! has the request. Waiting is bounded by the [`Limits`](super::Limits), and ends at once when the set
//! says that there is nothing to wait for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tower::Service as _;

use super::call::Held;
use super::error::{CallError, Cause, SharedError, Unavailable, share};
use super::flight::{Endpoint, Picked, guarded};
use super::hub::{Event, later};
use super::member::Gate;
use super::parts::Parts;
use super::protocol::Protocol as _;
use super::shared::Shared;
use super::snapshot::Snapshot;

/// How many endpoints a call waits for at a time: all of a set that is small.
const WAITED_FOR: usize = 32;
/// How many causes an error tells.
pub(crate) const CAUSES: usize = 3;
/// How often a request may come back from all endpoints there are before it is given up.
const ROUNDS: u32 = 3;

/// The way to an endpoint that is ready.
pub(crate) type Settling<T> = Pin<Box<dyn Future<Output = Settled<T>> + Send>>;
type Settled<T> = Result<(Held<T>, Box<Trail<T>>), CallError<<T as Parts>::Key>>;

/// Where a request has been.
pub(crate) struct Trail<T: Parts> {
    /// These are not asked again.
    tried: Vec<Arc<Endpoint<T>>>,
    /// Which of them gave it back: unlike those that failed, they may be asked again if all did.
    gave_back: usize,
    rounds: u32,
    causes: Vec<Cause<T::Key>>,
    /// The first one asked, which is not ready yet.
    first: Option<Readying<T>>,
}

impl<T: Parts> Trail<T> {
    pub(crate) fn new() -> Self {
        Self { tried: Vec::new(), gave_back: 0, rounds: 0, causes: Vec::new(), first: None }
    }

    fn tried(&mut self, endpoint: &Arc<Endpoint<T>>, error: SharedError) {
        endpoint.hub.seen.passed_on();
        self.tried.push(endpoint.clone());
        if self.causes.len() < CAUSES {
            self.causes.push(Cause { endpoint: endpoint.member.key().clone(), error });
        }
    }

    /// This endpoint's service failed to become ready: nobody is to pick it from now on.
    pub(crate) fn unready(&mut self, endpoint: &Arc<Endpoint<T>>, cause: SharedError) {
        self.tried(endpoint, cause.clone());
        endpoint.member.close();
        endpoint.hub.tell(Event::Unready(endpoint.clone(), cause));
    }

    /// This endpoint gave the request back unsent.
    pub(crate) fn gave_back(&mut self, endpoint: &Arc<Endpoint<T>>, error: SharedError) {
        self.tried(endpoint, error);
        self.gave_back += 1;
    }

    /// This endpoint's service was asked, and is not ready yet.
    pub(crate) fn waits_for(&mut self, endpoint: Arc<Endpoint<T>>, service: T::Service) {
        self.first = Some(Readying { endpoint, service: Some(service) });
    }

    /// Begins again, if all gave the request back and it did not go round too often.
    fn again(&mut self) -> bool {
        let again = self.gave_back > 0 && self.rounds < ROUNDS;
        if again {
            self.rounds += 1;
            self.gave_back = 0;
            self.tried.clear();
        }
        again
    }
}

/// A service on its way to being ready.
pub(crate) struct Readying<T: Parts> {
    endpoint: Arc<Endpoint<T>>,
    /// There until it is ready.
    service: Option<T::Service>,
}

impl<T: Parts> Unpin for Readying<T> {}

impl<T: Parts> Readying<T> {
    pub(crate) fn new(endpoint: Arc<Endpoint<T>>) -> Self {
        let service = Some(endpoint.service.clone());
        Self { endpoint, service }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint<T>> {
        &self.endpoint
    }
}

impl<T: Parts> Future for Readying<T> {
    type Output = (Arc<Endpoint<T>>, Result<T::Service, SharedError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(service) = &mut self.service else { return Poll::Pending };
        // One service that panics is not to take the driver, or another one's call, with it.
        let polled = guarded(|| service.poll_ready(cx).map_err(share))
            .unwrap_or_else(|| Poll::Ready(Err(share("the service panicked"))));
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.service = None;
                Poll::Ready((self.endpoint.clone(), Err(error)))
            }
            Poll::Ready(Ok(())) => match self.service.take() {
                Some(service) => Poll::Ready((self.endpoint.clone(), Ok(service))),
                None => Poll::Pending,
            },
        }
    }
}

/// Finds an endpoint that is ready for this request.
pub(crate) fn settle<T: Parts>(
    shared: Arc<Shared<T>>,
    request: T::Request,
    mut trail: Box<Trail<T>>,
) -> Settling<T> {
    Box::pin(async move {
        match search(&shared, request, &mut trail).await {
            Ok(held) => Ok((held, trail)),
            Err(error) => {
                shared.hub.seen.refused(&error);
                Err(error)
            }
        }
    })
}

/// Waits for the one endpoint that was picked: the last handle has been dropped since, so that there is
/// no set to look for another one in.
pub(crate) fn alone<T: Parts>(mut held: Held<T>) -> Settling<T> {
    Box::pin(async move {
        let Some(endpoint) = held.picked.endpoint().cloned() else {
            return std::future::pending().await;
        };
        let begun = Instant::now();
        let limit = endpoint.hub.limits.ready;
        let until = guarded(|| endpoint.hub.protocol.deadline(&held.request)).flatten();
        let late = until.is_some_and(|until| until < later(begun, limit));
        let end = until.map_or(later(begun, limit), |until| until.min(later(begun, limit)));
        let ready = std::future::poll_fn(|cx| held.service.poll_ready(cx));
        let key = endpoint.member.key().clone();
        match tokio::time::timeout_at(end, ready).await {
            Ok(Ok(())) => Ok((held, Box::new(Trail::new()))),
            Ok(Err(error)) => Err(CallError::Failed { endpoint: key, error: share(error) }),
            Err(_) => {
                let error = CallError::Unavailable {
                    service: endpoint.hub.name(),
                    waited: begun.elapsed(),
                    endpoints: 1,
                    reason: Unavailable::NotReady,
                    causes: Arc::new([]),
                };
                Err(if late { too_late(error) } else { error })
            }
        }
    })
}

async fn search<T: Parts>(
    shared: &Shared<T>,
    // Owned: a request need not be shared between threads.
    request: T::Request,
    trail: &mut Trail<T>,
) -> Result<Held<T>, CallError<T::Key>> {
    let begun = Instant::now();
    let until = guarded(|| shared.hub.protocol.deadline(&request))
        .ok_or(CallError::Panicked { what: "protocol" })?;
    let mut waits = None;
    let mut waiting: FuturesUnordered<Readying<T>> = trail.first.take().into_iter().collect();
    loop {
        let published = shared.published.notified();
        tokio::pin!(published);
        // From here on no publication is missed.
        published.as_mut().enable();
        let snapshot = shared.snapshot.load_full();
        // Those that are gone need not be waited for.
        if waiting.iter().any(|one| one.endpoint.member.gate() == Gate::Closed) {
            let kept = std::mem::take(&mut waiting).into_iter();
            waiting = kept.filter(|one| one.endpoint.member.gate() != Gate::Closed).collect();
        }
        while waiting.len() < WAITED_FOR {
            let asked = waiting.iter().map(|one| one.endpoint.clone());
            let taken: Vec<_> = trail.tried.iter().cloned().chain(asked).collect();
            let picked = snapshot
                .pick(&shared.hub, &request, &taken, false)
                .and_then(|picked| match picked {
                    None if waiting.is_empty() => {
                        snapshot.pick(&shared.hub, &request, &taken, true)
                    }
                    picked => Ok(picked),
                })
                .map_err(|panicked| CallError::Panicked { what: panicked.0 })?;
            let Some((picked, service)) = picked else { break };
            let Some(endpoint) = picked.endpoint().cloned() else { break };
            // A policy that insists on one would have it asked without end.
            if taken.iter().any(|taken| Arc::ptr_eq(taken, &endpoint)) {
                break;
            }
            let mut readying = Readying { endpoint, service: Some(service) };
            let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut readying).poll(cx)));
            match polled.await {
                Poll::Ready((_, Ok(service))) => return Ok(Held { picked, service, request }),
                Poll::Ready((endpoint, Err(error))) => trail.unready(&endpoint, error),
                Poll::Pending => {
                    drop(picked);
                    waiting.push(readying);
                }
            }
        }
        let limit = if waiting.is_empty() {
            match patience(shared, &snapshot, &request, trail) {
                Wait::Again => continue,
                Wait::For(limit) => limit,
                Wait::None => return Err(nobody(shared, &snapshot, &request, trail, begun)),
            }
        } else {
            shared.hub.limits.ready
        };
        let limit = later(begun, limit);
        let deadline = until.map_or(limit, |until| until.min(limit));
        if Instant::now() >= deadline {
            let error = nobody(shared, &snapshot, &request, trail, begun);
            return Err(if deadline < limit { too_late(error) } else { error });
        }
        if waits.is_none() {
            let full = || CallError::TooManyWaiting {
                service: shared.name.clone(),
                limit: shared.hub.limits.waiting,
            };
            waits = Some((shared.queue().ok_or_else(full)?, shared.hub.seen.waits()));
        }
        tokio::select! {
            biased;
            Some((endpoint, ready)) = waiting.next(), if !waiting.is_empty() => match ready {
                // Since this call began to wait for it, it was removed, or has its hands full.
                Ok(_) if !shared.snapshot.load().is_open(&endpoint) => {}
                Ok(service) => {
                    let now = shared.hub.policy_now();
                    let picked = Picked::new(endpoint, now);
                    return Ok(Held { picked, service, request });
                }
                Err(error) => trail.unready(&endpoint, error),
            },
            () = published => {}
            () = sleep_until(deadline) => {}
        }
    }
}

/// What a call that may wait no longer has waited for.
fn too_late<K>(error: CallError<K>) -> CallError<K> {
    match error {
        CallError::NotLoaded { .. } | CallError::Unavailable { .. } => {
            CallError::Deadline { waiting: Box::new(error) }
        }
        // There is nothing to wait for.
        error => error,
    }
}

enum Wait {
    /// Ask those again that gave the request back.
    Again,
    /// Something may change within this time from the beginning.
    For(Duration),
    /// Nothing will.
    None,
}

/// How long to wait when nobody can be asked.
fn patience<T: Parts>(
    shared: &Shared<T>,
    snapshot: &Snapshot<T>,
    request: &T::Request,
    trail: &mut Trail<T>,
) -> Wait {
    if snapshot.len() == 0 {
        return if snapshot.loaded { Wait::None } else { Wait::For(shared.hub.limits.load) };
    }
    if trail.again() {
        return Wait::Again;
    }
    if snapshot.is_avoided(&shared.hub, request, &trail.tried) {
        return Wait::None;
    }
    let others = &snapshot.others;
    if others.connecting > 0 {
        Wait::For(shared.hub.limits.ready)
    } else if others.failed > 0 || snapshot.ready.len() > 0 {
        Wait::For(shared.hub.limits.failed)
    } else {
        Wait::None
    }
}

/// The error of a call that found nobody.
fn nobody<T: Parts>(
    shared: &Shared<T>,
    snapshot: &Snapshot<T>,
    request: &T::Request,
    trail: &mut Trail<T>,
    begun: Instant,
) -> CallError<T::Key> {
    let (service, waited) = (shared.name.clone(), begun.elapsed());
    if snapshot.len() == 0 {
        if snapshot.loaded {
            return CallError::NoEndpoints { service };
        }
        let cause = shared.status.as_ref().and_then(|status| status.get().state.error().cloned());
        return CallError::NotLoaded { service, waited, cause };
    }
    let reason = if snapshot.is_avoided(&shared.hub, request, &trail.tried) {
        Unavailable::Avoided
    } else if snapshot.ready.len() > 0 && !trail.causes.is_empty() {
        Unavailable::Failed
    } else if snapshot.ready.len() > 0 {
        Unavailable::NotReady
    } else {
        snapshot.others.reason()
    };
    let causes = if trail.causes.is_empty() {
        snapshot.others.causes.clone()
    } else {
        std::mem::take(&mut trail.causes).into()
    };
    let endpoints = snapshot.len();
    CallError::Unavailable { service, waited, endpoints, reason, causes }
}
