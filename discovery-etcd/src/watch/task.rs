//! The thin shell around the watch machine: it does what the machine says and tells it what happened.
//! It drains the watch and never waits for a reader.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use discovery_core::stabilise::Stabiliser;
use discovery_core::{Instance, InstanceKey, Publisher, Replacement, SourceError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::machine::{Action, Input, Machine};
use super::translate::Translator;
use crate::native::Native;
use crate::wait::{answered, heard, reached};
use crate::wire::{Connect, Keys, Kind, WatchStream, Wire, WireError};

type Set = Publisher<InstanceKey, Instance>;

/// What was asked of the connection and has not been answered.
type Asked<W> = Pin<Box<dyn Future<Output = Answer<W>> + Send>>;

enum Answer<W: Wire> {
    Connected(W),
    Opened(W::Watch),
    Page(crate::wire::Page),
    Counted(Result<i64, WireError>),
    Failed(WireError),
}

enum Next {
    Input(Input),
    /// A removal is due to be decided.
    Stabilise,
    /// The last reader went.
    Unused,
    /// The registry was closed.
    Closed,
}

struct Follower<C: Connect> {
    connector: Arc<C>,
    prefix: Vec<u8>,
    machine: Machine,
    translator: Translator,
    publisher: Set,
    /// Between the translator and the publisher: which removals pass.
    stabiliser: Stabiliser,
    staged: Option<Replacement<InstanceKey, Instance>>,
    wire: Option<C::Wire>,
    watch: Option<<C::Wire as Wire>::Watch>,
    asked: Option<Asked<C::Wire>>,
}

/// Publishes what the machine follows until nobody reads it any more, or until `closed` says so.
pub(crate) async fn follow<C: Connect>(
    connector: Arc<C>,
    machine: Machine,
    native: Native,
    publisher: Set,
    stabiliser: Stabiliser,
    mut closed: watch::Receiver<bool>,
) {
    let mut follower = Follower {
        connector,
        prefix: machine.prefix().to_vec(),
        machine,
        translator: Translator::new(native),
        publisher,
        stabiliser,
        staged: None,
        wire: None,
        watch: None,
        asked: None,
    };
    loop {
        match follower.next(&mut closed).await {
            Next::Input(input) => follower.machine.handle(input, Instant::now()),
            Next::Stabilise => {
                follower.stabiliser.tick(&mut follower.publisher, Instant::now());
                continue;
            }
            Next::Unused => match std::mem::take(&mut follower.publisher).finish_if_unused() {
                Ok(()) => return,
                Err(publisher) => follower.publisher = publisher,
            },
            Next::Closed => return follower.publisher.close(),
        }
        while let Some(action) = follower.machine.next_action() {
            follower.act(action);
        }
    }
}

impl<C: Connect> Follower<C> {
    /// Waits for the next thing to happen.
    async fn next(&mut self, closed: &mut watch::Receiver<bool>) -> Next {
        loop {
            let deadline = self.machine.deadline();
            // Not while a list is being staged: it says what is there as of one moment.
            let decide = self.stabiliser.deadline().filter(|_| self.staged.is_none());
            let input = tokio::select! {
                // Only the watch can be ready all the time, so it comes last.
                biased;
                () = told(closed) => return Next::Closed,
                () = self.publisher.unused() => return Next::Unused,
                answer = answered(&mut self.asked) => {
                    self.asked = None;
                    match answer {
                        Answer::Connected(wire) => {
                            self.wire = Some(wire);
                            Input::Connected
                        }
                        Answer::Opened(watch) => {
                            self.watch = Some(watch);
                            continue;
                        }
                        Answer::Page(page) => Input::Page(page),
                        Answer::Counted(counted) => Input::Counted(counted),
                        Answer::Failed(error) => Input::Failed(error),
                    }
                }
                () = sleep_until(deadline) => Input::Tick,
                () = reached(decide) => return Next::Stabilise,
                message = heard(&mut self.watch) => match message {
                    Ok(message) => Input::Watch(message),
                    Err(error) => Input::Failed(error),
                },
            };
            return Next::Input(input);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(endpoint) => {
                let connector = self.connector.clone();
                self.ask(async move { connector.connect(endpoint).await.map(Answer::Connected) });
            }
            Action::Open => {
                let Some(wire) = self.wire.clone() else { return };
                let keys = Keys::Prefix(self.prefix.clone());
                self.ask(async move { wire.watch(keys).await.map(Answer::Opened) });
            }
            Action::List(list) => {
                let Some(wire) = self.wire.clone() else { return };
                self.ask(async move { wire.list(list).await.map(Answer::Page) });
            }
            Action::Stage(page) => {
                let staged = self.staged.get_or_insert_with(|| {
                    self.translator.begin();
                    self.publisher.replacement()
                });
                self.translator.stage(page, staged, |key| self.stabiliser.is_held(key));
            }
            Action::Commit { revision } => {
                if let Some(staged) = self.staged.take() {
                    let revision = revision.unsigned_abs();
                    let (out, now) = (&mut self.publisher, Instant::now());
                    if self.stabiliser.commit(staged, Some(revision), out, now) {
                        self.log_live(revision);
                    } else {
                        // Something was published in between. List again rather than be wrong.
                        let error = WireError::new(Kind::Unreachable, "list", "home", "outdated");
                        self.machine.handle(Input::Failed(error), now);
                    }
                }
            }
            Action::Apply(events) => {
                let revision = events.last().map(|event| event.revision().unsigned_abs());
                let batch = self.translator.batch(events);
                self.stabiliser.apply(batch, revision, &mut self.publisher, Instant::now());
            }
            Action::Probe => {
                if let Some(watch) = &mut self.watch {
                    watch.probe();
                }
            }
            Action::Count => {
                let Some(wire) = self.wire.clone() else { return };
                let prefix = self.prefix.clone();
                self.ask(async move { Ok(Answer::Counted(wire.count(&prefix).await)) });
            }
            Action::Trust => {
                self.publisher.fresh();
                self.stabiliser.found();
                let prefix = String::from_utf8_lossy(&self.prefix);
                tracing::info!(%prefix, "etcd answers again");
            }
            Action::Disconnect => {
                self.asked = None;
                self.watch = None;
                self.wire = None;
                self.staged = None;
            }
            Action::Trouble(error) => self.trouble(error),
        }
    }

    fn ask(
        &mut self,
        question: impl Future<Output = Result<Answer<C::Wire>, WireError>> + Send + 'static,
    ) {
        self.asked = Some(Box::pin(async move { question.await.unwrap_or_else(Answer::Failed) }));
    }

    fn log_live(&self, revision: u64) {
        let prefix = String::from_utf8_lossy(&self.prefix);
        tracing::info!(%prefix, revision, instances = self.publisher.len(), "watching etcd");
    }

    /// Logged when the state changes, not with each attempt.
    fn trouble(&mut self, error: WireError) {
        let prefix = String::from_utf8_lossy(&self.prefix).into_owned();
        let before = self.publisher.status().get();
        if before.is_fresh() {
            let instances = before.endpoints;
            tracing::warn!(prefix, instances, %error, "etcd lost; serving the last known set");
        } else if before.last_error.is_none() {
            tracing::warn!(prefix, %error, "etcd cannot be watched yet; trying on");
        } else {
            tracing::debug!(prefix, %error, "still no watch");
        }
        if before.loaded {
            self.stabiliser.lost(Instant::now());
        }
        self.publisher.trouble(SourceError::new(error));
    }
}

/// Waits until the registry is closed. If it was merely dropped, readers go on.
async fn told(closed: &mut watch::Receiver<bool>) {
    if closed.wait_for(|closed| *closed).await.is_err() {
        std::future::pending::<()>().await;
    }
}
