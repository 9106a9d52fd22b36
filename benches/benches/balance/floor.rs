//! The least that a balancer does which is cloned, shared, and changed while it is used: load the set,
//! compare two endpoints that are drawn, hold on to one, and count the call as long as it lasts.

#![allow(clippy::cast_possible_truncation, reason = "a number below one of the same type")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tower::Service;

use crate::subject::{Answer, NoOp, Nothing};

#[derive(Clone)]
pub(crate) struct Floor {
    set: Arc<ArcSwap<Vec<Arc<Endpoint>>>>,
    random: u64,
}

/// On a cache line of its own.
#[repr(align(64))]
struct Endpoint {
    pending: AtomicUsize,
    service: NoOp,
}

impl Floor {
    pub(crate) fn of(count: usize) -> Self {
        let endpoint = |_| Arc::new(Endpoint { pending: AtomicUsize::new(0), service: NoOp });
        Self {
            set: Arc::new(ArcSwap::from_pointee((0..count).map(endpoint).collect())),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

/// xorshift: Marsaglia, "Xorshift RNGs", 2003.
#[inline]
fn below(random: &mut u64, bound: usize) -> usize {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    ((u128::from(*random) * bound as u128) >> 64) as usize
}

impl Service<u64> for Floor {
    type Response = u64;
    type Error = Nothing;
    type Future = Flight;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Nothing>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: u64) -> Flight {
        let set = self.set.load();
        let (a, b) =
            (&set[below(&mut self.random, set.len())], &set[below(&mut self.random, set.len())]);
        let a_is_better = a.pending.load(Ordering::Relaxed) <= b.pending.load(Ordering::Relaxed);
        let endpoint = if a_is_better { a } else { b }.clone();
        endpoint.pending.fetch_add(1, Ordering::Relaxed);
        let answer = endpoint.service.clone().call(request);
        Flight { answer, _pending: Pending(endpoint) }
    }
}

pub(crate) struct Flight {
    answer: Answer,
    _pending: Pending,
}

struct Pending(Arc<Endpoint>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Future for Flight {
    type Output = Result<u64, Nothing>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx)
    }
}
