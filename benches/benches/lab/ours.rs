//! Our own balancer, as people get it, with its policies.

use std::sync::Arc;

use discovery_core::Change;
use discovery_tower::balance::{
    Attributes, Builder, LeastPending, PeakEwma, Policy, Seeded, Served,
};
use futures::{StreamExt as _, stream};
use tower::Service as _;

use crate::endpoint::{Backends, Request, SimEndpoint};
use crate::subject::{Call, Role, Subject};

/// All of them; the default is the one that has to reach the goals.
pub(crate) fn ours() -> Vec<Subject> {
    vec![
        Subject::new("discovery PeakEwma", Role::Ours, |backends, seed| {
            client(backends, seed, PeakEwma::new())
        }),
        Subject::new("discovery LeastPending", Role::Candidate, |backends, seed| {
            client(backends, seed, LeastPending::new())
        }),
    ]
}

fn client<P>(backends: &Backends, seed: u64, policy: P) -> impl FnMut(Request) -> Call + use<P>
where
    P: Policy<Request, usize, SimEndpoint>,
{
    let endpoints = backends.endpoints().into_iter().enumerate();
    let inserts: Vec<_> = endpoints.map(|(key, endpoint)| Change::Insert(key, endpoint)).collect();
    let changes = stream::iter(inserts).chain(stream::pending());
    let make = |_: &usize, endpoint: &Arc<SimEndpoint>| (**endpoint).clone();
    let balance = Builder::described_by(changes, make, |_, _| Attributes::default())
        .policy(policy)
        .entropy(Seeded::new(seed))
        .spawn();
    move |request| {
        let mut balance = balance.clone();
        Box::pin(
            async move { balance.call(request).await.map_err(Into::into).map(Served::into_inner) },
        )
    }
}
