//! How rounds are drawn.

use std::time::Duration;

use discovery_test_support::Version;

use super::{
    Act, Client, Cut, FOREIGN, Fault, ForeignKey, Plan, Round, SERVICES, SLOTS, STABLE, SlotOp,
    Target, Timed, chance::Chance,
};

/// How many kinds of poison there are.
pub(crate) const POISONS: usize = crate::actors::POISON.len();

/// The kinds of main faults. Some are in it more than once: they have many forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KillShort,
    KillLong,
    PauseShort,
    PauseLong,
    Isolate,
    KillLeaders,
    Wipe,
    Revoke,
    DeleteKeys,
    LeaveInCut,
    CompactWhileCut,
    DeleteAtCompacted,
    NetViewer,
    NetRegistrar,
    Breaks,
    SlowReader,
    CatchUp,
    LateStart,
    Empty,
}

impl Plan {
    /// The plan of `seed` for about that long; version and members by the seed if they are not given.
    pub(crate) fn new(
        seed: u64,
        time: Duration,
        version: Option<Version>,
        members: Option<usize>,
    ) -> Self {
        let mut chance = Chance::new(seed);
        // Always drawn, so that what is given changes nothing else.
        let drawn = (chance.pick(&[Version::V3_5, Version::V3_4]), chance.pick(&[1, 1, 3]));
        let (version, members) = (version.unwrap_or(drawn.0), members.unwrap_or(drawn.1));
        let mut draw = Draw { chance, members, deck: Vec::new(), number: 0 };
        let mut rounds = Vec::new();
        let mut planned = Duration::ZERO;
        while planned < time {
            let round = draw.round();
            planned += round.length();
            rounds.push(round);
        }
        Self { seed, version, members, rounds }
    }
}

struct Draw {
    chance: Chance,
    members: usize,
    deck: Vec<Kind>,
    /// Makes every value of other tools a new one.
    number: u64,
}

impl Draw {
    fn round(&mut self) -> Round {
        let kind = self.kind();
        let main = self.fault(kind);
        let at = self.chance.time(500..1500);
        let mut length = at + main.length();
        let mut faults = vec![Timed { at, what: main }];
        // A wipe needs everybody's network for itself.
        let more = if kind == Kind::Wipe { 0 } else { self.chance.number(0..3) };
        for _ in 0..more {
            let side = self.side();
            let taken = faults.iter().any(|other| clash(&other.what, &side));
            if !taken {
                let at = self.chance.time(0..3000);
                length = length.max(at + side.length());
                faults.push(Timed { at, what: side });
            }
        }
        let mut acts = Vec::new();
        let mut at = Duration::ZERO;
        let until = length.max(Duration::from_secs(4));
        while at < until {
            acts.push(Timed { at, what: self.act() });
            // Now and then much at a time.
            at += if self.chance.percent(30) {
                self.chance.time(0..10)
            } else {
                self.chance.time(30..300)
            };
        }
        Round { faults, acts }
    }

    fn kind(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = vec![
                Kind::KillShort,
                Kind::KillLong,
                Kind::PauseShort,
                Kind::PauseLong,
                Kind::Revoke,
                Kind::DeleteKeys,
                Kind::LeaveInCut,
                Kind::LeaveInCut,
                Kind::CompactWhileCut,
                Kind::DeleteAtCompacted,
                Kind::NetViewer,
                Kind::NetViewer,
                Kind::NetRegistrar,
                Kind::Breaks,
                Kind::SlowReader,
                Kind::CatchUp,
                Kind::LateStart,
                Kind::Empty,
            ];
            if self.members == 1 {
                self.deck.push(Kind::Wipe);
            } else {
                self.deck.extend([Kind::Isolate, Kind::KillLeaders]);
            }
            self.chance.shuffle(&mut self.deck);
        }
        self.deck.pop().unwrap_or(Kind::Revoke)
    }

    /// A fault that can go along with another one.
    fn side(&mut self) -> Fault {
        let kind = self.chance.pick(&[
            Kind::Revoke,
            Kind::DeleteKeys,
            Kind::LeaveInCut,
            Kind::CompactWhileCut,
            Kind::DeleteAtCompacted,
            Kind::NetViewer,
            Kind::NetRegistrar,
            Kind::Breaks,
            Kind::Empty,
        ]);
        self.fault(kind)
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let chance = &mut self.chance;
        match kind {
            Kind::KillShort => Fault::Kill { target: self.target(), down: self.short() },
            Kind::KillLong => Fault::Kill { target: self.target(), down: self.long() },
            Kind::PauseShort => Fault::Pause { target: self.target(), time: self.short() },
            Kind::PauseLong => Fault::Pause { target: self.target(), time: self.long() },
            Kind::Isolate => {
                Fault::Isolate { member: chance.index(self.members), time: chance.time(3000..9000) }
            }
            Kind::KillLeaders => Fault::KillLeaders { times: chance.pick(&[2, 3, 4]) },
            Kind::Wipe => Fault::Wipe,
            Kind::Revoke => Fault::Revoke { slots: self.slots() },
            Kind::DeleteKeys => Fault::DeleteKeys { slots: self.slots() },
            Kind::LeaveInCut => Fault::LeaveInCut {
                slot: STABLE + chance.index(SLOTS - STABLE),
                cut: chance.pick(&[
                    Cut::Close,
                    Cut::Reset,
                    Cut::Refuse,
                    Cut::BlackHole,
                    Cut::Deaf,
                    Cut::Mute,
                    Cut::Hold,
                ]),
                wait: Duration::from_micros(chance.number(0..20_000)),
                time: chance.time(500..7000),
            },
            Kind::CompactWhileCut => Fault::CompactWhileCut {
                client: chance.pick(&Client::VIEWERS),
                writes: chance.number(5..60),
            },
            Kind::DeleteAtCompacted => {
                Fault::DeleteAtCompacted { client: chance.pick(&Client::VIEWERS) }
            }
            Kind::NetViewer => Fault::Net {
                client: chance.pick(&Client::VIEWERS),
                all: chance.percent(60),
                cut: self.cut(),
                time: self.chance.time(2000..12_000),
            },
            Kind::NetRegistrar => Fault::Net {
                client: chance.pick(&[Client::Left, Client::Right]),
                all: chance.percent(60),
                cut: self.cut(),
                time: self.chance.time(2000..12_000),
            },
            Kind::Breaks => Fault::Breaks {
                client: chance.pick(&Client::ALL),
                times: chance.pick(&[3, 5, 8, 14]),
                reset: chance.percent(50),
            },
            Kind::SlowReader => Fault::SlowReader {
                updates: chance.number(200..2000),
                time: chance.time(4000..10_000),
            },
            Kind::CatchUp => Fault::CatchUp {
                client: chance.pick(&Client::VIEWERS),
                revisions: chance.number(50..300),
            },
            Kind::LateStart => {
                Fault::LateStart { hole: chance.percent(50), time: chance.time(2000..7000) }
            }
            Kind::Empty => Fault::Empty { service: chance.index(SERVICES.len()) },
        }
    }

    fn target(&mut self) -> Target {
        if self.members > 1 && self.chance.percent(40) {
            Target::Leader
        } else {
            Target::Member(self.chance.index(self.members))
        }
    }

    /// Shorter than a lease lives.
    const fn short(&mut self) -> Duration {
        self.chance.time(200..3500)
    }

    /// Longer than a lease lives.
    const fn long(&mut self) -> Duration {
        self.chance.time(7000..12_000)
    }

    fn cut(&mut self) -> Cut {
        let delay = self.chance.time(100..6000);
        self.chance.pick(&[
            Cut::Close,
            Cut::Reset,
            Cut::Refuse,
            Cut::BlackHole,
            Cut::BlackHole,
            Cut::Deaf,
            Cut::Mute,
            Cut::Hold,
            Cut::Delay(delay),
            Cut::Throttle(2000),
        ])
    }

    /// One to all of the registrants.
    fn slots(&mut self) -> Vec<usize> {
        let mut slots: Vec<_> = (0..SLOTS).collect();
        self.chance.shuffle(&mut slots);
        slots.truncate(self.chance.pick(&[1, 1, 2, 3, SLOTS]));
        slots
    }

    fn act(&mut self) -> Act {
        match self.chance.number(0..100) {
            0..30 => Act::Slot {
                slot: STABLE + self.chance.index(SLOTS - STABLE),
                op: match self.chance.number(0..10) {
                    0..4 => SlotOp::Register { fresh: self.chance.percent(50) },
                    4..6 => SlotOp::Update { weight: self.weight() },
                    6 => SlotOp::Drain,
                    7..9 => SlotOp::Leave,
                    _ => SlotOp::Drop,
                },
            },
            30..34 => Act::Slot {
                slot: self.chance.index(STABLE),
                op: SlotOp::Update { weight: self.weight() },
            },
            34..60 => Act::Put { key: self.key(), number: self.number() },
            60..66 => Act::PutLeased { key: self.key(), number: self.number() },
            66..80 => Act::Delete { key: self.key() },
            80..90 => {
                let mut keys: Vec<_> = (0..self.chance.number(2..8)).map(|_| self.key()).collect();
                keys.sort_unstable();
                keys.dedup();
                let keys = keys.into_iter();
                let keys = keys.map(|key| (key, self.chance.percent(60).then(|| self.number())));
                Act::Together { keys: keys.collect() }
            }
            90..97 => Act::Poison { key: self.key(), kind: self.chance.index(POISONS) },
            _ => Act::Visit {
                client: self.chance.pick(&Client::VIEWERS),
                service: self.chance.pick(&[None, Some(0), Some(1), Some(2)]),
                time: self.chance.time(0..4000),
            },
        }
    }

    fn key(&mut self) -> ForeignKey {
        ForeignKey {
            service: self.chance.index(SERVICES.len()),
            id: self.chance.number(0..FOREIGN),
        }
    }

    const fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn weight(&mut self) -> u16 {
        u16::try_from(self.chance.number(0..1000)).unwrap_or(1)
    }
}

/// Whether two faults would undo each other.
fn clash(one: &Fault, other: &Fault) -> bool {
    match (client(one), client(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// Whose network a fault needs.
const fn client(fault: &Fault) -> Option<Client> {
    match fault {
        Fault::CompactWhileCut { client, .. }
        | Fault::DeleteAtCompacted { client }
        | Fault::Net { client, .. }
        | Fault::Breaks { client, .. }
        | Fault::CatchUp { client, .. } => Some(*client),
        Fault::LeaveInCut { slot, .. } => Some(Client::of_slot(*slot)),
        Fault::SlowReader { .. } => Some(Client::Plain),
        Fault::Kill { .. }
        | Fault::Pause { .. }
        | Fault::Isolate { .. }
        | Fault::KillLeaders { .. }
        | Fault::Wipe
        | Fault::Revoke { .. }
        | Fault::DeleteKeys { .. }
        | Fault::LateStart { .. }
        | Fault::Empty { .. } => None,
    }
}
