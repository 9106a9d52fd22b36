//! What each figure is called and means. The README has the same table.

/// A figure that is exported.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The labels beside `service`, which all have.
    pub(super) label: Option<&'static str>,
    pub(super) meaning: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    /// A counter of milliseconds.
    Milliseconds,
    Gauge,
    /// A gauge of seconds.
    Seconds,
}

pub(super) const SERVICE: &str = "service";

macro_rules! figures {
    ($($figure:ident: $kind:ident $(by $label:literal)? = $name:literal, $meaning:literal;)*) => {
        $(pub(super) const $figure: Figure = Figure {
            name: $name,
            kind: Kind::$kind,
            label: figures!(@ $($label)?),
            meaning: $meaning,
        };)*

        pub(super) const ALL: &[Figure] = &[$($figure),*];
    };
    (@ $label:literal) => { Some($label) };
    (@) => { None };
}

figures! {
    CALLS: Counter by "outcome" = "discovery_balance_calls_total",
        "Calls to endpoints that have ended.";
    PENDING: Gauge = "discovery_balance_pending",
        "Calls to the endpoints there are that have not ended.";
    ENDPOINTS: Gauge by "standing" = "discovery_balance_endpoints",
        "Endpoints in the set, by whether they get requests.";
    EJECTIONS: Counter by "cause" = "discovery_balance_ejections_total",
        "Times that an endpoint was left out for a while.";
    PANIC: Gauge = "discovery_balance_panic",
        "1 while so many endpoints fail that those left out are used all the same.";
    CONNECTION_FAILURES: Counter = "discovery_balance_connection_failures_total",
        "Times that an endpoint could not be connected to.";
    PASSED_ON: Counter = "discovery_balance_passed_on_total",
        "Times that an endpoint did not get a request, so that another one was sought.";
    WAITS: Counter = "discovery_balance_waits_total",
        "Calls that had to wait for an endpoint and wait no longer.";
    WAITED: Milliseconds = "discovery_balance_waited_milliseconds_total",
        "How long they waited, all together.";
    REFUSED: Counter by "reason" = "discovery_balance_refused_total",
        "Calls that were sent to no endpoint.";
    STALE: Seconds = "discovery_balance_stale_seconds",
        "For how long the set is not known to be the source's; 0 while it is.";
    RETRIES: Counter by "decision" = "discovery_balance_retries_total",
        "Requests that failed and could be tried at another instance.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_readme_names_each_figure_with_its_kind_and_its_labels() {
        let documented: BTreeSet<String> = include_str!("../../../README.md")
            .lines()
            .filter(|line| line.starts_with("| `discovery_balance_"))
            .map(|line| line.split(" | ").take(3).collect::<Vec<_>>().join(" | "))
            .collect();
        let exported: BTreeSet<String> = ALL
            .iter()
            .map(|figure| {
                let kind = match figure.kind {
                    Kind::Counter => "counter",
                    Kind::Milliseconds => "counter, milliseconds",
                    Kind::Gauge => "gauge",
                    Kind::Seconds => "gauge, seconds",
                };
                let label = figure.label.map(|label| format!(", `{label}`")).unwrap_or_default();
                format!("| `{}` | {kind} | `{SERVICE}`{label}", figure.name)
            })
            .collect();
        assert_eq!(documented, exported);
    }
}
