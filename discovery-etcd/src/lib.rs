#![doc = include_str!("../README.md")]

mod backoff;
mod config;
#[cfg(test)]
mod fake;
mod native;
mod register;
mod registry;
mod rotation;
#[cfg(feature = "tls")]
mod tls;
mod wait;
mod watch;
mod wire;

pub use config::{ConfigError, EtcdConfig};
pub use register::{OnConflict, RegisterOptions};
pub use registry::EtcdRegistry;
