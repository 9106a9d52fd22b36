//! One address in front of all services: forwards to instances that are there now.
//!
//! The way of a request: [`route`] says what it asks for; a page is made in [`pages`]; what is to be
//! forwarded gets its [`headers`] and [`body`] in order and is then sent in [`send`], as often as
//! [`retry`] allows, by the balancer of its [`service`]; who has it is [`asked`]. The [`catalog`] keeps the services as the
//! one watch of the source tells. What is counted is in [`metrics`] and, by the library, in [`library`].

mod asked;
mod body;
mod catalog;
mod demo;
mod handler;
mod headers;
mod library;
mod metrics;
mod options;
mod pages;
mod resting;
mod retry;
mod route;
mod run;
mod send;
mod service;

pub use options::{GatewayOptions, Policy};
pub use run::serve;
