//! Where an instance is reached: a scheme and an authority, or a Unix socket.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::name::is_visible;

/// A validated address: `http://10.0.0.7:8080`, `https://orders-7.internal`, `grpc://[::1]:50051` or
/// `unix:///run/orders.sock`.
///
/// The scheme is optional (`http`) and lower case; host names are allowed and resolved when a
/// connection is made; IPv6 stands in brackets. User names, paths, queries and port 0 are refused.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Normalised: always with its scheme, no slash at the end.
    text: Arc<str>,
    scheme: u8,
    port: Option<u16>,
}

const FIELD: &str = "address";
const UNIX: &str = "unix";
const SEPARATOR: &str = "://";

impl Address {
    /// Checks the text.
    ///
    /// # Errors
    /// [`Invalid`] names the value and what is wrong with it.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        parse(text).map_err(|reason| Invalid::new(FIELD, text, reason))
    }

    /// The address of a socket, with a scheme (`http`).
    ///
    /// # Errors
    /// [`Invalid`] for port 0 or a malformed scheme.
    pub fn from_socket(scheme: &str, socket: SocketAddr) -> Result<Self, Invalid> {
        Self::new(format!("{scheme}://{socket}"))
    }

    /// The whole address, scheme included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `http`, `https`, `grpc`, `unix`, …, in lower case.
    pub fn scheme(&self) -> &str {
        &self.text[..usize::from(self.scheme)]
    }

    /// Host and port as they stand in a URL; for a Unix socket the empty string.
    pub fn authority(&self) -> &str {
        if self.is_unix() { "" } else { self.rest() }
    }

    /// The host, without brackets for IPv6; for a Unix socket the empty string.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        if let Some((host, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return host;
        }
        authority.rsplit_once(':').map_or(authority, |(host, _)| host)
    }

    /// The port, or the scheme's usual one (`http` and `grpc` 80, `https` and `grpcs` 443).
    pub fn port(&self) -> Option<u16> {
        self.port.or(match self.scheme() {
            "http" | "grpc" => Some(80),
            "https" | "grpcs" => Some(443),
            _ => None,
        })
    }

    /// The path of a Unix socket.
    pub fn unix_path(&self) -> Option<&str> {
        self.is_unix().then(|| self.rest())
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.scheme() == UNIX
    }

    fn rest(&self) -> &str {
        &self.text[usize::from(self.scheme) + SEPARATOR.len()..]
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    if !is_visible(text) {
        return Err("white space and control characters are not allowed");
    }
    // Sources read many addresses, and to search for a text this short costs more than to compare.
    let scheme = text.as_bytes().windows(SEPARATOR.len()).position(|at| at == SEPARATOR.as_bytes());
    let (scheme, rest) = match scheme {
        Some(at) => (&text[..at], &text[at + SEPARATOR.len()..]),
        None => match text.strip_prefix("unix:") {
            Some(path) => (UNIX, path),
            None => ("http", text),
        },
    };
    check_scheme(scheme)?;
    let is_unix = scheme.eq_ignore_ascii_case(UNIX);
    let rest = if is_unix { rest } else { rest.strip_suffix('/').unwrap_or(rest) };
    let port = if !is_unix {
        check_authority(rest)?
    } else if rest.starts_with('/') && rest.len() >= 2 {
        None
    } else {
        return Err("a Unix socket needs an absolute path, as in unix:///run/name.sock");
    };
    let full = scheme.len() + SEPARATOR.len() + rest.len();
    // Most are in their canonical form already.
    let text = if full == text.len() && !scheme.bytes().any(|b| b.is_ascii_uppercase()) {
        Arc::from(text)
    } else {
        Arc::from(format!("{}{SEPARATOR}{rest}", scheme.to_ascii_lowercase()))
    };
    let scheme = u8::try_from(scheme.len()).map_err(|_| "the scheme is too long")?;
    Ok(Address { text, scheme, port })
}

fn check_scheme(scheme: &str) -> Result<(), &'static str> {
    let mut bytes = scheme.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    if starts && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
        Ok(())
    } else {
        Err("the scheme is malformed")
    }
}

/// Checks host and port; returns the port.
fn check_authority(authority: &str) -> Result<Option<u16>, &'static str> {
    if authority.contains('@') {
        return Err("a user name is not allowed");
    }
    if authority.bytes().any(|b| matches!(b, b'/' | b'?' | b'#')) {
        return Err("a path or query is not allowed");
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket of the IPv6 host is open")?;
        host.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address within the brackets")?;
        return match rest.strip_prefix(':') {
            Some(port) => check_port(port).map(Some),
            None if rest.is_empty() => Ok(None),
            None => Err("only a port may follow the brackets"),
        };
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(check_port(port)?)),
        None => (authority, None),
    };
    check_host(host)?;
    Ok(port)
}

fn check_port(port: &str) -> Result<u16, &'static str> {
    // `parse` takes a sign; a port has none.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the port is not a number from 1 to 65535");
    }
    match port.parse() {
        Ok(0) | Err(_) => Err("the port is not a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.contains(':') {
        return Err("an IPv6 host must stand in brackets");
    }
    if host.len() > 253 {
        return Err("the host is longer than 253 bytes");
    }
    if host.starts_with('.')
        || host.starts_with('-')
        || host.as_bytes().windows(2).any(|two| two == b"..")
    {
        return Err("the host is malformed");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("the host has a character that no host name has");
    }
    // Digits and dots alone are meant as IPv4 and no resolver takes them as a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err("not an IPv4 address");
    }
    Ok(())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<String> for Address {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, Option<u16>) {
        let a = Address::new(text).unwrap();
        (a.to_string(), a.scheme().into(), a.host().into(), a.port())
    }

    #[test]
    fn good_addresses() {
        let s = str::to_owned;
        assert_eq!(
            parts("10.0.0.7:8080"),
            (s("http://10.0.0.7:8080"), s("http"), s("10.0.0.7"), Some(8080))
        );
        assert_eq!(
            parts("HTTPS://orders-7.internal/"),
            (s("https://orders-7.internal"), s("https"), s("orders-7.internal"), Some(443))
        );
        assert_eq!(
            parts("grpc://[::1]:50051"),
            (s("grpc://[::1]:50051"), s("grpc"), s("::1"), Some(50051))
        );
        assert_eq!(
            parts("http://[fe80::1]"),
            (s("http://[fe80::1]"), s("http"), s("fe80::1"), Some(80))
        );
        let unix = Address::new("unix:/run/a.sock").unwrap();
        assert_eq!(unix.as_str(), "unix:///run/a.sock");
        assert_eq!(unix.unix_path(), Some("/run/a.sock"));
        assert_eq!(unix.authority(), "");
        assert_eq!(unix, Address::new("unix:///run/a.sock").unwrap());
    }

    #[test]
    fn bad_addresses_are_named() {
        for (bad, why) in [
            ("", "host is missing"),
            ("http://", "host is missing"),
            ("http://:80", "host is missing"),
            ("http://a:0", "1 to 65535"),
            ("http://a:65536", "1 to 65535"),
            ("http://a:+80", "1 to 65535"),
            ("http://a:", "1 to 65535"),
            ("http://a/b", "path"),
            ("http://a?b", "path or query"),
            ("http://a//", "path"),
            ("http://u:p@a", "user name"),
            ("http://::1", "brackets"),
            ("http://[::1", "open"),
            ("http://[::1]x", "port may follow"),
            ("http://[a]", "IPv6"),
            ("http://a b", "white space"),
            ("http://1.2.3", "IPv4"),
            ("http://999.1.1.1", "IPv4"),
            ("1http://a", "scheme"),
            ("://a", "scheme"),
            ("unix:run", "absolute path"),
            ("http://ex!ample", "character"),
            ("http://.a", "malformed"),
        ] {
            let error = Address::new(bad).unwrap_err();
            assert!(error.to_string().contains(why), "{bad:?}: {error}");
            assert_eq!(error.field(), "address");
        }
    }
}
