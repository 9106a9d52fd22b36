//! What keys and values mean, read from the documented format and with none of the library's code.

use std::{collections::BTreeMap, fmt, sync::Arc};

use discovery_core::Instance;
use serde_json::Value;

/// What all keys start with.
pub(crate) const PREFIX: &str = "/services/";
/// Under which name in its metadata a registration says which one it is.
pub(crate) const TAG: &str = "registration";

/// A service and an id: `orders/7`.
pub(crate) type Key = Arc<str>;

/// An instance as far as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) address: String,
    pub(crate) weight: u64,
    pub(crate) zone: Option<String>,
    pub(crate) status: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Seen {
    /// What a viewer was told.
    pub(crate) fn told(instance: &Instance) -> Self {
        Self {
            address: instance.address.to_string(),
            weight: instance.weight.get().into(),
            zone: instance.zone.as_ref().map(ToString::to_string),
            status: instance.status.as_str().to_owned(),
            metadata: instance.metadata.clone(),
        }
    }

    /// The registration that wrote it, if one of ours did.
    pub(crate) fn tag(&self) -> Option<u64> {
        self.metadata.get(TAG)?.parse().ok()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weight {} {}", self.address, self.weight, self.status)?;
        match self.tag() {
            Some(tag) => write!(f, " (registration {tag})"),
            None => Ok(()),
        }
    }
}

/// The instance that a key stands for, if it is of the form `PREFIX SERVICE/ID`.
pub(crate) fn key(raw: &[u8]) -> Option<Key> {
    let rest = std::str::from_utf8(raw).ok()?.strip_prefix(PREFIX)?;
    let (service, id) = rest.split_once('/')?;
    let good = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    };
    (good(service) && good(id)).then(|| rest.into())
}

/// The instance that a value describes, if it does.
pub(crate) fn value(raw: &[u8]) -> Option<Seen> {
    let Value::Object(fields) = serde_json::from_slice(raw).ok()? else { return None };
    let fields: BTreeMap<_, _> =
        fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let weight = match field("weight") {
        None => 1,
        Some(weight) => weight.as_u64().filter(|weight| *weight <= 65_535)?,
    };
    let zone = match field("zone") {
        None => None,
        Some(zone) => Some(zone.as_str()?.to_owned()).filter(|zone| !zone.is_empty()),
    };
    let status = match field("status") {
        None => "up".to_owned(),
        Some(status) => status.as_str()?.to_ascii_lowercase(),
    };
    if !["starting", "up", "draining", "out_of_service"].contains(&status.as_str()) {
        return None;
    }
    let mut metadata = BTreeMap::new();
    if let Some(given) = field("metadata") {
        for (name, value) in given.as_object()? {
            metadata.insert(name.clone(), value.as_str()?.to_owned());
        }
    }
    let address = address(field("address")?.as_str()?)?;
    Some(Seen { address, weight, zone, status, metadata })
}

/// Addresses as they are written here: on the loopback, the scheme optional, never with a path.
fn address(text: &str) -> Option<String> {
    let authority = text.strip_prefix("http://").unwrap_or(text);
    let (host, port) = authority.split_once(':')?;
    port.parse::<u16>().ok()?;
    (host == "127.0.0.1").then(|| format!("http://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::{POISON, POISON_KEYS};

    #[test]
    fn only_instances_have_a_meaning() {
        for poison in POISON {
            assert_eq!(value(poison), None, "{}", poison.escape_ascii());
        }
        for poison in POISON_KEYS {
            assert_eq!(key(poison), None, "{}", poison.escape_ascii());
        }
        assert_eq!(key(b"/services/orders/7").as_deref(), Some("orders/7"));
        let seen = value(br#"{"Address":"127.0.0.1:7","metadata":{"registration":"3"}}"#).unwrap();
        assert_eq!((seen.address.as_str(), seen.weight), ("http://127.0.0.1:7", 1));
        assert_eq!(seen.tag(), Some(3));
    }
}
