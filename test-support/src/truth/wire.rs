//! How etcd's gateway writes things in JSON: bytes in base64, 64-bit integers as text, zeros left out.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// What etcd holds under a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Kv {
    /// The value.
    pub value: Vec<u8>,
    /// The revision that made the key.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub mod_revision: i64,
    /// How often it was written since it was made, from 1.
    pub version: i64,
    /// The lease it hangs on, 0 for none.
    pub lease: i64,
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" (created {}, changed {}, lease {})",
            self.value.escape_ascii(),
            self.create_revision,
            self.mod_revision,
            self.lease
        )
    }
}

/// All keys of a prefix at one revision.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision of the store at which this was true.
    pub revision: i64,
    /// The keys and what they hold.
    pub kvs: BTreeMap<Vec<u8>, Kv>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ", self.revision)?;
        f.debug_map()
            .entries(self.kvs.iter().map(|(key, kv)| (key.escape_ascii().to_string(), kv)))
            .finish()
    }
}

/// What etcd says about a lease that it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Seconds until it expires; below 0 if it has and etcd has not got round to it.
    pub ttl: i64,
    /// Seconds that were granted.
    pub granted: i64,
    /// The keys that hang on it, in order.
    pub keys: Vec<Vec<u8>>,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub member: u64,
    /// The id of the member it takes for the leader, 0 for none.
    pub leader: u64,
    /// The raft term it is in.
    pub term: u64,
    /// The revision of its store.
    pub revision: i64,
    /// The release it runs, such as `3.5.1`.
    pub release: String,
}

/// One step of a [`Truth::txn`](super::Truth::txn).
#[derive(Debug, Clone)]
pub struct Op(Value);

impl Op {
    /// Writes a key that hangs on no lease.
    pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self::put_leased(key, value, 0)
    }

    /// Writes a key that goes when the lease does.
    pub fn put_leased(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, lease: i64) -> Self {
        Self(json!({ "requestPut": put(key.as_ref(), value.as_ref(), lease) }))
    }

    /// Deletes a key.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self(json!({ "requestDeleteRange": { "key": encode(key.as_ref()) } }))
    }

    /// Deletes all keys that start with `prefix`.
    pub fn delete_prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self(json!({ "requestDeleteRange": range(prefix.as_ref()) }))
    }

    pub(super) fn into_json(self) -> Value {
        self.0
    }
}

/// The first key behind all that start with `prefix`, as etcd wants it for the end of a range.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        // Nothing lies behind them: to the end of the keys.
        None => vec![0],
    }
}

pub(super) fn put(key: &[u8], value: &[u8], lease: i64) -> Value {
    json!({ "key": encode(key), "value": encode(value), "lease": lease.to_string() })
}

/// The two ends of the keys that start with `prefix`. An empty key would not be a key: all start at NUL.
pub(super) fn range(prefix: &[u8]) -> Value {
    let first: &[u8] = if prefix.is_empty() { &[0] } else { prefix };
    json!({ "key": encode(first), "range_end": encode(&prefix_end(prefix)) })
}

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An integer, which is left out when it is 0.
pub(super) fn int(value: &Value) -> i64 {
    match value {
        Value::String(text) => {
            text.parse().unwrap_or_else(|error| panic!("etcd said {text}: {error}"))
        }
        other => other.as_i64().unwrap_or_default(),
    }
}

/// The same of the ids of members, which use all 64 bits.
pub(super) fn id(value: &Value) -> u64 {
    match value {
        Value::String(text) => {
            text.parse().unwrap_or_else(|error| panic!("etcd said {text}: {error}"))
        }
        other => other.as_u64().unwrap_or_default(),
    }
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).unwrap_or_else(|error| panic!("etcd said {text}: {error}"))
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn revision(response: &Value) -> i64 {
    int(&response["header"]["revision"])
}

pub(super) fn key_value(value: &Value) -> (Vec<u8>, Kv) {
    let kv = Kv {
        value: bytes(&value["value"]),
        create_revision: int(&value["create_revision"]),
        mod_revision: int(&value["mod_revision"]),
        version: int(&value["version"]),
        lease: int(&value["lease"]),
    };
    (bytes(&value["key"]), kv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_does_not_have_it() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }
}
