//! What the benchmarks against a real etcd share: an etcd with instances in it, a reader of ours, and
//! the same done with bare `etcd-client`.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Change, Instance, InstanceChanges, Source as _};
use discovery_etcd::{ConfigError, EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, versions};
use etcd_client::{Client, GetOptions, Txn, TxnOp, WatchOptions, WatchStream};
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::json;

/// A benchmark may fail for any reason.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// More than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How many keys are listed at a time.
pub const PAGE: usize = 10_000;
/// How many puts go into a transaction; etcd takes no more than 128.
pub const TXN: usize = 100;
/// A page of the usual instances is over `etcd-client`'s own limit of 4 MB sooner or later.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Starts an etcd that has room for all that benchmarks write.
pub async fn start() -> Etcd {
    Etcd::builder(versions()[0]).quota(8 << 30).start().await
}

/// The key of an instance; `prefix` ends with a slash.
pub fn key(prefix: &str, number: usize) -> String {
    format!("{prefix}orders-{number:06}")
}

/// Puts such instances, in transactions.
///
/// # Errors
/// etcd's.
pub async fn fill(client: &mut Client, prefix: &str, numbers: Range<usize>) -> Result<()> {
    put_all(client, prefix, &numbers.collect::<Vec<_>>(), 0).await
}

/// Puts this version of these instances, in transactions.
///
/// # Errors
/// etcd's.
pub async fn put_all(
    client: &mut Client,
    prefix: &str,
    numbers: &[usize],
    version: usize,
) -> Result<()> {
    for some in numbers.chunks(TXN) {
        let put = |number: &usize| TxnOp::put(key(prefix, *number), json(*number, version), None);
        let puts: Vec<TxnOp> = some.iter().map(put).collect();
        client.txn(Txn::new().and_then(puts)).await?;
    }
    Ok(())
}

/// A registry of ours whose services are under `prefix`.
///
/// # Errors
/// See [`EtcdRegistry::new`].
pub fn registry(url: String, prefix: &str) -> std::result::Result<EtcdRegistry, ConfigError> {
    EtcdRegistry::new(EtcdConfig::new([url]).prefix(prefix))
}

/// A reader of the service that [`json`] names, on a registry of its own.
///
/// # Errors
/// See [`registry`].
pub fn watch(url: String, prefix: &str) -> Result<InstanceChanges> {
    Ok(registry(url, prefix)?.watch(&"orders".parse()?))
}

/// Reads up to the next `Synced`; returns how many changes came before it.
///
/// # Errors
/// It takes too long, or the stream ends.
pub async fn synced(changes: &mut InstanceChanges) -> Result<usize> {
    let reading = async {
        let mut told = 0;
        loop {
            match changes.next().await {
                Some(Change::Synced) => return Ok(told),
                Some(_) => told += 1,
                None => return Err("the stream ended".into()),
            }
        }
    };
    timeout(DEADLINE, reading).await?
}

/// The floor of a first sync: a new client reads all pages as of one revision and decodes them into
/// the same kind of struct. `page` is shown each page before that.
///
/// # Errors
/// etcd's, or a value cannot be decoded.
pub async fn read_bare(
    url: String,
    prefix: &str,
    mut page: impl FnMut(&etcd_client::GetResponse),
) -> Result<Vec<Arc<Instance>>> {
    let client = Client::connect([url], None).await?;
    let mut client = client.kv_client().max_decoding_message_size(LARGEST_MESSAGE);
    let (mut from, mut at, mut all) = (prefix.as_bytes().to_vec(), 0, Vec::new());
    let mut end = from.clone();
    // Behind the slash that it ends with.
    *end.last_mut().ok_or("the prefix is empty")? += 1;
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_revision(at);
        let options = options.with_limit(i64::try_from(PAGE)?);
        let reply = client.get(from, Some(options)).await?;
        page(&reply);
        if at == 0 {
            at = reply.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        for kv in reply.kvs() {
            all.push(Arc::new(serde_json::from_slice(kv.value())?));
        }
        match reply.kvs().last() {
            Some(last) if reply.more() => {
                from = last.key().to_vec();
                from.push(0);
            }
            _ => return Ok(all),
        }
    }
}

/// A bare watch that stands, of a client of its own.
///
/// # Errors
/// etcd's.
pub async fn watch_bare(url: String, prefix: &str) -> Result<WatchStream> {
    let client = Client::connect([url], None).await?;
    let mut client = client.watch_client().max_decoding_message_size(LARGEST_MESSAGE);
    let mut stream = client.watch(prefix, Some(WatchOptions::new().with_prefix())).await?;
    let created = timeout(DEADLINE, stream.message()).await??;
    if created.is_some_and(|message| message.created()) {
        Ok(stream)
    } else {
        Err("no watch".into())
    }
}
