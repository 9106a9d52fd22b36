//! The waist over `etcd-client`, whose types are mapped to ours at once.

use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use etcd_client::{
    Channel, Client, Compare, CompareOp, ConnectOptions, GetOptions, LeaseGrantOptions, PutOptions,
    ResponseHeader, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use tonic::transport::Endpoint;

use super::{
    Connect, Event, Found, Guard, GuardedPut, KeyValue, Keys, List, Page, PutReply, Result,
    WatchMessage, WatchStream, Wire, WireError,
};
use crate::config::EtcdConfig;

/// HTTP/2 pings find a dead connection in the end; etcd takes more than one in 5 s for an attack.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);
/// A page of etcd's largest values must fit.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Keys in a page. Smaller pages make etcd quadratic: it counts the rest of the range for each.
const PAGE: i64 = 10_000;
/// Where values are so large that a page is over the limit, its keys are divided by this.
const SMALLER: i64 = 8;

/// Makes connections as the configuration says.
pub(crate) struct EtcdConnector {
    config: EtcdConfig,
    /// Keys in a page: fewer, once values have shown to be large.
    page: Arc<AtomicI64>,
    /// For watches: a member that has lost its cluster then says so instead of keeping silent.
    require_leader: bool,
}

impl EtcdConnector {
    pub(crate) fn new(config: EtcdConfig) -> Self {
        Self { config, page: Arc::new(AtomicI64::new(PAGE)), require_leader: true }
    }
}

impl Connect for EtcdConnector {
    type Wire = EtcdWire;

    async fn connect(&self, endpoint: usize) -> Result<EtcdWire> {
        let name = self.config.endpoints.get(endpoint).map_or("", String::as_str);
        let failed = |cause: &dyn std::fmt::Display| WireError::unreachable("connect", name, cause);
        let channel = Endpoint::from_shared(name.to_owned())
            .map_err(|error| failed(&error))?
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(false)
            .tcp_nodelay(true);
        #[cfg(feature = "tls")]
        let channel = match self.config.tls_for(name).await.map_err(|error| failed(&error))? {
            Some(tls) => channel.tls_config(tls).map_err(|error| failed(&error))?,
            None => channel,
        };
        let channel = channel.connect().await.map_err(|error| {
            WireError::of("connect", name, &etcd_client::Error::TransportError(error))
        })?;
        let mut options = ConnectOptions::new().with_require_leader(self.require_leader);
        if let Some(credentials) = &self.config.credentials {
            let (user, password) = credentials.parts();
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        let client = Client::from_channel(Channel::Tonic(channel), Some(options))
            .await
            .map_err(|error| WireError::of("authenticate", name, &error))?;
        Ok(EtcdWire { client, page: self.page.clone(), endpoint: name.to_owned() })
    }
}

/// A connection to one etcd endpoint.
#[derive(Clone)]
pub(crate) struct EtcdWire {
    client: Client,
    page: Arc<AtomicI64>,
    endpoint: String,
}

impl EtcdWire {
    fn failed<'a>(
        &'a self,
        attempt: &'a str,
    ) -> impl Fn(etcd_client::Error) -> WireError + use<'a> {
        move |error| WireError::of(attempt, &self.endpoint, &error)
    }
}

impl Wire for EtcdWire {
    type Watch = EtcdWatch;

    async fn watch(&self, keys: Keys) -> Result<EtcdWatch> {
        let (key, options) = match keys {
            Keys::One(key) => (key, WatchOptions::new()),
            Keys::Prefix(prefix) => (prefix, WatchOptions::new().with_prefix()),
        };
        let attempt = format!("watch {}", shown(&key));
        let mut client = self.client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
        let stream =
            client.watch(key, Some(options)).await.map_err(|e| self.failed(&attempt)(e))?;
        Ok(EtcdWatch { stream, attempt, endpoint: self.endpoint.clone() })
    }

    async fn list(&self, list: List) -> Result<Page> {
        let attempt = format!("list {}", shown(&list.prefix));
        let mut options = GetOptions::new();
        if let Some(at) = list.at {
            options = options.with_revision(at);
        }
        let (from, options) = match list.after {
            None => (list.prefix, options.with_prefix()),
            Some(mut after) => {
                after.push(0);
                (after, options.with_range(prefix_end(&list.prefix)))
            }
        };
        let mut client = self.client.kv_client().max_decoding_message_size(LARGEST_MESSAGE);
        let mut reply = loop {
            let limit = self.page.load(Ordering::Relaxed);
            match client.get(from.clone(), Some(options.clone().with_limit(limit))).await {
                Ok(reply) => break reply,
                Err(error) if is_too_large(&error) && limit > 1 => {
                    self.page.store((limit / SMALLER).max(1), Ordering::Relaxed);
                }
                Err(error) => return Err(self.failed(&attempt)(error)),
            }
        };
        Ok(Page {
            more: reply.more(),
            revision: revision(reply.header()),
            entries: reply.take_kvs().into_iter().map(entry).collect(),
        })
    }

    async fn count(&self, prefix: &[u8]) -> Result<i64> {
        let attempt = format!("count {}", shown(prefix));
        let options = GetOptions::new().with_prefix().with_count_only();
        let mut client = self.client.kv_client();
        let reply =
            client.get(prefix, Some(options)).await.map_err(|e| self.failed(&attempt)(e))?;
        Ok(revision(reply.header()))
    }

    async fn get(&self, key: &[u8]) -> Result<Found> {
        let attempt = format!("get {}", shown(key));
        let mut client = self.client.kv_client().max_decoding_message_size(LARGEST_MESSAGE);
        let mut reply = client.get(key, None).await.map_err(|e| self.failed(&attempt)(e))?;
        let revision = revision(reply.header());
        Ok(Found { entry: reply.take_kvs().into_iter().next().map(entry), revision })
    }

    async fn put(&self, put: GuardedPut) -> Result<PutReply> {
        let attempt = format!("put {}", shown(&put.key));
        let key = || put.key.clone();
        let guard = match put.guard {
            Guard::Absent => Compare::create_revision(key(), CompareOp::Equal, 0),
            Guard::Lease(lease) => Compare::lease(key(), CompareOp::Equal, lease),
            Guard::Revision(revision) => Compare::mod_revision(key(), CompareOp::Equal, revision),
        };
        let options = PutOptions::new().with_lease(put.lease);
        let txn = Txn::new()
            .when([guard])
            .and_then([TxnOp::put(key(), put.value.clone(), Some(options))])
            .or_else([TxnOp::get(key(), None)]);
        let mut client = self.client.kv_client().max_decoding_message_size(LARGEST_MESSAGE);
        let reply = client.txn(txn).await.map_err(|e| self.failed(&attempt)(e))?;
        let revision = revision(reply.header());
        if reply.succeeded() {
            return Ok(PutReply::Done { revision });
        }
        let entry = reply.op_responses().into_iter().find_map(|reply| match reply {
            TxnOpResponse::Get(mut reply) => reply.take_kvs().into_iter().next().map(entry),
            _ => None,
        });
        Ok(PutReply::Refused(Found { entry, revision }))
    }

    async fn grant(&self, lease: i64, ttl: Duration) -> Result<Duration> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let options = LeaseGrantOptions::new().with_id(lease);
        let mut client = self.client.lease_client();
        let reply =
            client.grant(seconds, Some(options)).await.map_err(self.failed("grant a lease"))?;
        Ok(Duration::from_secs(reply.ttl().max(0).unsigned_abs()))
    }

    async fn granted_ttl(&self, lease: i64) -> Result<Option<Duration>> {
        let mut client = self.client.lease_client();
        let reply =
            client.time_to_live(lease, None).await.map_err(self.failed("read a lease's time"))?;
        let granted = reply.granted_ttl().max(0).unsigned_abs();
        Ok((granted > 0).then(|| Duration::from_secs(granted)))
    }

    async fn renew(&self, lease: i64) -> Result<()> {
        // A new stream for each renewal: its first reply is of this renewal and not out of a backlog.
        let mut client = self.client.lease_client();
        let kept = client.keep_alive(lease).await.map_err(self.failed("renew a lease"))?;
        drop(kept);
        Ok(())
    }

    async fn revoke(&self, lease: i64) -> Result<()> {
        let mut client = self.client.lease_client();
        client.revoke(lease).await.map_err(self.failed("revoke a lease"))?;
        Ok(())
    }
}

/// A watch on a stream of its own.
pub(crate) struct EtcdWatch {
    stream: etcd_client::WatchStream,
    attempt: String,
    endpoint: String,
}

impl WatchStream for EtcdWatch {
    async fn next(&mut self) -> Result<WatchMessage> {
        let message = self
            .stream
            .message()
            .await
            .map_err(|error| WireError::of(&self.attempt, &self.endpoint, &error))?
            .ok_or_else(|| {
                WireError::unreachable(&self.attempt, &self.endpoint, "the stream ended")
            })?;
        // A denied watch is created *and* canceled, and its stream stays open and silent.
        if message.canceled() {
            return Ok(WatchMessage::Canceled(WireError::canceled(
                &self.attempt,
                &self.endpoint,
                message.cancel_reason(),
                message.compact_revision(),
            )));
        }
        if message.created() {
            return Ok(WatchMessage::Created { revision: revision(message.header()) });
        }
        if message.events().is_empty() {
            return Ok(WatchMessage::Progress);
        }
        Ok(WatchMessage::Events(message.events().iter().filter_map(event).collect()))
    }

    fn probe(&mut self) {
        // The request is queued at once or, with a queue full of them, not needed.
        let request = std::pin::pin!(self.stream.request_progress());
        let _ = request.poll(&mut Context::from_waker(Waker::noop()));
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

fn entry(kv: etcd_client::KeyValue) -> KeyValue {
    let (revision, lease) = (kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    KeyValue { key, value, revision, lease }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Whether an answer was over the limit that we set ourselves.
fn is_too_large(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    status.message().contains("decoded message length too large")
}

/// A key for a message: never more than a line.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().take(200).collect()
}

/// The first key behind all that start with `prefix`; `\0` (to the end) if there is none.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"/services/"), b"/services0");
        assert_eq!(prefix_end(&[b'a', 0xff, 0xff]), b"b");
        assert_eq!(prefix_end(&[0xff]), [0]);
    }
}
