//! `discovery-etcd` on a real etcd, each time beside the same done with bare `etcd-client`.
//!
//! Not with criterion: what is measured are moments in other tasks and other processes, and what
//! counts are percentiles. Ours and the floor are measured in turns, so that whatever else the machine
//! does hits both alike. The names of its parts as arguments run these only.

mod batches;
mod delay;
mod first_sync;
mod registrations;
mod restart;
mod resync;
mod services;

use std::process::ExitCode;

use discovery_benches::etcd::Result;
use discovery_benches::{is_measuring, is_wanted};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut met = true;
    for (name, run) in [
        ("delay", (|| Box::pin(delay::run())) as Run),
        ("first-sync", || Box::pin(first_sync::run())),
        ("resync", || Box::pin(resync::run())),
        ("batches", || Box::pin(batches::run())),
        ("services", || Box::pin(services::run())),
        ("registrations", || Box::pin(registrations::run())),
        ("restart", || Box::pin(restart::run())),
    ] {
        if is_wanted(name) {
            met &= run().await?.show(is_measuring());
        }
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Run = fn() -> std::pin::Pin<Box<dyn Future<Output = Result<discovery_benches::Report>>>>;
