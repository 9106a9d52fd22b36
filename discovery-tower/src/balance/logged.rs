//! What users have given us, in the log. To be told of is no reason to fail for the one who tells.

use std::fmt;

use super::flight::guarded;

/// Shows what it holds, also if that panics.
pub(crate) struct Logged<T>(pub(crate) T);

impl<T: fmt::Debug> fmt::Debug for Logged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        guarded(|| self.0.fmt(f)).unwrap_or_else(|| f.write_str(PANICKED))
    }
}

impl<T: fmt::Display> fmt::Display for Logged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        guarded(|| self.0.fmt(f)).unwrap_or_else(|| f.write_str(PANICKED))
    }
}

const PANICKED: &str = "(a panic)";
