//! The native format: key `PREFIX/SERVICE/ID`, value the JSON of an instance. Only the address is
//! needed; names are read without regard to case, so that values written by other tools to the same
//! convention (`{"Id":…,"Name":…,"Address":…}`) are understood. The key decides service and id.

use std::borrow::Cow;
use std::collections::BTreeMap;

use discovery_core::{Instance, InstanceId, InstanceStatus, ServiceName, Weight, Zone};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, Visitor};

use super::{Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable};

const FORM: &str = "PREFIX/SERVICE/ID";

/// Key `PREFIX/SERVICE/ID`, value the JSON of an instance: `{"id":"7","name":"orders",
/// "address":"http://10.0.0.7:8080","weight":1,"zone":"a","status":"up","metadata":{"version":"1.4"}}`.
///
/// Only `address` is needed when it is read, names are read without regard to case, and the key
/// decides service and id. An id with a slash cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// Without a slash at the end.
    prefix: String,
}

impl Native {
    /// The format with its keys under `prefix`, `/services` say.
    pub fn new(prefix: impl AsRef<str>) -> Self {
        Self { prefix: prefix.as_ref().trim_end_matches('/').to_owned() }
    }

    /// Service and id as the key has them.
    fn names<'k>(&self, key: &'k [u8]) -> Result<(&'k str, &'k str), Undecodable> {
        let text = std::str::from_utf8(key).ok();
        let rest = text.and_then(|text| text.strip_prefix(&self.prefix)?.strip_prefix('/'));
        rest.and_then(|rest| rest.split_once('/'))
            .filter(|(_, id)| !id.contains('/'))
            .ok_or_else(|| Undecodable::key(FORM))
    }
}

impl Format for Native {
    /// It ends with a slash, so that `order` and `orders` are never mixed.
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        match service {
            None => format!("{}/", self.prefix),
            Some(service) => format!("{}/{service}/", self.prefix),
        }
        .into_bytes()
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        self.names(key).map(|_| Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let [entry] = entries else { return Ok(Decoded::none()) };
        let (service, id) = self.names(entry.key)?;
        // Checked once as a whole, and not for each string in it.
        let value = std::str::from_utf8(entry.value).map_err(|error| unread(&error))?;
        let fields: Fields<'_> = serde_json::from_str(value).map_err(|error| unread(&error))?;
        let address = fields.address.ok_or_else(|| unread(&"the address is missing"))?;
        let differs = fields.name.is_some_and(|name| name != service)
            || fields.id.is_some_and(|other| other != id);
        let mut instance = Instance::parse(service, id, &address)?;
        instance.weight = fields.weight.unwrap_or_default();
        instance.zone = fields.zone;
        instance.status = fields.status.unwrap_or_default();
        instance.metadata = fields.metadata.unwrap_or_default();
        Ok(Decoded::one(instance).differing(differs))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let Instance { service, id, .. } = instance;
        if id.as_str().contains('/') {
            return Err(slash(id));
        }
        // An instance is made of strings and numbers: it has a JSON form.
        let value = serde_json::to_vec(instance)
            .map_err(|error| Unencodable::new("instance", id, error.to_string()))?;
        let key = format!("{}/{service}/{id}", self.prefix).into_bytes();
        Ok(Encoded { key, value: Some(value) })
    }
}

fn slash(id: &InstanceId) -> Unencodable {
    Unencodable::new("instance id", id, "a '/' is not allowed in the native format")
}

fn unread(reason: &dyn std::fmt::Display) -> Undecodable {
    Undecodable::value(format_args!("not the JSON of an instance: {reason}"))
}

/// The fields of a value as far as we know them. Text is that of the value where it can be.
#[derive(Default)]
struct Fields<'v> {
    id: Option<Cow<'v, str>>,
    name: Option<Cow<'v, str>>,
    address: Option<Cow<'v, str>>,
    weight: Option<Weight>,
    zone: Option<Zone>,
    status: Option<InstanceStatus>,
    metadata: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Known(name)) = map.next_key()? {
            match name {
                // An empty zone is none: some writers cannot leave a field out.
                "zone" => {
                    fields.zone = match map.next_value::<Option<Text<'_>>>()? {
                        Some(Text(zone)) if !zone.is_empty() => {
                            Some(Zone::new(zone).map_err(serde::de::Error::custom)?)
                        }
                        _ => None,
                    };
                }
                "id" => fields.id = map.next_value::<Any<'_>>()?.text(),
                "name" => fields.name = map.next_value::<Any<'_>>()?.text(),
                "address" => {
                    fields.address = map.next_value::<Option<Text<'_>>>()?.map(|Text(text)| text);
                }
                "weight" => fields.weight = map.next_value()?,
                "status" => {
                    fields.status = match map.next_value::<Option<Text<'_>>>()? {
                        None => None,
                        Some(Text(mut status)) => {
                            if status.bytes().any(|byte| byte.is_ascii_uppercase()) {
                                status.to_mut().make_ascii_lowercase();
                            }
                            Some(InstanceStatus::deserialize(status.into_deserializer())?)
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

/// The name of a field in lower case, if it is known: without a copy of its own.
struct Known(&'static str);

const KNOWN: [&str; 7] = ["id", "name", "address", "weight", "zone", "status", "metadata"];

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KnownVisitor)
    }
}

struct KnownVisitor;

impl Visitor<'_> for KnownVisitor {
    type Value = Known;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, text: &str) -> Result<Known, E> {
        let known = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(text));
        Ok(Known(known.unwrap_or_default()))
    }
}

/// A text, copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'v>(#[serde(borrow)] Cow<'v, str>);

/// Id and name in a value do not count, so their type does not either.
#[derive(Deserialize)]
#[serde(untagged)]
enum Any<'v> {
    Text(#[serde(borrow)] Cow<'v, str>),
    Other(IgnoredAny),
}

impl<'v> Any<'v> {
    fn text(self) -> Option<Cow<'v, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native() -> Native {
        Native::new("/services")
    }

    fn read(key: &str, value: &[u8]) -> Result<(Instance, bool), Undecodable> {
        assert_eq!(native().record(key.as_bytes())?, Record::Whole);
        let decoded = native().decode(&[Entry { key: key.as_bytes(), value }])?;
        let differs = decoded.differs();
        let mut instances = decoded.into_instances();
        let first = instances.next().unwrap();
        assert_eq!(instances.next(), None);
        Ok((first, differs))
    }

    fn decode(key: &str, value: &str) -> Result<Instance, Undecodable> {
        Ok(read(key, value.as_bytes())?.0)
    }

    #[test]
    fn the_bytes_are_the_documented_ones_and_what_is_written_can_be_read() {
        let mut instance = Instance::parse("orders", "7", "https://10.0.0.7:8080").unwrap();
        instance.weight = Weight::new(3);
        instance.zone = Some("a".parse().unwrap());
        instance.status = InstanceStatus::Draining;
        instance.metadata.insert("version".into(), "1.4".into());
        let Encoded { key, value } = native().encode(&instance).unwrap();
        assert_eq!(key, b"/services/orders/7");
        let value = String::from_utf8(value.unwrap()).unwrap();
        let json = concat!(
            r#"{"id":"7","name":"orders","address":"https://10.0.0.7:8080","weight":3,"#,
            r#""zone":"a","status":"draining","metadata":{"version":"1.4"}}"#
        );
        assert_eq!(value, json);
        let differs = false;
        assert_eq!(read("/services/orders/7", json.as_bytes()).unwrap(), (instance, differs));
    }

    #[test]
    fn an_id_that_is_no_part_of_a_path_cannot_be_written() {
        let instance = Instance::parse("orders", "a/b", "a:1").unwrap();
        let error = native().encode(&instance).unwrap_err();
        assert_eq!(error.field(), "instance id");
        assert!(error.to_string().starts_with(r#"instance id "a/b": "#), "{error}");
    }

    #[test]
    fn names_are_read_without_regard_to_case_and_the_key_decides() {
        let value = r#"{"Id":"x","Name":"other","ADDRESS":"http://127.0.0.1:9","Extra":[{}]}"#;
        let (instance, differs) = read("/services/orders/7", value.as_bytes()).unwrap();
        assert_eq!(instance, Instance::parse("orders", "7", "http://127.0.0.1:9").unwrap());
        assert!(differs);
        let nulls = r#"{"address":"a:1","weight":null,"zone":null,"status":null,"metadata":null}"#;
        assert_eq!(
            decode("/services/s/1", nulls).unwrap(),
            Instance::parse("s", "1", "a:1").unwrap()
        );
        let escaped =
            r#"{"id":"\u0031","\u0061ddress":"a\u003a1","zone":"\u007a","status":"\u0055P"}"#;
        let (instance, differs) = read("/services/s/1", escaped.as_bytes()).unwrap();
        assert_eq!((instance.address.authority(), instance.zone.unwrap().as_str()), ("a:1", "z"));
        assert!(!differs);
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
        assert!(read("/services/s/1", b"\xff").is_err());
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
            assert!(decode(key, r#"{"address":"a:1"}"#).is_err(), "{key}");
        }
        assert!(native().record(b"/services/\xff/b").is_err());
        let order = "order".parse().unwrap();
        assert_eq!(native().prefix(Some(&order)), b"/services/order/");
        assert_eq!(native().prefix(None), b"/services/");
    }
}
