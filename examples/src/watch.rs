//! Prints the stream of changes, as JSON lines.

use std::future::poll_fn;
use std::ops::Not;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use discovery_core::{
    Change, Instance, InstanceChanges, InstanceId, InstanceKey, ServiceName, State, Status,
    StatusReader,
};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;

use crate::etcd::EtcdOptions;
use crate::fault::Fault;
use crate::last_good;
use crate::options::suspect_seconds;
use crate::output;
use crate::program::Program;
use crate::shutdown::Signals;

/// Prints what changes under the prefix: one JSON object a line.
#[derive(Parser, Clone, Debug)]
#[command(name = "watch", version)]
pub struct WatchOptions {
    /// Only this service [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,

    /// How many seconds instances that vanish together from etcd are kept as suspects; 0: none are
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = suspect_seconds)]
    pub suspect_s: Duration,

    /// The directory to keep what etcd has in, to serve it at a start while etcd is away
    #[arg(long, value_name = "DIR")]
    pub last_good: Option<PathBuf>,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

/// A line of the output.
#[derive(Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum ChangeLine<'a> {
    Insert { service: &'a ServiceName, id: &'a InstanceId, endpoint: Endpoint<'a> },
    Remove { service: &'a ServiceName, id: &'a InstanceId },
    Synced { revision: Option<u64> },
}

/// An instance, and what the registry thinks of it, which it does not say of itself.
#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(flatten)]
    instance: &'a Instance,
    #[serde(skip_serializing_if = "Not::not")]
    suspect: bool,
}

#[derive(Serialize)]
struct StatusLine {
    status: &'static str,
    error: String,
}

impl Program for WatchOptions {
    fn workers(&self) -> Option<usize> {
        Some(1)
    }

    async fn run(self) -> Result<(), Fault> {
        let mut signals = Signals::new()
            .map_err(|error| Fault::failed(format!("cannot wait for signals: {error}")))?;
        let registry = self.etcd.registry(|config| config.suspects_for(self.suspect_s))?;
        let source = last_good::kept(registry.source(), self.last_good.as_deref(), &self.etcd)?;
        let changes = match &self.service {
            Some(service) => source.watch(service),
            None => source.watch_all(),
        };
        tokio::select! {
            // A reader that has gone (`watch | head`) is an end in good order.
            () = print(changes, |line| output::line(&line)) => {}
            signal = signals.next() => tracing::info!(signal, "stopping"),
        }
        Ok(())
    }
}

/// Prints until the stream ends or `line` fails.
async fn print(mut changes: InstanceChanges, line: impl Fn(String) -> std::io::Result<()>) {
    let (mut status, now) = (changes.status(), changes.status());
    let mut trouble = Trouble::default();
    let mut told = true;
    loop {
        let text = trouble.news(&now.get()).and_then(|news| serde_json::to_string(&news).ok());
        if text.is_some_and(|text| line(text).is_err()) {
            return;
        }
        tokio::select! {
            // Why the set may be old comes before what is new in it.
            biased;
            changed = status.changed(), if told => told = changed,
            (revision, change) = numbered(&mut changes, &now) => {
                let Some(change) = change else { return };
                let text = change_line(&change, revision);
                if text.is_some_and(|text| line(text).is_err()) {
                    return;
                }
            }
        }
    }
}

/// The next item of the stream, and the revision of before it was looked for: all of that revision
/// has been told by the time of a `Synced`. A later one may have changes that are still to come.
/// Cancel safe.
async fn numbered<S: Stream + Unpin>(
    stream: &mut S,
    status: &StatusReader,
) -> (Option<u64>, Option<S::Item>) {
    poll_fn(|cx| {
        let revision = status.get().revision;
        stream.poll_next_unpin(cx).map(|item| (revision, item))
    })
    .await
}

fn change_line(
    change: &Change<InstanceKey, Arc<Instance>>,
    revision: Option<u64>,
) -> Option<String> {
    let line = match change {
        Change::Insert(key, instance) => {
            let endpoint = Endpoint { instance, suspect: instance.suspect };
            ChangeLine::Insert { service: &key.service, id: &key.id, endpoint }
        }
        Change::Remove(key) => ChangeLine::Remove { service: &key.service, id: &key.id },
        Change::Synced => ChangeLine::Synced { revision },
        _ => return None,
    };
    serde_json::to_string(&line).ok()
}

/// Whether there was trouble when it was last looked for, so that each is told once, however often
/// its words change. What stands in the way of the first set is in the registry's own logs.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn news(&mut self, status: &Status) -> Option<StatusLine> {
        let known = std::mem::replace(&mut self.0, status.is_stale());
        match &status.state {
            State::Stale(error) if !known => {
                Some(StatusLine { status: status.state.name(), error: error.to_string() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::Mutex;
    use std::task::Poll;

    use discovery_core::{MemoryRegistry, Publisher, Source as _, SourceError, Update};
    use futures_util::stream;
    use serde_json::{Value, json};

    use super::*;

    /// Lets `print` run until it has nothing more to do, and takes what it printed.
    async fn printed(
        task: &mut (impl Future<Output = ()> + Unpin),
        lines: &Mutex<Vec<String>>,
    ) -> Vec<String> {
        tokio::select! {
            biased;
            () = task => panic!("the stream ended"),
            () = std::future::ready(()) => {}
        }
        std::mem::take(&mut lines.lock().unwrap())
    }

    #[tokio::test]
    async fn each_change_is_a_line_in_the_documented_form() {
        let registry = MemoryRegistry::new();
        let lines = Mutex::new(Vec::new());
        let mut task = Box::pin(print(registry.watch_all(), |line| {
            lines.lock().unwrap().push(line);
            Ok(())
        }));
        let mut instance = Instance::parse("orders", "7", "http://127.0.0.1:1").unwrap();
        registry.insert(instance.clone());
        let seen = printed(&mut task, &lines).await;
        assert!(
            seen[0].starts_with(r#"{"change":"insert","service":"orders","id":"7","endpoint":{"#),
            "{seen:?}"
        );
        let endpoint = &serde_json::from_str::<Value>(&seen[0]).unwrap()["endpoint"];
        assert_eq!(endpoint["address"], json!("http://127.0.0.1:1"));
        assert_eq!(seen[1..], [r#"{"change":"synced","revision":null}"#]);

        assert_eq!(endpoint, &serde_json::to_value(&instance).unwrap());

        instance.suspect = true;
        registry.insert(instance.clone());
        let seen = printed(&mut task, &lines).await;
        let mut endpoint = endpoint.clone();
        endpoint["suspect"] = json!(true);
        let now = &serde_json::from_str::<Value>(&seen[0]).unwrap()["endpoint"];
        assert_eq!(now, &endpoint);

        registry.remove(&instance.key());
        let seen = printed(&mut task, &lines).await;
        assert_eq!(seen[0], r#"{"change":"remove","service":"orders","id":"7"}"#);
    }

    #[tokio::test]
    async fn a_revision_is_never_ahead_of_what_was_told() {
        let publisher = RefCell::new(Publisher::<InstanceKey, Instance>::new());
        let (mut changes, status) = {
            let publisher = publisher.borrow();
            (publisher.subscribe(), publisher.status())
        };
        let instance = Instance::parse("orders", "7", "http://127.0.0.1:1").unwrap();
        let news = Cell::new(None);
        // What comes in just after an item was taken is not in that item.
        let mut stream = stream::poll_fn(|cx| {
            let item = changes.poll_next_unpin(cx);
            if let (true, Some(revision)) = (item.is_ready(), news.take()) {
                let insert = Update::Insert(instance.key(), instance.clone());
                publisher.borrow_mut().apply([insert], Some(revision));
            }
            item
        });
        {
            // What comes while nothing is there to be taken is in the item that it wakes.
            let mut waits = Box::pin(numbered(&mut stream, &status));
            assert!(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
            publisher.borrow_mut().replace(Vec::<(InstanceKey, Instance)>::new(), Some(5));
            news.set(Some(6));
            assert_eq!(waits.await, (Some(5), Some(Change::Synced)));
        }
        let (_, insert) = numbered(&mut stream, &status).await;
        assert!(matches!(insert, Some(Change::Insert(..))));
        assert_eq!(numbered(&mut stream, &status).await, (Some(6), Some(Change::Synced)));
    }

    #[tokio::test]
    async fn each_trouble_is_told_once() {
        let mut publisher = Publisher::<InstanceKey, Instance>::new();
        let lines = Mutex::new(Vec::new());
        publisher.trouble(SourceError::new("refused"));
        let mut task = Box::pin(print(publisher.subscribe(), |line| {
            lines.lock().unwrap().push(line);
            Ok(())
        }));
        assert!(printed(&mut task, &lines).await.is_empty());
        publisher.trouble(SourceError::new("refused again"));
        assert!(printed(&mut task, &lines).await.is_empty());
        publisher.replace(Vec::<(InstanceKey, Instance)>::new(), Some(5));
        assert_eq!(printed(&mut task, &lines).await, [r#"{"change":"synced","revision":5}"#]);
        for error in ["gone", "still gone"] {
            publisher.trouble(SourceError::new(error));
        }
        assert_eq!(
            printed(&mut task, &lines).await,
            [r#"{"status":"stale","error":"still gone"}"#]
        );
        publisher.fresh();
        assert!(printed(&mut task, &lines).await.is_empty());
        publisher.trouble(SourceError::new("gone"));
        assert_eq!(printed(&mut task, &lines).await, [r#"{"status":"stale","error":"gone"}"#]);
    }
}
