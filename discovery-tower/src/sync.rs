//! What the threads of a balancer share, under one name: a test puts a scheduler under it that tries
//! the orders in which their steps can happen.

pub(crate) use std::sync::atomic;

pub(crate) use arc_swap::ArcSwap;
pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use tokio::sync::Notify;
