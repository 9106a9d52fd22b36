//! The quiet points: nothing fails and nobody writes, so everything must become as etcd says, in time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use discovery_test_support::{Kv, Snapshot, slack};
use tokio::time::{Instant, sleep};

use crate::{
    actors::{Registrant, Viewer},
    check::Violation,
    meaning::{self, Key, Seen},
    plan::SUSPECTS,
    world::World,
};

/// "Now", where etcd was within reach.
const NOW: Duration = Duration::from_secs(1);
/// How long the removal of an instance waits for company, and a little more.
const COMPANY: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(20);
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

/// How long things took at most.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lags {
    pub(crate) viewer: Duration,
    pub(crate) registrant: Duration,
}

impl Lags {
    pub(crate) fn add(&mut self, other: Self) {
        self.viewer = self.viewer.max(other.viewer);
        self.registrant = self.registrant.max(other.registrant);
    }
}

/// What etcd holds: of each key the instance, `None` where it holds something else.
type There = BTreeMap<Key, Option<Arc<Seen>>>;

/// Waits until every registrant is in etcd and every viewer sees what is there: within `limit` of `over`,
/// or at once after what was written last, whatever is later.
pub(crate) async fn wait(
    world: &World,
    registrants: &[Registrant],
    viewers: &[&Viewer],
    over: Instant,
    limit: Duration,
) -> Result<Lags, Violation> {
    let mut lags = Lags::default();
    let began = Instant::now();
    let late = |name: Option<String>, key: Option<Key>, what: String| Violation {
        at: world.journal.now(),
        viewer: name,
        key,
        what,
    };
    loop {
        let snapshot = world.ask(async |truth| truth.snapshot(meaning::PREFIX).await).await;
        world.recorder.until(snapshot.revision).await;
        let there = there(&snapshot);
        let mut all_well = true;
        for registrant in registrants {
            let Some((key, wanted)) = registrant.wanted().await else { continue };
            let found = there.get(&key);
            if found == Some(&Some(wanted.clone())) {
                continue;
            }
            // Acts may have gone on after the last fault.
            if over.elapsed() > slack(limit) && began.elapsed() > slack(NOW) {
                let status = registrant.status().await;
                let what = format!(
                    "a registrant is late: {key} should be in etcd as {wanted}; there is \
                     {found:?}; its status: {status}"
                );
                return Err(late(None, Some(key), what));
            }
            all_well = false;
            lags.registrant = over.elapsed();
        }
        let written = world.journal.now().saturating_sub(world.recorder.last_write());
        let quiet_for = written.min(began.elapsed());
        for viewer in viewers {
            let Err((key, why)) = viewer.sees(&there) else { continue };
            let more = if viewer.is_guarded() { SUSPECTS + COMPANY } else { Duration::ZERO };
            if over.elapsed() > slack(limit + more) && quiet_for > slack(NOW + more) {
                let name = viewer.name();
                return Err(late(
                    Some(name.clone()),
                    key,
                    format!("a viewer is late: {name}: {why}"),
                ));
            }
            all_well = false;
            if !viewer.is_guarded() {
                lags.viewer = over.elapsed();
            }
        }
        if all_well {
            world.prove_all().await;
            return Ok(lags);
        }
        sleep(PAUSE).await;
    }
}

fn there(snapshot: &Snapshot) -> There {
    let instance = |(key, kv): (&Vec<u8>, &Kv)| {
        Some((meaning::key(key)?, meaning::value(&kv.value).map(Arc::new)))
    };
    snapshot.kvs.iter().filter_map(instance).collect()
}

/// Waits until `condition` holds.
pub(crate) async fn until(
    world: &World,
    limit: Duration,
    what: &str,
    condition: impl AsyncFn() -> Result<(), String>,
) -> Result<(), Violation> {
    let start = Instant::now();
    loop {
        match condition().await {
            Ok(()) => return Ok(()),
            Err(seen) if start.elapsed() > slack(limit) => {
                let what = format!("not within {:?}: {what}; seen: {seen}", slack(limit));
                return Err(Violation { at: world.journal.now(), viewer: None, key: None, what });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether etcd has one lease for each of these keys, and no other lease.
pub(crate) async fn leases_are(world: &World, keys: &[String]) -> Result<(), String> {
    let leases = world.ask(async |truth| truth.leases().await).await;
    let mut hung = Vec::new();
    for lease in &leases {
        let found = world.ask(async |truth| truth.lease(*lease).await).await;
        let keys = found.map(|lease| lease.keys).unwrap_or_default();
        if keys.len() != 1 {
            return Err(format!("lease {lease:x} has the keys {:?}", texts(&keys)));
        }
        hung.extend(texts(&keys));
    }
    let mut keys = keys.to_vec();
    keys.sort();
    hung.sort();
    if hung == keys { Ok(()) } else { Err(format!("leases of {hung:?}, wanted {keys:?}")) }
}

fn texts(keys: &[Vec<u8>]) -> Vec<String> {
    keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

/// Whether no member has a watcher.
pub(crate) async fn no_watches(world: &World) -> Result<(), String> {
    for member in world.cluster.members() {
        match member.truth().metric(WATCHERS).await {
            Ok(None | Some(0.0)) => {}
            other => return Err(format!("{member:?}: {other:?}")),
        }
    }
    Ok(())
}
