//! In place of what is seen, without the feature `metrics`: nothing is counted or told to anybody.

use std::sync::Arc;

use discovery_core::StatusReader;
use tokio::time::Instant;

use crate::balance::ejection::Why;
use crate::balance::error::CallError;
use crate::balance::member::Member;

pub(crate) fn describe() {}

#[cfg(feature = "http")]
pub(crate) fn retried(_: Option<&str>, _: bool) {}

#[derive(Debug)]
pub(crate) struct Seen;

#[derive(Debug, Default)]
pub(crate) struct Told {}

#[derive(Debug, Default)]
pub(crate) struct Telling {}

pub(crate) struct Waiting;

#[allow(clippy::unused_self, reason = "with the feature there is something to it")]
impl Told {
    pub(crate) fn skip(&self, _: u64, _: u64) {}
}

#[allow(clippy::unused_self, reason = "with the feature there is something to it")]
impl Seen {
    pub(crate) fn new(_: Option<&Arc<str>>) -> Self {
        Self
    }

    pub(crate) fn ignored(&self) {}

    pub(crate) fn overloaded(&self) {}

    pub(crate) fn cancelled(&self, _: bool) {}

    pub(crate) fn passed_on(&self) {}

    pub(crate) fn unready(&self) {}

    pub(crate) fn ejected(&self, _: Why) {}

    pub(crate) fn refused<K>(&self, _: &CallError<K>) {}

    pub(crate) fn waits(&self) -> Waiting {
        Waiting
    }

    pub(crate) fn fold<K, E, L>(&self, member: &Member<K, E, L>) {
        let Told {} = member.told();
    }

    pub(crate) fn leave(&self) {}
}

#[allow(clippy::unused_self, reason = "with the feature there is something to it")]
impl Telling {
    pub(crate) fn next(&self) -> Option<Instant> {
        None
    }

    pub(crate) fn tell<'a, K, E, L>(
        &mut self,
        _: &Seen,
        _: Instant,
        _: bool,
        _: impl Iterator<Item = &'a Member<K, E, L>>,
        _: bool,
        _: Option<&StatusReader>,
    ) where
        K: 'a,
        E: 'a,
        L: 'a,
    {
    }
}
