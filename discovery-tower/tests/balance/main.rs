//! The laws of our own balancer.
#![allow(clippy::cast_precision_loss, reason = "shares of counts that are small")]

mod departed;
mod judgement;
mod laws;
mod peers;
mod places;
mod reviews;
mod smoke;
mod stream;
mod support;
mod timing;
