//! A simulated endpoint as clients see it: a service whose calls take virtual time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tower::Service;

use crate::load::Nanos;
use crate::world::{Failed, World};

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// How long a healthy server works on it.
    pub(crate) work: Nanos,
}

/// The endpoints that a balancer has to choose from.
#[derive(Clone, Debug)]
pub(crate) struct Backends {
    world: Arc<Mutex<World>>,
    count: usize,
}

impl Backends {
    pub(crate) fn new(world: World, count: usize) -> Self {
        Self { world: Arc::new(Mutex::new(world)), count }
    }

    /// A service for each endpoint.
    pub(crate) fn endpoints(&self) -> Vec<SimEndpoint> {
        let one = |index| SimEndpoint { world: self.world.clone(), target: Some(index) };
        (0..self.count).map(one).collect()
    }

    /// A service that queues in front of all servers, as no client of real endpoints can.
    pub(crate) fn central(&self) -> SimEndpoint {
        SimEndpoint { world: self.world.clone(), target: None }
    }

    /// Never held while someone is woken, or polled.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A simulated endpoint. Always ready: what it cannot serve at once waits in its queue.
#[derive(Clone, Debug)]
pub(crate) struct SimEndpoint {
    world: Arc<Mutex<World>>,
    target: Option<usize>,
}

impl SimEndpoint {
    /// The virtual time.
    pub(crate) fn now(&self) -> Nanos {
        lock(&self.world).now()
    }
}

impl Service<Request> for SimEndpoint {
    type Response = ();
    type Error = Failed;
    type Future = SimCall;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> SimCall {
        let job = lock(&self.world).enter(self.target, request.work);
        SimCall { world: self.world.clone(), job: Some(job) }
    }
}

/// A request on its way. Dropped before its end, it is worked on all the same.
#[derive(Debug)]
pub(crate) struct SimCall {
    world: Arc<Mutex<World>>,
    /// Until its answer was taken.
    job: Option<usize>,
}

impl Future for SimCall {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(job) = self.job else { return Poll::Pending };
        let answer = lock(&self.world).poll(job, cx.waker());
        match answer {
            Some(answer) => {
                self.job = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for SimCall {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            lock(&self.world).abandon(job);
        }
    }
}
