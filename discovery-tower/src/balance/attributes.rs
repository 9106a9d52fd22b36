//! What a balancer wants to know of an endpoint, beside how to reach it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use discovery_core::{Instance, InstanceStatus};

/// What an endpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// The share of requests it should have, in proportion to the others; 0: none.
    pub weight: u32,
    /// Whether it wants requests.
    pub availability: Availability,
    /// Whether it may be gone: it is used, and out at its first failure.
    pub suspect: bool,
}

/// Whether an endpoint wants requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// It does.
    Up,
    /// Only when nobody else is up: it is about to leave, and still serves.
    LastResort,
    /// It gets none.
    Out,
}

impl Default for Attributes {
    /// Up, with a weight of 1.
    fn default() -> Self {
        Self { weight: 1, availability: Availability::Up, suspect: false }
    }
}

impl Attributes {
    /// Sets the weight.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Sets whether it wants requests.
    #[must_use]
    pub fn availability(self, availability: Availability) -> Self {
        Self { availability, ..self }
    }

    /// Sets whether it may be gone.
    #[must_use]
    pub fn suspect(self, suspect: bool) -> Self {
        Self { suspect, ..self }
    }
}

/// An endpoint type that tells its [`Attributes`]. By default they are the default ones.
///
/// For a type of another crate, give the builder a function instead: see
/// [`Builder::described_by`](super::Builder::described_by).
pub trait Describe {
    /// What the endpoint says of itself.
    fn attributes(&self) -> Attributes {
        Attributes::default()
    }
}

impl Describe for Instance {
    fn attributes(&self) -> Attributes {
        let availability = match self.status {
            InstanceStatus::Up => Availability::Up,
            InstanceStatus::Draining => Availability::LastResort,
            _ => Availability::Out,
        };
        Attributes { weight: self.weight.get().into(), availability, suspect: self.suspect }
    }
}

impl<T: Describe + ?Sized> Describe for Arc<T> {
    fn attributes(&self) -> Attributes {
        (**self).attributes()
    }
}

macro_rules! describe_by_default {
    ($($type:ty),*) => { $(impl Describe for $type {})* };
}

describe_by_default!((), &'static str, String, SocketAddr, IpAddr, u16, u32, u64, usize);

#[cfg(feature = "http")]
describe_by_default!(http::Uri, http::uri::Authority);
