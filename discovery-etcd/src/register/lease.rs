//! What is known of the registration's own lease.

use std::time::Duration;

use tokio::time::Instant;

/// etcd looks for leases whose time is over twice a second.
pub(super) const EXPIRY_SLACK: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// `None` until the grant is confirmed.
    pub(super) granted: Option<Duration>,
    /// When the last confirmed grant or renewal was *sent*: from then on etcd counts, at the latest.
    pub(super) sent: Instant,
    /// When the last grant or renewal was over, confirmed or not: if etcd had it, then by now.
    pub(super) over: Instant,
    pub(super) renew_at: Instant,
}

impl Lease {
    /// A lease that is about to be asked for.
    pub(super) fn unconfirmed(id: i64, now: Instant) -> Self {
        Self { id, granted: None, sent: now, over: now, renew_at: now }
    }

    /// Until when etcd keeps the key at least.
    pub(super) fn expires(&self) -> Option<Instant> {
        Some(self.sent + self.granted?)
    }

    /// Until when etcd keeps the key at most, if it keeps running and nothing renews the lease.
    pub(super) fn gone(&self) -> Option<Instant> {
        Some(self.over + self.granted? + EXPIRY_SLACK)
    }
}

/// How long an answer may take while a lease of this time to live has to be renewed: with the default
/// of 15 s longer than an election takes, and short enough to ask elsewhere in time.
pub(super) fn answer_within(granted: Duration) -> Duration {
    (granted / 4).clamp(Duration::from_millis(500), Duration::from_secs(4))
}
