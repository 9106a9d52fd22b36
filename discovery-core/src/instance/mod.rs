//! The endpoint that registries of this family speak of, made of validated parts: bad input is
//! refused where it enters, with an error that names the field and the value.

mod address;
mod invalid;
mod name;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use address::Address;
pub use invalid::Invalid;
pub use name::{InstanceId, ServiceName, Zone};

/// What identifies an instance among all services of a registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its id, unique within the service.
    pub id: InstanceId,
}

impl InstanceKey {
    /// The key of instance `id` of `service`.
    pub fn new(service: ServiceName, id: InstanceId) -> Self {
        Self { service, id }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An instance's share of the traffic relative to its peers: 0 to 65 535, default 1. 0 drains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(u16);

impl Weight {
    /// Any `u16` is a weight.
    pub const fn new(weight: u16) -> Self {
        Self(weight)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Weight {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(weight) if !text.starts_with('+') => Ok(Self(weight)),
            _ => Err(Invalid::new("weight", text, "must be a whole number from 0 to 65535")),
        }
    }
}

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceStatus {
    /// It is there but not ready for requests.
    Starting,
    /// It takes requests.
    #[default]
    Up,
    /// It serves what it has and wants no new requests; it will go soon.
    Draining,
    /// It is there and must not get requests.
    #[serde(alias = "out-of-service")]
    OutOfService,
}

impl InstanceStatus {
    /// `starting`, `up`, `draining` or `out_of_service`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::OutOfService => "out_of_service",
        }
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One live instance of a service.
///
/// As JSON: `{"id":"7","name":"orders","address":"http://10.0.0.7:8080","weight":1,"zone":"a",
/// "status":"up","metadata":{"version":"1.4"}}`; weight, zone, status and metadata may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// Its id, unique within the service.
    pub id: InstanceId,
    /// The service it belongs to.
    #[serde(rename = "name")]
    pub service: ServiceName,
    /// Where it is reached.
    pub address: Address,
    /// Its share of the traffic.
    #[serde(default)]
    pub weight: Weight,
    /// Where it runs.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// What it says of itself.
    #[serde(default)]
    pub status: InstanceStatus,
    /// Not said by itself: whether the registry lost it in suspicious company, so that it may be gone
    /// or not. It still serves; see [`stabilise`](crate::stabilise).
    #[serde(skip)]
    pub suspect: bool,
    /// Whatever else it says of itself.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl Instance {
    /// An instance that is up, with weight 1, no zone and no metadata. The fields are public.
    pub fn new(service: ServiceName, id: InstanceId, address: Address) -> Self {
        Self {
            id,
            service,
            address,
            weight: Weight::default(),
            zone: None,
            status: InstanceStatus::default(),
            suspect: false,
            metadata: BTreeMap::new(),
        }
    }

    /// The same from text: `Instance::parse("orders", "7", "http://10.0.0.7:8080")`.
    ///
    /// # Errors
    /// [`Invalid`] names the first part that is wrong.
    pub fn parse(service: &str, id: &str, address: &str) -> Result<Self, Invalid> {
        Ok(Self::new(service.parse()?, id.parse()?, address.parse()?))
    }

    /// What identifies it among all services.
    pub fn key(&self) -> InstanceKey {
        InstanceKey::new(self.service.clone(), self.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_documented_one_and_only_the_parts_without_default_are_needed() {
        let mut instance = Instance::parse("orders", "7", "10.0.0.7:8080").unwrap();
        instance.zone = Some("a".parse().unwrap());
        instance.metadata.insert("version".into(), "1.4".into());
        let json = concat!(
            r#"{"id":"7","name":"orders","address":"http://10.0.0.7:8080","weight":1,"zone":"a","#,
            r#""status":"up","metadata":{"version":"1.4"}}"#
        );
        assert_eq!(serde_json::to_string(&instance).unwrap(), json);
        assert_eq!(serde_json::from_str::<Instance>(json).unwrap(), instance);

        let least = r#"{"id":"7","name":"orders","address":"10.0.0.7:8080","extra":[1]}"#;
        let least: Instance = serde_json::from_str(least).unwrap();
        assert_eq!(least, Instance::parse("orders", "7", "10.0.0.7:8080").unwrap());
    }

    #[test]
    fn weights() {
        assert_eq!("65535".parse::<Weight>().unwrap().get(), 65_535);
        for bad in ["", "-1", "65536", "1.5", "+1", "x"] {
            let error = bad.parse::<Weight>().unwrap_err().to_string();
            assert!(error.contains("0 to 65535") && error.contains(bad), "{error}");
        }
    }
}
