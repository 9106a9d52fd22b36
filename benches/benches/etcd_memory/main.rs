//! What `discovery-etcd` takes of the heap on a real etcd: in first syncs, in a resync, and for many
//! watches.
//!
//! Bytes are counted by the allocator, as asked for. Each number is measured in a process of its own,
//! in which nothing else happens: this program starts itself with what to do as arguments, and reads
//! what the other prints. The names of its parts as arguments run these only.

mod first_sync;
mod measured;
mod resync;
mod services;

use std::process::ExitCode;

use discovery_benches::etcd::Result;
use discovery_benches::{is_measuring, is_wanted};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    if let Some([what, count, url]) = measured::wanted() {
        let count = count.parse()?;
        match what.as_str() {
            "first-sync" => first_sync::measure(count, url).await?,
            "page" => first_sync::measure_page(count, url).await?,
            "resync" => resync::measure(count, url).await?,
            "services" => services::measure(count, url).await?,
            _ => return Err(format!("{what} is not known").into()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut met = true;
    if is_wanted("first-sync") {
        met &= first_sync::run().await?.show(is_measuring());
    }
    if is_wanted("resync") {
        met &= resync::run().await?.show(is_measuring());
    }
    if is_wanted("services") {
        met &= services::run().await?.show(is_measuring());
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
