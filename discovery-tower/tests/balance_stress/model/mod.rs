//! The naive model: what the set, the counts and the errors have to be, from what was done and from
//! what the services and the policy were asked.
//!
//! It takes from the balancer what chance decides: when a service is made anew, whom the policy picks,
//! and who is put out for failing (which has to have a reason). All else it works out by itself.

mod calls;
mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use discovery_tower::balance::{Limits, Outcome, Standing};
use tokio::time::Instant;

use crate::world::{Readiness, Value};

/// After how many failures in a row an endpoint is judged.
pub const STRIKES: u32 = 3;
pub const PANIC_PERCENT: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
    Failed,
}

/// A service and its counts.
#[derive(Debug, Default)]
struct Made {
    key: u32,
    version: u64,
    pending: u32,
    finished: u64,
    failures: u64,
    /// Calls that were cancelled while it was a suspect: failures, unless nobody really waited.
    perhaps: u64,
    streak: u32,
    /// Whether it may have been closed as a suspect since the driver ran.
    closed: bool,
    /// Whether a call went well since the driver ran.
    passed: bool,
    /// What became of the last call.
    last: Option<Outcome>,
    /// A call found it broken, and the driver has yet to hear of it.
    broken: bool,
}

#[derive(Debug)]
struct Entry {
    value: Arc<Value>,
    serial: u64,
    made_for: u64,
    phase: Phase,
    next: Option<u64>,
    wants: Option<u64>,
    /// When it became unready last.
    failed_at: Instant,
    out: bool,
    standing: Standing,
    /// Whether it did what one is put out for.
    blamed: bool,
    /// Whether it ever was a suspect. One that is put out as such says nothing of the others.
    suspected: bool,
}

/// What a call is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    New,
    Picked(u64),
    Settling,
    Sent(u64),
    Open(u64),
}

#[derive(Debug)]
pub struct Call {
    pub stage: Stage,
    pub avoid: Option<u32>,
    /// The services that gave it back or were not ready.
    refused: BTreeSet<u64>,
    causes: usize,
    /// Who served it last.
    pub served: Option<u32>,
    /// Since when it has been looking for an endpoint.
    since: Option<Instant>,
}

pub struct Model {
    /// Whether picks are seen.
    watched: bool,
    limits: Limits,
    made: BTreeMap<u64, Made>,
    entries: BTreeMap<u32, Entry>,
    /// What those that left did: whether it is what one is put out for, and failures in a row.
    departed: BTreeMap<u32, (bool, u32)>,
    pub calls: BTreeMap<u64, Call>,
    loaded: bool,
    panic: bool,
    /// Whether so many are to blame that all may be used.
    may_panic: bool,
    /// As the driver published them.
    usable: BTreeSet<u64>,
    published: bool,
    broken: Vec<u64>,
    /// Those that have to be out once the driver has heard of it.
    certainly_out: Vec<u64>,
    pub picks: u64,
    pub ended: u64,
    /// How many ends the policy was told of.
    pub told: u64,
    pub errors: [u64; 4],
}

impl Model {
    pub fn new(watched: bool, limits: Limits) -> Self {
        Self {
            watched,
            limits,
            made: BTreeMap::new(),
            entries: BTreeMap::new(),
            departed: BTreeMap::new(),
            calls: BTreeMap::new(),
            loaded: false,
            panic: false,
            may_panic: false,
            usable: BTreeSet::new(),
            published: false,
            broken: Vec::new(),
            certainly_out: Vec::new(),
            picks: 0,
            ended: 0,
            told: 0,
            errors: [0; 4],
        }
    }

    /// The services that the driver has to hold, and no others.
    pub fn held(&self) -> Vec<u64> {
        let held = self.entries.values().flat_map(|entry| [Some(entry.serial), entry.next]);
        let mut held: Vec<_> = held.flatten().collect();
        held.sort_unstable();
        held
    }

    fn is_current(&self, serial: u64) -> bool {
        let key = self.made[&serial].key;
        self.entries.get(&key).is_some_and(|entry| entry.serial == serial)
    }

    fn standing(&self, serial: u64) -> Option<Standing> {
        let entry = self.entries.get(&self.made.get(&serial)?.key)?;
        (entry.serial == serial).then_some(entry.standing)
    }

    /// Whether a call may be sent there now, as far as the set is concerned.
    fn may_go(&self, serial: u64) -> bool {
        self.usable.contains(&serial) && !self.made[&serial].broken
    }

    /// Nothing is left to do for anybody: whether those who wait have a reason to.
    pub fn at_rest(&self, readiness: impl Fn(u64) -> Option<Readiness>, now: Instant) {
        assert!(self.broken.is_empty(), "the driver was not told of {:?}", self.broken);
        for (id, call) in &self.calls {
            if call.stage != Stage::Settling {
                continue;
            }
            let longest = self.limits.load.max(self.limits.ready).max(self.limits.failed);
            // Timers round up to milliseconds.
            let longest = longest + Duration::from_millis(1);
            let since = call.since.expect("it searches");
            assert!(now - since <= longest, "call {id} waits for too long: {call:?}");
            assert!(!(self.entries.is_empty() && self.published), "call {id} waits for nobody");
            let failed = self.count(Phase::Failed) + self.count(Phase::Connecting);
            let nobody = !self.entries.is_empty() && self.usable.is_empty() && failed == 0;
            assert!(!nobody, "call {id} waits for those that are out of service");
            // A call waits for so many at a time; it has asked them all.
            let asked = self.usable.iter().filter(|_| self.entries.len() <= 32);
            for &serial in asked {
                // It may be waiting for another one, also for one that it has tried before.
                let has_others = self
                    .usable
                    .iter()
                    .any(|&other| other != serial && call.avoid != Some(self.made[&other].key));
                if self.is_full(serial) && has_others {
                    continue;
                }
                let ready = readiness(serial) == Some(Readiness::Ready);
                assert!(
                    !ready || !self.is_free_for(call, serial),
                    "call {id} waits, while {serial} is ready: {call:?}, {:?}",
                    self.entries[&self.made[&serial].key]
                );
            }
        }
    }

    /// Nobody calls: whether no call is counted.
    pub fn is_idle(&self) {
        assert!(self.calls.is_empty());
        for (serial, made) in &self.made {
            assert_eq!(made.pending, 0, "calls under way at {serial}");
        }
    }

    /// Forgets the services that nobody holds.
    pub fn forget(&mut self, alive: &[u64]) {
        self.made.retain(|serial, _| alive.contains(serial));
    }
}

/// The address that is said in a version.
pub fn address(version: u64) -> u32 {
    u32::try_from(version % 8).unwrap_or(0)
}
