//! One instance of a service, which answers with its name and registers itself in etcd.

mod behaviour;
mod options;
mod registration;
mod run;
mod serve;

pub use behaviour::Behaviour;
pub use options::{NodeOptions, OnConflictOption};
pub use serve::Node;
