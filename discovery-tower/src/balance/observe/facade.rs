//! The recorder of the program, by way of the `metrics` crate. One that panics is told nothing then.

use ::metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use super::figures::{Figure, Kind};
use crate::balance::flight::guarded;

type Labels<'a> = &'a [(&'static str, &'a str)];

/// Counts `by` more; 0 shows that there is such a figure.
pub(super) fn count(figure: &Figure, labels: Labels<'_>, by: u64) {
    guarded(|| counter!(figure.name, with(labels)).increment(by));
}

pub(super) fn set(figure: &Figure, labels: Labels<'_>, to: f64) {
    guarded(|| gauge!(figure.name, with(labels)).set(to));
}

pub(super) fn describe(figure: &Figure) {
    let Figure { name, kind, meaning, .. } = *figure;
    guarded(|| match kind {
        Kind::Counter => describe_counter!(name, Unit::Count, meaning),
        Kind::Milliseconds => describe_counter!(name, Unit::Milliseconds, meaning),
        Kind::Gauge => describe_gauge!(name, Unit::Count, meaning),
        Kind::Seconds => describe_gauge!(name, Unit::Seconds, meaning),
    });
}

fn with(labels: Labels<'_>) -> Vec<Label> {
    labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect()
}
