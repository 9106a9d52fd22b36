//! Figures of watches, registrations and their connections, for whatever recorder of the `metrics`
//! crate the program has installed.
//!
//! What happens calls a function of a type here, whether the feature `metrics` is on or not; without it
//! [`facade`] does nothing, so that no other place need know. What a figure is called and means stands
//! in [`figures`]. A recorder is looked up each time: one that is installed late gets all that happens
//! from then on.

#[cfg_attr(not(feature = "metrics"), path = "silent.rs")]
mod facade;
mod figures;
mod outcome;
mod registration;
mod watch;

pub(crate) use facade::ON;
pub(crate) use outcome::{Link, renewal};
pub(crate) use registration::Registration;
pub(crate) use watch::{Watch, showing};

/// Tells the recorder what each figure means.
pub(crate) fn describe() {
    figures::ALL.iter().for_each(facade::describe);
}
