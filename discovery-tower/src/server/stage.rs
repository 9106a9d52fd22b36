//! How far a server has come on its way out, and who is to know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::watch;

/// The stages of a server's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nothing special.
    Serving,
    /// It will go: whoever asks it something is answered, and asked to go elsewhere from then on.
    Draining,
    /// Nobody new is accepted; connections end when they have nothing under way.
    Closing,
    /// The time is over: connections end now.
    Cut,
}

/// Who leads a server through its stages.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) stage: watch::Sender<Stage>,
    pub(super) draining: Draining,
}

impl Progress {
    pub(super) fn new() -> Self {
        let (stage, _) = watch::channel(Stage::Serving);
        Self { stage, draining: Draining::default() }
    }

    /// From now on, answers and connections say that the server will go.
    pub(super) fn drain(&self) {
        self.draining.0.store(true, Ordering::Relaxed);
        self.stage.send_replace(Stage::Draining);
    }
}

/// Whether the server is draining: a glance for every request, so it is no more than that.
#[derive(Clone, Debug, Default)]
pub(super) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(super) fn began(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a connection learns of the stages. Each connection holds one: it also says that the connection
/// is there.
#[derive(Clone)]
pub(super) struct Stages {
    stage: watch::Receiver<Stage>,
    here: Arc<()>,
}

impl Stages {
    pub(super) fn of(stage: &watch::Sender<Stage>) -> Self {
        Self { stage: stage.subscribe(), here: Arc::default() }
    }

    /// To count with: one for each of its clones.
    pub(super) fn here(&self) -> Weak<()> {
        Arc::downgrade(&self.here)
    }

    /// Waits until the server has come as far as `stage`, or is gone. Cancel safe.
    pub(super) async fn reached(&self, stage: Stage) {
        let _ = self.stage.clone().wait_for(|now| *now >= stage).await;
    }
}
