//! When the driver tells what has been seen: at most once a second, and every 10 s if nothing happens,
//! for recorders that come late or forget.

use std::time::Duration;

use discovery_core::{State, StatusReader};
use tokio::time::Instant;

use super::gauges::Gauges;
use super::seen::Seen;
use crate::balance::Standing;
use crate::balance::member::Member;

const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    last: Option<Instant>,
    /// Whether something had happened when it was done.
    busy: bool,
    /// Whether the set is another one since.
    changed: bool,
}

impl Telling {
    /// When it is to be done again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.last.map(|last| last + if self.busy || self.changed { BUSY } else { IDLE })
    }

    /// Tells if it is time.
    pub(crate) fn tell<'a, K, E, L>(
        &mut self,
        seen: &Seen,
        now: Instant,
        published: bool,
        members: impl Iterator<Item = &'a Member<K, E, L>>,
        panic: bool,
        status: Option<&StatusReader>,
    ) where
        K: 'a,
        E: 'a,
        L: 'a,
    {
        self.changed |= published;
        if self.next().is_some_and(|next| now < next) {
            return;
        }
        self.last = Some(now);
        let status = status.map(StatusReader::get);
        let is_stale = status
            .as_ref()
            .is_some_and(|status| matches!(status.state, State::Loading(_) | State::Stale(_)));
        let stale = status.map(|status| if is_stale { status.elapsed() } else { Duration::ZERO });
        let stale = stale.map(|stale| stale.as_secs_f64());
        let mut gauges = Gauges { panic, stale, ..Gauges::default() };
        for member in members {
            seen.fold(member);
            gauges.pending += u64::from(member.pending());
            let standing = member.standing();
            let place = Standing::ALL.iter().position(|each| *each == standing);
            if let Some(count) = place.and_then(|place| gauges.standings.get_mut(place)) {
                *count += 1;
            }
        }
        let news = seen.counts().tell();
        self.busy = std::mem::take(&mut self.changed) || news || is_stale;
        seen.shown().set(gauges);
    }
}
