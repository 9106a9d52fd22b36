//! Why something in etcd is no instance, or an instance cannot be in etcd.

use std::fmt::Display;

use discovery_core::Invalid;

/// Why a key or value is not an instance. One line, whatever the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(String);

impl Undecodable {
    /// Longest reason, in characters.
    const LONGEST: usize = 230;

    /// The key is not of this form (`PREFIX/SERVICE/ID`).
    pub fn key(form: &str) -> Self {
        Self::value(format_args!("the key is not of the form {form}"))
    }

    /// The value cannot be read, for this reason. It may quote the value.
    pub fn value(reason: impl Display) -> Self {
        // What a value can hold must not forge lines in a log.
        Self(escaped(&reason.to_string()).take(Self::LONGEST).collect())
    }
}

/// The text as one line: control characters are escaped, and what Unicode takes for the end of a line.
pub(crate) fn escaped(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|c| {
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let escape = breaks.then(|| c.escape_debug());
        escape.into_iter().flatten().chain((!breaks).then_some(c))
    })
}

impl From<Invalid> for Undecodable {
    fn from(invalid: Invalid) -> Self {
        Self::value(invalid)
    }
}

/// Why an instance cannot be in etcd in this format, whatever happens to it. The message names the
/// field and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Unencodable(#[from] Invalid);

impl Unencodable {
    /// `field` names the thing in words (`instance id`), `reason` says what this format expects.
    pub fn new(field: &'static str, value: impl Display, reason: impl Into<String>) -> Self {
        Self(Invalid::new(field, value.to_string(), reason.into()))
    }

    /// The field that the format cannot hold.
    pub fn field(&self) -> &'static str {
        self.0.field()
    }

    /// Its value, shortened if it is long.
    pub fn value(&self) -> &str {
        self.0.value()
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        self.0.reason()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let forged = Undecodable::value("\"up\"\n\x1b[31mINFO forged").to_string();
        assert_eq!(forged, r#""up"\n\u{1b}[31mINFO forged"#);
        let separated = Undecodable::value("up\u{2028}INFO\u{2029}").to_string();
        assert_eq!(separated, r"up\u{2028}INFO\u{2029}");
        assert_eq!(Undecodable::value("ä".repeat(1000)).to_string().chars().count(), 230);
        assert_eq!(Undecodable::key("A/B").to_string(), "the key is not of the form A/B");
    }

    #[test]
    fn what_cannot_be_held_is_named_with_its_field_and_value() {
        let error = Unencodable::new("instance id", "a/b", "no slash");
        assert_eq!(error.to_string(), r#"instance id "a/b": no slash"#);
        assert_eq!(
            (error.field(), error.value(), error.reason()),
            ("instance id", "a/b", "no slash")
        );
    }
}
