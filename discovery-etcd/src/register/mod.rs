//! Keeping an instance registered: a state machine without I/O, the task that joins it to a connection
//! and to the handle that the program holds, and the thread on which it runs.

mod health;
mod lease;
mod machine;
mod messages;
mod options;
mod shared;
mod task;
mod thread;
mod watchdog;

pub(crate) use health::ask as ask_health;
pub(crate) use machine::Machine;
pub(crate) use messages::Plan;
pub use options::{OnConflict, RegisterOptions};
pub(crate) use shared::{Shared, SharedLease, Tenancy};
pub(crate) use task::{Keeper, Told};
pub(crate) use thread::Thread;
pub use watchdog::Watchdog;

#[cfg(test)]
mod chaos_tests;
