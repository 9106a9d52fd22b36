//! The formats that come with this crate, by their names in configuration.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use discovery_core::Invalid;

use super::{Format, Heartbeat, Native};

/// A format that comes with this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatName {
    /// [`Native`].
    #[default]
    Native,
    /// [`Heartbeat`].
    Heartbeat,
}

impl FormatName {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Native, Self::Heartbeat];

    /// Its name: `native` or `heartbeat`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Heartbeat => "heartbeat",
        }
    }

    /// Whether keys stand under a prefix that can be chosen.
    pub fn has_prefix(self) -> bool {
        self == Self::Native
    }

    /// The format, with its keys under `prefix` if it [has one](Self::has_prefix).
    pub fn format(self, prefix: &str) -> Arc<dyn Format> {
        match self {
            Self::Native => Arc::new(Native::new(prefix)),
            Self::Heartbeat => Arc::new(Heartbeat),
        }
    }
}

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<FormatName> for String {
    fn from(name: FormatName) -> Self {
        name.as_str().to_owned()
    }
}

impl FromStr for FormatName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Invalid::new("format", text, format!("not known (known: {known})"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_name() {
        for name in FormatName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let prefix = |name: FormatName| name.format("/a/").prefix(None);
        assert_eq!(prefix(FormatName::Native), b"/a/");
        assert_eq!(prefix(FormatName::Heartbeat), b"heartbeat|");
        for unknown in ["", "Native", "json"] {
            let error = unknown.parse::<FormatName>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("format {unknown:?}: ")), "{error}");
            assert!(error.contains("native, heartbeat"), "{error}");
        }
    }
}
