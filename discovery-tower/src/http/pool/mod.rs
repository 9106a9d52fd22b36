//! An endpoint service that connects before it is given a request, over HTTP/1.1 and HTTP/2.
//!
//! A client that connects when it is called says that it is ready while its instance is dead, and each
//! request finds out for itself. A [`PooledEndpoint`] connects in `poll_ready`: when it is ready, there
//! is a connection, and when it is not, no request is lost, so a caller goes on to another instance.

mod backoff;
mod body;
mod config;
mod connection;
mod dial;
mod driver;
mod endpoint;
mod failure;
mod lease;
mod maker;
mod open;
mod reservation;
mod send;
mod shared;
mod state;

pub use body::PooledBody;
pub use config::{HttpVersion, PoolConfig};
pub use endpoint::PooledEndpoint;
pub use maker::PooledMaker;
pub(super) use open::is_secure;
pub use open::{ByteStream, Open, Opening, ReadWrite, Tcp};
pub use send::PooledFuture;
