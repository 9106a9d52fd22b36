//! The stream of all watches of a connection, over `etcd-client`.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_client::{
    WatchClient, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};

use super::etcd::{Contact, entry, failure, revision, shown};
use super::{Event, Heard, Keys, Result, WatchStream, WireError};
use crate::wait::BoxFuture;

const WATCH: &str = "watch";

/// See the [module](self). etcd-client opens a stream with its first watch.
pub(crate) struct EtcdStream {
    client: WatchClient,
    endpoint: Arc<str>,
    heard: Contact,
    /// What is being created, for an error.
    creating: String,
    state: State,
    /// What is to be sent, once there is room for it.
    outbox: VecDeque<Request>,
}

enum State {
    Unopened,
    Opening(BoxFuture<std::result::Result<etcd_client::WatchStream, etcd_client::Error>>),
    Open(Box<(WatchRequestSender, WatchResponseStream)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Request {
    Create(i64, Keys),
    Cancel(i64),
    Probe,
}

impl EtcdStream {
    pub(super) fn new(client: WatchClient, endpoint: Arc<str>, heard: Contact) -> Self {
        let (creating, state, outbox) = (String::new(), State::Unopened, VecDeque::new());
        Self { client, endpoint, heard, creating, state, outbox }
    }

    fn failed(&self, error: &etcd_client::Error) -> WireError {
        failure(&self.heard, WATCH, &self.endpoint, error)
    }

    fn read(&self, message: &WatchResponse) -> Heard {
        let id = message.watch_id();
        // A denied watch is created *and* canceled, and its stream stays open and silent.
        if message.canceled() {
            let created = message.created();
            let attempt = if created { &self.creating } else { WATCH };
            let reason = message.cancel_reason();
            let compacted = message.compact_revision();
            let error = WireError::canceled(attempt, &self.endpoint, reason, compacted);
            return if created { Heard::Refused(error) } else { Heard::Canceled { id, error } };
        }
        if message.created() {
            return Heard::Created { id, revision: revision(message.header()) };
        }
        if message.events().is_empty() {
            return Heard::Progress;
        }
        Heard::Events { id, events: message.events().iter().filter_map(event).collect() }
    }
}

fn options(id: i64, keys: Keys) -> (Vec<u8>, WatchOptions) {
    let options = WatchOptions::new().with_watch_id(id);
    match keys {
        Keys::One(key) => (key, options),
        Keys::Prefix(prefix) => (prefix, options.with_prefix()),
    }
}

/// Cancel safe: dropped before it is done, nothing was sent.
async fn send(
    sender: &mut WatchRequestSender,
    request: Request,
) -> std::result::Result<(), etcd_client::Error> {
    match request {
        Request::Create(id, keys) => {
            let (key, options) = options(id, keys);
            sender.watch(key, Some(options)).await
        }
        Request::Cancel(id) => sender.cancel(id).await,
        Request::Probe => sender.request_progress().await,
    }
}

impl WatchStream for EtcdStream {
    fn create(&mut self, id: i64, keys: Keys) {
        self.creating = format!("{WATCH} {}", shown(keys.bytes()));
        if let State::Unopened = self.state {
            let mut client = self.client.clone();
            let (key, options) = options(id, keys);
            let open = async move { client.watch(key, Some(options)).await };
            self.state = State::Opening(Box::pin(open));
        } else {
            self.outbox.push_back(Request::Create(id, keys));
        }
    }

    fn cancel(&mut self, id: i64) {
        self.outbox.push_back(Request::Cancel(id));
    }

    fn probe(&mut self) {
        // Where nothing moves, one that waits is enough; it shows as silence.
        if !self.outbox.contains(&Request::Probe) {
            self.outbox.push_back(Request::Probe);
        }
    }

    async fn next(&mut self) -> Result<Heard> {
        loop {
            let (sender, receiver) = match &mut self.state {
                State::Unopened => return pending().await,
                State::Opening(opening) => {
                    let opened = opening.await;
                    let opened = opened.map_err(|error| self.failed(&error))?;
                    self.state = State::Open(Box::new(opened.split()));
                    continue;
                }
                State::Open(open) => (&mut open.0, &mut open.1),
            };
            let message = match self.outbox.front() {
                None => receiver.message().await,
                Some(request) => tokio::select! {
                    biased;
                    message = receiver.message() => message,
                    sent = send(sender, request.clone()) => {
                        sent.map_err(|error| self.failed(&error))?;
                        self.outbox.pop_front();
                        continue;
                    }
                },
            };
            let message = message
                .map_err(|error| self.failed(&error))?
                .ok_or_else(|| WireError::unreachable(WATCH, &self.endpoint, "the stream ended"))?;
            self.heard.store(true, Ordering::Relaxed);
            return Ok(self.read(&message));
        }
    }
}

fn event(event: &etcd_client::Event) -> Option<Event> {
    let kv = event.kv()?;
    // Told by the revision of creation: `event_type` panics on a type it does not know.
    Some(if kv.create_revision() == 0 {
        Event::Delete { key: kv.key().to_vec(), revision: kv.mod_revision() }
    } else {
        Event::Put(entry(kv.clone()))
    })
}
