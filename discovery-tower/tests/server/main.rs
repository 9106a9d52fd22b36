//! The server that registers, against real clients on loopback and registries in memory.
#![cfg(feature = "server")]

mod client;
mod connections;
mod ending;
mod leaving;
mod registering;
mod registrar;
mod silence;
mod stacks;
mod support;
