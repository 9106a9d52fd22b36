//! A user's side of the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::mpsc::UnboundedReceiver;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::UserId;
use crate::wire::{Event, Keys, WireError};

/// What a user is told, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum News<W> {
    /// There is a connection; a watch has to be opened on it.
    Up(W),
    /// There is none any more, or it could not be had. A watch is gone with it.
    Down(WireError),
    /// What is known may be out of date from now on.
    Doubt(WireError),
    /// It is as of now after all.
    Trust,
    /// What was denied is worth another attempt now.
    Retry,
    /// The watch stands since this revision.
    Created { revision: i64 },
    /// The watch is refused.
    Refused(WireError),
    /// The watch is ended by the server.
    Canceled(WireError),
    /// What changed, in the order of revisions; all events of one revision together.
    Events(Vec<Event>),
}

/// News with what it belongs to.
pub(super) enum Letter<W> {
    /// Of the connection with this number.
    Link(u64, News<W>),
    /// Of the watch that the user opened in this turn.
    Watch(u32, News<W>),
}

/// What a user wants.
#[derive(Debug)]
pub(super) enum Wish {
    Open { turn: u32, keys: Keys },
    Close,
    Condemn(WireError),
    Check { by: Instant },
    Hurry { until: Instant },
    Follow,
    NeededBy(Option<Instant>),
    Leave,
}

/// A wish of a user about the connection with this number.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) user: UserId,
    pub(super) connection: u64,
    pub(super) wish: Wish,
}

/// What the link's task is told by users.
pub(super) enum Command<W> {
    Join(UserId, futures_channel::mpsc::UnboundedSender<Letter<W>>, Backlog),
    Request(Request),
    Retry,
}

/// How many bytes of events a user has not read yet. The link does not wait for a user, so somebody has
/// to know.
pub(super) type Backlog = Arc<AtomicUsize>;

/// The use of a link; dropping it ends it, and the watch.
pub(crate) struct Ticket<W> {
    pub(super) user: UserId,
    pub(super) commands: UnboundedSender<Command<W>>,
    pub(super) letters: UnboundedReceiver<Letter<W>>,
    pub(super) backlog: Backlog,
    /// The connection that the user was told of last.
    pub(super) connection: u64,
    /// Counts the watches that were opened.
    pub(super) turn: u32,
}

impl<W> Ticket<W> {
    /// The next news. Cancel safe. `None`: the link's task is gone, with its runtime.
    pub(crate) async fn next(&mut self) -> Option<News<W>> {
        loop {
            let letter = self.letters.next().await?;
            if let Letter::Watch(_, News::Events(events)) = &letter {
                self.backlog.fetch_sub(weight(events), Ordering::Relaxed);
            }
            match letter {
                Letter::Link(connection, news) => {
                    self.connection = connection;
                    return Some(news);
                }
                Letter::Watch(turn, news) if turn == self.turn => return Some(news),
                // Of a watch that was given up.
                Letter::Watch(..) => {}
            }
        }
    }

    /// Opens a watch at "now", in place of the one there may be.
    pub(crate) fn open(&mut self, keys: Keys) {
        self.close();
        self.turn += 1;
        self.tell(Wish::Open { turn: self.turn, keys });
    }

    /// Ends the watch, if there is one.
    pub(crate) fn close(&mut self) {
        // What it still had to say is of no interest.
        self.turn += 1;
        self.tell(Wish::Close);
    }

    /// The connection is of no use: another one, elsewhere.
    pub(crate) fn condemn(&self, error: WireError) {
        self.tell(Wish::Condemn(error));
    }

    /// Something takes long: is the connection alive? Unless that is known by then, it is given up;
    /// if it is, nothing is said.
    pub(crate) fn check(&self, by: Instant) {
        self.tell(Wish::Check { by });
    }

    /// This user leaves and has time until then.
    pub(crate) fn hurry(&self, until: Instant) {
        self.tell(Wish::Hurry { until });
    }

    /// This user is there for others: once they all leave, it is in no need of a connection.
    pub(crate) fn follow(&self) {
        self.tell(Wish::Follow);
    }

    /// A lease is lost unless there is a connection by then.
    pub(crate) fn needed_by(&self, by: Option<Instant>) {
        self.tell(Wish::NeededBy(by));
    }

    fn tell(&self, wish: Wish) {
        let request = Request { user: self.user, connection: self.connection, wish };
        // Without a task there is nobody to hear it, and `next` says so.
        let _ = self.commands.send(Command::Request(request));
    }
}

/// What these events take in memory, more or less.
pub(super) fn weight(events: &[Event]) -> usize {
    let one = |event: &Event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key, .. } => key.len(),
    };
    events.iter().map(|event| one(event) + size_of::<Event>()).sum()
}

impl<W> Drop for Ticket<W> {
    fn drop(&mut self) {
        self.tell(Wish::Leave);
    }
}
