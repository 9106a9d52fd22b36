//! A reader that is polled by hand, with a waker that counts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream as _;
use tokio::sync::Notify;

use super::checked::{Broken, Ledger};
use super::subject::Subject;
use crate::Change;

/// Counts how often it was woken, and can be awaited.
#[derive(Default)]
struct Bell {
    rings: AtomicUsize,
    rung: Notify,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.rung.notify_one();
    }
}

pub(super) struct Probe<S: Subject> {
    pub(super) reader: S::Reader,
    pub(super) ledger: Ledger<S::Key, Arc<S::Endpoint>>,
    /// The version of the set that it had at the last `Synced`, or could have had.
    pub(super) version: usize,
    bell: Arc<Bell>,
    waker: Waker,
    /// How often the bell had rung before the poll that gave `Pending`.
    pending_at: Option<usize>,
}

pub(super) type Item<S> = Change<<S as Subject>::Key, Arc<<S as Subject>::Endpoint>>;

impl<S: Subject> Probe<S> {
    pub(super) fn new(reader: S::Reader, version: usize) -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(bell.clone());
        Self { reader, ledger: Ledger::new(), version, bell, waker, pending_at: None }
    }

    /// Polls with another waker from now on.
    pub(super) fn change_waker(&mut self) {
        self.bell = Arc::default();
        self.waker = Waker::from(self.bell.clone());
        self.pending_at = None;
    }

    pub(super) fn poll(&mut self) -> Result<Poll<Option<Item<S>>>, Broken> {
        let rings = self.bell.rings.load(Ordering::SeqCst);
        let told = Pin::new(&mut self.reader).poll_next(&mut Context::from_waker(&self.waker));
        self.pending_at = told.is_pending().then_some(rings);
        self.ledger.note(&told)?;
        Ok(told)
    }

    /// Whether the last poll gave `Pending` and nobody has woken it since.
    pub(super) fn sleeps(&self) -> bool {
        self.pending_at == Some(self.bell.rings.load(Ordering::SeqCst))
    }

    /// Waits until it is woken; at once if it is not asleep.
    pub(super) async fn woken(&self) {
        while self.sleeps() {
            self.bell.rung.notified().await;
        }
    }
}
