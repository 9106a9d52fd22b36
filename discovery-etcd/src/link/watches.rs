//! Who watches what on the stream of a connection. Watches are created one at a time, since a server
//! need not say which one it refuses. Each is asked for with an id of its own that is used once; it
//! stands by the id that the server gives.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::UserId;
use super::streams::Place;
use crate::wire::Keys;

/// How long a watch may take to stand. etcd needs 4 s to find out that it has no leader.
pub(super) const CREATED_WITHIN: Duration = Duration::from_secs(3);

/// A user's watch: whose it is, and which of the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: UserId,
    /// Counts the watches that this user has opened.
    pub(super) turn: u32,
}

#[derive(Debug)]
struct Creating {
    since: Instant,
    /// `None`: given up meanwhile; the answer must be awaited all the same.
    owner: Option<Owner>,
    keys: Keys,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Watches {
    queue: VecDeque<(Owner, Keys)>,
    creating: Option<Creating>,
    standing: HashMap<Place, (Owner, Keys)>,
    last: i64,
    /// The keys of the watch that stood last.
    last_keys: Option<Keys>,
}

impl Watches {
    /// Asks for a watch.
    pub(super) fn open(&mut self, owner: Owner, keys: Keys) {
        self.queue.push_back((owner, keys));
    }

    /// Gives up whatever this user has asked for; returns what to cancel.
    pub(super) fn close(&mut self, user: UserId) -> Vec<Place> {
        self.queue.retain(|(owner, _)| owner.user != user);
        if let Some(Creating { owner, .. }) = &mut self.creating {
            *owner = owner.filter(|owner| owner.user != user);
        }
        let places = self.standing.iter().filter(|(_, (owner, _))| owner.user == user);
        let places: Vec<_> = places.map(|(place, _)| *place).collect();
        for place in &places {
            self.standing.remove(place);
        }
        places
    }

    /// The watch to create now, if one is to be.
    pub(super) fn next(&mut self, now: Instant) -> Option<(i64, Keys)> {
        if self.creating.is_some() {
            return None;
        }
        let (owner, keys) = self.queue.pop_front()?;
        self.last += 1;
        let id = self.last;
        self.creating = Some(Creating { since: now, owner: Some(owner), keys: keys.clone() });
        Some((id, keys))
    }

    /// The watch that was asked for stands there: whose it is, or `None` if nobody wants it now.
    pub(super) fn created(&mut self, place: Place) -> Option<Owner> {
        let Creating { owner, keys, .. } = self.creating.take()?;
        self.last_keys = Some(keys.clone());
        let owner = owner?;
        self.standing.insert(place, (owner, keys));
        Some(owner)
    }

    /// The watch that was asked for is refused: whose it was.
    pub(super) fn refused(&mut self) -> Option<Owner> {
        self.creating.take()?.owner
    }

    /// A watch was ended by the server: whose it was.
    pub(super) fn canceled(&mut self, place: Place) -> Option<Owner> {
        self.standing.remove(&place).map(|(owner, _)| owner)
    }

    /// Whose watch this is; `None`: one that was given up.
    pub(super) fn owner(&self, place: Place) -> Option<Owner> {
        self.standing.get(&place).map(|(owner, _)| *owner)
    }

    /// Whether a watch stands on this stream.
    pub(super) fn is_used(&self, stream: u32) -> bool {
        self.standing.keys().any(|place| place.stream == stream)
    }

    /// Some keys that may be read: they are being watched, or were.
    pub(super) fn some_keys(&self) -> Option<&Keys> {
        self.standing.values().next().map(|(_, keys)| keys).or(self.last_keys.as_ref())
    }

    /// When what is being created has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.creating.as_ref().map(|creating| creating.since + CREATED_WITHIN)
    }

    /// We were kept from running: the answer may be there and not be read yet.
    pub(super) fn give_time(&mut self, now: Instant) {
        if let Some(creating) = &mut self.creating {
            creating.since = now;
        }
    }

    /// The stream is gone, and all watches with it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(user: UserId) -> Owner {
        Owner { user, turn: 1 }
    }

    fn place(id: i64) -> Place {
        Place { stream: 1, id }
    }

    fn keys(name: &str) -> Keys {
        Keys::Prefix(name.into())
    }

    #[test]
    fn one_at_a_time_in_turn_with_an_id_each() {
        let (mut watches, now) = (Watches::default(), Instant::now());
        watches.open(owner(7), keys("a"));
        watches.open(owner(8), keys("b"));
        assert_eq!(watches.next(now), Some((1, keys("a"))));
        assert_eq!(watches.next(now), None, "the first has no answer yet");
        assert_eq!(watches.deadline(), Some(now + CREATED_WITHIN));
        assert_eq!(watches.created(place(1)), Some(owner(7)));
        assert_eq!(watches.next(now), Some((2, keys("b"))));
        assert_eq!(watches.refused(), Some(owner(8)));
        assert_eq!((watches.owner(place(1)), watches.owner(place(2))), (Some(owner(7)), None));
        assert_eq!(watches.canceled(place(1)), Some(owner(7)));
        assert_eq!((watches.owner(place(1)), watches.some_keys()), (None, Some(&keys("a"))));
    }

    #[test]
    fn what_is_given_up_is_canceled_as_soon_as_it_stands() {
        let (mut watches, now) = (Watches::default(), Instant::now());
        for user in 1..=3 {
            watches.open(owner(user), keys("a"));
        }
        watches.next(now);
        watches.created(place(0));
        watches.next(now);
        assert_eq!(watches.close(1), [place(0)], "it stood, by the id that the server gave");
        assert!(watches.close(2).is_empty(), "it is being created");
        assert!(watches.close(3).is_empty(), "it waits");
        assert_eq!(watches.created(place(2)), None);
        assert_eq!((watches.next(now), watches.deadline()), (None, None));
    }
}
