//! The connection that many users share: all watches of a registry are on one stream of one
//! connection, all its registrations on another one.
//!
//! A user [joins](Link::join) and gets a [`Ticket`]: it is told whether there is a connection and what
//! its watch says, in one order. [`machine`] decides about the connection, [`watches`] knows who
//! watches what, [`task`] does what they say and never waits for a user.

mod machine;
mod pulse;
mod streams;
mod task;
mod ticket;
mod watches;

pub(crate) use task::Link;
pub(crate) use ticket::{News, Ticket};

/// Tells the users of a link apart.
type UserId = u64;
