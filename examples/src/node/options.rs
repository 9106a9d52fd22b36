//! The options of `node`.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use discovery_core::{Address, InstanceId, ServiceName, Weight, Zone};

use super::behaviour::MOST_MS;
use crate::etcd::EtcdOptions;
use crate::options::{advertised, fraction, seconds};

/// One instance of a service: serves, registers in etcd, and answers every request with its name.
#[derive(Parser, Clone, Debug)]
#[command(name = "node", version)]
pub struct NodeOptions {
    /// The service it belongs to
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,

    /// Its id within the service [default: a new UUID; with --format heartbeat its URL]
    #[arg(long, value_name = "ID")]
    pub id: Option<InstanceId>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,

    /// The address to register [default: the one it listens on]
    #[arg(long, value_name = "http://HOST:PORT", value_parser = advertised)]
    pub advertise: Option<Address>,

    /// How many seconds, from 1 to 86400, the registration outlives the process
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub ttl: Duration,

    /// Its share of the traffic, from 0 to 65535
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = weight)]
    pub weight: Weight,

    /// Where it runs
    #[arg(long)]
    pub zone: Option<Zone>,

    /// How many milliseconds each answer takes
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MOST_MS))]
    pub delay_ms: u64,

    /// Which part of the requests, from 0 to 1, is answered with 500 at once
    #[arg(long, value_name = "PART", default_value_t = 0.0, value_parser = fraction)]
    pub fail_rate: f64,

    /// How many milliseconds it goes on serving between saying that it will go and deregistering
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(..=MOST_MS))]
    pub drain_ms: u64,

    /// What to do when a live registration holds the id
    #[arg(long, value_name = "WHAT", default_value = "wait")]
    pub on_conflict: OnConflictOption,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

/// What to do when a live registration holds the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnConflictOption {
    /// Wait until it is gone.
    Wait,
    /// End with exit code 3.
    Fail,
}

fn weight(text: &str) -> Result<Weight, String> {
    text.parse().map_err(|error: discovery_core::Invalid| error.to_string())
}
