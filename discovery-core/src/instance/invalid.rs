//! The one error for bad input to a validated part.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A value that a field does not take. The message names the field and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {}: {reason}", shown(.value))]
pub struct Invalid {
    field: &'static str,
    value: String,
    reason: Cow<'static, str>,
}

impl Invalid {
    /// Longest part of a value that is kept for the message, in characters.
    const SHOWN: usize = 80;

    /// `field` names the thing in words (`service name`), `reason` says what is expected.
    pub fn new(
        field: &'static str,
        value: impl AsRef<str>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        let value = value.as_ref();
        let mut kept: String = value.chars().take(Self::SHOWN).collect();
        if kept.len() < value.len() {
            kept.push('…');
        }
        Self { field, value: kept, reason: reason.into() }
    }

    /// The field that refused the value.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with the value.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The value as it came, shortened if it was long.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Quoted, with control characters escaped: an error is one line whatever the value holds.
fn shown(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    // Writing to a String does not fail.
    let _ = write!(out, "{value:?}");
    out
}
