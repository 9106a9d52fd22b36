//! Goes through the rounds of a plan, and ends in good order.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use discovery_test_support::slack;
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    actors::{Registrant, Viewer, write},
    check::{Calm, Left, Viewed, Violation},
    plan::{Act, Client, Plan, Round, SERVICES, SLOTS, STABLE, SlotOp, TTL},
    quiet::{self, Lags},
    world::{Party, World},
};

/// All who act.
pub(crate) struct Cast {
    pub(crate) registrants: Vec<Registrant>,
    /// Those who are there all the time. The first is the slow one.
    pub(crate) viewers: Vec<Viewer>,
    /// Those who stay until the next quiet point is over.
    guests: Mutex<Vec<(Party, Vec<Viewer>)>>,
    /// What those were told who have gone.
    gone: Mutex<Vec<Viewed>>,
}

/// What a run leaves to be checked.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) viewed: Vec<Viewed>,
    pub(crate) left: Vec<Left>,
    pub(crate) calm: Vec<Calm>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) faults: usize,
    pub(crate) lags: Lags,
}

impl Cast {
    fn new(world: &World) -> Self {
        let mut viewers = Vec::new();
        let watches = [
            (Client::Plain, Some(1)),
            (Client::Plain, Some(0)),
            (Client::Plain, None),
            (Client::Spare, None),
            (Client::Spare, Some(2)),
            (Client::Guarded, None),
            (Client::Guarded, Some(1)),
        ];
        for (client, service) in watches {
            viewers.push(viewer(world, "", client, service));
        }
        Self {
            registrants: (0..SLOTS).map(Registrant::new).collect(),
            viewers,
            guests: Mutex::default(),
            gone: Mutex::default(),
        }
    }

    /// Lets these stay until the next quiet point is over.
    pub(crate) fn welcome(&self, party: Party, viewers: Vec<Viewer>) {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).push((party, viewers));
    }

    fn goes(&self, viewer: &Viewer) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(viewer.viewed());
    }
}

/// A viewer of one of the parties.
fn viewer(world: &World, kind: &str, client: Client, service: Option<usize>) -> Viewer {
    let scope = service.map(|service| SERVICES[service]);
    let name = format!("{kind}{client:?} of {}", scope.unwrap_or("all"));
    let changes = world.party(client).watch(service);
    Viewer::new(name, scope, client == Client::Guarded, changes, &world.journal)
}

/// Runs the plan until it is done or something is wrong.
pub(crate) async fn run(plan: &Plan, world: &World, progress: impl Fn(String)) -> Outcome {
    let cast = Cast::new(world);
    let mut outcome = Outcome::default();
    for slot in 0..STABLE {
        cast.registrants[slot].obey(world, SlotOp::Register { fresh: false }).await;
    }
    for (number, round) in plan.rounds.iter().enumerate() {
        let faults: Vec<_> = round.faults.iter().map(|fault| format!("{:?}", fault.what)).collect();
        let faults = faults.join(", ");
        world.journal.note(format!("round {} begins: {faults}", number + 1));
        // At the quiet point before, all were registered.
        let before = world.recorder.place();
        progress(format!("round {} of {}: {faults}", number + 1, plan.rounds.len()));
        let over = play(round, world, &cast).await;
        outcome.faults += round.faults.len();
        world.journal.note("quiet");
        let limit = round.faults.iter().map(|fault| fault.what.limit()).max().unwrap_or_default();
        let guests =
            std::mem::take(&mut *cast.guests.lock().unwrap_or_else(PoisonError::into_inner));
        let viewers: Vec<_> =
            cast.viewers.iter().chain(guests.iter().flat_map(|(_, viewers)| viewers)).collect();
        let quiet = quiet::wait(world, &cast.registrants, &viewers, over, limit).await;
        guests.iter().flat_map(|(_, viewers)| viewers).for_each(|viewer| cast.goes(viewer));
        match quiet {
            Ok(lags) => {
                outcome.lags.add(lags);
                if number > 0 && round.faults.iter().all(|fault| fault.what.spares_leases()) {
                    outcome.calm.push(calm(world, &cast, before).await);
                }
            }
            Err(violation) => outcome.violations.push(violation),
        }
        if !outcome.violations.is_empty() || world.recorder.lost().is_some() {
            break;
        }
    }
    if outcome.violations.is_empty()
        && world.recorder.lost().is_none()
        && let Err(violation) = end(world, &cast).await
    {
        outcome.violations.push(violation);
    }
    for viewer in &cast.viewers {
        cast.goes(viewer);
    }
    outcome.viewed = cast.gone.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.left = cast.registrants.iter().flat_map(Registrant::left).collect();
    outcome
}

/// The round that began there, for those who stay.
async fn calm(world: &World, cast: &Cast, (epoch, from): (usize, i64)) -> Calm {
    let mut keys = Vec::new();
    for registrant in &cast.registrants[..STABLE] {
        keys.extend(registrant.wanted().await.map(|(key, _)| key));
    }
    Calm { epoch, from, to: world.recorder.place().1, keys }
}

/// Lets everything of a round happen. Returns when the last fault was undone.
async fn play(round: &Round, world: &World, cast: &Cast) -> Instant {
    let start = Instant::now();
    let faults = async {
        let faults = round.faults.iter().map(async |fault| {
            sleep_until(start + fault.at).await;
            fault.what.happen(world, cast).await;
            world.journal.note(format!("over: {:?}", fault.what));
        });
        join_all(faults).await;
        Instant::now()
    };
    let acts = join_all(round.acts.iter().map(async |act| {
        sleep_until(start + act.at).await;
        match &act.what {
            Act::Slot { slot, op } => cast.registrants[*slot].obey(world, *op).await,
            Act::Visit { client, service, time } => {
                let visitor = viewer(world, "visitor ", *client, *service);
                sleep(*time).await;
                cast.goes(&visitor);
            }
            other => write(world, other).await,
        }
    }));
    let (over, _) = futures::join!(faults, acts);
    over
}

/// Everybody leaves; nothing may stay behind.
async fn end(world: &World, cast: &Cast) -> Result<(), Violation> {
    world.journal.note("the end: leases without an owner run out");
    let mut wanted = Vec::new();
    for registrant in &cast.registrants {
        wanted.extend(registrant.raw_key().await);
    }
    // Those who left in doubt are gone when their lease's time is over, once more after an election.
    let limit = TTL * 2 + Duration::from_secs(3);
    quiet::until(world, limit, "one lease for each registrant, and none but these", async || {
        quiet::leases_are(world, &wanted).await
    })
    .await?;
    for (number, registrant) in cast.registrants.iter().enumerate() {
        let before = registrant.left().len();
        if registrant.wanted().await.is_some() {
            registrant.obey(world, SlotOp::Leave).await;
            if registrant.left().len() == before {
                let what = format!("registrant {number} could not leave a healthy etcd");
                return Err(Violation { at: world.journal.now(), viewer: None, key: None, what });
            }
        }
    }
    quiet::until(world, Duration::from_secs(1), "no lease", async || {
        quiet::leases_are(world, &[]).await
    })
    .await?;
    let viewers: Vec<_> = cast.viewers.iter().collect();
    let limit = Duration::from_secs(1);
    quiet::wait(world, &cast.registrants, &viewers, Instant::now(), limit).await?;
    world.journal.note("the registries are closed");
    cast.viewers.iter().for_each(Viewer::may_end);
    world.parties().iter().for_each(|party| party.registry.close());
    quiet::until(world, limit, "every stream ends when its source is closed", async || match cast
        .viewers
        .iter()
        .find(|viewer| !viewer.has_ended())
    {
        Some(viewer) => Err(viewer.name()),
        None => Ok(()),
    })
    .await?;
    world.recorder.stop();
    quiet::until(world, slack(limit), "no watch is left in etcd", async || {
        quiet::no_watches(world).await
    })
    .await
}
