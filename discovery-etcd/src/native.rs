//! The native format: key `PREFIX/SERVICE/ID`, value the JSON of an instance. Only the address is
//! needed; names are read without regard to case, so that values written by other tools to the same
//! convention (`{"Id":…,"Name":…,"Address":…}`) are understood. The key decides service and id.

use std::collections::BTreeMap;

use discovery_core::{
    Address, Instance, InstanceKey, InstanceStatus, Invalid, ServiceName, Weight, Zone,
};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// Why a key or value is not an instance. One line, whatever the bytes are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecodable {
    #[error("the key is not of the form PREFIX/SERVICE/ID")]
    Key,
    #[error(transparent)]
    Name(#[from] Invalid),
    #[error("not the JSON of an instance: {0}")]
    Value(String),
}

impl Undecodable {
    /// The error can quote the value, which can be anything.
    fn value(error: &serde_json::Error) -> Self {
        Self::Value(error.to_string().escape_debug().take(200).collect())
    }
}

/// Translates between etcd's keys and values and instances.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    prefix: String,
}

impl Native {
    /// `prefix` without a slash at the end.
    pub(crate) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// What all keys start with, or all keys of one service. It ends with a slash, so that `order`
    /// and `orders` are never mixed.
    pub(crate) fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        match service {
            None => format!("{}/", self.prefix),
            Some(service) => format!("{}/{service}/", self.prefix),
        }
        .into_bytes()
    }

    /// Where an instance is put.
    pub(crate) fn key(&self, key: &InstanceKey) -> Vec<u8> {
        format!("{}/{}/{}", self.prefix, key.service, key.id).into_bytes()
    }

    /// What is put there.
    pub(crate) fn value(instance: &Instance) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(instance)
    }

    /// What a key stands for.
    pub(crate) fn decode_key(&self, key: &[u8]) -> Result<InstanceKey, Undecodable> {
        let text = std::str::from_utf8(key).map_err(|_| Undecodable::Key)?;
        let rest = text
            .strip_prefix(&self.prefix)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(Undecodable::Key)?;
        let (service, id) = rest.split_once('/').ok_or(Undecodable::Key)?;
        Ok(InstanceKey::new(service.parse()?, id.parse()?))
    }

    /// The address in a value, if there is one.
    pub(crate) fn address_of(value: &[u8]) -> Option<Address> {
        serde_json::from_slice::<Fields>(value).ok()?.address?.parse().ok()
    }

    /// The instance that a value describes, and whether the value says another service or id than
    /// the key, which counts.
    pub(crate) fn decode(key: InstanceKey, value: &[u8]) -> Result<(Instance, bool), Undecodable> {
        let fields: Fields =
            serde_json::from_slice(value).map_err(|error| Undecodable::value(&error))?;
        let address = fields
            .address
            .ok_or_else(|| Undecodable::Value("the address is missing".to_owned()))?;
        let differs = fields.name.as_deref().is_some_and(|name| name != key.service.as_str())
            || fields.id.as_deref().is_some_and(|id| id != key.id.as_str());
        let mut instance = Instance::new(key.service, key.id, address.parse()?);
        instance.weight = fields.weight.unwrap_or_default();
        instance.zone = fields.zone;
        instance.status = fields.status.unwrap_or_default();
        instance.metadata = fields.metadata.unwrap_or_default();
        Ok((instance, differs))
    }
}

/// The fields of a value as far as we know them.
#[derive(Default)]
struct Fields {
    id: Option<String>,
    name: Option<String>,
    address: Option<String>,
    weight: Option<Weight>,
    zone: Option<Zone>,
    status: Option<InstanceStatus>,
    metadata: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(mut name) = map.next_key::<String>()? {
            name.make_ascii_lowercase();
            match name.as_str() {
                // An empty zone is none: some writers cannot leave a field out.
                "zone" => {
                    fields.zone = match map.next_value::<Option<String>>()?.as_deref() {
                        None | Some("") => None,
                        Some(zone) => Some(zone.parse().map_err(serde::de::Error::custom)?),
                    };
                }
                "id" => fields.id = text(map.next_value()?),
                "name" => fields.name = text(map.next_value()?),
                "address" => fields.address = map.next_value()?,
                "weight" => fields.weight = map.next_value()?,
                "status" => {
                    let status: Option<String> = map.next_value()?;
                    fields.status = match status {
                        None => None,
                        Some(mut status) => {
                            status.make_ascii_lowercase();
                            let status = serde::de::value::StringDeserializer::new(status);
                            Some(InstanceStatus::deserialize(status)?)
                        }
                    };
                }
                "metadata" => fields.metadata = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// Id and name in a value do not count, so their type does not either.
fn text(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native() -> Native {
        Native::new("/services".into())
    }

    fn decode(key: &str, value: &str) -> Result<Instance, Undecodable> {
        let (instance, _) = Native::decode(native().decode_key(key.as_bytes())?, value.as_bytes())?;
        Ok(instance)
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut instance = Instance::parse("orders", "7", "https://10.0.0.7:8080").unwrap();
        instance.weight = Weight::new(3);
        instance.zone = Some("a".parse().unwrap());
        instance.status = InstanceStatus::Draining;
        instance.metadata.insert("version".into(), "1.4".into());
        let key = native().key(&instance.key());
        assert_eq!(key, b"/services/orders/7");
        let value = Native::value(&instance).unwrap();
        let key = native().decode_key(&key).unwrap();
        assert_eq!(Native::decode(key, &value).unwrap(), (instance, false));
    }

    #[test]
    fn names_are_read_without_regard_to_case_and_the_key_decides() {
        let value = r#"{"Id":"x","Name":"other","ADDRESS":"http://127.0.0.1:9","Extra":[{}]}"#;
        let instance = decode("/services/orders/7", value).unwrap();
        assert_eq!(instance, Instance::parse("orders", "7", "http://127.0.0.1:9").unwrap());
        let key = native().decode_key(b"/services/orders/7").unwrap();
        assert!(Native::decode(key, value.as_bytes()).unwrap().1);
        let nulls = r#"{"address":"a:1","weight":null,"zone":null,"status":null,"metadata":null}"#;
        assert_eq!(
            decode("/services/s/1", nulls).unwrap(),
            Instance::parse("s", "1", "a:1").unwrap()
        );
        let odd = r#"{"id":7,"name":["x"],"zone":"","status":"UP","address":"a:1"}"#;
        assert!(decode("/services/s/1", odd).is_ok());
    }

    #[test]
    fn what_is_no_instance_is_refused_with_a_line_that_says_why() {
        for (value, why) in [
            ("{", "EOF"),
            ("[]", "an object"),
            ("\"x\"", "an object"),
            ("{}", "address is missing"),
            (r#"{"address":null}"#, "address is missing"),
            (r#"{"address":7}"#, "invalid type"),
            (r#"{"address":"http://a/b"}"#, "http://a/b"),
            (r#"{"address":"a:1","weight":-1}"#, "-1"),
            (r#"{"address":"a:1","weight":65536}"#, "65536"),
            (r#"{"address":"a:1","weight":"1"}"#, "invalid type"),
            (r#"{"address":"a:1","status":"gone"}"#, "gone"),
            (r#"{"address":"a:1","metadata":{"a":1}}"#, "invalid type"),
            (r#"{"address":"a:1"} x"#, "trailing"),
            (r#"{"address":"a:1","status":"up\nINFO forged"}"#, r"up\ninfo"),
            (&format!(r#"{{"address":"a:1","weight":"{}"}}"#, "x".repeat(1 << 20)), "xxx"),
        ] {
            let error = decode("/services/s/1", value).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
            assert!(error.len() < 300, "{}", error.len());
        }
        assert!(Native::decode(native().decode_key(b"/services/s/1").unwrap(), b"\xff").is_err());
    }

    #[test]
    fn only_keys_of_the_right_form_are_ours() {
        for key in [
            "/services/a",
            "/services/a/",
            "/services//b",
            "/services/a/b/c",
            "/servicesa/b/c",
            "/other/a/b",
            "/services/a b/c",
            "/services/a/b\0",
        ] {
            assert!(native().decode_key(key.as_bytes()).is_err(), "{key}");
        }
        assert!(native().decode_key(b"/services/\xff/b").is_err());
        let order = "order".parse().unwrap();
        assert_eq!(native().prefix(Some(&order)), b"/services/order/");
        assert_eq!(native().prefix(None), b"/services/");
    }
}
