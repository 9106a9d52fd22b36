//! What will happen, from the seed alone: a failing seed repeats the same faults, at the same times, on
//! the same targets. Only what the machine makes of it differs from run to run.
//!
//! A run is a sequence of rounds. Each has one main fault, drawn from a deck that is shuffled anew when it
//! is empty, so that every kind comes before one comes again; often another fault beside it; and coming
//! and going all the time. It ends with a quiet point, where everything must be as etcd says.

mod chance;
mod draw;

use std::{fmt, time::Duration};

use discovery_test_support::Version;

pub(crate) use self::chance::fresh_seed;

/// The services of the run. One name is the beginning of the next.
pub(crate) const SERVICES: [&str; 3] = ["order", "orders", "payments"];
/// Ids under which other tools write, for each service.
pub(crate) const FOREIGN: u64 = 8;
/// So many registrants stay, and as many come and go.
pub(crate) const STABLE: usize = 6;
/// All registrants.
pub(crate) const SLOTS: usize = 12;
/// What registrants ask for.
pub(crate) const TTL: Duration = Duration::from_secs(5);
/// About how long a quiet point takes.
const QUIET: Duration = Duration::from_millis(3500);
/// How long the guarded viewers keep suspects.
pub(crate) const SUSPECTS: Duration = Duration::from_secs(3);

/// A program that talks to etcd over a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Watches.
    Plain,
    /// Watches, and has a second way to etcd even where there is one member.
    Spare,
    /// Watches with protection from mass removal.
    Guarded,
    /// Registers the registrants of even number.
    Left,
    /// Registers those of odd number, over two ways.
    Right,
}

impl Client {
    pub(crate) const ALL: [Self; 5] =
        [Self::Plain, Self::Spare, Self::Guarded, Self::Left, Self::Right];
    pub(crate) const VIEWERS: [Self; 3] = [Self::Plain, Self::Spare, Self::Guarded];

    /// Who registers this registrant.
    pub(crate) const fn of_slot(slot: usize) -> Self {
        if slot.is_multiple_of(2) { Self::Left } else { Self::Right }
    }
}

/// The member that a fault hits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Member(usize),
    Leader,
}

/// How a network fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Connections are closed, new ones as soon as they are made.
    Close,
    /// The same with RST.
    Reset,
    /// Nobody listens.
    Refuse,
    /// Everything vanishes, both ways.
    BlackHole,
    /// What the server says vanishes.
    Deaf,
    /// What the client says vanishes.
    Mute,
    /// What the server says is kept back and comes in the end.
    Hold,
    /// What the server says comes so much later.
    Delay(Duration),
    /// So many bytes a second.
    Throttle(u32),
}

/// One failure, undone when it is over.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Rows 1 and 2.
    Kill { target: Target, down: Duration },
    /// Rows 3 and 4.
    Pause { target: Target, time: Duration },
    /// Row 12: the other members are paused.
    Isolate { member: usize, time: Duration },
    /// Row 22.
    KillLeaders { times: u32 },
    /// Row 11.
    Wipe,
    /// Row 5.
    Revoke { slots: Vec<usize> },
    /// Row 6.
    DeleteKeys { slots: Vec<usize> },
    /// Row 7: the lease is revoked, the net fails, and a moment later the registrant leaves.
    LeaveInCut { slot: usize, cut: Cut, wait: Duration, time: Duration },
    /// Row 9.
    CompactWhileCut { client: Client, writes: u64 },
    /// Row 10.
    DeleteAtCompacted { client: Client },
    /// Rows 13 and 14: the network of a client fails, one way or all of them.
    Net { client: Client, all: bool, cut: Cut, time: Duration },
    /// All connections break, again and again.
    Breaks { client: Client, times: u32, reset: bool },
    /// Row 15.
    SlowReader { updates: u64, time: Duration },
    /// Row 16: so many revisions of 10 events of 1 kB.
    CatchUp { client: Client, revisions: u64 },
    /// Row 23: a viewer whose etcd cannot be reached at first.
    LateStart { hole: bool, time: Duration },
    /// Row 25: everything of a service is deleted, registrants too.
    Empty { service: usize },
}

/// What a registrant is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SlotOp {
    /// Be registered; with another id than before if `fresh`.
    Register {
        fresh: bool,
    },
    Update {
        weight: u16,
    },
    Drain,
    /// Deregister and wait for it.
    Leave,
    /// Drop the handle.
    Drop,
}

/// One key that other tools write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ForeignKey {
    pub(crate) service: usize,
    pub(crate) id: u64,
}

/// What happens beside the faults.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Slot {
        slot: usize,
        op: SlotOp,
    },
    Put {
        key: ForeignKey,
        number: u64,
    },
    /// With a lease that nobody renews.
    PutLeased {
        key: ForeignKey,
        number: u64,
    },
    Delete {
        key: ForeignKey,
    },
    /// All at one revision: with a number it is put, without it is deleted.
    Together {
        keys: Vec<(ForeignKey, Option<u64>)>,
    },
    /// Row 24: a value of that kind, which is no instance.
    Poison {
        key: ForeignKey,
        kind: usize,
    },
    /// A viewer that comes, and goes again.
    Visit {
        client: Client,
        service: Option<usize>,
        time: Duration,
    },
}

/// Something and when in its round.
#[derive(Debug, Clone)]
pub(crate) struct Timed<T> {
    pub(crate) at: Duration,
    pub(crate) what: T,
}

#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) faults: Vec<Timed<Fault>>,
    /// In the order of their times.
    pub(crate) acts: Vec<Timed<Act>>,
}

/// A whole run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) version: Version,
    pub(crate) members: usize,
    pub(crate) rounds: Vec<Round>,
}

impl Fault {
    /// About how long it takes.
    fn length(&self) -> Duration {
        match self {
            Self::Kill { down, .. } => *down + Duration::from_secs(2),
            Self::Pause { time, .. }
            | Self::Isolate { time, .. }
            | Self::LeaveInCut { time, .. }
            | Self::Net { time, .. }
            | Self::SlowReader { time, .. }
            | Self::LateStart { time, .. } => *time,
            Self::KillLeaders { times } => Duration::from_millis(3500) * *times,
            Self::Breaks { times, .. } => Duration::from_millis(300) * *times,
            Self::Wipe | Self::CompactWhileCut { .. } | Self::CatchUp { .. } => {
                Duration::from_secs(3)
            }
            Self::Revoke { .. }
            | Self::DeleteKeys { .. }
            | Self::DeleteAtCompacted { .. }
            | Self::Empty { .. } => Duration::from_secs(1),
        }
    }

    /// Whether all leases live on, so that a registrant has no reason to be lost.
    pub(crate) fn spares_leases(&self) -> bool {
        match self {
            Self::Kill { down, .. } => *down < TTL,
            Self::CompactWhileCut { .. }
            | Self::DeleteAtCompacted { .. }
            | Self::Breaks { .. }
            | Self::SlowReader { .. }
            | Self::CatchUp { .. }
            | Self::LateStart { .. } => true,
            Self::Net { client, .. } => Client::VIEWERS.contains(client),
            Self::Pause { .. }
            | Self::Isolate { .. }
            | Self::KillLeaders { .. }
            | Self::Wipe
            | Self::Revoke { .. }
            | Self::DeleteKeys { .. }
            | Self::LeaveInCut { .. }
            | Self::Empty { .. } => false,
        }
    }

    /// Whether somebody is without etcd for longer than a second.
    pub(crate) const fn is_outage(&self) -> bool {
        !matches!(
            self,
            Self::Revoke { .. }
                | Self::DeleteKeys { .. }
                | Self::SlowReader { .. }
                | Self::Empty { .. }
        )
    }
}

impl Round {
    /// About how long it takes, with the quiet point.
    fn length(&self) -> Duration {
        let faults = self.faults.iter().map(|fault| fault.at + fault.what.length());
        let acts = self.acts.iter().map(|act| act.at);
        faults.chain(acts).max().unwrap_or_default() + QUIET
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, version, members, rounds } = self;
        writeln!(f, "seed {seed}: etcd {version}, members: {members}, rounds: {}", rounds.len())?;
        for (number, round) in rounds.iter().enumerate() {
            writeln!(f, "round {}, about {:?}", number + 1, round.length())?;
            let faults = round.faults.iter().map(|fault| (fault.at, format!("{:?}", fault.what)));
            let acts = round.acts.iter().map(|act| (act.at, format!("  {:?}", act.what)));
            let mut lines: Vec<_> = faults.chain(acts).collect();
            lines.sort_by_key(|(at, _)| *at);
            for (at, line) in lines {
                writeln!(f, "  {:>6} ms  {line}", at.as_millis())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, Duration::from_secs(600), None, None)
    }

    #[test]
    fn a_seed_means_one_plan() {
        assert_eq!(plan(7).to_string(), plan(7).to_string());
        assert_ne!(plan(7).to_string(), plan(8).to_string());
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let long = plan(3).to_string();
        let short = Plan::new(3, Duration::from_secs(60), None, None).to_string();
        let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert!(body(&long).starts_with(&body(&short)));
    }

    #[test]
    fn ten_minutes_have_every_kind_of_fault_of_their_cluster() {
        for (members, special) in [(1, vec!["Wipe"]), (3, vec!["Isolate", "KillLeaders"])] {
            let text = Plan::new(1, Duration::from_secs(600), None, Some(members)).to_string();
            let common = [
                "Kill {",
                "Pause",
                "Revoke",
                "DeleteKeys",
                "LeaveInCut",
                "CompactWhileCut",
                "DeleteAtCompacted",
                "Net",
                "Breaks",
                "SlowReader",
                "CatchUp",
                "LateStart",
                "Empty",
                "Poison",
                "Together",
                "Visit",
            ];
            for kind in common.into_iter().chain(special) {
                assert!(text.contains(kind), "{kind} with {members}");
            }
        }
    }

    #[test]
    fn versions_and_sizes_both_come_up() {
        let plans: Vec<_> = (0..20).map(plan).collect();
        for version in [Version::V3_5, Version::V3_4] {
            assert!(plans.iter().any(|plan| plan.version == version));
        }
        for members in [1, 3] {
            assert!(plans.iter().any(|plan| plan.members == members));
        }
    }
}
