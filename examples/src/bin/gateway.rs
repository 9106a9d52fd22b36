//! One address in front of all services; see its `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    discovery_examples::program::main::<discovery_examples::gateway::GatewayOptions>()
}
