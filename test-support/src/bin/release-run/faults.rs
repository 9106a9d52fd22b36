//! Carries faults out, and undoes them.

use std::time::Duration;

use discovery_test_support::{Etcd, Op};
use tokio::time::sleep;

use crate::{
    actors::{Registrant, Viewer, burst_key, burst_value},
    meaning::PREFIX,
    plan::{Client, Cut, Fault, SERVICES, SlotOp, Target},
    run::Cast,
    world::{Party, World},
};

/// Long enough for viewers to see what is about to be deleted, as the row has it.
const SEEN: Duration = Duration::from_millis(300);
/// Between one kill of a leader and the next, as the row has it.
const LEADERS: Duration = Duration::from_millis(3500);

impl Fault {
    /// After how long, counted from its end, all must be well again.
    pub(crate) fn limit(&self) -> Duration {
        match self {
            Self::Net { .. } | Self::LateStart { .. } => Duration::from_secs(10),
            _ if self.is_outage() => Duration::from_secs(6),
            _ => Duration::from_secs(1),
        }
    }

    /// Lets it happen. Returns when it is undone.
    pub(crate) async fn happen(&self, world: &World, cast: &Cast) {
        match self {
            Self::Kill { target, down } => {
                let member = member(world, *target).await;
                world.journal.note(format!("{member:?} is killed"));
                member.kill();
                sleep(*down).await;
                member.restart().await;
            }
            Self::Pause { target, time } => {
                let member = member(world, *target).await;
                world.journal.note(format!("{member:?} is paused"));
                member.pause();
                sleep(*time).await;
                member.resume();
                world.cluster.leader().await;
            }
            Self::Isolate { member, time } => {
                let members = world.cluster.members().iter().enumerate();
                let others: Vec<_> =
                    members.filter(|(number, _)| number != member).map(|(_, it)| it).collect();
                for other in &others {
                    other.pause();
                }
                sleep(*time).await;
                for other in &others {
                    other.resume();
                }
                world.cluster.leader().await;
            }
            Self::KillLeaders { times } => {
                for _ in 0..*times {
                    let leader = world.cluster.member(world.cluster.leader().await);
                    leader.kill();
                    sleep(LEADERS).await;
                    leader.restart().await;
                }
            }
            Self::Wipe => world.wipe().await,
            Self::Revoke { slots } => {
                for slot in slots {
                    revoke(world, &cast.registrants[*slot]).await;
                }
            }
            Self::DeleteKeys { slots } => {
                for slot in slots {
                    if let Some(key) = cast.registrants[*slot].raw_key().await {
                        world.ask(async |truth| truth.delete(&key).await).await;
                    }
                }
            }
            Self::LeaveInCut { slot, cut, wait, time } => {
                leave_in_cut(world, &cast.registrants[*slot], *slot, *cut, *wait, *time).await;
            }
            Self::CompactWhileCut { client, writes } => {
                compact_while_cut(world, world.party(*client), *writes).await;
            }
            Self::DeleteAtCompacted { client } => delete_at_compacted(world, cast, *client).await,
            Self::Net { client, all, cut, time } => {
                let party = world.party(*client);
                party.fail(*all, *cut);
                sleep(*time).await;
                party.pass();
            }
            Self::Breaks { client, times, reset } => {
                for _ in 0..*times {
                    for way in &world.party(*client).ways {
                        if *reset { way.reset_once() } else { way.cut_once() }
                    }
                    sleep(Duration::from_millis(300)).await; // their own time
                }
            }
            Self::SlowReader { updates, time } => {
                slow_reader(world, &cast.viewers, *updates, *time).await;
            }
            Self::CatchUp { client, revisions } => {
                catch_up(world, world.party(*client), *revisions).await;
            }
            Self::LateStart { hole, time } => late_start(world, cast, *hole, *time).await,
            Self::Empty { service } => {
                let prefix = format!("{PREFIX}{}/", SERVICES[*service]);
                world.ask(async |truth| truth.delete_prefix(&prefix).await).await;
            }
        }
    }
}

async fn member(world: &World, target: Target) -> &Etcd {
    world.cluster.member(match target {
        Target::Member(number) => number,
        Target::Leader => world.cluster.leader().await,
    })
}

async fn revoke(world: &World, registrant: &Registrant) {
    let Some(key) = registrant.raw_key().await else { return };
    let kv = world.ask(async |truth| truth.get(&key).await).await;
    if let Some(lease) = kv.map(|kv| kv.lease).filter(|lease| *lease != 0) {
        // It may be gone by itself by now.
        world.ask(async |truth| Ok(truth.revoke(lease).await.ok())).await;
    }
}

async fn leave_in_cut(
    world: &World,
    registrant: &Registrant,
    slot: usize,
    cut: Cut,
    wait: Duration,
    time: Duration,
) {
    let party = world.party(Client::of_slot(slot));
    registrant.obey(world, SlotOp::Register { fresh: false }).await;
    revoke(world, registrant).await;
    let network = async {
        party.fail(true, cut);
        sleep(time).await;
        party.pass();
    };
    let leave = async {
        sleep(wait).await;
        registrant.obey(world, SlotOp::Leave).await;
    };
    futures::join!(network, leave);
}

async fn compact_while_cut(world: &World, party: &Party, writes: u64) {
    party.fail(true, Cut::Refuse);
    for write in 0..writes {
        let (key, number) = (burst_key(write % 7), world.number());
        world
            .ask(async |truth| match number % 3 {
                0 => truth.delete(&key).await.map(drop),
                _ => truth.put(&key, burst_value(number, 0)).await.map(drop),
            })
            .await;
    }
    let (_, head) = world.place().await;
    world.compact(head).await;
    party.pass();
}

async fn delete_at_compacted(world: &World, cast: &Cast, client: Client) {
    let (key, number) = (burst_key(99), world.number());
    world.ask(async |truth| truth.put(&key, burst_value(number, 0)).await).await;
    let seen = async {
        let name = key.trim_start_matches(PREFIX);
        while !cast.viewers.iter().all(|viewer| viewer.has(name)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Whoever is in trouble now need not see it.
    tokio::time::timeout(SEEN, seen).await.ok();
    let party = world.party(client);
    party.fail(true, Cut::Refuse);
    let revision = world.ask(async |truth| truth.txn([Op::delete(&key)]).await).await;
    world.compact(revision).await;
    party.pass();
}

async fn slow_reader(world: &World, viewers: &[Viewer], updates: u64, time: Duration) {
    let [slow, ..] = viewers else { return };
    slow.polls(false);
    let writes = async {
        for update in 0..updates {
            let (key, number) = (burst_key(update % 10), world.number());
            world.ask(async |truth| truth.put(&key, burst_value(number, 0)).await).await;
        }
    };
    futures::join!(writes, sleep(time));
    slow.polls(true);
}

async fn catch_up(world: &World, party: &Party, revisions: u64) {
    party.fail(true, Cut::Refuse);
    for _ in 0..revisions {
        let number = world.number();
        let keys = (0..10).map(|key| burst_key(number * 10 % 200 + key));
        let ops: Vec<_> = keys.map(|key| Op::put(key, burst_value(number, 1000))).collect();
        world.ask(async |truth| truth.txn(ops.iter().cloned()).await).await;
    }
    party.pass();
    // So that sets do not grow for the rest of the run; it is also many that go at once.
    world.ask(async |truth| truth.delete_prefix(format!("{PREFIX}orders/b")).await).await;
}

async fn late_start(world: &World, cast: &Cast, hole: bool, time: Duration) {
    let cut = if hole { Cut::BlackHole } else { Cut::Refuse };
    let party = Party::new(world.cluster.members(), 1, false, |way| match cut {
        Cut::BlackHole => way.black_hole(),
        _ => way.refuse(),
    });
    let number = world.number();
    let journal = &world.journal;
    let viewer = |service: Option<usize>| {
        let name = format!("late {number} {service:?}");
        let scope = service.map(|service| SERVICES[service]);
        Viewer::new(name, scope, false, party.watch(service), journal)
    };
    let viewers = vec![viewer(None), viewer(Some(1))];
    sleep(time).await;
    party.pass();
    cast.welcome(party, viewers);
}
