//! The thin shell around the watch machine: it does what the machine says and tells it what happened.
//! It never waits for a reader.

use std::future::Future;
use std::time::Duration;

use discovery_core::stabilise::Stabiliser;
use discovery_core::{Instance, InstanceKey, Publisher, Replacement, SourceError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::machine::{Action, Input, Machine};
use super::translate::Translator;
use crate::link::{News, Ticket};
use crate::observe;
use crate::wait::{BoxFuture, answered, reached};
use crate::wire::{Keys, List, Wire, WireError};

/// How long a read may take that is to say whether anything can be read: longer than an election.
const READ_WITHIN: Duration = Duration::from_secs(4);

type Set = Publisher<InstanceKey, Instance>;

enum Next {
    Input(Input),
    /// A removal is due to be decided.
    Stabilise,
    /// The last reader went.
    Unused,
    /// The registry was closed.
    Closed,
}

/// What one watch consists of.
pub(crate) struct Follower<W: Wire> {
    ticket: Ticket<W>,
    machine: Machine,
    translator: Translator,
    publisher: Set,
    /// Between the translator and the publisher: which removals pass.
    stabiliser: Stabiliser,
    staged: Option<Replacement<InstanceKey, Instance>>,
    figures: observe::Watch,
    wire: Option<W>,
    /// What was asked of the connection and has not been answered.
    asked: Option<BoxFuture<Input>>,
}

impl<W: Wire> Follower<W> {
    pub(crate) fn new(
        ticket: Ticket<W>,
        machine: Machine,
        translator: Translator,
        publisher: Set,
        stabiliser: Stabiliser,
    ) -> Self {
        Self {
            figures: translator.figures().clone(),
            ticket,
            machine,
            translator,
            publisher,
            stabiliser,
            staged: None,
            wire: None,
            asked: None,
        }
    }

    /// Publishes what the machine follows until nobody reads it any more, or until `closed` says so.
    // In a box: a future keeps its arguments twice.
    pub(crate) async fn follow(mut self: Box<Self>, mut closed: watch::Receiver<bool>) {
        loop {
            match self.next(&mut closed).await {
                Next::Input(input) => self.machine.handle(input, Instant::now()),
                Next::Stabilise => {
                    self.stabiliser.tick(&mut self.publisher, Instant::now());
                    continue;
                }
                Next::Unused => match std::mem::take(&mut self.publisher).finish_if_unused() {
                    Ok(()) => return,
                    Err(publisher) => self.publisher = publisher,
                },
                Next::Closed => return self.publisher.close(),
            }
            while let Some(action) = self.machine.next_action() {
                self.act(action);
            }
        }
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self, closed: &mut watch::Receiver<bool>) -> Next {
        let deadline = self.machine.deadline();
        // Not while a list is being staged: it says what is there as of one moment.
        let decide = self.stabiliser.deadline().filter(|_| self.staged.is_none());
        let first = [deadline, decide].into_iter().flatten().min();
        let news = tokio::select! {
            // Only the news can be ready all the time, so they come last.
            biased;
            () = told(closed) => return Next::Closed,
            () = self.publisher.unused() => return Next::Unused,
            answer = answered(&mut self.asked) => {
                self.asked = None;
                return Next::Input(answer);
            }
            () = reached(first) => return match decide {
                Some(_) if decide == first => Next::Stabilise,
                _ => Next::Input(Input::Tick),
            },
            news = self.ticket.next() => news,
        };
        Next::Input(match news {
            Some(News::Up(wire)) => {
                let endpoint = wire.endpoint();
                self.wire = Some(wire);
                Input::Up(endpoint)
            }
            Some(News::Down(error)) => {
                self.wire = None;
                Input::Down(error)
            }
            Some(News::Doubt(error)) => Input::Doubt(error),
            Some(News::Trust) => Input::Trust,
            Some(News::Retry) => Input::Retry,
            Some(News::Created { revision }) => Input::Created { revision },
            Some(News::Refused(error) | News::Canceled(error)) => Input::Refused(error),
            Some(News::Events(events)) => Input::Events(events),
            // The runtime is shutting down, and this task goes with it.
            None => std::future::pending().await,
        })
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Open => {
                let keys = Keys::Prefix(self.machine.prefix().to_vec());
                self.ticket.open(keys);
            }
            Action::Refresh => {
                let Some(wire) = self.wire.clone() else { return };
                self.ask(async move { Input::Refreshed(wire.refresh().await) });
            }
            Action::List(list) => self.list(list),
            Action::Stage(page) => {
                let staged = self.staged.get_or_insert_with(|| {
                    self.translator.begin();
                    self.publisher.replacement()
                });
                self.translator.stage(page, staged, |key| self.stabiliser.is_held(key));
            }
            Action::Commit { revision } => self.commit(revision.unsigned_abs()),
            Action::Apply(events) => {
                self.figures.changed(events.len());
                let revision = events.last().map(|event| event.revision().unsigned_abs());
                let batch = self.translator.batch(events);
                self.stabiliser.apply(batch, revision, &mut self.publisher, Instant::now());
            }
            Action::AuditBegin => self.translator.audit_begin(),
            Action::AuditPage(page) => self.translator.audit_page(&page),
            Action::AuditEnd { at } => self.translator.audit_end(at),
            Action::AuditSettle => {
                self.figures.audited();
                let differing = self.translator.audit_settle();
                self.machine.handle(Input::Audited(differing), Instant::now());
            }
            Action::Repair { differing } => {
                self.figures.repaired(differing);
                let prefix = self.prefix();
                tracing::warn!(prefix, differing, "the audit found what was missed; listing anew");
            }
            Action::Trust => {
                self.publisher.fresh();
                self.stabiliser.found();
                tracing::info!(prefix = self.prefix(), "etcd answers again");
            }
            Action::Abandon => {
                self.asked = None;
                self.staged = None;
                self.ticket.close();
            }
            Action::Condemn(error) => self.ticket.condemn(error),
            Action::Check => self.ticket.check(Instant::now() + READ_WITHIN),
            Action::Trouble(error) => self.trouble(error),
        }
    }

    fn ask(&mut self, question: impl Future<Output = Input> + Send + 'static) {
        self.asked = Some(Box::pin(question));
    }

    fn list(&mut self, list: List) {
        let Some(wire) = self.wire.clone() else { return };
        if list.after.is_none() {
            return self.ask(async move { Input::Page(wire.list(list).await) });
        }
        // On a task of its own: it is fetched while the page before it is being read.
        let mut fetch = JoinSet::new();
        fetch.spawn(async move { wire.list(list).await });
        self.ask(async move {
            match fetch.join_next().await {
                Some(Ok(page)) => Input::Page(page),
                _ => std::future::pending().await,
            }
        });
    }

    fn commit(&mut self, revision: u64) {
        let Some(mut staged) = self.staged.take() else { return };
        self.figures.listed();
        self.translator.finish(&mut staged, |key| self.stabiliser.is_held(key));
        let (out, now) = (&mut self.publisher, Instant::now());
        if self.stabiliser.commit(staged, Some(revision), out, now) {
            let instances = self.publisher.len();
            tracing::info!(prefix = self.prefix(), revision, instances, "watching etcd");
        } else {
            // List again rather than be wrong.
            self.machine.handle(Input::Outdated, now);
        }
    }

    fn prefix(&self) -> String {
        String::from_utf8_lossy(self.machine.prefix()).into_owned()
    }

    /// Logged when the state changes, not with each attempt.
    fn trouble(&mut self, error: WireError) {
        let prefix = self.prefix();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EtcdWire;

    #[test]
    fn a_watch_is_small_since_there_are_many() {
        let size = size_of::<Follower<EtcdWire>>();
        assert!(size <= 928, "{size}");
    }
}
