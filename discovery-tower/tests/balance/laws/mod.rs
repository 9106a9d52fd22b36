//! The laws of `Balance`, one after the other. A test is named after the law that it holds it to.

mod attribution;
mod errors;
mod exactness;
mod failing;
mod retries;
mod set;
mod shares;
mod slow_start;
