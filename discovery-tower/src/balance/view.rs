//! An endpoint as people look at it.

use std::sync::Arc;
use std::time::Duration;

use super::flight::Endpoint;
use super::member::Standing;
use super::parts::Parts;
use super::policy::Policy as _;

/// An endpoint and how it stands, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointView<K, E> {
    /// Its key.
    pub key: K,
    /// What it says of itself.
    pub endpoint: Arc<E>,
    /// Whether it gets requests, and if not, why.
    pub standing: Standing,
    /// The weight it says it has.
    pub weight: u32,
    /// What part of its weight counts: less than 1 in its slow start.
    pub ramp: f64,
    /// How many calls to it are under way.
    pub pending: u32,
    /// What one more call would cost there, as the policy sees it: of two, the lower one is preferred.
    pub cost: f64,
    /// How many calls to it went well.
    pub successes: u64,
    /// How many failed.
    pub failures: u64,
    /// How many say nothing of it: they were cancelled, or to be ignored.
    pub unjudged: u64,
    /// In what time it is to be used again, if it is left out for failing.
    pub ejected_for: Option<Duration>,
}

impl<K: Clone, E> EndpointView<K, E> {
    pub(crate) fn of<T: Parts<Key = K, Endpoint = E>>(endpoint: &Endpoint<T>, now: u64) -> Self {
        let member = &endpoint.member;
        let (failures, unjudged) = (member.failures(), member.unjudged());
        let until = member.until();
        Self {
            key: member.key().clone(),
            endpoint: member.endpoint(),
            standing: member.standing(),
            weight: member.own_weight(),
            ramp: f64::from(member.ramp()) / f64::from(super::member::FULL),
            pending: member.pending(),
            cost: endpoint.hub.policy.cost(member, now),
            successes: member.finished().saturating_sub(failures).saturating_sub(unjudged),
            failures,
            unjudged,
            ejected_for: (until > now).then(|| Duration::from_nanos(until - now)),
        }
    }
}
