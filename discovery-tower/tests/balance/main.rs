//! The laws of our own balancer.

mod judgement;
mod laws;
mod smoke;
mod stream;
mod support;
