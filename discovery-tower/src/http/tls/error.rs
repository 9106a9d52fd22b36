//! Settings that cannot work.

use std::fmt;
use std::path::{Path, PathBuf};

/// TLS settings that cannot work. The message is one line, and names the setting, its file if it has one,
/// and what is wrong; never what stands in a file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{setting}{}: {reason}", Shown(path.as_deref()))]
pub struct TlsError {
    setting: &'static str,
    path: Option<PathBuf>,
    reason: String,
}

impl TlsError {
    pub(super) fn new(
        setting: &'static str,
        path: Option<&Path>,
        reason: impl fmt::Display,
    ) -> Self {
        Self { setting, path: path.map(Into::into), reason: reason.to_string() }
    }

    /// The setting, in a word: `ca`, `cert`, `key`, `server name`.
    pub fn setting(&self) -> &str {
        self.setting
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A path for a message of one line: a configuration can name any.
struct Shown<'a>(Option<&'a Path>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = self.0 else { return Ok(()) };
        f.write_str(" ")?;
        for c in path.to_string_lossy().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
