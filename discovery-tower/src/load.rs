//! Makers whose services tell their load, by the measures that tower ships.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tower::Service;
use tower::load::completion::TrackCompletionFuture;
use tower::load::{
    CompleteOnResponse, Load, PeakEwma, PendingRequests, peak_ewma, pending_requests,
};

use crate::maker::MakeEndpoint;

/// See [`Endpoints::peak_ewma`](crate::Endpoints::peak_ewma).
#[derive(Clone, Debug)]
pub struct PeakEwmaMaker<M, C = CompleteOnResponse> {
    maker: M,
    default_rtt: Duration,
    decay: Duration,
    completion: C,
}

impl<M, C> PeakEwmaMaker<M, C> {
    /// `maker`'s services, each with the load measure.
    pub fn new(maker: M, default_rtt: Duration, decay: Duration, completion: C) -> Self {
        Self { maker, default_rtt, decay, completion }
    }
}

fn ewma<S, C>(service: S, default_rtt: Duration, decay: Duration, completion: C) -> PeakEwma<S, C> {
    let least = Duration::from_nanos(1);
    let decay_ns = decay.max(least).as_secs_f64() * 1e9;
    PeakEwma::new(service, default_rtt.max(least), decay_ns, completion)
}

impl<K, E, M: MakeEndpoint<K, E>, C: Clone> MakeEndpoint<K, E> for PeakEwmaMaker<M, C> {
    type Service = PeakEwma<M::Service, C>;

    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> Self::Service {
        let service = self.maker.make(key, endpoint);
        ewma(service, self.default_rtt, self.decay, self.completion.clone())
    }

    fn still_serves(&mut self, key: &K, old: &Arc<E>, new: &Arc<E>) -> bool {
        self.maker.still_serves(key, old, new)
    }
}

/// See [`Endpoints::pending_requests`](crate::Endpoints::pending_requests).
#[derive(Clone, Debug)]
pub struct PendingRequestsMaker<M, C = CompleteOnResponse> {
    maker: M,
    completion: C,
}

impl<M, C> PendingRequestsMaker<M, C> {
    /// `maker`'s services, each with the load measure.
    pub fn new(maker: M, completion: C) -> Self {
        Self { maker, completion }
    }
}

impl<K, E, M: MakeEndpoint<K, E>, C: Clone> MakeEndpoint<K, E> for PendingRequestsMaker<M, C> {
    type Service = PendingRequests<M::Service, C>;

    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> Self::Service {
        PendingRequests::new(self.maker.make(key, endpoint), self.completion.clone())
    }

    fn still_serves(&mut self, key: &K, old: &Arc<E>, new: &Arc<E>) -> bool {
        self.maker.still_serves(key, old, new)
    }
}

/// How the load of an endpoint is measured, for programs that choose it when they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadMeasure {
    /// The latency, decaying, times the requests in flight; see
    /// [`Endpoints::peak_ewma`](crate::Endpoints::peak_ewma).
    PeakEwma {
        /// The latency of an endpoint that has not answered yet.
        default_rtt: Duration,
        /// How fast a peak is forgotten.
        decay: Duration,
    },
    /// The requests in flight; see
    /// [`Endpoints::pending_requests`](crate::Endpoints::pending_requests).
    PendingRequests,
}

/// Peak EWMA with a first guess of 30 ms and a decay of 10 s.
impl Default for LoadMeasure {
    fn default() -> Self {
        Self::PeakEwma { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10) }
    }
}

/// See [`Endpoints::measured`](crate::Endpoints::measured).
#[derive(Clone, Debug)]
pub struct MeasuredMaker<M> {
    maker: M,
    measure: LoadMeasure,
}

impl<M> MeasuredMaker<M> {
    /// `maker`'s services, each with the load measure.
    pub fn new(maker: M, measure: LoadMeasure) -> Self {
        Self { maker, measure }
    }
}

impl<K, E, M: MakeEndpoint<K, E>> MakeEndpoint<K, E> for MeasuredMaker<M> {
    type Service = Measured<M::Service>;

    fn make(&mut self, key: &K, endpoint: &Arc<E>) -> Self::Service {
        let service = self.maker.make(key, endpoint);
        let completion = CompleteOnResponse::default();
        match self.measure {
            LoadMeasure::PeakEwma { default_rtt, decay } => {
                Measured::PeakEwma(ewma(service, default_rtt, decay, completion))
            }
            LoadMeasure::PendingRequests => {
                Measured::PendingRequests(PendingRequests::new(service, completion))
            }
        }
    }

    fn still_serves(&mut self, key: &K, old: &Arc<E>, new: &Arc<E>) -> bool {
        self.maker.still_serves(key, old, new)
    }
}

/// A service with one of the load measures.
#[derive(Debug)]
#[non_exhaustive]
pub enum Measured<S> {
    /// [`LoadMeasure::PeakEwma`].
    PeakEwma(PeakEwma<S>),
    /// [`LoadMeasure::PendingRequests`].
    PendingRequests(PendingRequests<S>),
}

/// The load of a [`Measured`] service. Only loads by the same measure compare in a meaningful way.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum MeasuredLoad {
    /// By latency and requests in flight.
    Cost(peak_ewma::Cost),
    /// By requests in flight.
    Count(pending_requests::Count),
}

impl<S> Load for Measured<S> {
    type Metric = MeasuredLoad;

    fn load(&self) -> MeasuredLoad {
        match self {
            Self::PeakEwma(service) => MeasuredLoad::Cost(service.load()),
            Self::PendingRequests(service) => MeasuredLoad::Count(service.load()),
        }
    }
}

impl<S: Service<Req>, Req> Service<Req> for Measured<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<
        TrackCompletionFuture<S::Future, CompleteOnResponse, peak_ewma::Handle>,
        TrackCompletionFuture<S::Future, CompleteOnResponse, pending_requests::Handle>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self {
            Self::PeakEwma(service) => service.poll_ready(cx),
            Self::PendingRequests(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self {
            Self::PeakEwma(service) => Either::Left(service.call(request)),
            Self::PendingRequests(service) => Either::Right(service.call(request)),
        }
    }
}
