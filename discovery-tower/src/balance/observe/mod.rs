//! Figures of balancers, for whatever recorder of the `metrics` crate the program has installed.
//!
//! What happens calls a function of a type here, whether the feature `metrics` is on or not; without it
//! [`seen`] is another file, in which all of it is empty. What a figure is called and means stands in
//! [`figures`].
//!
//! Calls tell nobody: they add to counts of the balancer, and those that go well to nothing but what
//! their endpoint counts anyhow. The driver adds up what has come since and tells it, at most once a
//! second. The recorder is looked up each time: one that is installed late gets all that is told from
//! then on.

#[cfg(feature = "metrics")]
mod counts;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "metrics")]
mod figures;
#[cfg(feature = "metrics")]
mod gauges;
#[cfg_attr(not(feature = "metrics"), path = "silent.rs")]
mod seen;
#[cfg(feature = "metrics")]
mod telling;

#[cfg(feature = "http")]
pub(crate) use seen::retried;
pub(crate) use seen::{Seen, Telling, Told, describe};
