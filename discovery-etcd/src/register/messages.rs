//! What the registration machine is told, and what it says.

use std::time::Duration;

use discovery_core::{Address, InstanceKey, RegistrationStatus};
use tokio::time::Instant;

use super::OnConflict;
use crate::rotation::Rotation;
use crate::wire::{Found, GuardedPut, Keys, PutReply, WatchMessage, WireError};

/// What never changes about a registration.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) key: InstanceKey,
    /// The key in etcd.
    pub(crate) raw_key: Vec<u8>,
    pub(crate) ttl: Duration,
    pub(crate) on_conflict: OnConflict,
    pub(crate) replace_same_address: bool,
    pub(crate) rotation: Rotation,
    /// Reads the address out of a holder's value.
    pub(crate) address_of: fn(&[u8]) -> Option<Address>,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Present { value: Vec<u8>, address: Address, version: u64 },
    Absent { deadline: Instant },
    Abandoned,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    Wanted(Wanted),
    /// The answer to the last question.
    Answer(Result<Answer, WireError>),
    /// A message of the watch on the key, or its end.
    Watch(Result<WatchMessage, WireError>),
    /// The time of [`Machine::deadline`] has come.
    Tick,
}

/// What etcd answered.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Connected,
    Watching,
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
    Connect(usize),
    Watch(Keys),
    Grant { lease: i64, ttl: Duration },
    GrantedTtl { lease: i64 },
    Renew { lease: i64 },
    Get(Vec<u8>),
    Put(GuardedPut),
    Revoke { lease: i64 },
}

impl Question {
    /// What is asked, for an error.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Watch(_) => "watch the own key",
            Self::Grant { .. } => "grant a lease",
            Self::GrantedTtl { .. } => "read a lease's time",
            Self::Renew { .. } => "renew the lease",
            Self::Get(_) => "read the own key",
            Self::Put(_) => "put the own key",
            Self::Revoke { .. } => "revoke the lease",
        }
    }
}

/// What to do, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask this; whatever was asked before no longer matters.
    Ask(Question),
    /// Give up the connection and whatever was asked of it.
    Disconnect,
    /// Tell the handle.
    Report(RegistrationStatus),
    /// The granted time to live is not the one asked for.
    OtherTtl { granted: Duration },
    /// Nothing is left to do.
    End,
}
