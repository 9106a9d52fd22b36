//! TLS to instances: the step of connecting for addresses with `https` and `grpcs`.
//!
//! [`Tls`] opens connections for [`pool`](super::pool)ed endpoints, plain ones included, so that a
//! service may have instances of both kinds. What can be wrong with certificates is found when it is made,
//! and said in plain words; what is wrong between it and an instance is the
//! [`Connect`](super::HttpErrorKind::Connect) failure of that instance, in plain words, too.
//!
//! ```
//! use discovery_tower::http::tls::{Tls, TlsConfig};
//!
//! let error = Tls::new(TlsConfig::new().ca_file("/no/such/ca.pem")).unwrap_err();
//! assert!(error.to_string().starts_with("ca /no/such/ca.pem: No such file"));
//! ```

mod config;
mod error;
mod handshake;
mod identity;
mod load;
mod open;
mod words;

pub use config::TlsConfig;
pub use error::TlsError;
pub(super) use handshake::HandshakeError;
pub use open::Tls;
