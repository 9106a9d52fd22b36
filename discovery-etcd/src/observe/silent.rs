//! In place of the facade, without the feature `metrics`: nothing is told to anybody.

use super::figures::Figure;

pub(crate) const ON: bool = false;

pub(super) fn count(_: &Figure, _: &[(&'static str, &str)], _: u64) {}

pub(super) fn set(_: &Figure, _: &[(&'static str, &str)], _: f64) {}

pub(super) fn describe(_: &Figure) {}
