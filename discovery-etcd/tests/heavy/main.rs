//! What takes the processor more than it waits, apart from `rows`, whose deadlines it would stretch.

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod contract;
mod herd;
mod large;
mod many;
