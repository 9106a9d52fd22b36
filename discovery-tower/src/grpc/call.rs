//! What the parts of one call have to tell each other: the future that the caller holds, the instance's
//! service, and the bodies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tonic::Status;

use super::deadline::Limit;

/// One call, with all its attempts: an extension of its requests.
#[derive(Debug)]
pub(super) struct Call {
    limit: Option<Limit>,
    /// Whether nobody waits for the answer any more.
    is_over: AtomicBool,
    /// Of who reads the body of the request.
    sender: AtomicWaker,
    /// What the body of the request failed with.
    fault: OnceLock<Status>,
}

impl Call {
    pub(super) fn new(limit: Option<Limit>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            is_over: AtomicBool::new(false),
            sender: AtomicWaker::new(),
            fault: OnceLock::new(),
        })
    }

    pub(super) fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Whether nobody waits for the answer; if somebody does, `cx` is woken when that changes.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> bool {
        self.sender.register(cx.waker());
        self.is_over.load(Ordering::Acquire)
    }

    /// The body of the request has failed.
    pub(super) fn fail(&self, fault: &Status) {
        // Only the first time is the body's own.
        let _ = self.fault.set(fault.clone());
    }

    /// What the body of the request failed with, if it did.
    pub(super) fn fault(&self) -> Option<&Status> {
        self.fault.get()
    }
}

/// Held by who waits for the answer. When it is dropped, what is still to be sent is not sent.
#[derive(Debug)]
pub(super) struct Waiting(pub(super) Arc<Call>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.sender.wake();
    }
}
