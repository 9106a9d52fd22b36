//! etcd as it really is, read and written past everything that is tested.
//!
//! A test that asks the client under test whether the client under test is right proves nothing. This asks
//! etcd over its JSON gateway, with plain HTTP and nothing in common with the library: no generated code,
//! no connection pool that fails over, no retry of its own.

mod auth;
mod error;
mod http;
mod wire;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use self::{auth::Session, http::Http};
pub use self::{
    auth::{Auth, Permission},
    error::TruthError,
    wire::{Kv, Lease, Op, Snapshot, Status, prefix_end},
};
use crate::wait::slack;

/// A call that is refused for want of a leader is answered after 7 s.
const DEADLINE: Duration = Duration::from_secs(10);
/// So many keys a page: far below every limit of the gateway with values of 1 kB.
const PAGE: usize = 2000;
/// So many operations etcd takes in one transaction.
const MAX_OPS: usize = 128;

type Result<T> = std::result::Result<T, TruthError>;

/// One etcd member, asked directly. Cheap to clone.
///
/// Every call has a deadline and is sent once. Dropped half-way, a call may or may not have been carried out.
#[derive(Debug, Clone)]
pub struct Truth {
    http: Arc<Http>,
    session: Option<Arc<Session>>,
    deadline: Duration,
}

impl Truth {
    /// Asks the member that serves clients at `server`.
    pub fn new(server: SocketAddr) -> Self {
        Self { http: Arc::new(Http::new(server)), session: None, deadline: slack(DEADLINE) }
    }

    /// The same member, asked with another deadline for each call; the default is 10 s by [`slack`].
    #[must_use]
    pub fn deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same member, asked as this user. It logs in at the first call, and again when its token is
    /// no longer good.
    #[must_use]
    pub fn login(&self, user: &str, password: &str) -> Self {
        Self { session: Some(Arc::new(Session::new(user, password))), ..self.clone() }
    }

    /// Users, roles and whether they matter.
    pub const fn auth(&self) -> Auth<'_> {
        Auth::new(self)
    }

    /// What `key` holds.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Kv>> {
        let answer =
            self.post("/v3/kv/range", json!({ "key": wire::encode(key.as_ref()) })).await?;
        Ok(wire::list(&answer["kvs"]).first().map(|kv| wire::key_value(kv).1))
    }

    /// All keys that start with `prefix`.
    pub async fn range(&self, prefix: impl AsRef<[u8]>) -> Result<BTreeMap<Vec<u8>, Kv>> {
        Ok(self.snapshot(prefix).await?.kvs)
    }

    /// All keys that start with `prefix`, and the revision at which they were all there is.
    ///
    /// Read in pages, each with its own deadline; a compaction in between fails it.
    pub async fn snapshot(&self, prefix: impl AsRef<[u8]>) -> Result<Snapshot> {
        let mut query = wire::range(prefix.as_ref());
        query["limit"] = json!(PAGE.to_string());
        let mut kvs = BTreeMap::new();
        let mut revision = 0;
        loop {
            let answer = self.post("/v3/kv/range", query.clone()).await?;
            if revision == 0 {
                revision = wire::revision(&answer);
                query["revision"] = json!(revision.to_string());
            }
            kvs.extend(wire::list(&answer["kvs"]).iter().map(wire::key_value));
            if answer["more"] != json!(true) {
                return Ok(Snapshot { revision, kvs });
            }
            if let Some((last, _)) = kvs.last_key_value() {
                query["key"] = json!(wire::encode(&[last.as_slice(), &[0]].concat()));
            }
        }
    }

    /// How many keys start with `prefix`.
    pub async fn count(&self, prefix: impl AsRef<[u8]>) -> Result<i64> {
        let mut query = wire::range(prefix.as_ref());
        query["count_only"] = json!(true);
        Ok(wire::int(&self.post("/v3/kv/range", query).await?["count"]))
    }

    /// The revision of the store, as a linearizable read sees it.
    pub async fn revision(&self) -> Result<i64> {
        let query = json!({ "key": wire::encode(&[0]), "count_only": true });
        Ok(wire::revision(&self.post("/v3/kv/range", query).await?))
    }

    /// Writes a key that hangs on no lease. Returns the revision of it, as all writes do.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<i64> {
        self.put_leased(key, value, 0).await
    }

    /// Writes a key that goes when the lease does.
    pub async fn put_leased(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        lease: i64,
    ) -> Result<i64> {
        let answer =
            self.post("/v3/kv/put", wire::put(key.as_ref(), value.as_ref(), lease)).await?;
        Ok(wire::revision(&answer))
    }

    /// Deletes a key. Returns whether it was there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let query = json!({ "key": wire::encode(key.as_ref()) });
        Ok(wire::int(&self.post("/v3/kv/deleterange", query).await?["deleted"]) > 0)
    }

    /// Deletes all keys that start with `prefix`, at one revision. Returns how many there were.
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<i64> {
        Ok(wire::int(
            &self.post("/v3/kv/deleterange", wire::range(prefix.as_ref())).await?["deleted"],
        ))
    }

    /// Does all of `ops` at one revision, which it returns. etcd takes at most 128, and no key twice.
    pub async fn txn(&self, ops: impl IntoIterator<Item = Op>) -> Result<i64> {
        let ops: Vec<_> = ops.into_iter().map(Op::into_json).collect();
        Ok(wire::revision(&self.post("/v3/kv/txn", json!({ "success": ops })).await?))
    }

    /// Does all of `ops`, 128 at a revision. Returns the last revision.
    pub async fn txn_all(&self, ops: impl IntoIterator<Item = Op>) -> Result<i64> {
        let mut ops = ops.into_iter();
        let mut revision = 0;
        loop {
            let batch: Vec<_> = ops.by_ref().take(MAX_OPS).collect();
            if batch.is_empty() {
                return Ok(revision);
            }
            revision = self.txn(batch).await?;
        }
    }

    /// Forgets everything before `revision`. With `physical` it returns when that has been done, without
    /// it when it has been decided.
    pub async fn compact(&self, revision: i64, physical: bool) -> Result<()> {
        let query = json!({ "revision": revision.to_string(), "physical": physical });
        self.post("/v3/kv/compaction", query).await.map(drop)
    }

    /// Makes a lease of so many seconds, as far as etcd grants them. Returns its id.
    pub async fn grant(&self, ttl: i64) -> Result<i64> {
        Ok(wire::int(&self.post("/v3/lease/grant", json!({ "TTL": ttl.to_string() })).await?["ID"]))
    }

    /// Ends a lease and deletes all its keys.
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        self.post("/v3/lease/revoke", json!({ "ID": lease.to_string() })).await.map(drop)
    }

    /// Renews a lease once. Returns the seconds it now has, or `None` if etcd does not know it.
    pub async fn renew(&self, lease: i64) -> Result<Option<i64>> {
        let answer = self.post("/v3/lease/keepalive", json!({ "ID": lease.to_string() })).await?;
        let ttl = wire::int(&answer["result"]["TTL"]);
        Ok((ttl > 0).then_some(ttl))
    }

    /// What is left of a lease, or `None` if etcd does not know it.
    pub async fn lease(&self, lease: i64) -> Result<Option<Lease>> {
        let answer = self
            .post("/v3/lease/timetolive", json!({ "ID": lease.to_string(), "keys": true }))
            .await?;
        let mut keys: Vec<_> = wire::list(&answer["keys"]).iter().map(wire::bytes).collect();
        keys.sort();
        let granted = wire::int(&answer["grantedTTL"]);
        Ok((granted > 0).then(|| Lease { ttl: wire::int(&answer["TTL"]), granted, keys }))
    }

    /// The seconds left of a lease, or `None` if etcd does not know it.
    pub async fn lease_ttl(&self, lease: i64) -> Result<Option<i64>> {
        Ok(self.lease(lease).await?.map(|lease| lease.ttl))
    }

    /// The ids of all leases, in order.
    pub async fn leases(&self) -> Result<Vec<i64>> {
        let answer = self.post("/v3/lease/leases", json!({})).await?;
        let mut leases: Vec<_> =
            wire::list(&answer["leases"]).iter().map(|lease| wire::int(&lease["ID"])).collect();
        leases.sort_unstable();
        Ok(leases)
    }

    /// What this member says about itself. Needs no leader.
    pub async fn status(&self) -> Result<Status> {
        let answer = self.post("/v3/maintenance/status", json!({})).await?;
        Ok(Status {
            member: wire::id(&answer["header"]["member_id"]),
            leader: wire::id(&answer["leader"]),
            term: wire::id(&answer["raftTerm"]),
            revision: wire::revision(&answer),
            release: answer["version"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// The ids of the cluster's members, by where they say that they serve clients.
    pub async fn members(&self) -> Result<BTreeMap<String, u64>> {
        let answer = self.post("/v3/cluster/member/list", json!({})).await?;
        let of = |member: &Value| {
            let url = wire::list(&member["clientURLs"]).first().and_then(Value::as_str);
            url.map(|url| (url.to_owned(), wire::id(&member["ID"])))
        };
        Ok(wire::list(&answer["members"]).iter().filter_map(of).collect())
    }

    /// Removes a member from its cluster; it then stops by itself.
    pub async fn remove_member(&self, id: u64) -> Result<()> {
        self.post("/v3/cluster/member/remove", json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// Gives the space of what was compacted back, as must be done before a full etcd takes writes again.
    pub async fn defragment(&self) -> Result<()> {
        self.post("/v3/maintenance/defragment", json!({})).await.map(drop)
    }

    /// Whether a member is out of space and says so.
    pub async fn has_space_alarm(&self) -> Result<bool> {
        Ok(!self.space_alarms().await?.is_empty())
    }

    /// Takes back what members say about being out of space.
    pub async fn clear_space_alarm(&self) -> Result<()> {
        for mut alarm in self.space_alarms().await? {
            alarm["action"] = json!("DEACTIVATE");
            self.post("/v3/maintenance/alarm", alarm).await?;
        }
        Ok(())
    }

    async fn space_alarms(&self) -> Result<Vec<Value>> {
        let answer = self.post("/v3/maintenance/alarm", json!({ "action": "GET" })).await?;
        let alarms = wire::list(&answer["alarms"]).iter().cloned();
        Ok(alarms.filter(|alarm| alarm["alarm"] == "NOSPACE").collect())
    }

    /// The value of a metric, such as `etcd_debugging_mvcc_watcher_total`, or `None` if etcd has none of
    /// that name. One with labels is named with them, as `/metrics` prints it.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = self.call(Method::GET, "/metrics", None, Vec::new()).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .find_map(|(found, value)| (found == name).then(|| value.parse().ok())?))
    }

    /// Whether it serves: reaches a majority and answers, be it that one has to log in.
    pub(crate) async fn serves(&self) -> bool {
        const INVALID_ARGUMENT: i64 = 3;
        const PERMISSION_DENIED: i64 = 7;
        const UNAUTHENTICATED: i64 = 16;
        match self.revision().await {
            Ok(_) => true,
            Err(error) => {
                matches!(error.code(), Some(INVALID_ARGUMENT | PERMISSION_DENIED | UNAUTHENTICATED))
            }
        }
    }

    async fn post(&self, path: &str, query: Value) -> Result<Value> {
        let Some(session) = &self.session else { return self.post_as(path, &query, None).await };
        let token = session.token(self).await?;
        match self.post_as(path, &query, Some(&token)).await {
            Err(error) if Session::is_over(&error) => {
                session.forget(&token);
                let token = session.token(self).await?;
                self.post_as(path, &query, Some(&token)).await
            }
            answer => answer,
        }
    }

    async fn post_as(&self, path: &str, query: &Value, token: Option<&str>) -> Result<Value> {
        let body = self.call(Method::POST, path, token, query.to_string().into_bytes()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| TruthError::Connection { call: path.to_owned(), cause: error.into() })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let name = || format!("{} {path}", self.http.server());
        let answer =
            tokio::time::timeout(self.deadline, self.http.call(method, path, token, body)).await;
        let (status, body) = match answer {
            Err(_) => return Err(TruthError::Timeout { call: name(), limit: self.deadline }),
            Ok(Err(cause)) => return Err(TruthError::Connection { call: name(), cause }),
            Ok(Ok(answer)) => answer,
        };
        if status == StatusCode::OK {
            return Ok(body.into());
        }
        Err(refusal(name(), status, &body))
    }
}

fn refusal(call: String, status: StatusCode, body: &[u8]) -> TruthError {
    const UNKNOWN: i64 = 2;
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let (code, message) = match answer["message"].as_str() {
        Some(message) => (wire::int(&answer["code"]), message.to_owned()),
        None => (UNKNOWN, format!("{status}: {}", String::from_utf8_lossy(body))),
    };
    TruthError::Refused { call, code, message }
}
