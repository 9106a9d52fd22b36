//! The laws of our own balancer.

mod laws;
mod smoke;
mod support;
