//! The thin shell around the registration machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use discovery_core::{Desired, RegistrationState, RegistrationStatus};
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::machine::Machine;
use super::messages::{Action, Answer, Input, Plan, Question, Wanted};
use crate::native::Native;
use crate::wait::{answered, heard, reached};
use crate::wire::{Connect, Result, WatchMessage, WatchStream, Wire};

type Asked<W> = Pin<Box<dyn Future<Output = Result<Reply<W>>> + Send>>;

enum Reply<W: Wire> {
    Connected(W),
    Watching(W::Watch),
    Answer(Answer),
}

struct Keeper<C: Connect> {
    connector: Arc<C>,
    machine: Machine,
    status: watch::Sender<RegistrationStatus>,
    wire: Option<C::Wire>,
    watch: Option<<C::Wire as Wire>::Watch>,
    asked: Option<Asked<C::Wire>>,
    /// The last trouble that was logged while registered.
    said: Option<String>,
}

/// Keeps etcd saying what is desired, until the registration has ended.
pub(crate) async fn keep<C: Connect>(
    connector: Arc<C>,
    plan: Plan,
    rng: StdRng,
    mut desired: watch::Receiver<Desired>,
    status: watch::Sender<RegistrationStatus>,
) {
    let wanted = wanted(&desired.borrow_and_update());
    let machine = Machine::new(plan, wanted, rng, Instant::now());
    let mut keeper =
        Keeper { connector, machine, status, wire: None, watch: None, asked: None, said: None };
    loop {
        while let Some(action) = keeper.machine.next_action() {
            if let Action::End = action {
                return;
            }
            keeper.act(action);
        }
        let input = keeper.next(&mut desired).await;
        keeper.machine.handle(input, Instant::now());
    }
}

fn wanted(desired: &Desired) -> Wanted {
    match desired {
        Desired::Present { instance, version } => Wanted::Present {
            // An instance is made of strings and numbers: it has a JSON form.
            value: Native::value(instance).unwrap_or_default(),
            address: instance.address.clone(),
            version: *version,
        },
        Desired::Absent { deadline } => Wanted::Absent { deadline: *deadline },
        _ => Wanted::Abandoned,
    }
}

impl<C: Connect> Keeper<C> {
    /// Waits for the next thing to happen.
    async fn next(&mut self, desired: &mut watch::Receiver<Desired>) -> Input {
        let deadline = self.machine.deadline();
        tokio::select! {
            // A wish to leave comes before anything that would put the key again.
            biased;
            wanted = wish(desired) => Input::Wanted(wanted),
            reply = answered(&mut self.asked) => {
                self.asked = None;
                Input::Answer(reply.map(|reply| match reply {
                    Reply::Connected(wire) => {
                        self.wire = Some(wire);
                        Answer::Connected
                    }
                    Reply::Watching(watch) => {
                        self.watch = Some(watch);
                        Answer::Watching
                    }
                    Reply::Answer(answer) => answer,
                }))
            }
            message = heard(&mut self.watch) => {
                if message.is_err() {
                    self.watch = None;
                }
                Input::Watch(message)
            }
            () = reached(deadline) => Input::Tick,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Ask(question) => self.ask(question),
            Action::Disconnect => {
                self.asked = None;
                self.watch = None;
                self.wire = None;
            }
            Action::Report(status) => self.report(status),
            Action::OtherTtl { granted } => {
                let key = self.machine.key();
                tracing::warn!(%key, asked = ?self.machine.ttl(), ?granted, "etcd grants another time to live");
            }
            Action::End => {}
        }
    }

    fn ask(&mut self, question: Question) {
        if let Question::Connect(endpoint) = question {
            let connector = self.connector.clone();
            self.asked =
                Some(Box::pin(
                    async move { connector.connect(endpoint).await.map(Reply::Connected) },
                ));
            return;
        }
        let Some(wire) = self.wire.clone() else { return };
        self.asked = Some(Box::pin(ask(wire, question)));
    }

    /// Logs each change of state once.
    fn report(&mut self, status: RegistrationStatus) {
        let key = self.machine.key();
        let before = self.status.borrow().state.clone();
        let news = std::mem::discriminant(&before) != std::mem::discriminant(&status.state);
        match &status.state {
            RegistrationState::Registered if news => tracing::info!(%key, "registered"),
            RegistrationState::Registering(Some(error)) => {
                if matches!(before, RegistrationState::Registering(None)) {
                    tracing::warn!(%key, %error, "cannot register yet; trying on");
                } else if news {
                    tracing::warn!(%key, %error, "registration lost; registering anew");
                }
            }
            RegistrationState::Conflict(conflict) if news => tracing::warn!(%conflict, "conflict"),
            RegistrationState::Deregistered if news => tracing::info!(%key, "deregistered"),
            RegistrationState::Abandoned(error) if news => tracing::warn!(%error, "gave up"),
            _ => {}
        }
        if let (RegistrationState::Registered, Some(error)) = (&status.state, &status.last_error) {
            // Said once for each text: it is tried again and again.
            let text = error.to_string();
            if self.said.as_ref() != Some(&text) {
                tracing::warn!(%key, error = text, "registered, but in trouble");
                self.said = Some(text);
            }
        }
        self.status.send_replace(status);
    }
}

async fn ask<W: Wire>(wire: W, question: Question) -> Result<Reply<W>> {
    Ok(Reply::Answer(match question {
        Question::Watch(keys) => {
            let mut watch = wire.watch(keys).await?;
            // It stands once the first message says so.
            return match watch.next().await? {
                WatchMessage::Canceled(error) => Err(error),
                _ => Ok(Reply::Watching(watch)),
            };
        }
        Question::Connect(_) => return Ok(Reply::Connected(wire)),
        Question::Grant { lease, ttl } => Answer::Granted(wire.grant(lease, ttl).await?),
        Question::GrantedTtl { lease } => Answer::GrantedTtl(wire.granted_ttl(lease).await?),
        Question::Renew { lease } => {
            wire.renew(lease).await?;
            Answer::Renewed
        }
        Question::Get(key) => Answer::Found(wire.get(&key).await?),
        Question::Put(put) => Answer::Put(wire.put(put).await?),
        Question::Revoke { lease } => {
            wire.revoke(lease).await?;
            Answer::Revoked
        }
    }))
}

/// The next wish. The handle's last one is to leave: behind it the closed channel says nothing more.
async fn wish(desired: &mut watch::Receiver<Desired>) -> Wanted {
    match desired.changed().await {
        Ok(()) => wanted(&desired.borrow_and_update()),
        Err(_) => std::future::pending().await,
    }
}
