//! The laws of our own balancer.

mod smoke;
