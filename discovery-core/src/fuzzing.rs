//! What must hold of foreign bytes, whatever they are: called by the targets in `fuzz/`, and by tests
//! with each file of their corpora. Built for these two alone.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "disk")]
pub use crate::disk::fuzzing::last_good;
use crate::{Address, InstanceId, Invalid, ServiceName, Weight, Zone};

/// An address, a name or a weight is refused in one line, or means the same when it is written and
/// read again. Says whether it is an address.
pub fn address(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    again::<ServiceName>(&text);
    again::<InstanceId>(&text);
    again::<Zone>(&text);
    again::<Weight>(&text);
    let Some(address) = again::<Address>(&text) else { return false };

    let (scheme, whole) = (address.scheme(), address.as_str());
    assert_eq!(scheme, scheme.to_ascii_lowercase());
    assert!(!whole.chars().any(|c| c.is_control() || c.is_whitespace()), "{whole}");
    if let Some(path) = address.unix_path() {
        assert_eq!(whole, format!("unix://{path}"));
        assert!(path.starts_with('/') && address.is_unix());
        assert_eq!((address.authority(), address.host(), address.port()), ("", "", None));
    } else {
        assert_eq!(whole, format!("{scheme}://{}", address.authority()));
        assert!(!address.is_unix() && !address.host().is_empty() && address.port() != Some(0));
        if let Ok(ip) = address.host().parse::<IpAddr>() {
            let port = address.port().unwrap_or(1);
            let socket = Address::from_socket(scheme, (ip, port).into()).unwrap();
            assert_eq!((socket.host().parse(), socket.port()), (Ok(ip), Some(port)));
        }
    }
    true
}

/// Parses the text; what it gives is read again from its own text, and from its JSON.
fn again<T>(text: &str) -> Option<T>
where
    T: FromStr<Err = Invalid> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string().parse().as_ref(), Ok(&value));
            let json = serde_json::to_vec(&value).unwrap();
            assert_eq!(serde_json::from_slice::<T>(&json).unwrap(), value);
            Some(value)
        }
        Err(error) => {
            one_line(&error);
            None
        }
    }
}

/// The text can stand in a log: it is one line, and not a long one.
pub(crate) fn one_line(text: &dyn Display) {
    let text = text.to_string();
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.is_empty() && !text.contains(breaks), "{text:?}");
    assert!(text.chars().count() <= 1000, "{} characters", text.chars().count());
}

#[cfg(test)]
mod tests {
    use discovery_test_support::replay;

    use super::*;

    #[test]
    fn the_corpus_of_addresses() {
        replay("address", address);
    }

    #[cfg(feature = "disk")]
    #[test]
    fn the_corpus_of_last_good_sets() {
        replay("last_good", last_good);
    }
}
