//! What each figure is called and means. The README has the same table, with the labels.

/// A figure that is exported.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody is told"))]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// A gauge of seconds.
    Seconds,
}

macro_rules! figures {
    ($($figure:ident: $kind:ident = $name:literal, $meaning:literal;)*) => {
        $(pub(super) const $figure: Figure =
            Figure { name: $name, kind: Kind::$kind, meaning: $meaning };)*

        pub(super) const ALL: &[Figure] = &[$($figure),*];
    };
}

figures! {
    CONNECTS: Counter = "discovery_etcd_connects_total",
        "Attempts to connect to etcd that have come to an end.";
    LISTS: Counter = "discovery_etcd_lists_total",
        "Whole lists of the prefix: one for each time that a watch was opened or repaired.";
    EVENTS: Counter = "discovery_etcd_events_total",
        "Changes of keys that followed a list.";
    AUDITS: Counter = "discovery_etcd_audits_total",
        "Audits that were finished: keys and revisions held against what is known.";
    REPAIRS: Counter = "discovery_etcd_repairs_total",
        "Audits that found something missed, so that the prefix was listed anew.";
    REPAIRED_KEYS: Counter = "discovery_etcd_repaired_keys_total",
        "Keys that audits found to differ, at most 64 of each audit.";
    UNDECODABLE: Counter = "discovery_etcd_undecodable_total",
        "Keys and values that could not be read, each once for as long as it stays the same.";
    INSTANCES: Gauge = "discovery_etcd_instances",
        "Instances in the set that is served, suspects included.";
    STALE: Seconds = "discovery_etcd_stale_seconds",
        "For how long the set is not known to be etcd's; 0 while it is.";
    RENEWALS: Counter = "discovery_etcd_renewals_total",
        "Renewals of leases that have come to an end.";
    REGISTRATIONS: Gauge = "discovery_etcd_registrations",
        "Registrations that have not ended, by state.";
    REREGISTRATIONS: Counter = "discovery_etcd_reregistrations_total",
        "Times that a registration stood again after it was lost or had to be taken for lost.";
    CONFLICTS: Counter = "discovery_etcd_conflicts_total",
        "Times that a registration found its key held by somebody else.";
}
