//! The clients beside those that a program would have without them: the same servers, on loopback, in
//! the same run. The names of its parts as arguments run these only.

mod calls;
mod first_use;
mod grpc;
mod requests;
mod server;

use std::process::ExitCode;

use discovery_benches::{Report, is_measuring, is_wanted};
use tokio::runtime::{Builder, Runtime};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<ExitCode> {
    let mut met = true;
    for (name, run) in [
        ("requests", requests::run as fn() -> Outcome<Report>),
        ("first-use", first_use::run),
        ("grpc", grpc::run),
    ] {
        if is_wanted(name) {
            met &= run()?.show(is_measuring());
        }
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The servers have a thread, and the clients another one.
fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
