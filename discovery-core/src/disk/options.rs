//! Where and how the last good sets are kept.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Where and how the last good sets are kept.
#[derive(Clone, Debug)]
pub struct LastGoodOptions {
    pub(super) directory: PathBuf,
    pub(super) source_name: String,
    pub(super) max_age: Duration,
    pub(super) grace: Duration,
    pub(super) save_every: Duration,
}

impl LastGoodOptions {
    /// The sets are kept in `directory`, which is made if it is not there. It is for one source: give
    /// each its own.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            source_name: String::new(),
            max_age: Duration::from_secs(24 * 3600),
            grace: Duration::from_millis(500),
            save_every: Duration::from_secs(5),
        }
    }

    /// What tells the source from others: which registry, and where in it. It stands in the files, and
    /// one with another name is ignored, so that a program that was told to look elsewhere does not
    /// serve what it saw before. Default: empty.
    #[must_use]
    pub fn source_name(mut self, name: impl Into<String>) -> Self {
        self.source_name = name.into();
        self
    }

    /// A set that was saved longer ago is ignored. Default: 24 h.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How long the source has to load before readers are told the saved set. Zero: as soon as it has
    /// been read, unless the source has loaded by then. Default: 500 ms.
    #[must_use]
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// At most once in this time a set is saved, so that a restart finds it at most this much out of
    /// date. Default: 5 s.
    #[must_use]
    pub fn save_every(mut self, time: Duration) -> Self {
        self.save_every = time;
        self
    }
}

/// Why last good sets cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LastGoodError {
    /// The directory is not there and cannot be made, or is something else.
    #[error("the directory {directory:?} for last good sets cannot be used: {cause}")]
    Directory {
        /// The directory as it was given.
        directory: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// There is no tokio runtime to run the watches on.
    #[error("last good sets need a tokio runtime to be kept on")]
    NoRuntime,
}
