//! Values that several programs take, checked where they enter.

use std::time::Duration;

use discovery_core::Address;

const DAY: u64 = 24 * 3600;

/// An address of etcd: `http://host:port` or `https://host:port`; kept as it was written, since the
/// scheme that is meant where it is missing depends on other options.
///
/// # Errors
/// What is wrong with it.
pub fn etcd_url(text: &str) -> Result<String, String> {
    // A word that was meant as something else is not to be taken for a host.
    if !text.contains(':') {
        return Err("not a URL as http://127.0.0.1:2379".into());
    }
    let address = with_port(text)?;
    if !matches!(address.scheme(), "http" | "https") {
        return Err(format!("the scheme {:?} is neither http nor https", address.scheme()));
    }
    Ok(text.to_owned())
}

/// The address at which others reach a node: `http://host:port`.
///
/// # Errors
/// What is wrong with it.
pub fn advertised(text: &str) -> Result<Address, String> {
    let address = with_port(text)?;
    if address.scheme() != "http" {
        return Err(format!("the scheme {:?} is not http", address.scheme()));
    }
    Ok(address)
}

/// An address that says its port: a scheme's usual one is hardly ever meant.
fn with_port(text: &str) -> Result<Address, String> {
    let address = Address::new(text).map_err(|error| error.to_string())?;
    // The colons within the brackets of an IPv6 host are none of a port.
    let (_, end) = address.authority().rsplit_once(']').unwrap_or(("", address.authority()));
    if !address.is_unix() && !end.contains(':') {
        return Err("the port is missing".into());
    }
    Ok(address)
}

/// A number from 0 to 1.
///
/// # Errors
/// What is wrong with it.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("must be a number from 0 to 1".into()),
    }
}

/// A time in whole seconds, at least one and at most a day.
///
/// # Errors
/// What is wrong with it.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=DAY) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("must be a whole number of seconds from 1 to {DAY}")),
    }
}

/// A time in whole seconds, at most a day, where 0 turns something off.
///
/// # Errors
/// What is wrong with it.
pub fn suspect_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0..=DAY) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("must be a whole number of seconds from 0 to {DAY}")),
    }
}
