//! Validated names: of a service, of an instance, of a zone.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest name, in bytes (that of a DNS name).
const MAX: usize = 253;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path) => {
        $(#[$doc])*
        ///
        /// Cheap to clone: the text is shared.
        #[derive(Clone, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                // A text that is shared need not be fetched from memory.
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`Invalid`] names the field, the value and what is expected.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                let text = text.as_ref();
                match $check(text) {
                    Ok(()) => Ok(Self(Arc::from(text))),
                    Err(reason) => Err(Invalid::new($field, text, reason)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Invalid;

            fn try_from(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// The name of a service: ASCII letters, digits, `.`, `_` and `-`, 1 to 253 of them.
    ServiceName, "service name", plain
}

name! {
    /// The id of an instance, unique within its service: 1 to 253 bytes without white space or control
    /// characters. It may be a path or a URL; whether a registry can hold such an id is its own matter.
    InstanceId, "instance id", visible
}

name! {
    /// The zone an instance runs in: ASCII letters, digits, `.`, `_` and `-`, 1 to 253 of them.
    Zone, "zone", plain
}

fn plain(text: &str) -> Result<(), &'static str> {
    length(text)?;
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        Ok(())
    } else {
        Err("only letters, digits, '.', '_' and '-' are allowed")
    }
}

fn visible(text: &str) -> Result<(), &'static str> {
    length(text)?;
    if is_visible(text) {
        Ok(())
    } else {
        Err("white space and control characters are not allowed")
    }
}

/// Whether there is neither white space nor a control character.
pub(super) fn is_visible(text: &str) -> bool {
    // Nearly all are ASCII, which needs no tables.
    text.bytes().all(|b| b.is_ascii_graphic())
        || !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

fn length(text: &str) -> Result<(), &'static str> {
    match text.len() {
        0 => Err("must not be empty"),
        1..=MAX => Ok(()),
        _ => Err("longer than 253 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_errors_name_the_field_and_the_value() {
        assert_eq!(ServiceName::new("orders.v1-a_b").unwrap().as_str(), "orders.v1-a_b");
        for (bad, why) in [
            ("", "must not be empty"),
            ("a/b", "only letters"),
            ("a b", "only letters"),
            ("ä", "only letters"),
            (&"x".repeat(254), "longer than 253"),
        ] {
            let error = ServiceName::new(bad).unwrap_err();
            assert_eq!(error.field(), "service name");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(ServiceName::new("x".repeat(253)).is_ok());
        assert_eq!(
            InstanceId::new("a b").unwrap_err().to_string(),
            r#"instance id "a b": white space and control characters are not allowed"#
        );
        for good in ["10.0.0.7:8080", "a/b", "http://10.0.0.7:8080"] {
            assert_eq!(InstanceId::new(good).unwrap().as_str(), good);
        }
        assert!(InstanceId::new("a\0b").unwrap_err().to_string().contains(r"a\0b"));
        assert!(Zone::new("eu-1a").is_ok());
    }

    #[test]
    fn serde_checks_too() {
        assert_eq!(serde_json::from_str::<ServiceName>("\"a\"").unwrap().as_str(), "a");
        let error = serde_json::from_str::<ServiceName>("\"a b\"").unwrap_err().to_string();
        assert!(error.contains("service name \"a b\""), "{error}");
        assert_eq!(serde_json::to_string(&Zone::new("z").unwrap()).unwrap(), "\"z\"");
    }
}
