//! The thin shell around the registration machine.

use std::sync::Arc;

use discovery_core::{
    Desired, Instance, InstanceStatus, RefusedUpdate, RegistrationState, RegistrationStatus,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::machine::Machine;
use super::messages::{Action, Answer, Home, Input, Question, Wanted};
use super::shared::Tenancy;
use super::watchdog::Watched;
use crate::link::{News, Ticket};
use crate::observe;
use crate::wait::{BoxFuture, answered, reached};
use crate::wire::{Kind, Result, Wire};

/// What a registration is told from outside.
pub(crate) struct Told {
    pub(crate) desired: watch::Receiver<Desired>,
    /// The shared lease, if it is to be used.
    pub(crate) home: Option<Tenancy>,
    /// What the application's health function said last.
    pub(crate) healthy: Option<watch::Receiver<bool>>,
    /// The application's signs of life, if they are looked at.
    pub(crate) watched: Option<Watched>,
}

/// One registration.
pub(crate) struct Keeper<W: Wire> {
    ticket: Ticket<W>,
    machine: Machine,
    told: Told,
    status: watch::Sender<RegistrationStatus>,
    /// Counts what was wanted, from 1.
    wish: u64,
    /// The last instance that etcd can hold, and its version.
    held: Option<(Arc<Instance>, u64)>,
    wire: Option<W>,
    asked: Option<BoxFuture<Result<Answer>>>,
    /// News of a shared lease that is kept for others, if at all: its end is the end of us.
    left: Option<watch::Receiver<Option<Home>>>,
    /// The last trouble that was logged while registered.
    said: Option<String>,
    figures: observe::Registration,
}

impl<W: Wire> Keeper<W> {
    /// `machine` wants what `told` says first, as wish 1.
    pub(crate) fn new(
        ticket: Ticket<W>,
        machine: Machine,
        told: Told,
        status: watch::Sender<RegistrationStatus>,
    ) -> Self {
        let figures = observe::Registration::new();
        let held = present(&told.desired.borrow());
        Self {
            ticket,
            machine,
            told,
            status,
            wish: 1,
            held,
            wire: None,
            asked: None,
            left: None,
            said: None,
            figures,
        }
    }

    /// Keeps etcd saying what is desired, until the registration has ended.
    // In a box: a future keeps its arguments twice.
    pub(crate) async fn keep(mut self: Box<Self>) {
        if let Some(home) = &mut self.told.home {
            let home = *home.news.borrow_and_update();
            self.machine.handle(Input::Home(home), Instant::now());
        }
        loop {
            while let Some(action) = self.machine.next_action() {
                if let Action::End = action {
                    return;
                }
                self.act(action);
            }
            let input = self.next().await;
            self.machine.handle(input, Instant::now());
        }
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self) -> Input {
        let deadline = self.machine.deadline();
        tokio::select! {
            // A wish to leave comes before anything that would put the key again.
            biased;
            () = changed(Some(&mut self.told.desired)) => self.wanted(),
            () = changed(self.told.healthy.as_mut()) => self.health(),
            answer = answered(&mut self.asked) => {
                self.asked = None;
                if let (Err(error), Some(home)) = (&answer, &self.told.home)
                    && error.kind == Kind::LeaseNotFound
                {
                    home.doubt();
                }
                Input::Answer(answer)
            }
            alive = Watched::news(self.told.watched.as_mut()) => Input::Alive(alive),
            () = changed(self.told.home.as_mut().map(|home| &mut home.news)) => {
                let home = self.told.home.as_mut();
                Input::Home(home.and_then(|home| *home.news.borrow_and_update()))
            }
            () = ended(self.left.as_mut()) => Input::Unkept,
            news = self.ticket.next() => match news {
                Some(News::Up(wire)) => {
                    let endpoint = wire.endpoint();
                    self.wire = Some(wire);
                    Input::Up(endpoint)
                }
                Some(News::Down(error)) => {
                    self.wire = None;
                    self.asked = None;
                    Input::Down(error)
                }
                Some(News::Retry) => Input::Retry,
                Some(News::Created { .. }) => Input::Watching,
                Some(News::Refused(error) | News::Canceled(error)) => Input::NotWatching(error),
                Some(News::Events(events)) => Input::Events(events),
                // Whether a lease lives is not the watch's to say.
                Some(News::Doubt(_) | News::Trust) => Input::Tick,
                // The runtime is shutting down, and this task goes with it.
                None => std::future::pending().await,
            },
            () = reached(deadline) => Input::Tick,
        }
    }

    /// What is wanted now.
    fn wanted(&mut self) -> Input {
        let desired = self.told.desired.borrow_and_update().clone();
        match desired {
            Desired::Present { instance, version } => match self.encoded(&instance, version) {
                Ok(wanted) => {
                    self.held = Some((instance, version));
                    Input::Wanted(wanted)
                }
                Err(refused) => Input::Refused(refused),
            },
            Desired::Absent { deadline } => Input::Wanted(Wanted::Absent { deadline }),
            _ => Input::Wanted(Wanted::Abandoned),
        }
    }

    /// The instance is well, or is not, as it was wanted last: an update that was refused changes
    /// nothing about that.
    fn health(&mut self) -> Input {
        let leaves = present(&self.told.desired.borrow()).is_none();
        match self.held.clone() {
            Some((instance, version)) if !leaves => {
                let wanted = self.encoded(&instance, version);
                wanted.map_or_else(Input::Refused, Input::Wanted)
            }
            _ => self.wanted(),
        }
    }

    /// An instance that is up by its own account is out of service while its health function says that
    /// it is not well.
    fn encoded(
        &mut self,
        instance: &Arc<Instance>,
        version: u64,
    ) -> std::result::Result<Wanted, RefusedUpdate> {
        let well = self.told.healthy.as_mut().is_none_or(|healthy| *healthy.borrow_and_update());
        self.wish += 1;
        let mut instance = Arc::clone(instance);
        if !well && instance.status == InstanceStatus::Up {
            Arc::make_mut(&mut instance).status = InstanceStatus::OutOfService;
        }
        self.machine.plan().wanted(&instance, version, self.wish)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Watch(keys) => self.ticket.open(keys),
            Action::Ask(question) => {
                let Some(wire) = self.wire.clone() else { return };
                self.asked = Some(Box::pin(ask(wire, question)));
            }
            Action::Check { by } => self.ticket.check(by),
            Action::Condemn(error) => {
                self.asked = None;
                self.wire = None;
                self.ticket.condemn(error);
            }
            Action::Hurry { until } => self.ticket.hurry(until),
            Action::NeededBy(by) => self.ticket.needed_by(by),
            Action::Report(status) => {
                if let RegistrationState::Abandoned(_) = status.state {
                    // What is left of it is no reason to keep the shared lease.
                    self.left = self.told.home.take().map(|home| home.news).or(self.left.take());
                }
                self.report(status);
            }
            Action::OtherTtl { granted } => {
                let plan = self.machine.plan();
                let (key, asked) = (&plan.key, plan.ttl);
                tracing::warn!(%key, ?asked, ?granted, "etcd grants another time to live");
            }
            Action::End => {}
        }
    }

    /// Logs each change of state once.
    fn report(&mut self, status: RegistrationStatus) {
        self.figures.report(&status.state);
        let key = &self.machine.plan().key;
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
        let known = self.status.borrow().refused.as_ref().map(|refused| refused.version);
        if let Some(refused) = status.refused.as_ref().filter(|new| Some(new.version) != known) {
            let error = refused.cause.to_string();
            tracing::warn!(%key, error, "this update cannot be registered; what was before stays");
            self.said = Some(error);
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

/// The instance that is wanted, and its version.
fn present(desired: &Desired) -> Option<(Arc<Instance>, u64)> {
    match desired {
        Desired::Present { instance, version } => Some((instance.clone(), *version)),
        _ => None,
    }
}

async fn ask<W: Wire>(wire: W, question: Question) -> Result<Answer> {
    Ok(match question {
        Question::Refresh => {
            wire.refresh().await?;
            Answer::Refreshed
        }
        Question::Grant { lease, ttl } => Answer::Granted(wire.grant(lease, ttl).await?),
        Question::GrantedTtl { lease } => Answer::GrantedTtl(wire.granted_ttl(lease).await?),
        Question::Renew { lease } => {
            observe::renewal(wire.renew(lease)).await?;
            Answer::Renewed
        }
        Question::Get(key) => Answer::Found(wire.get(&key).await?),
        Question::Put(put) => Answer::Put(wire.put(put).await?),
        Question::Revoke { lease } => {
            wire.revoke(lease).await?;
            Answer::Revoked
        }
    })
}

/// Waits until there can be no more news.
async fn ended<T>(told: Option<&mut watch::Receiver<T>>) {
    let Some(told) = told else { return std::future::pending().await };
    while told.changed().await.is_ok() {}
}

/// Waits for news. Who says nothing more, or is not there, has none: the handle's last wish is to leave.
async fn changed<T>(told: Option<&mut watch::Receiver<T>>) {
    if let Some(told) = told
        && told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
