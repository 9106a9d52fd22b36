//! How a server ends.

use std::io;

use discovery_core::{Invalid, RegistrationError, Unconfirmed};

/// Why a server did not serve, or ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Something that it was told cannot be; nothing was served or registered.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Its listener does not say where it is bound; nothing was served or registered.
    #[error("the listener does not say where it is bound: {0}")]
    Unbound(io::Error),
    /// Its registration has ended: somebody else holds the id, or the registry cannot hold such an
    /// instance. What was connected has been served in good order.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
}

/// How a server ended that was asked to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stopped {
    /// Why it is not certain that the registry has dropped the instance, if it is not.
    pub unconfirmed: Option<Unconfirmed>,
    /// How many connections were cut off because they did not end in time.
    pub cut_off: usize,
}
