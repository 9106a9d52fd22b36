//! Following a prefix: a state machine without I/O, the translation of keys and values, and the task
//! that joins them to a connection and a publisher.

mod audit;
mod machine;
mod table;
mod task;
mod translate;

pub(crate) use machine::Machine;
pub(crate) use task::Follower;
pub(crate) use translate::Translator;

#[cfg(test)]
mod chaos_tests;
