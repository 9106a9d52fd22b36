//! What an error of etcd means for us. Codes do not tell: the same lost connection comes as
//! `Unknown`, `Unavailable` or `Cancelled`, and `OutOfRange` is both a compacted revision and a
//! message over the size limit. So errors are classed by what they say.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use etcd_client::Error as ClientError;
use tonic::{Code, Status};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The connection, the server or its cluster is in trouble: another connection, elsewhere. What
    /// became of a write is not known.
    Unreachable,
    /// The credentials or permissions do not suffice: only people can mend that.
    Denied,
    /// The revision asked for no longer exists: list anew.
    Compacted,
    /// There is no such lease.
    LeaseNotFound,
    /// The lease exists already: an earlier grant whose answer was lost.
    LeaseExists,
    /// The server is full or overloaded; the connection is good.
    Busy,
    /// The server will never take this request.
    Rejected,
}

/// What was attempted, where, and what went wrong, in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireError {
    pub(crate) kind: Kind,
    text: Arc<str>,
}

impl WireError {
    pub(crate) fn new(kind: Kind, attempt: &str, endpoint: &str, cause: impl fmt::Display) -> Self {
        Self { kind, text: Arc::from(format!("{attempt} at {endpoint}: {cause}")) }
    }

    /// `attempt` at `endpoint` failed with an error of etcd-client.
    pub(crate) fn of(attempt: &str, endpoint: &str, error: &ClientError) -> Self {
        let (kind, cause) = match error {
            ClientError::GRpcStatus(status) => (kind_of(status), cause_of(status)),
            ClientError::LeaseKeepAliveError(text) if text.contains("lease not found") => {
                (Kind::LeaseNotFound, text.clone())
            }
            ClientError::TransportError(error) => (Kind::Unreachable, deepest(error)),
            other => (Kind::Unreachable, other.to_string()),
        };
        Self::new(kind, attempt, endpoint, cause)
    }

    /// The server ended a watch and gave this reason.
    pub(crate) fn canceled(attempt: &str, endpoint: &str, reason: &str, compacted: i64) -> Self {
        if compacted > 0 {
            let cause = format!("the history before revision {compacted} is compacted");
            return Self::new(Kind::Compacted, attempt, endpoint, cause);
        }
        let cause = if reason.is_empty() { "the server ended the watch" } else { reason };
        // 3.5 calls an expired token a lack of permission, too.
        let denied = is_about_access(reason) || reason.contains("permission denied");
        let kind = if denied { Kind::Denied } else { Kind::Unreachable };
        Self::new(kind, attempt, endpoint, cause)
    }

    /// An error that is not of etcd's making: a deadline that passed, say.
    pub(crate) fn unreachable(attempt: &str, endpoint: &str, cause: impl fmt::Display) -> Self {
        Self::new(Kind::Unreachable, attempt, endpoint, cause)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for WireError {}

fn is_about_access(text: &str) -> bool {
    [
        "invalid auth token",
        "auth: revision in header is old",
        "revision of auth store is old",
        "user name is empty",
        "authentication failed",
        "authentication is not enabled",
    ]
    .iter()
    .any(|known| text.contains(known))
}

fn kind_of(status: &Status) -> Kind {
    let text = status.message();
    if text.contains("requested lease not found") {
        Kind::LeaseNotFound
    } else if text.contains("lease already exists") {
        Kind::LeaseExists
    } else if text.contains("required revision") {
        // Compacted, or in the future of a store that was set back.
        Kind::Compacted
    } else if is_about_access(text)
        || matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
    {
        Kind::Denied
    } else if text.contains("database space exceeded") || text.contains("too many requests") {
        Kind::Busy
    } else if status.code() == Code::InvalidArgument
        || text.contains("too large lease TTL")
        || text.contains("received message larger than max")
    {
        Kind::Rejected
    } else {
        Kind::Unreachable
    }
}

/// The server's own words, or what the transport says underneath its general ones.
fn cause_of(status: &Status) -> String {
    let text = status.message();
    let general = ["transport error", "tcp connect error", "h2 protocol error", "http2 error"];
    let says_little = text.is_empty()
        || text == "operation was canceled"
        || general.iter().any(|general| text.starts_with(general));
    match status.source() {
        Some(source) if says_little => deepest(source),
        _ if text.is_empty() => status.code().to_string(),
        _ => text.to_owned(),
    }
}

/// What stands at the end of the chain of causes.
fn deepest(error: &dyn Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classed_by_what_they_say() {
        let kind = |code, text: &str| kind_of(&Status::new(code, text));
        for (code, text, expected) in [
            (Code::NotFound, "etcdserver: requested lease not found", Kind::LeaseNotFound),
            (Code::FailedPrecondition, "etcdserver: lease already exists", Kind::LeaseExists),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Kind::Compacted,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
                Kind::Unreachable,
            ),
            (Code::Unknown, "auth: revision in header is old", Kind::Denied),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Kind::Denied),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::Denied),
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::Denied),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Kind::Busy),
            (Code::InvalidArgument, "etcdserver: request is too large", Kind::Rejected),
            (Code::Unknown, "context deadline exceeded", Kind::Unreachable),
            (Code::Unavailable, "etcdserver: no leader", Kind::Unreachable),
            (Code::Cancelled, "Timeout expired", Kind::Unreachable),
        ] {
            assert_eq!(kind(code, text), expected, "{text}");
        }
    }

    #[test]
    fn the_cause_is_the_deepest_one_that_says_something() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let mut status = Status::new(Code::Unavailable, "tcp connect error");
        status.set_source(Arc::new(refused));
        assert_eq!(cause_of(&status), "refused");
        let status = Status::new(Code::Unavailable, "etcdserver: no leader");
        assert_eq!(cause_of(&status), "etcdserver: no leader");
    }

    #[test]
    fn a_canceled_watch_is_denied_or_compacted_or_in_trouble() {
        let kind = |reason, compacted| WireError::canceled("watch", "e", reason, compacted).kind;
        assert_eq!(kind("", 7), Kind::Compacted);
        assert_eq!(kind("… desc = etcdserver: permission denied", 0), Kind::Denied);
        assert_eq!(kind("… desc = etcdserver: invalid auth token", 0), Kind::Denied);
        assert_eq!(kind("etcdserver: no leader", 0), Kind::Unreachable);
    }
}
