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
    /// The server is there and its cluster has no leader at the moment: the same connection, a little
    /// later. A member that stays without one ends its watches.
    Electing,
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
        Self::new(kind, attempt, endpoint, plain(cause))
    }

    /// As [`of`](Self::of), on a connection on which nothing was ever heard. If it was merely closed,
    /// this says what is likely: TLS 1.3 refuses a client after its handshake, and the alert that says
    /// so is lost when the first request overtakes it.
    pub(crate) fn of_first(attempt: &str, endpoint: &str, error: &ClientError) -> Self {
        let error = Self::of(attempt, endpoint, error);
        let is_closed = ["connection closed", "broken pipe", "onnection reset"]
            .iter()
            .any(|closed| error.text.contains(closed));
        if error.kind != Kind::Unreachable || !is_closed {
            return error;
        }
        let likely = match (endpoint.starts_with("https:"), attempt) {
            (true, "connect") => "the server may not speak TLS at this port",
            (true, _) => "etcd may have refused our client certificate, or want one",
            (false, _) => "if etcd serves TLS at this port, the endpoint must be https",
        };
        Self { text: Arc::from(format!("{error}, before the first answer; {likely}")), ..error }
    }

    /// The server ended a watch and gave this reason.
    pub(crate) fn canceled(attempt: &str, endpoint: &str, reason: &str, compacted: i64) -> Self {
        if compacted > 0 {
            let cause = format!("the history before revision {compacted} is compacted");
            return Self::new(Kind::Compacted, attempt, endpoint, cause);
        }
        let reason = reason.split_once(" desc = ").map_or(reason, |(_, reason)| reason);
        let cause = if reason.is_empty() { "the server ended the watch" } else { reason };
        // 3.5 calls an expired token a lack of permission, too.
        let denied = is_about_access(reason) || reason.contains("permission denied");
        let kind = if denied { Kind::Denied } else { Kind::Unreachable };
        Self::new(kind, attempt, endpoint, cause)
    }

    /// The same, for the sake of this key.
    pub(crate) fn about(&self, key: &str) -> Self {
        Self { kind: self.kind, text: Arc::from(format!("for {key}: {self}")) }
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

fn is_about_elections(text: &str) -> bool {
    ["leader changed", "no leader", "etcdserver: request timed out", "context deadline exceeded"]
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
    } else if is_about_elections(text) {
        Kind::Electing
    } else if text.contains("database space exceeded") || text.contains("too many requests") {
        Kind::Busy
    } else if status.code() == Code::InvalidArgument
        || text.contains("decoded message length too large")
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

/// What TLS says, in words for those who never read its specification. Its own stay behind them.
fn plain(cause: String) -> String {
    let alert = cause.strip_prefix("received fatal alert: ").unwrap_or_default();
    let meaning = if alert.contains("Certificate") || matches!(alert, "UnknownCA" | "AccessDenied")
    {
        "etcd refused our client certificate, or wants one and got none"
    } else if cause.ends_with("certificate: UnknownIssuer")
        || cause.ends_with("certificate: BadSignature")
    {
        // The latter where an authority was made anew under its old name.
        "etcd's certificate is signed by no authority that is trusted here"
    } else if cause == "tls handshake eof" || cause.contains("InvalidContentType") {
        "the server does not speak TLS at this port, or broke off the handshake"
    } else {
        return cause;
    };
    format!("{meaning} ({cause})")
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
                Kind::Rejected,
            ),
            (Code::Unknown, "auth: revision in header is old", Kind::Denied),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Kind::Denied),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::Denied),
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::Denied),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Kind::Busy),
            (Code::InvalidArgument, "etcdserver: request is too large", Kind::Rejected),
            (Code::Unknown, "context deadline exceeded", Kind::Electing),
            (Code::Unavailable, "etcdserver: no leader", Kind::Electing),
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
    fn what_tls_says_is_put_in_plain_words() {
        for (cause, meaning) in [
            ("received fatal alert: BadCertificate", "refused our client certificate"),
            ("received fatal alert: CertificateRequired", "wants one and got none"),
            ("received fatal alert: UnknownCA", "refused our client certificate"),
            ("invalid peer certificate: UnknownIssuer", "no authority that is trusted here"),
            ("invalid peer certificate: BadSignature", "no authority that is trusted here"),
            ("tls handshake eof", "does not speak TLS"),
            ("received corrupt message of type InvalidContentType", "does not speak TLS"),
        ] {
            let plain = plain(cause.to_owned());
            assert!(plain.contains(meaning) && plain.ends_with(&format!("({cause})")), "{plain}");
        }
        assert_eq!(plain("received fatal alert: X".to_owned()), "received fatal alert: X");
    }

    #[test]
    fn a_connection_closed_before_the_first_answer_says_what_is_likely() {
        let mut status = Status::new(Code::Cancelled, "operation was canceled");
        status.set_source(Arc::new(std::io::Error::other("connection closed")));
        let closed = ClientError::GRpcStatus(status);
        let text = |endpoint| WireError::of_first("watch /s/", endpoint, &closed).to_string();
        assert_eq!(
            text("http://e:1"),
            "watch /s/ at http://e:1: connection closed, before the first answer; if etcd serves \
             TLS at this port, the endpoint must be https"
        );
        assert!(text("https://e:1").ends_with("refused our client certificate, or want one"));
        let text = WireError::of_first("connect", "https://e:1", &closed).to_string();
        assert!(text.ends_with("the server may not speak TLS at this port"), "{text}");
        let other = ClientError::GRpcStatus(Status::new(Code::Unavailable, "no leader"));
        let text = WireError::of_first("watch /s/", "http://e:1", &other).to_string();
        assert_eq!(text, "watch /s/ at http://e:1: no leader");
    }

    #[test]
    fn a_canceled_watch_says_why_without_the_wrapping() {
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        let error = WireError::canceled("watch /s/", "http://e:1", reason, 0);
        assert_eq!(error.to_string(), "watch /s/ at http://e:1: etcdserver: permission denied");
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
