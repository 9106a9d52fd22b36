//! Why a program ends before it was told to, and the exit code that says so.

use std::fmt::Display;

/// The reason, in one line.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// An option, a file or the address to listen on cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The id is held by another live registration, and we were told not to wait.
    #[error("{0}")]
    Conflict(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Fault {
    /// `option` is what the user wrote (`--listen`), `value` what stood there.
    pub fn option(option: &str, value: impl Display, reason: impl Display) -> Self {
        Self::usage(format!("{option} {value}: {reason}"))
    }

    /// A fault of the command line or of a file, made one line whatever its parts hold.
    pub fn usage(text: impl AsRef<str>) -> Self {
        Self::Usage(one_line(text.as_ref()))
    }

    /// A fault of the system we run on.
    pub fn failed(text: impl AsRef<str>) -> Self {
        Self::Failed(one_line(text.as_ref()))
    }

    /// 2 for wrong usage, 3 for a conflict, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Conflict(_) => 3,
        }
    }
}

/// The text with every run of white space that breaks a line made one space, and other control
/// characters escaped: who reads stderr line by line gets the whole message.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" ");
    let mut out = String::with_capacity(joined.len());
    for character in joined.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line() {
        let fault = Fault::option("--config", "a\nb", "line 1:\n  \n\x1b[31mbad\r\n");
        assert_eq!(fault.to_string(), "--config a b: line 1: \\u{1b}[31mbad");
        assert_eq!(fault.exit_code(), 2);
    }
}
