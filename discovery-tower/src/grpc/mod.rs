//! A channel for the clients that tonic generates: calls go to the instances of a service that are
//! alive now.
//!
//! `OrdersClient::new(Channel::new(&source, &"orders".parse()?))` is all there is to it; how it looks
//! with a server on the other side, and when to set what, is in `docs/grpc.md`.
//!
//! # Balancing
//! A [`Channel`] is a [`Balance`](crate::Balance) over connections of HTTP/2, one to each instance, which
//! are made before there is a call. Each call is balanced, not each connection. One that certainly did
//! not reach an instance goes to another one, stream and all, unseen by the caller: when no connection
//! can be made, the instance refuses the stream, or says that it closes the connection and did not count
//! the call in. The [status](crate::http::Grpc) says how a call went, and an answer that ends without one
//! is a failure.
//!
//! # Deadlines
//! The time that a call [has](tonic::Request::set_timeout), or else that of the
//! [channel](ChannelBuilder::deadline), and no more than its extension [`Deadline`](crate::http::Deadline)
//! says, is for all of it: waiting for an instance, all attempts, and the
//! answer up to its status. What is left of it is told to the instance. When it is over, the call ends
//! with `DEADLINE_EXCEEDED`; if an instance has it then, that counts as a failure of the instance. With a
//! stream, that is seen when the stream is read.
//!
//! # Statuses
//! All errors are a [`Status`](tonic::Status), behind which is a [`ChannelError`] that tells which instance
//! had the call, also where the instance sent the status. Nobody to send to, no connection, and a
//! connection that is lost are `UNAVAILABLE`; messages that cannot be sent are what their encoder says; an
//! answer that is not gRPC is what its HTTP status says. An answer has the extension
//! [`ServedBy`](crate::ServedBy); [`FromEndpoint`](crate::http::FromEndpoint) asks answers and statuses
//! alike.
//!
//! # The end
//! Dropping a call or the stream of its answers cancels it: the instance is told, and nothing more is
//! sent. When the last clone of the channel is dropped, the watch ends and connections that are not used
//! close; calls that are under way go on.

mod builder;
mod call;
mod calls;
mod channel;
mod deadline;
mod endpoint;
mod error;
mod held;
mod incoming;
mod request;
mod response;
mod run;
mod status;

pub use builder::ChannelBuilder;
pub use channel::{Channel, ChannelFuture};
pub use error::ChannelError;
pub use request::RequestBody;
pub use response::ResponseBody;
