//! How a program begins and ends: options, logs, a runtime, one line and an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use crate::fault::Fault;
use crate::options::{self, Parsed};
use crate::{logging, output};

/// A program: its options, and what it does with them.
pub trait Program: clap::Parser {
    /// How many threads serve requests; `None`: one for each processor.
    fn workers(&self) -> Option<usize> {
        None
    }

    /// Checks what can be checked without doing anything, then runs until it is told to stop.
    fn run(self) -> impl Future<Output = Result<(), Fault>>;
}

/// Runs `P` with the arguments of this process.
pub fn main<P: Program>() -> ExitCode {
    match start::<P>(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            output::notice(&format!("error: {fault}"));
            ExitCode::from(fault.exit_code())
        }
    }
}

fn start<P: Program>(args: impl IntoIterator<Item = OsString>) -> Result<(), Fault> {
    let program = match options::parse::<P>(args, std::env::var_os(options::ETCD_VARIABLE))? {
        Parsed::Run(program) => program,
        Parsed::Help(text) => {
            // Help that nobody reads is no fault.
            let _ = output::line(text.trim_end());
            return Ok(());
        }
    };
    logging::start();
    let runtime = runtime(program.workers())
        .map_err(|error| Fault::failed(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(program.run());
    // Tasks that still wait for a network that is away must not hold up the end.
    runtime.shutdown_background();
    ended
}

fn runtime(workers: Option<usize>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}
