//! Keeping an instance registered: a state machine without I/O, and the task that joins it to a
//! connection and to the handle that the program holds.

mod lease;
mod machine;
mod messages;
mod options;
mod task;

pub(crate) use messages::Plan;
pub use options::{OnConflict, RegisterOptions};
pub(crate) use task::keep;

#[cfg(test)]
mod chaos_tests;
