//! What is to be done with the bytes of each direction, shared by all connections of a proxy.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::watch;

/// A way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: answers and events.
    ToClient,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Rst,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Flow {
    #[default]
    Pass,
    Hold,
    Swallow,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    pub(super) flow: Flow,
    pub(super) delay: Duration,
    pub(super) bytes_per_second: Option<u32>,
}

impl Line {
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.flow, Flow::Swallow)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    to_server: Line,
    to_client: Line,
}

impl Rules {
    pub(super) const fn line(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    pub(super) fn each(&mut self, change: impl Fn(&mut Line)) {
        change(&mut self.to_server);
        change(&mut self.to_client);
    }
}

/// What the handle, the door and the connections know in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    rules: watch::Sender<Rules>,
    accepted: AtomicU64,
    open: AtomicUsize,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Shared {
    pub(super) fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.rules.send_modify(change);
    }

    pub(super) fn watch(&self, direction: Direction) -> LineWatch {
        LineWatch { rules: self.rules.subscribe(), direction }
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub(super) fn passed(&self, direction: Direction) -> u64 {
        self.counter(direction).load(Relaxed)
    }

    pub(super) fn add_passed(&self, direction: Direction, bytes: usize) {
        self.counter(direction).fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub(super) fn count(self: &std::sync::Arc<Self>) -> OpenGuard {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenGuard(std::sync::Arc::clone(self))
    }

    const fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

pub(super) struct OpenGuard(std::sync::Arc<Shared>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The rules of one direction, and the news of a change in them.
#[derive(Debug, Clone)]
pub(super) struct LineWatch {
    rules: watch::Receiver<Rules>,
    direction: Direction,
}

impl LineWatch {
    /// What holds now.
    pub(super) fn now(&mut self) -> Line {
        let mut rules = *self.rules.borrow_and_update();
        *rules.line(self.direction)
    }

    /// Waits until something else may hold than what [`now`](Self::now) said. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.rules.changed().await.is_err() {
            // The handle is gone and with it everybody who could change them.
            std::future::pending::<()>().await;
        }
    }
}
