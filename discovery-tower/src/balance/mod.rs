//! Our own balancer: cloneable, shared by all its clones, and never dead.
//!
//! A [`Driver`] follows the source, gets services ready, judges endpoints by the outcomes of calls, and
//! publishes an immutable set; a call picks from it with atomics only, clones the endpoint's service,
//! waits until that is ready and gives it the request. No call waits for the driver, and the driver
//! for no call.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "shares, means and halves of counts: what a cast takes away has no meaning here"
)]
#![allow(clippy::type_complexity, reason = "what a balancer is generic over, in full")]

mod attributes;
mod call;
mod driver;
mod ejection;
mod entropy;
mod error;
mod flight;
mod handle;
mod hub;
mod logged;
mod member;
pub(crate) mod observe;
mod outcome;
mod parts;
mod pieces;
mod policy;
mod protocol;
mod settle;
mod shared;

mod snapshot;
mod view;
mod weights;

pub use attributes::{Attributes, Availability, Describe};
pub use call::Call;
pub use driver::{Driver, SlowStart};
pub use ejection::{Ejection, SuccessRate};
pub use entropy::{Entropy, Seeded};
pub(crate) use error::Of;
#[cfg(feature = "http")]
pub(crate) use error::find;
pub use error::{CallError, Cause, Unavailable};
pub use flight::Completion;
#[cfg(feature = "http")]
pub(crate) use flight::guarded;
pub use handle::{Balance, Builder};
#[cfg(feature = "http")]
pub(crate) use hub::later;
pub use member::{Member, Standing};
pub use outcome::Outcome;
pub use policy::{Candidates, Finished, LeastPending, PeakEwma, Policy};
pub use protocol::{AnyCall, Judge, Origin, Plainly, Protocol, Served};
pub use shared::Limits;
pub use view::EndpointView;
