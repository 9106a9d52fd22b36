//! The wall clock of one process, to be turned while it runs.
//!
//! Nobody may turn the machine's clock for a test. libfaketime is loaded into the one process instead and
//! answers its questions for the time. The monotonic clock is left alone: it does not jump in reality
//! either.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    data::DataDir,
    version::{cache, named, read_setup},
};

/// A wall clock that is right until it is turned.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    dir: DataDir,
}

impl FakeClock {
    /// A clock, or `None` where there is no libfaketime; that is said on standard error, since a test
    /// can then only be skipped.
    ///
    /// # Panics
    ///
    /// If `DISCOVERY_TEST_LIBFAKETIME` names a file that is not there.
    pub fn new() -> Option<Self> {
        let library = named("DISCOVERY_TEST_LIBFAKETIME").or_else(|| {
            read_setup(&cache().join("env"))
                .into_iter()
                .find_map(|(name, path)| (name == "LIBFAKETIME").then_some(path))
        });
        let Some(library) = library else {
            warn("SKIPPED: no libfaketime: run ./scripts/setup, or set DISCOVERY_TEST_LIBFAKETIME");
            return None;
        };
        let clock = Self { library, dir: DataDir::new() };
        clock.turn(0);
        Some(clock)
    }

    /// Lets `command` live by this clock.
    pub fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// So many seconds from the right time, from now on.
    pub fn turn(&self, seconds: i64) {
        // Renamed into place: a reader in between must not find half of it.
        let new = self.dir.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a new directory takes a file");
        fs::rename(new, self.file()).expect("a file can be renamed");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}

/// The test harness shows what a test prints only if it fails, and nobody would hear of this.
fn warn(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "WARNING: {what}").ok();
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    /// What a new process under this clock takes for the time, in seconds from ours.
    fn off(clock: &FakeClock) -> i64 {
        let mut command = Command::new("date");
        command.arg("+%s");
        clock.rule(&mut command);
        let output = command.output().expect("date can be started");
        let seen: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
        seen - i64::try_from(now.as_secs()).expect("it fits for a long time")
    }

    #[test]
    fn it_is_right_until_it_is_turned() {
        let Some(clock) = FakeClock::new() else { return };
        for offset in [0, 3_600, -3_600, 0] {
            clock.turn(offset);
            let off = off(&clock);
            assert!((off - offset).abs() < 60, "{off} s off, not {offset}");
        }
    }
}
