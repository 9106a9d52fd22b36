//! Following a prefix: a state machine without I/O, the translation of keys and values, and the task
//! that joins them to a connection and a publisher.

mod machine;
mod pulse;
mod task;
mod translate;

pub(crate) use machine::Machine;
pub(crate) use task::follow;

#[cfg(test)]
mod chaos_tests;
