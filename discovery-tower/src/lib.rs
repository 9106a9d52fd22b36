#![doc = include_str!("../README.md")]

mod avoid;
pub mod balance;
mod endpoints;
mod error;
#[cfg(feature = "tonic")]
pub mod grpc;
#[cfg(feature = "http")]
pub mod http;
mod load;
mod maker;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "server")]
pub mod server;
mod shared;
mod sync;

pub use avoid::Avoid;
pub use balance::{Balance, CallError, Limits};
pub use endpoints::Endpoints;
pub use error::BalanceError;
#[cfg(feature = "http")]
pub use http::{
    ClientError, HttpBalance, HttpClient, HttpClientBuilder, HttpConfig, HttpEndpoint, HttpError,
    HttpErrorKind, HttpMaker, HttpVersion, PoolConfig, PooledBody, PooledEndpoint, PooledMaker,
    ServedBy,
};
#[cfg(feature = "tls")]
pub use http::{Tls, TlsConfig, TlsError};
pub use load::{
    LoadMeasure, Measured, MeasuredLoad, MeasuredMaker, PeakEwmaMaker, PendingRequestsMaker,
};
pub use maker::{KeepIf, MakeEndpoint, same_address};
#[cfg(feature = "server")]
pub use server::{Advertise, Server, ServerError};
pub use shared::SharedBalance;
