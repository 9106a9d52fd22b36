#![doc = include_str!("../README.md")]

mod change;
pub mod combine;
#[cfg(feature = "disk")]
pub mod disk;
mod fixed;
#[cfg(any(test, all(fuzzing, feature = "disk")))]
pub mod fuzzing;
#[cfg(feature = "health")]
mod health;
mod instance;
mod memory;
mod publish;
mod registration;
mod source;
pub mod stabilise;
mod status;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use change::Change;
pub use fixed::StaticSource;
#[cfg(feature = "health")]
pub use health::Health;
pub use instance::{
    Address, Instance, InstanceId, InstanceKey, InstanceStatus, Invalid, ServiceName, Weight, Zone,
};
pub use memory::MemoryRegistry;
pub use publish::{Changes, Publisher, Replacement, Subscriber, Update};
pub use registration::{
    Conflict, Desired, RefusedUpdate, Registrar, Registration, RegistrationError,
    RegistrationState, RegistrationStatus, Unconfirmed,
};
pub use source::{InstanceChanges, Source};
pub use status::{SourceError, SourceGone, State, Status, StatusReader};
