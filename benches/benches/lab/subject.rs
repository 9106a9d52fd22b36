//! What is tried: a balancer, made for each client, that takes requests.

use std::pin::Pin;
use std::sync::Arc;

use tower::BoxError;

use crate::endpoint::{Backends, Request};

/// A call under way. Not `Send`: it is polled by the loop that made it.
pub(crate) type Call = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

/// A client's balancer.
pub(crate) trait Client {
    /// Sends a request. Must not wait for anything before the call is polled.
    fn call(&mut self, request: Request) -> Call;
}

impl<F: FnMut(Request) -> Call> Client for F {
    fn call(&mut self, request: Request) -> Call {
        self(request)
    }
}

/// What a subject is to the others, for goals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// For comparison.
    Peer,
    /// One of tower's own.
    Tower,
    /// One queue in front of all servers.
    Ideal,
    /// A candidate: told which goals it misses.
    Candidate,
    /// Has to reach the goals.
    Ours,
}

/// A kind of balancer.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) role: Role,
    make: Arc<Make>,
}

type Make = dyn Fn(&Backends, u64) -> Box<dyn Client> + Send + Sync;

impl Subject {
    /// `make` is called once for each client, with a seed of its own, inside the runtime of the run:
    /// it may spawn tasks.
    pub(crate) fn new<C: Client + 'static>(
        name: impl Into<String>,
        role: Role,
        make: impl Fn(&Backends, u64) -> C + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(move |backends: &Backends, seed| {
            Box::new(make(backends, seed)) as Box<dyn Client>
        });
        Self { name: name.into(), role, make }
    }

    /// A client with a balancer of this kind.
    pub(crate) fn client(&self, backends: &Backends, seed: u64) -> Box<dyn Client> {
        (self.make)(backends, seed)
    }
}
