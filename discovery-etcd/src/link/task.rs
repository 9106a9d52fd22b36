//! The thin shell around the link machine: it connects, reads the streams of the watches and hands out
//! what it says. It never waits for a user.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_channel::mpsc::UnboundedSender as Mailbox;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::UserId;
use super::machine::{Action, Input, Machine};
use super::pulse::LATE;
use super::streams::{Place, Streams};
use super::ticket::{Backlog, Command, Letter, News, Request, Ticket, Wish, weight};
use super::watches::{CREATED_WITHIN, Owner, Watches};
use crate::rotation::Rotation;
use crate::wait::{BoxFuture, answered, reached};
use crate::wire::{ANY, Connect, Event, Heard, Keys, Result, Wire, WireError};

/// So many bytes of events may wait for a user. Who is further behind lists anew, which is bounded by
/// what there is and not by what happened.
const MOST_BEHIND: usize = 64 << 20;

/// A connection that many share. Cheap to clone. There is a connection only while there are users.
pub(crate) struct Link<W> {
    commands: mpsc::UnboundedSender<Command<W>>,
    users: Arc<AtomicU64>,
}

impl<W> Clone for Link<W> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), users: self.users.clone() }
    }
}

impl<W: Wire> Link<W> {
    /// A link and the work behind it, to be spawned; it ends when all links and tickets are dropped.
    pub(crate) fn new<C: Connect<Wire = W>>(
        connector: C,
        rotation: Rotation,
        follow_members: bool,
        rng: rand::rngs::StdRng,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, requests) = mpsc::unbounded_channel();
        let keeper = Keeper {
            connector: Arc::new(connector),
            machine: Machine::new(rotation, follow_members, rng),
            users: HashMap::new(),
            stay: 0,
            connection: 0,
            watches: Watches::default(),
            wire: None,
            streams: Streams::new(),
            connecting: None,
            counting: None,
            listing: None,
            trouble: None,
        };
        (Self { commands, users: Arc::default() }, keeper.run(requests))
    }

    /// Uses the link from now on.
    pub(crate) fn join(&self) -> Ticket<W> {
        let user = self.users.fetch_add(1, Ordering::Relaxed);
        let (mailbox, letters) = futures_channel::mpsc::unbounded();
        let backlog = Backlog::new(AtomicUsize::new(0));
        let _ = self.commands.send(Command::Join(user, mailbox, backlog.clone()));
        let commands = self.commands.clone();
        Ticket { user, commands, letters, backlog, connection: 0, turn: 0 }
    }

    /// The credentials have changed: what was denied is tried again at once.
    pub(crate) fn retry(&self) {
        let _ = self.commands.send(Command::Retry);
    }
}

struct User<W> {
    mailbox: Mailbox<Letter<W>>,
    backlog: Backlog,
    needed_by: Option<Instant>,
    /// It does not leave.
    stays: bool,
}

struct Keeper<C: Connect> {
    connector: Arc<C>,
    machine: Machine,
    users: HashMap<UserId, User<C::Wire>>,
    /// How many of them do not leave.
    stay: usize,
    /// Counts the connections.
    connection: u64,
    watches: Watches,
    wire: Option<C::Wire>,
    streams: Streams<<C::Wire as Wire>::Stream>,
    connecting: Option<BoxFuture<Result<C::Wire>>>,
    counting: Option<BoxFuture<Result<i64>>>,
    listing: Option<BoxFuture<Result<Vec<String>>>>,
    /// Why there is no connection, for those who come now.
    trouble: Option<WireError>,
}

enum Next<W> {
    Command(Option<Command<W>>),
    Connected(Result<W>),
    Counted(Result<i64>),
    Members(Result<Vec<String>>),
    Heard((u32, Result<Heard>)),
    Time,
}

impl<C: Connect> Keeper<C> {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command<C::Wire>>) {
        loop {
            let deadline = [self.machine.deadline(), self.watches.deadline()];
            let next = tokio::select! {
                // Only the streams can be ready all the time, so it comes last.
                biased;
                command = commands.recv() => Next::Command(command),
                connected = answered(&mut self.connecting) => Next::Connected(connected),
                counted = answered(&mut self.counting) => Next::Counted(counted),
                members = answered(&mut self.listing) => Next::Members(members),
                () = reached(deadline.into_iter().flatten().min()) => Next::Time,
                heard = self.streams.next() => Next::Heard(heard),
            };
            let now = Instant::now();
            match next {
                Next::Command(None) => return,
                Next::Command(Some(command)) => self.command(command, now),
                Next::Connected(Ok(wire)) => {
                    self.connecting = None;
                    self.streams.begin(wire.tokens(), wire.stream());
                    self.wire = Some(wire);
                    self.machine.handle(Input::Connected, now);
                }
                Next::Connected(Err(error)) => {
                    self.connecting = None;
                    self.machine.handle(Input::Failed(error), now);
                }
                Next::Counted(counted) => {
                    self.counting = None;
                    self.machine.handle(Input::Counted(counted), now);
                }
                Next::Members(members) => {
                    self.listing = None;
                    match members {
                        Ok(members) => self.machine.handle(Input::Members(members), now),
                        Err(error) => tracing::debug!(%error, "no list of members"),
                    }
                }
                Next::Heard((stream, Ok(heard))) => self.heard(stream, heard, now),
                Next::Heard((_, Err(error))) => {
                    self.streams.clear();
                    self.machine.handle(Input::Failed(error), now);
                }
                Next::Time => {
                    match self.watches.deadline() {
                        Some(deadline) if now > deadline + LATE => self.watches.give_time(now),
                        Some(deadline) if now >= deadline => {
                            let cause = format!("no answer within {} s", CREATED_WITHIN.as_secs());
                            let endpoint = self.machine.endpoint();
                            let error = WireError::unreachable("open a watch", endpoint, cause);
                            self.machine.handle(Input::Failed(error), now);
                        }
                        _ => {}
                    }
                    self.machine.handle(Input::Tick, now);
                }
            }
            self.act_all();
            self.create(now);
        }
    }

    /// Creates the next watch, if there is one to create.
    fn create(&mut self, now: Instant) {
        let Some(wire) = &self.wire else { return };
        if let Some((id, keys)) = self.watches.next(now) {
            let is_used = |stream| self.watches.is_used(stream);
            self.streams.create(id, keys, wire.tokens(), || wire.stream(), is_used);
        }
    }

    fn command(&mut self, command: Command<C::Wire>, now: Instant) {
        match command {
            Command::Join(id, mailbox, backlog) => {
                let news = match (&self.wire, &self.trouble) {
                    (Some(wire), _) => Some(News::Up(wire.clone())),
                    (None, Some(error)) => Some(News::Down(error.clone())),
                    (None, None) => None,
                };
                if let Some(news) = news {
                    let _ = mailbox.unbounded_send(Letter::Link(self.connection, news));
                }
                self.users.insert(id, User { mailbox, backlog, needed_by: None, stays: true });
                self.stay += 1;
                self.machine.handle(Input::Stays(true), now);
                self.machine.handle(Input::Used(true), now);
            }
            Command::Retry => {
                self.machine.handle(Input::Retry, now);
                self.tell_all(|| News::Retry);
            }
            Command::Request(request) => self.request(request, now),
        }
    }

    fn request(&mut self, Request { user, connection, wish }: Request, now: Instant) {
        let is_current = connection == self.connection && self.wire.is_some();
        match wish {
            Wish::Leave => {
                self.close(user);
                self.leaves(user, now);
                self.users.remove(&user);
                if self.users.is_empty() {
                    self.machine.handle(Input::Used(false), now);
                }
            }
            Wish::Hurry { until } => {
                self.leaves(user, now);
                self.machine.handle(Input::Hurry { until }, now);
            }
            Wish::Follow => self.leaves(user, now),
            Wish::NeededBy(by) => {
                if let Some(user) = self.users.get_mut(&user) {
                    user.needed_by = by;
                }
            }
            // About a connection that is no more.
            _ if !is_current => {}
            Wish::Open { turn, keys } => self.watches.open(Owner { user, turn }, keys),
            Wish::Close => self.close(user),
            Wish::Condemn(error) => self.machine.handle(Input::Condemned(error), now),
            Wish::Check { by } => self.machine.handle(Input::Check { by }, now),
        }
    }

    /// This user is in no need of a connection for long.
    fn leaves(&mut self, user: UserId, now: Instant) {
        if let Some(user) = self.users.get_mut(&user)
            && std::mem::take(&mut user.stays)
        {
            self.stay -= 1;
            self.machine.handle(Input::Stays(self.stay > 0), now);
        }
    }

    fn close(&mut self, user: UserId) {
        for place in self.watches.close(user) {
            self.streams.cancel(place);
        }
    }

    fn heard(&mut self, stream: u32, heard: Heard, now: Instant) {
        let place = |id| Place { stream, id };
        let progress = matches!(heard, Heard::Progress);
        let revision = match &heard {
            Heard::Created { revision, .. } => *revision,
            Heard::Events { events, .. } => events.last().map_or(0, Event::revision),
            Heard::Refused(_) | Heard::Canceled { .. } | Heard::Progress => 0,
        };
        // Any word ends a doubt, and that is told before what the word says.
        self.machine.handle(Input::Heard { progress, revision }, now);
        self.act_all();
        match heard {
            Heard::Created { id, revision } => match self.watches.created(place(id)) {
                Some(owner) => self.tell(owner, News::Created { revision }),
                None => self.streams.cancel(place(id)),
            },
            Heard::Refused(error) => {
                if let Some(owner) = self.watches.refused() {
                    self.tell(owner, News::Refused(error));
                }
            }
            Heard::Canceled { id, error } => {
                if let Some(owner) = self.watches.canceled(place(id)) {
                    self.tell(owner, News::Canceled(error));
                }
            }
            Heard::Events { id, events } => {
                if let Some(owner) = self.watches.owner(place(id)) {
                    self.tell_events(owner, place(id), events);
                }
            }
            Heard::Progress => {}
        }
    }

    fn act_all(&mut self) {
        while let Some(action) = self.machine.next_action() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(endpoint) => {
                let connector = self.connector.clone();
                let connect = async move { connector.connect(&endpoint).await };
                self.connecting = Some(Box::pin(connect));
            }
            Action::Up => {
                self.connection += 1;
                self.trouble = None;
                if let Some(wire) = self.wire.clone() {
                    self.tell_all(|| News::Up(wire.clone()));
                }
            }
            Action::Down(error) => {
                self.disconnect();
                self.trouble = Some(error.clone());
                self.tell_all(|| News::Down(error.clone()));
                let now = Instant::now();
                let needed = self.users.values().filter_map(|user| user.needed_by);
                // What is lost already must not hide what can still be saved.
                if let Some(needed) = needed.filter(|needed| *needed > now).min() {
                    self.machine.handle(Input::NeededBy(needed), now);
                }
            }
            Action::Close => {
                self.disconnect();
                self.trouble = None;
            }
            Action::Probe => {
                self.streams.probe();
            }
            Action::Count => {
                let Some(wire) = self.wire.clone() else { return };
                // Where nothing was ever watched any will do, also one that may not be read.
                let keys = self.watches.some_keys().cloned().unwrap_or(Keys::One(ANY.to_vec()));
                self.counting = Some(Box::pin(async move { wire.count(&keys).await }));
            }
            Action::Members => {
                if let Some(wire) = self.wire.clone() {
                    self.listing = Some(Box::pin(async move { wire.members().await }));
                }
            }
            Action::Doubt(error) => self.tell_all(|| News::Doubt(error.clone())),
            Action::Trust => self.tell_all(|| News::Trust),
        }
    }

    fn disconnect(&mut self) {
        self.connecting = None;
        self.counting = None;
        self.listing = None;
        self.streams.clear();
        self.wire = None;
        self.watches.clear();
    }

    /// Tells a user what changed. Where too much of that waits for the user already, the watch is ended.
    fn tell_events(&mut self, owner: Owner, place: Place, events: Vec<Event>) {
        let Some(user) = self.users.get(&owner.user) else { return };
        let weight = weight(&events);
        // Before it can be read and taken off again.
        let waits = user.backlog.fetch_add(weight, Ordering::Relaxed).saturating_add(weight);
        self.tell(owner, News::Events(events));
        if waits > MOST_BEHIND {
            self.watches.canceled(place);
            self.streams.cancel(place);
            let cause = format!("{} MiB of changes wait to be read", waits >> 20);
            let error = WireError::unreachable("follow a watch", self.machine.endpoint(), cause);
            self.tell(owner, News::Canceled(error));
        }
    }

    fn tell(&self, owner: Owner, news: News<C::Wire>) {
        if let Some(user) = self.users.get(&owner.user) {
            let _ = user.mailbox.unbounded_send(Letter::Watch(owner.turn, news));
        }
    }

    fn tell_all(&self, news: impl Fn() -> News<C::Wire>) {
        for user in self.users.values() {
            let _ = user.mailbox.unbounded_send(Letter::Link(self.connection, news()));
        }
    }
}
#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
