//! One address in front of all services: forwards to instances that are there now.
//!
//! The way of a request: [`route`] says what it asks for; a page is made in [`pages`]; what is to be
//! forwarded gets its [`headers`] in order and is then sent in [`send`] by the balancer of its
//! [`service`]. The [`catalog`] keeps the services as the one watch of the source tells. What is counted
//! is in [`metrics`] and, by the library, in [`library`].

mod catalog;
mod demo;
mod handler;
mod headers;
mod library;
mod metrics;
mod options;
mod pages;
mod route;
mod run;
mod send;
mod service;

pub use options::{GatewayOptions, Policy};
pub use run::serve;
