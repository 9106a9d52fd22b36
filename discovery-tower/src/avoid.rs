//! Keeping a retry away from the endpoints that were tried already.
//!
//! tower's balancer picks before it sees the request. So the list travels twice: with the request, for
//! the endpoint to hand back what should not have come to it, and, while the balancer is polled on
//! behalf of that request, beside it, so that the endpoints on the list say they are not ready and the
//! balancer picks among the others.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use discovery_core::InstanceKey;

/// The instances that a request should not go to: an extension of the request.
///
/// Endpoints whose keys are of another type are avoided by a list of such keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avoid<K = InstanceKey>(Vec<K>);

impl<K> Default for Avoid<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq> Avoid<K> {
    /// Nothing to avoid.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instance; a second time changes nothing.
    pub fn add(&mut self, key: K) {
        if !self.contains(&key) {
            self.0.push(key);
        }
    }

    /// Whether the instance is to be avoided.
    pub fn contains(&self, key: &K) -> bool {
        self.0.contains(key)
    }

    /// The instances, in the order they were added.
    pub fn keys(&self) -> &[K] {
        &self.0
    }

    /// Whether there is nothing to avoid.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Avoid {
    /// For the `poll_ready` of an endpoint service: `Pending` while a balancer is being polled for a
    /// request that avoids the instance. The task is woken as soon as that is over.
    pub fn poll_wanted(key: &InstanceKey, cx: &Context<'_>) -> Poll<()> {
        SCOPE.with_borrow_mut(|scope| match scope {
            Some(scope) if scope.avoid.contains(key) => {
                scope.turned_away.push(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    /// Runs `poll`, which polls a balancer, with the list in force.
    pub(crate) fn during<T>(&self, poll: impl FnOnce() -> T) -> T {
        let outer = SCOPE.replace(Some(Scope { avoid: self.clone(), turned_away: Vec::new() }));
        let _leave = Leave(outer);
        poll()
    }
}

struct Scope {
    avoid: Avoid,
    turned_away: Vec<Waker>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Ends the scope, also when the poll panics.
struct Leave(Option<Scope>);

impl Drop for Leave {
    fn drop(&mut self) {
        let ended = SCOPE.replace(self.0.take());
        for waker in ended.into_iter().flat_map(|scope| scope.turned_away) {
            waker.wake();
        }
    }
}
