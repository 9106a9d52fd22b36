//! One instance of a service of gRPC; see its `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    discovery_examples::program::main::<discovery_examples::grpc::ServerOptions>()
}
