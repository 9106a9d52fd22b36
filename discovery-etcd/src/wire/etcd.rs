//! The waist over `etcd-client`, whose types are mapped to ours at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Channel, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, LeaseGrantOptions,
    PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::dial::Dial;
use super::pages::{LARGEST_MESSAGE, Pages};
use super::stream::EtcdStream;
use super::{
    Connect, Found, Guard, GuardedPut, KeyValue, Keys, Kind, List, Page, PutReply, Result, Wire,
    WireError,
};
use crate::config::{Credentials, EtcdConfig};
use crate::wait::BoxFuture;

/// HTTP/2 pings find a dead connection in the end; etcd takes more than one in 5 s for an attack.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);
/// A page must be able to arrive while the one before it is still being read.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A password that was refused is not presented again for this long, however many want it: it is for
/// people to mend, and each check takes etcd a tenth of a second of a processor.
const REFUSED_FOR: Duration = Duration::from_secs(8);
/// A key to read where it does not matter which, and whether it may be read.
pub(crate) const ANY: [u8; 1] = [0];

/// The credentials as they are now; they can be changed while the program runs.
type SharedCredentials = Arc<Mutex<Option<Credentials>>>;

/// Makes connections as the configuration says. Clones share the credentials.
#[derive(Clone)]
pub(crate) struct EtcdConnector {
    #[cfg(feature = "tls")]
    config: Arc<EtcdConfig>,
    credentials: SharedCredentials,
    channel: Option<ChannelMaker>,
    pages: Arc<Pages>,
}

/// Makes the channel to an endpoint, where the usual one will not do.
pub(crate) type ChannelMaker = Arc<
    dyn Fn(String) -> BoxFuture<std::result::Result<tonic::transport::Channel, BoxError>>
        + Send
        + Sync,
>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl EtcdConnector {
    pub(crate) fn new(config: &EtcdConfig, channel: Option<ChannelMaker>) -> Self {
        let credentials = Arc::new(Mutex::new(config.credentials.clone()));
        Self {
            #[cfg(feature = "tls")]
            config: Arc::new(config.clone()),
            credentials,
            channel,
            pages: Arc::default(),
        }
    }

    /// From the next authentication on, these are presented.
    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        *lock(&self.credentials) = Some(credentials);
    }

    async fn channel(&self, name: &str) -> Result<tonic::transport::Channel> {
        let failed = |cause: &dyn std::fmt::Display| WireError::unreachable("connect", name, cause);
        if let Some(make) = &self.channel {
            return make(name.to_owned()).await.map_err(|error| failed(&error));
        }
        let channel = Endpoint::from_shared(name.to_owned())
            .map_err(|error| failed(&error))?
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        #[cfg(feature = "tls")]
        let channel = match self.config.tls_for(name).await.map_err(|error| failed(&error))? {
            // It may read the system's certificates, which is not for a runtime's thread.
            Some(tls) => tokio::task::spawn_blocking(move || channel.tls_config(tls))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|error| {
                    WireError::of("connect", name, &etcd_client::Error::TransportError(error))
                })?,
            None => channel,
        };
        channel.connect_with_connector(Dial::once()).await.map_err(|error| {
            WireError::of_first("connect", name, &etcd_client::Error::TransportError(error))
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connect for EtcdConnector {
    type Wire = EtcdWire;

    async fn connect(&self, endpoint: &str) -> Result<EtcdWire> {
        let channel = self.channel(endpoint).await?;
        // A member that has lost its cluster then says so instead of keeping silent.
        let mut options = ConnectOptions::new().with_require_leader(true);
        let credentials = lock(&self.credentials).clone();
        if let Some(credentials) = &credentials {
            let (user, password) = credentials.parts();
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        let client = Client::from_channel(Channel::Tonic(channel), Some(options))
            .await
            .map_err(|error| WireError::of_first("authenticate", endpoint, &error))?;
        let heard = Arc::new(AtomicBool::new(credentials.is_some()));
        Ok(EtcdWire(Arc::new(Inner {
            client,
            credentials: self.credentials.clone(),
            presented: tokio::sync::Mutex::new(Presented {
                credentials,
                good: Instant::now(),
                refused: None,
            }),
            tokens: AtomicU64::new(0),
            pages: self.pages.clone(),
            endpoint: Arc::from(endpoint),
            secure: endpoint.starts_with("https://"),
            heard,
        })))
    }
}

/// A connection to one etcd endpoint.
#[derive(Clone)]
pub(crate) struct EtcdWire(Arc<Inner>);

struct Inner {
    client: Client,
    credentials: SharedCredentials,
    presented: tokio::sync::Mutex<Presented>,
    tokens: AtomicU64,
    pages: Arc<Pages>,
    endpoint: Arc<str>,
    secure: bool,
    heard: Contact,
}

/// Whether anything was ever heard on a connection; noted by what is asked first, to authenticate or to
/// watch.
pub(super) type Contact = Arc<AtomicBool>;

pub(super) fn failure(
    heard: &Contact,
    attempt: &str,
    endpoint: &str,
    error: &etcd_client::Error,
) -> WireError {
    if heard.load(Ordering::Relaxed) {
        WireError::of(attempt, endpoint, error)
    } else {
        WireError::of_first(attempt, endpoint, error)
    }
}

/// What is known of the token of a connection.
struct Presented {
    /// What was presented for it.
    credentials: Option<Credentials>,
    /// As of when it was good.
    good: Instant,
    /// The last credentials that were refused, when, and in which words.
    refused: Option<(Credentials, Instant, WireError)>,
}

impl EtcdWire {
    /// Whether the token is good. A watch says the same of a dead one and of keys that are not for us;
    /// a read tells the two apart, and costs etcd next to nothing, while checking a password takes
    /// a tenth of a second of a processor. Where it is merely over, etcd-client replaces it on the way;
    /// an error of the kind [`Kind::Denied`] is that the password was refused for it.
    async fn try_token(&self) -> Result<bool> {
        let options = GetOptions::new().with_count_only();
        let Err(error) = self.kv().get(ANY, Some(options)).await else { return Ok(true) };
        let says =
            |words| matches!(&error, Error::GRpcStatus(status) if status.message().contains(words));
        if says("permission denied") {
            return Ok(true);
        }
        let failed = failure(&self.0.heard, "authenticate", &self.0.endpoint, &error);
        if failed.kind == Kind::Denied && !says("authentication failed") {
            return Ok(false);
        }
        Err(failed)
    }

    fn failed<'a>(
        &'a self,
        attempt: &'a str,
    ) -> impl Fn(etcd_client::Error) -> WireError + use<'a> {
        move |error| failure(&self.0.heard, attempt, &self.0.endpoint, &error)
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.0.client.kv_client().max_decoding_message_size(LARGEST_MESSAGE)
    }
}

impl Wire for EtcdWire {
    type Stream = EtcdStream;

    fn endpoint(&self) -> Arc<str> {
        self.0.endpoint.clone()
    }

    fn stream(&self) -> EtcdStream {
        let client = self.0.client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
        EtcdStream::new(client, self.0.endpoint.clone(), self.0.heard.clone())
    }

    async fn refresh(&self) -> Result<()> {
        let asked = Instant::now();
        let mut presented = self.0.presented.lock().await;
        let Some(credentials) = lock(&self.0.credentials).clone() else { return Ok(()) };
        if let Some((refused, at, error)) = &presented.refused
            && *refused == credentials
            && at.elapsed() < REFUSED_FOR
        {
            return Err(error.clone());
        }
        let now = Instant::now();
        let mut result = Ok(());
        if presented.credentials.as_ref() == Some(&credentials) {
            // Somebody else has seen to it while we waited: many find out at once.
            if presented.good >= asked {
                return Ok(());
            }
            match self.try_token().await {
                Ok(true) => {
                    presented.good = now;
                    self.0.tokens.fetch_add(1, Ordering::Release);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) if error.kind == Kind::Denied => result = Err(error),
                Err(error) => return Err(error),
            }
        }
        if result.is_ok() {
            let (user, password) = credentials.parts();
            let user = Some((user.to_owned(), password.to_owned()));
            let mut client = self.0.client.clone();
            result = client.update_user(user).await.map_err(self.failed("authenticate"));
        }
        match &result {
            Ok(()) => {
                self.0.tokens.fetch_add(1, Ordering::Release);
                *presented = Presented { credentials: Some(credentials), good: now, refused: None };
            }
            Err(error) if error.kind == Kind::Denied => {
                presented.refused = Some((credentials, Instant::now(), error.clone()));
            }
            Err(_) => {}
        }
        result
    }

    fn tokens(&self) -> u64 {
        self.0.tokens.load(Ordering::Acquire)
    }

    async fn members(&self) -> Result<Vec<String>> {
        let mut client = self.0.client.cluster_client();
        let reply = client.member_list().await.map_err(self.failed("list the members"))?;
        let scheme = if self.0.secure { "https://" } else { "http://" };
        let urls = reply.members().iter().flat_map(etcd_client::Member::client_urls);
        Ok(urls
            .filter(|url| url.starts_with(scheme))
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect())
    }

    async fn list(&self, list: List) -> Result<Page> {
        let attempt = format!("list {}", shown(&list.prefix));
        let mut options = GetOptions::new();
        if let Some(at) = list.at {
            options = options.with_revision(at);
        }
        let (from, options) = match list.after.clone() {
            None => (list.prefix.clone(), options.with_prefix()),
            Some(mut after) => {
                after.push(0);
                (after, options.with_range(prefix_end(&list.prefix)))
            }
        };
        let options = if list.keys_only { options.with_keys_only() } else { options };
        let mut client = self.kv();
        let (mut reply, size) = loop {
            let size = self.0.pages.size(&list);
            match client.get(from.clone(), Some(options.clone().with_limit(size))).await {
                Ok(reply) => break (reply, size),
                Err(error) if is_too_large(&error) && self.0.pages.too_large(&list, size) => {}
                Err(error) => return Err(self.failed(&attempt)(error)),
            }
        };
        let entries: Vec<_> = reply.take_kvs().into_iter().map(entry).collect();
        self.0.pages.came(&list, size, &entries);
        Ok(Page { more: reply.more(), revision: revision(reply.header()), entries })
    }

    async fn count(&self, keys: &Keys) -> Result<i64> {
        let attempt = format!("count {}", shown(keys.bytes()));
        let options = GetOptions::new().with_count_only();
        let options = match keys {
            Keys::One(_) => options,
            Keys::Prefix(_) => options.with_prefix(),
        };
        let mut client = self.kv();
        let reply = client
            .get(keys.bytes(), Some(options))
            .await
            .map_err(|error| self.failed(&attempt)(error))?;
        Ok(revision(reply.header()))
    }

    async fn get(&self, key: &[u8]) -> Result<Found> {
        let attempt = format!("get {}", shown(key));
        let mut client = self.kv();
        let mut reply = client.get(key, None).await.map_err(|e| self.failed(&attempt)(e))?;
        let revision = revision(reply.header());
        Ok(Found { entry: reply.take_kvs().into_iter().next().map(entry), revision })
    }

    async fn put(&self, put: GuardedPut) -> Result<PutReply> {
        let what = if put.value.is_some() { "put" } else { "delete" };
        let attempt = format!("{what} {}", shown(&put.key));
        let key = || put.key.clone();
        let guard = match put.guard {
            Guard::Absent => Compare::create_revision(key(), CompareOp::Equal, 0),
            Guard::Lease(lease) => Compare::lease(key(), CompareOp::Equal, lease),
            Guard::Revision(revision) => Compare::mod_revision(key(), CompareOp::Equal, revision),
        };
        let done = match put.value {
            Some(value) => {
                let options = PutOptions::new().with_lease(put.lease);
                TxnOp::put(key(), value, Some(options))
            }
            None => TxnOp::delete(key(), None),
        };
        let txn = Txn::new().when([guard]).and_then([done]).or_else([TxnOp::get(key(), None)]);
        let mut client = self.kv();
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
        let mut client = self.0.client.lease_client();
        let reply =
            client.grant(seconds, Some(options)).await.map_err(self.failed("grant a lease"))?;
        Ok(Duration::from_secs(reply.ttl().max(0).unsigned_abs()))
    }

    async fn granted_ttl(&self, lease: i64) -> Result<Option<Duration>> {
        let mut client = self.0.client.lease_client();
        let reply =
            client.time_to_live(lease, None).await.map_err(self.failed("read a lease's time"))?;
        let granted = reply.granted_ttl().max(0).unsigned_abs();
        Ok((granted > 0).then(|| Duration::from_secs(granted)))
    }

    async fn renew(&self, lease: i64) -> Result<()> {
        // A new stream for each renewal: its first reply is of this renewal and not out of a backlog.
        let mut client = self.0.client.lease_client();
        let kept = client.keep_alive(lease).await.map_err(self.failed("renew a lease"))?;
        drop(kept);
        Ok(())
    }

    async fn revoke(&self, lease: i64) -> Result<()> {
        let mut client = self.0.client.lease_client();
        client.revoke(lease).await.map_err(self.failed("revoke a lease"))?;
        Ok(())
    }
}

pub(super) fn entry(kv: etcd_client::KeyValue) -> KeyValue {
    let (revision, lease) = (kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    KeyValue { key, value, revision, lease }
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Whether an answer was over the limit that we set ourselves.
fn is_too_large(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    status.message().contains("decoded message length too large")
}

/// A key for a message: never more than a line.
pub(crate) fn shown(key: &[u8]) -> String {
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
