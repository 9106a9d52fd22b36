//! What the tests of the failure rows share: a reader that records all it was told and checks the
//! laws as it goes, and the oracle's view of what it should see.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use discovery_core::testkit::Checked;
use discovery_core::{Change, Changes, Instance, InstanceKey, Status, StatusReader};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Truth, eventually};
use futures::StreamExt as _;

pub(crate) const PREFIX: &str = "/services/";
/// "Now", for a fault after which etcd was reachable all the time.
pub(crate) const NOW: Duration = Duration::from_secs(1);
/// "Now", for a fault during which etcd was out of reach for longer than a second.
pub(crate) const NOW_AFTER_OUTAGE: Duration = Duration::from_secs(6);

pub(crate) type Set = BTreeMap<InstanceKey, String>;
type Told = Change<InstanceKey, Arc<Instance>>;

/// A reader on a task of its own. `told` is everything it was told; the laws are checked meanwhile.
pub(crate) struct View {
    told: Arc<Mutex<Vec<Told>>>,
    status: StatusReader,
    task: tokio::task::JoinHandle<()>,
}

impl View {
    pub(crate) fn new(changes: Changes<InstanceKey, Instance>) -> Self {
        let status = changes.status();
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let sink = told.clone();
        let task = tokio::spawn(async move {
            let mut changes = Checked::new(changes);
            while let Some(change) = changes.next().await {
                sink.lock().unwrap().push(change);
            }
        });
        Self { told, status, task }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// How many changes it was told of, `Synced` not counted.
    pub(crate) fn changes(&self) -> usize {
        self.told().iter().filter(|change| change.key().is_some()).count()
    }

    /// The set of addresses as told.
    pub(crate) fn set(&self) -> Set {
        assert!(!self.task.is_finished(), "the stream ended or broke a law");
        let mut set = Set::new();
        for change in self.told() {
            match change {
                Change::Insert(key, instance) => {
                    set.insert(key, instance.address.to_string());
                }
                Change::Remove(key) => {
                    set.remove(&key);
                }
                _ => {}
            }
        }
        set
    }

    /// Whether the set was ever empty between being filled and now.
    pub(crate) fn was_emptied(&self) -> bool {
        let mut set = std::collections::BTreeSet::new();
        let mut emptied = false;
        for change in self.told() {
            match change {
                Change::Insert(key, _) => {
                    set.insert(key);
                }
                Change::Remove(key) => {
                    set.remove(&key);
                    emptied |= set.is_empty();
                }
                _ => {}
            }
        }
        emptied
    }

    pub(crate) fn status(&self) -> Status {
        self.status.get()
    }

    pub(crate) async fn until_fresh(&self, within: Duration) {
        eventually(within, "the source is fresh", async || {
            let status = self.status();
            if status.is_fresh() { Ok(()) } else { Err(status.state) }
        })
        .await;
    }

    pub(crate) async fn until_stale(&self, within: Duration) -> Status {
        eventually(within, "the source is stale", async || {
            let status = self.status();
            if status.is_stale() { Ok(status) } else { Err(status.state) }
        })
        .await
    }

    /// Waits until the view is fresh and equals what the oracle reads.
    pub(crate) async fn until_true(&self, truth: &Truth, prefix: &str, within: Duration) {
        eventually(within, "the view equals etcd", async || {
            let oracle = oracle(truth, prefix).await;
            let (set, status) = (self.set(), self.status());
            if oracle.as_ref() == Ok(&set) && status.is_fresh() {
                Ok(())
            } else {
                Err((oracle, set, status.state))
            }
        })
        .await;
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What should be visible: read and decoded without any code of ours.
pub(crate) async fn oracle(truth: &Truth, prefix: &str) -> Result<Set, String> {
    let entries = truth.range(prefix).await.map_err(|error| error.to_string())?;
    let mut set = Set::new();
    for (key, kv) in entries {
        let key = String::from_utf8(key).unwrap();
        let parts: Vec<_> = key.strip_prefix(PREFIX).unwrap().split('/').collect();
        let value: serde_json::Value = serde_json::from_slice(&kv.value).unwrap();
        let address = value["address"].as_str().unwrap().to_owned();
        set.insert(instance_key(parts[0], parts[1]), address);
    }
    Ok(set)
}

pub(crate) fn instance_key(service: &str, id: &str) -> InstanceKey {
    InstanceKey::new(service.parse().unwrap(), id.parse().unwrap())
}

pub(crate) fn key(service: &str, id: &str) -> String {
    format!("{PREFIX}{service}/{id}")
}

/// A value as any tool could write it.
pub(crate) fn value(port: u16) -> String {
    format!(r#"{{"address":"http://127.0.0.1:{port}"}}"#)
}

pub(crate) fn instance(service: &str, id: &str, port: u16) -> Instance {
    Instance::parse(service, id, &format!("http://127.0.0.1:{port}")).unwrap()
}

/// A registry without protection from mass removal: its view is etcd's, at once.
pub(crate) fn registry(url: impl Into<String>) -> EtcdRegistry {
    EtcdRegistry::new(
        EtcdConfig::new([url.into()]).ttl(Duration::from_secs(5)).suspects_for(Duration::ZERO),
    )
    .unwrap()
}
