//! The options of `gateway`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use discovery_core::Zone;

use crate::etcd::EtcdOptions;
use crate::fault::Fault;
use crate::options::suspect_seconds;

/// One address in front of all services: forwards /send/SERVICE/REST to an instance of SERVICE.
#[derive(Parser, Clone, Debug)]
#[command(name = "gateway", version)]
pub struct GatewayOptions {
    /// No etcd: a registry in memory with four nodes of the service demo, one slow and one faulty
    #[arg(long)]
    pub demo: bool,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    pub listen: String,

    /// How instances are chosen: p2c (by how many requests they have, and how long those take; also peak-ewma) or least-pending
    #[arg(long, value_name = "NAME", default_value = "p2c")]
    pub policy: Policy,

    /// The request header that a hashing policy hashes
    #[arg(long, value_name = "NAME")]
    pub hash_header: Option<String>,

    /// How many further instances are tried
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=100))]
    pub retries: u32,

    /// How many milliseconds all attempts together may take until the answer begins
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: u64,

    /// The zone whose instances to prefer
    #[arg(long)]
    pub zone: Option<Zone>,

    /// How many threads serve [default: one for each processor]
    #[arg(long, value_name = "CORES", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// How many seconds instances that vanish together from etcd are kept as suspects; 0: none are
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = suspect_seconds)]
    pub suspect_s: Duration,

    /// The directory to keep what etcd has in, to serve it at a start while etcd is away
    #[arg(long, value_name = "DIR")]
    pub last_good: Option<PathBuf>,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

impl GatewayOptions {
    /// Refuses what does not go together or is not there yet.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.demo && !self.etcd.etcd.is_empty() {
            return Err(Fault::usage("--demo and --etcd exclude each other"));
        }
        if !self.demo && self.etcd.etcd.is_empty() {
            return Err(Fault::usage("--etcd or --demo is missing: one of them must be given"));
        }
        if let Some(header) = &self.hash_header {
            let reason = format!("policy {:?} does not hash", self.policy.name());
            return Err(Fault::option("--hash-header", header, reason));
        }
        Ok(())
    }

    /// Says which options are taken and do nothing.
    pub(super) fn warn_of_what_has_no_effect(&self) {
        if let Some(zone) = &self.zone {
            tracing::warn!(%zone, "--zone has no effect yet: no zone is preferred");
        }
        if self.demo && self.last_good.is_some() {
            tracing::warn!("--last-good has no effect with --demo: its registry is never away");
        }
    }

    /// See `--timeout-ms`.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How instances are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By how many requests they have, and how long those take.
    P2c,
    /// The same by its other name.
    PeakEwma,
    /// By how many requests they have.
    LeastPending,
}

impl Policy {
    const ALL: [Self; 3] = [Self::P2c, Self::PeakEwma, Self::LeastPending];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::PeakEwma => "peak-ewma",
            Self::LeastPending => "least-pending",
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("policy {text:?} is not known (known: {known})")
        })
    }
}
