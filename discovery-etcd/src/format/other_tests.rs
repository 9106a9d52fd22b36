//! Formats of other systems, written down to show that the trait can say what they need: one key with
//! several endpoints, and several keys with one.

use discovery_core::{Instance, ServiceName, Weight};
use serde_json::Value;

use super::{Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable};

/// APISIX's upstreams: key `/apisix/upstreams/SERVICE`, value JSON whose `nodes` are an object of
/// `HOST:PORT` and weight, or a list of objects. The id of an endpoint is its `HOST:PORT`.
#[derive(Debug)]
pub(crate) struct Upstreams;

const UPSTREAMS: &str = "/apisix/upstreams/";

impl Format for Upstreams {
    /// Of one service it covers those whose names begin alike, too.
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        format!("{UPSTREAMS}{}", service.map_or("", ServiceName::as_str)).into_bytes()
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        upstream(key).map(|_| Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let [entry] = entries else { return Ok(Decoded::none()) };
        let service = upstream(entry.key)?;
        let value: Value = serde_json::from_slice(entry.value).map_err(Undecodable::value)?;
        let node = |host: &str, weight: &Value| {
            let mut instance = Instance::parse(service, host, host)?;
            let weight = weight.as_u64().and_then(|weight| u16::try_from(weight).ok());
            let weight = weight.ok_or_else(|| Undecodable::value("a weight is no number"))?;
            instance.weight = Weight::new(weight);
            Ok(instance)
        };
        match &value["nodes"] {
            Value::Null => Ok(Decoded::none()),
            Value::Object(nodes) => nodes.iter().map(|(host, weight)| node(host, weight)).collect(),
            Value::Array(nodes) => {
                let nodes = nodes.iter().map(|each| {
                    let host = each["host"].as_str().unwrap_or_default();
                    node(&format!("{host}:{}", each["port"]), &each["weight"])
                });
                nodes.collect()
            }
            _ => Err(Undecodable::value("the nodes are neither an object nor a list")),
        }
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        Err(Unencodable::new("service", &instance.service, "its key is not one instance's"))
    }
}

fn upstream(key: &[u8]) -> Result<&str, Undecodable> {
    let service = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(UPSTREAMS));
    service.ok_or_else(|| Undecodable::key("/apisix/upstreams/ID"))
}

/// Traefik's servers: keys `traefik/http/services/SERVICE/loadbalancer/servers/N/url` and `…/weight`.
/// `…/servers/N` is the record, and the id of the endpoint is its N.
#[derive(Debug)]
pub(crate) struct Servers;

const SERVICES: &str = "traefik/http/services/";
const SERVERS: &str = "/loadbalancer/servers/";
const SERVER: &str = "traefik/http/services/SERVICE/loadbalancer/servers/N/FIELD";

impl Format for Servers {
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        match service {
            None => SERVICES.to_owned(),
            Some(service) => format!("{SERVICES}{service}{SERVERS}"),
        }
        .into_bytes()
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        if key.ends_with(b"/passhostheader") {
            // It says something of the service.
            return Ok(Record::Nothing);
        }
        let (.., field) = server(key)?;
        Ok(Record::Part(&key[..key.len() - field.len() - 1]))
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let (mut url, mut weight) = (None, None);
        for entry in entries {
            let (service, id, field) = server(entry.key)?;
            let value = std::str::from_utf8(entry.value).map_err(Undecodable::value)?;
            match field {
                "url" => url = Some(Instance::parse(service, id, value)?),
                "weight" => weight = Some(value.parse()?),
                _ => {}
            }
        }
        // The fields can come one after the other.
        let Some(mut instance) = url else { return Ok(Decoded::none()) };
        instance.weight = weight.unwrap_or_default();
        Ok(Decoded::one(instance))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let Instance { service, id, address, .. } = instance;
        let key = format!("{SERVICES}{service}{SERVERS}{id}/url").into_bytes();
        Ok(Encoded { key, value: Some(address.to_string().into_bytes()) })
    }
}

fn server(key: &[u8]) -> Result<(&str, &str, &str), Undecodable> {
    let parts = || {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(SERVICES)?;
        let (service, rest) = rest.split_once(SERVERS)?;
        let (id, field) = rest.split_once('/')?;
        Some((service, id, field))
    };
    parts().ok_or_else(|| Undecodable::key(SERVER))
}

#[test]
fn one_key_can_stand_for_several_instances() {
    let key = b"/apisix/upstreams/orders".as_slice();
    assert_eq!(Upstreams.record(key).unwrap(), Record::Whole);
    for value in [
        r#"{"id":"orders","type":"roundrobin","nodes":{"127.0.0.1:1980":1,"127.0.0.1:1981":2}}"#,
        r#"{"nodes":[{"host":"127.0.0.1","port":1980,"weight":1,"priority":0},
            {"host":"127.0.0.1","port":1981,"weight":2}]}"#,
    ] {
        let decoded = Upstreams.decode(&[Entry { key, value: value.as_bytes() }]).unwrap();
        let seen: Vec<_> = decoded.instances().map(|i| (i.id.as_str(), i.weight.get())).collect();
        assert_eq!(seen, [("127.0.0.1:1980", 1), ("127.0.0.1:1981", 2)]);
    }
    assert_eq!(Upstreams.decode(&[Entry { key, value: b"{}" }]).unwrap(), Decoded::none());
    assert!(Upstreams.decode(&[Entry { key, value: br#"{"nodes":7}"# }]).is_err());
}

#[test]
fn several_keys_can_stand_for_one_instance() {
    let url = b"traefik/http/services/orders/loadbalancer/servers/3/url".as_slice();
    let weight = b"traefik/http/services/orders/loadbalancer/servers/3/weight".as_slice();
    let name = b"traefik/http/services/orders/loadbalancer/servers/3".as_slice();
    assert_eq!(Servers.record(url).unwrap(), Record::Part(name));
    assert_eq!(Servers.record(weight).unwrap(), Record::Part(name));
    let entries = [Entry { key: url, value: b"http://a:1/" }, Entry { key: weight, value: b"5" }];
    let mut three = Instance::parse("orders", "3", "http://a:1").unwrap();
    assert_eq!(Servers.encode(&three).unwrap().key, url);
    three.weight = Weight::new(5);
    assert_eq!(Servers.decode(&entries).unwrap(), Decoded::one(three));
    assert_eq!(Servers.decode(&entries[1..]).unwrap(), Decoded::none());
    assert!(Servers.record(b"traefik/http/routers/x").is_err());
}
