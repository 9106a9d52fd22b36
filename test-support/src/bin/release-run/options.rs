//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use discovery_test_support::Version;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Release {
    #[value(name = "3.5")]
    V3_5,
    #[value(name = "3.4")]
    V3_4,
}

/// Lets etcd and its networks fail at random for minutes, and proves that nothing wrong was told.
#[derive(Debug, Parser)]
#[command(name = "release-run")]
pub(crate) struct Options {
    /// Repeat the plan of this seed [default: a fresh one, which is printed].
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// How long, in minutes.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,

    /// The release of etcd [default: by the seed].
    #[arg(long)]
    etcd: Option<Release>,

    /// How many members the cluster has, 1 or 3 [default: by the seed].
    #[arg(long, value_parser = ["1", "3"])]
    members: Option<String>,

    /// Print what would happen, and do nothing.
    #[arg(long)]
    pub(crate) plan: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.1..=1440.0).contains(number));
    number.ok_or_else(|| "a number of minutes from 0.1 to 1440 is wanted".to_owned())
}

impl Options {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    pub(crate) fn etcd(&self) -> Option<Version> {
        self.etcd.map(|release| match release {
            Release::V3_5 => Version::V3_5,
            Release::V3_4 => Version::V3_4,
        })
    }

    pub(crate) fn members(&self) -> Option<usize> {
        self.members.as_ref().map(|members| if members == "3" { 3 } else { 1 })
    }

    /// The command that repeats the plan.
    pub(crate) fn again(&self, seed: u64) -> String {
        let mut again = format!("scripts/release-run --seed {seed} --minutes {}", self.minutes);
        if let Some(version) = self.etcd() {
            again.push_str(" --etcd ");
            again.push_str(&version.to_string());
        }
        if let Some(members) = &self.members {
            again.push_str(" --members ");
            again.push_str(members);
        }
        again
    }
}
