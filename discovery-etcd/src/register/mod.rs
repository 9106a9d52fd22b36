//! Keeping an instance registered: a state machine without I/O, and the task that joins it to a
//! connection and to the handle that the program holds.

mod machine;
mod options;
mod task;

pub use options::{OnConflict, RegisterOptions};
pub(crate) use machine::Plan;
pub(crate) use task::keep;
