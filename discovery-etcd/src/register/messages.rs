//! What the registration machine is told, and what it says.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{
    Address, Instance, InstanceKey, RefusedUpdate, RegistrationStatus, SourceError,
};
use tokio::time::Instant;

use super::OnConflict;
use crate::format::{Encoded, Entry, Format, Unencodable};
use crate::wire::{Event, Found, GuardedPut, Keys, PutReply, WireError};

/// What never changes about a registration.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) key: InstanceKey,
    /// The key in etcd.
    pub(crate) raw_key: Vec<u8>,
    pub(crate) ttl: Duration,
    pub(crate) on_conflict: OnConflict,
    pub(crate) replace_same_address: bool,
    /// The key stands under a lease that is shared, once it is ours.
    pub(crate) share_lease: bool,
    /// How often the key is read even though the watch says nothing.
    pub(crate) verify_every: Duration,
    pub(crate) format: Arc<dyn Format>,
}

impl Plan {
    /// The address of whoever holds the key with this value.
    pub(crate) fn address_of(&self, value: &[u8]) -> Option<Address> {
        let entry = Entry { key: &self.raw_key, value };
        let decoded = self.format.decode(&[entry]).ok()?;
        let mut instances = decoded.instances();
        // A format can have ids of its own; then the only instance is meant.
        let same = decoded.instances().find(|instance| instance.id == self.key.id);
        same.or_else(|| instances.next()).map(|instance| instance.address.clone())
    }

    /// Whether etcd can hold what an update makes of the instance.
    pub(crate) fn holds(&self) -> impl Fn(&Instance) -> bool + Send + Sync + 'static {
        let (format, key) = (self.format.clone(), self.raw_key.clone());
        move |instance| encode(&*format, &key, instance).is_ok()
    }

    /// What etcd should say of the instance.
    pub(crate) fn wanted(
        &self,
        instance: &Instance,
        version: u64,
        wish: u64,
    ) -> Result<Wanted, RefusedUpdate> {
        let value = encode(&*self.format, &self.raw_key, instance)
            .map_err(|error| RefusedUpdate::new(version, SourceError::new(error)))?;
        Ok(Wanted::Present { value, address: instance.address.clone(), version, wish })
    }
}

/// The value of the instance, which is to stand under this key.
fn encode(
    format: &dyn Format,
    raw_key: &[u8],
    instance: &Instance,
) -> Result<Option<Vec<u8>>, Unencodable> {
    let Encoded { key, value } = format.encode(instance)?;
    if key != raw_key {
        let key = String::from_utf8_lossy(&key).into_owned();
        let reason = "an update cannot move an instance to another key";
        return Err(Unencodable::new("key", key, reason));
    }
    Ok(value)
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Present {
        /// What etcd should say; `None`: nothing, as long as the instance is like this.
        value: Option<Vec<u8>>,
        address: Address,
        /// Counts the versions of the instance.
        version: u64,
        /// Counts what was wanted: it also changes where the version does not, as with health.
        wish: u64,
    },
    Absent {
        deadline: Instant,
    },
    Abandoned,
}

/// The lease that many registrations share, as it was confirmed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) id: i64,
    pub(crate) granted: Duration,
    /// When the last confirmed grant or renewal was sent.
    pub(crate) sent: Instant,
    /// When the last grant or renewal was over, confirmed or not.
    pub(crate) over: Instant,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    Wanted(Wanted),
    /// An update that cannot be in etcd: what was wanted before stays wanted.
    Refused(RefusedUpdate),
    /// There is a connection, to this endpoint.
    Up(Arc<str>),
    /// There is none, or none any more.
    Down(WireError),
    /// What was denied is worth another attempt.
    Retry,
    /// The watch on the key stands.
    Watching,
    /// It is refused, or ended by the server.
    NotWatching(WireError),
    /// What happened to the key.
    Events(Vec<Event>),
    /// The answer to the last question.
    Answer(Result<Answer, WireError>),
    /// The shared lease as it is now; `None` while there is none.
    Home(Option<Home>),
    /// Nobody keeps the shared lease any more: what still stands under it goes by itself.
    Unkept,
    /// Whether the application shows signs of life.
    Alive(bool),
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What etcd answered.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Refreshed,
    Granted(Duration),
    GrantedTtl(Option<Duration>),
    Renewed,
    Found(Found),
    Put(PutReply),
    Revoked,
}

/// What to ask of etcd.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    Refresh,
    Grant { lease: i64, ttl: Duration },
    GrantedTtl { lease: i64 },
    Renew { lease: i64 },
    Get(Vec<u8>),
    Put(GuardedPut),
    Revoke { lease: i64 },
}

impl Question {
    /// What is asked for the sake of this key, for an error.
    pub(crate) fn attempt(&self, key: &str) -> String {
        let what = match self {
            Self::Refresh => "authenticate for",
            Self::Grant { .. } => "grant a lease for",
            Self::GrantedTtl { .. } => "read the time of the lease of",
            Self::Renew { .. } => "renew the lease of",
            Self::Get(_) => "get",
            Self::Put(GuardedPut { value: Some(_), .. }) => "put",
            Self::Put(_) => "delete",
            Self::Revoke { .. } => "revoke the lease of",
        };
        format!("{what} {key}")
    }

    /// Whether the connection's own errors about this say nothing of the key.
    pub(crate) fn names_no_key(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::Put(_))
    }
}

/// What to do, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Watch the own key.
    Watch(Keys),
    /// Ask this; whatever was asked before no longer matters.
    Ask(Question),
    /// An answer is late: is the connection alive? If that is not known by then, it is of no use.
    Check { by: Instant },
    /// The connection is of no use: give up whatever was asked of it.
    Condemn(WireError),
    /// We leave and have time until then.
    Hurry { until: Instant },
    /// The lease is lost unless it is renewed by then.
    NeededBy(Option<Instant>),
    /// Tell the handle.
    Report(RegistrationStatus),
    /// The granted time to live is not the one asked for.
    OtherTtl { granted: Duration },
    /// Nothing is left to do.
    End,
}
