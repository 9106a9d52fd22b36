//! The adapter: a stream of changes becomes what tower calls a `Discover`.
//!
//! tower's balancers make two demands that a discovery stream must not pass on to its users: an error
//! in the stream is the end of the balancer, and the end of the stream is polled past. So there is no
//! error here and no end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use discovery_core::{Change, Instance};
use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tower::discover::Change as TowerChange;
use tower::load::CompleteOnResponse;

use crate::load::{LoadMeasure, MeasuredMaker, PeakEwmaMaker, PendingRequestsMaker};
use crate::maker::{KeepIf, MakeEndpoint, same_address};

/// So many changes are taken in one go before the task gets a rest at the end of a batch…
const ENOUGH: usize = 1_024;
/// …and so many even in the midst of a batch: a stream that breaks the laws must not hold the task.
const TOO_MUCH: usize = 128 * 1_024;

pin_project! {
    /// A [`tower::discover::Discover`] made of a stream of [`Change`]s and a [maker](MakeEndpoint) of
    /// services.
    ///
    /// It never yields an error, and never ends: when the source was closed on purpose, the balancer
    /// keeps the last set. [`Change::Synced`] is not passed on. An update is passed on as an insert of
    /// a new service unless the maker says that the old one [still
    /// serves](MakeEndpoint::still_serves).
    ///
    /// Its error type is [`Infallible`], which tower takes wherever it asks for `Into<BoxError>`.
    #[must_use = "a stream does nothing unless polled"]
    pub struct Endpoints<St, K, E, M> {
        #[pin]
        changes: Option<St>,
        maker: M,
        // What each live service was made for.
        made_for: HashMap<K, Arc<E>>,
        taken: usize,
    }
}

impl<St, K, E, M> Endpoints<St, K, E, M>
where
    St: Stream<Item = Change<K, Arc<E>>>,
    M: MakeEndpoint<K, E>,
{
    /// Services made by `maker` for the endpoints in `changes`, of any stream that keeps the
    /// [laws](Change).
    ///
    /// A closure as `maker` makes a new service at each update of an endpoint, also when only its
    /// weight or metadata changed; the connection and load statistics of the old one are lost. For
    /// instances [`of_instances`](Self::of_instances) is nearly always the better choice; otherwise
    /// add [`keep_if`](Self::keep_if), or have a maker with a rule of its own, as `HttpMaker` is.
    pub fn new(changes: St, maker: M) -> Self {
        Self { changes: Some(changes), maker, made_for: HashMap::new(), taken: 0 }
    }

    /// Keeps the service of an endpoint at an update when `rule`, given the key, the endpoint that
    /// the service was made for and the new one, says so. Replaces the maker's own rule.
    pub fn keep_if<F>(self, rule: F) -> Endpoints<St, K, E, KeepIf<M, F>>
    where
        F: FnMut(&K, &E, &E) -> bool,
    {
        self.with_maker(|maker| KeepIf::new(maker, rule))
    }

    /// Measures the load of each endpoint as tower's [`PeakEwma`](tower::load::PeakEwma) does: the
    /// latency, decaying over `decay`, times the requests in flight. `default_rtt` is the latency of
    /// an endpoint that has not answered yet. A duration of zero counts as a nanosecond.
    pub fn peak_ewma(
        self,
        default_rtt: Duration,
        decay: Duration,
    ) -> Endpoints<St, K, E, PeakEwmaMaker<M>> {
        self.peak_ewma_with(default_rtt, decay, CompleteOnResponse::default())
    }

    /// [`peak_ewma`](Self::peak_ewma) with its own idea of when a request is
    /// [finished](tower::load::TrackCompletion), such as at the end of the body.
    pub fn peak_ewma_with<C>(
        self,
        default_rtt: Duration,
        decay: Duration,
        completion: C,
    ) -> Endpoints<St, K, E, PeakEwmaMaker<M, C>> {
        self.with_maker(|maker| PeakEwmaMaker::new(maker, default_rtt, decay, completion))
    }

    /// Measures the load of each endpoint as tower's
    /// [`PendingRequests`](tower::load::PendingRequests) does: the requests in flight.
    pub fn pending_requests(self) -> Endpoints<St, K, E, PendingRequestsMaker<M>> {
        self.pending_requests_with(CompleteOnResponse::default())
    }

    /// [`pending_requests`](Self::pending_requests) with its own idea of when a request is
    /// [finished](tower::load::TrackCompletion).
    pub fn pending_requests_with<C>(
        self,
        completion: C,
    ) -> Endpoints<St, K, E, PendingRequestsMaker<M, C>> {
        self.with_maker(|maker| PendingRequestsMaker::new(maker, completion))
    }

    /// Measures the load of each endpoint in a way that is chosen when the program runs.
    pub fn measured(self, measure: LoadMeasure) -> Endpoints<St, K, E, MeasuredMaker<M>> {
        self.with_maker(|maker| MeasuredMaker::new(maker, measure))
    }

    fn with_maker<N>(self, f: impl FnOnce(M) -> N) -> Endpoints<St, K, E, N> {
        Endpoints {
            changes: self.changes,
            maker: f(self.maker),
            made_for: self.made_for,
            taken: self.taken,
        }
    }
}

/// A maker that keeps the services of instances while their address stays.
pub(crate) type OfInstances<K, M> = KeepIf<M, fn(&K, &Instance, &Instance) -> bool>;

impl<St, K, M> Endpoints<St, K, Instance, OfInstances<K, M>>
where
    St: Stream<Item = Change<K, Arc<Instance>>>,
    M: MakeEndpoint<K, Instance>,
{
    /// Services made by `maker` for [`Instance`]s: a service is kept unless the address changes.
    pub fn of_instances(changes: St, maker: M) -> Self {
        Self::new(changes, KeepIf::new(maker, same_address))
    }
}

impl<St, K, E, M> Stream for Endpoints<St, K, E, M>
where
    St: Stream<Item = Change<K, Arc<E>>>,
    K: Hash + Eq + Clone,
    M: MakeEndpoint<K, E>,
{
    type Item = Result<TowerChange<K, M::Service>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            if *this.taken >= TOO_MUCH {
                return rest(this.taken, cx);
            }
            let Some(changes) = this.changes.as_mut().as_pin_mut() else { return Poll::Pending };
            let change = match changes.poll_next(cx) {
                Poll::Ready(Some(change)) => change,
                Poll::Ready(None) => {
                    this.changes.set(None);
                    return Poll::Pending;
                }
                Poll::Pending => {
                    *this.taken = 0;
                    return Poll::Pending;
                }
            };
            *this.taken += 1;
            match change {
                Change::Insert(key, endpoint) => {
                    let kept = this
                        .made_for
                        .get(&key)
                        .is_some_and(|old| this.maker.still_serves(&key, old, &endpoint));
                    if !kept {
                        let service = this.maker.make(&key, &endpoint);
                        this.made_for.insert(key.clone(), endpoint);
                        return Poll::Ready(Some(Ok(TowerChange::Insert(key, service))));
                    }
                }
                Change::Remove(key) => {
                    this.made_for.remove(&key);
                    return Poll::Ready(Some(Ok(TowerChange::Remove(key))));
                }
                // Only between batches is it harmless to stop: what changed at once is seen at once.
                Change::Synced if *this.taken >= ENOUGH => return rest(this.taken, cx),
                _ => {}
            }
        }
    }
}

/// Gives the task a rest with more to come. tower's balancer takes changes until there are none, so
/// that only `Pending` stops it.
fn rest<T>(taken: &mut usize, cx: &Context<'_>) -> Poll<T> {
    *taken = 0;
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl<St, K, E, M> FusedStream for Endpoints<St, K, E, M>
where
    Self: Stream,
{
    fn is_terminated(&self) -> bool {
        false
    }
}

impl<St, K, E, M> fmt::Debug for Endpoints<St, K, E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("live", &self.made_for.len())
            .field("ended", &self.changes.is_none())
            .finish_non_exhaustive()
    }
}
