#![doc = include_str!("../README.md")]

mod backoff;
mod config;
#[cfg(test)]
mod fake;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod link;
mod observe;
mod register;
mod registry;
mod rotation;
#[cfg(feature = "tls")]
mod tls;
mod wait;
mod watch;
mod wire;

pub use config::{ConfigError, EtcdConfig};
pub use register::{OnConflict, RegisterOptions, Watchdog};
pub use registry::{EtcdRegistry, EtcdRegistryBuilder};
