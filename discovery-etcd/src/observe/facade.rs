//! The recorder of the program, by way of the `metrics` crate.

use ::metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use super::figures::{Figure, Kind};

/// Whether figures go anywhere.
pub(crate) const ON: bool = true;

/// Counts `by` more; 0 shows that there is such a figure.
pub(super) fn count(figure: &Figure, labels: &[(&'static str, &str)], by: u64) {
    counter!(figure.name, with(labels)).increment(by);
}

pub(super) fn set(figure: &Figure, labels: &[(&'static str, &str)], to: f64) {
    gauge!(figure.name, with(labels)).set(to);
}

pub(super) fn describe(figure: &Figure) {
    let Figure { name, kind, meaning } = *figure;
    match kind {
        Kind::Counter => describe_counter!(name, Unit::Count, meaning),
        Kind::Gauge => describe_gauge!(name, Unit::Count, meaning),
        Kind::Seconds => describe_gauge!(name, Unit::Seconds, meaning),
    }
}

fn with(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect()
}
