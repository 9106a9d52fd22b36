//! The heartbeat format: key `heartbeat|TYPE|URL`, value the URL. It says where an instance is and
//! nothing else about it.

use discovery_core::{Address, Instance, InstanceId, InstanceStatus, ServiceName};

use super::{Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable};

const ROOT: &str = "heartbeat|";
const FORM: &str = "heartbeat|TYPE|URL";

/// Key `heartbeat|TYPE|URL` (the bars are part of it, and there is no prefix to choose), value the URL.
///
/// The service is TYPE and the id is the URL as the key has it; the address is the URL of the value.
/// When an instance is written, its URL is its address: whatever id it has, others know it by that.
/// Weight, zone and metadata are left out. An instance that is not [up](InstanceStatus::Up), or whose
/// weight of 0 drains it, is not listed: the format could not say so. To change the address of a
/// registered instance is refused, since the key would be another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat;

impl Format for Heartbeat {
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
        match service {
            None => ROOT.to_owned(),
            Some(service) => format!("{ROOT}{service}|"),
        }
        .into_bytes()
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        names(key).map(|_| Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let [entry] = entries else { return Ok(Decoded::none()) };
        let (service, id) = names(entry.key)?;
        let (service, id) = (ServiceName::new(service)?, InstanceId::new(id)?);
        // A value from a file or a pipe can end in a line break.
        let value = std::str::from_utf8(entry.value.trim_ascii()).map_err(Undecodable::value)?;
        let address = Address::new(value)?;
        let differs = value != id.as_str() && Address::new(&id).ok().as_ref() != Some(&address);
        Ok(Decoded::one(Instance::new(service, id, address)).differing(differs))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        let url = instance.address.as_str();
        if let Err(error) = InstanceId::new(url) {
            // It is the id by which others know the instance.
            return Err(Unencodable::new("address", url, error.reason()));
        }
        let listed = instance.status == InstanceStatus::Up && instance.weight.get() > 0;
        Ok(Encoded {
            key: format!("{ROOT}{}|{url}", instance.service).into_bytes(),
            value: listed.then(|| url.to_owned().into_bytes()),
        })
    }
}

/// TYPE and URL as the key has them.
fn names(key: &[u8]) -> Result<(&str, &str), Undecodable> {
    let text = std::str::from_utf8(key).ok();
    let rest = text.and_then(|text| text.strip_prefix(ROOT));
    rest.and_then(|rest| rest.split_once('|')).ok_or_else(|| Undecodable::key(FORM))
}

#[cfg(test)]
mod tests {
    use discovery_core::Weight;

    use super::*;

    const KEY: &[u8] = b"heartbeat|worker|http://host1:8080";

    fn decode(key: &[u8], value: &[u8]) -> Result<(Instance, bool), Undecodable> {
        assert_eq!(Heartbeat.record(key)?, Record::Whole);
        let decoded = Heartbeat.decode(&[Entry { key, value }])?;
        let differs = decoded.differs();
        let mut instances = decoded.into_instances();
        let first = instances.next().unwrap();
        assert_eq!(instances.next(), None);
        Ok((first, differs))
    }

    fn worker(id: &str, address: &str) -> Instance {
        Instance::parse("worker", id, address).unwrap()
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let instance = worker("http://host1:8080", "http://host1:8080");
        let Encoded { key, value } = Heartbeat.encode(&instance).unwrap();
        assert_eq!(key, KEY);
        assert_eq!(value.as_deref(), Some(&b"http://host1:8080"[..]));
        assert_eq!(decode(&key, &value.unwrap()).unwrap(), (instance, false));
        assert_eq!(Heartbeat.prefix(None), b"heartbeat|");
        let order = "order".parse().unwrap();
        assert_eq!(Heartbeat.prefix(Some(&order)), b"heartbeat|order|");
        // Whatever id it has here, there its URL is its id.
        assert_eq!(Heartbeat.encode(&worker("7", "HTTP://host1:8080/")).unwrap().key, KEY);
    }

    #[test]
    fn the_key_gives_the_id_and_the_value_the_address() {
        let is = |key: &[u8], value: &[u8], id, address, differs| {
            assert_eq!(decode(key, value).unwrap(), (worker(id, address), differs));
        };
        is(KEY, b"http://host1:8080\n", "http://host1:8080", "http://host1:8080", false);
        is(KEY, b"https://host2:80", "http://host1:8080", "https://host2:80", true);
        is(b"heartbeat|worker|host1:1", b"http://host1:1", "host1:1", "host1:1", false);
        is(b"heartbeat|worker|http://a:1/", b"http://a:1/", "http://a:1/", "a:1", false);
        is(b"heartbeat|worker|a|b", b"a:1", "a|b", "a:1", true);
    }

    #[test]
    fn what_is_no_heartbeat_is_refused_with_a_line_that_says_why() {
        for (value, why) in [
            (&b""[..], "host is missing"),
            (b" \n", "host is missing"),
            (b"http://a/b", "path"),
            (b"http://a b", "white space"),
            (b"\xff\n\xff", "utf-8"),
            (b"unix:///run/\xff.sock", "utf-8"),
            (br#"{"address":"a:1"}"#, "port"),
        ] {
            let error = decode(KEY, value).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        for (key, why) in [
            (&b"heartbeat"[..], FORM),
            (b"heartbeat|", FORM),
            (b"heartbeat|worker", FORM),
            (b"heartbeat|\xff|http://a", FORM),
            (b"/heartbeat|worker|http://a", FORM),
            (b"heartbeat|worker|", "must not be empty"),
            (b"heartbeat||http://a", "must not be empty"),
            (b"heartbeat|a b|http://a", "service name \"a b\""),
            (b"heartbeat|worker|a b", "instance id \"a b\""),
        ] {
            let error = decode(key, b"http://a").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn who_does_not_want_requests_is_not_listed() {
        let up = worker("a", "a:1");
        let listed = |change: fn(&mut Instance)| {
            let mut instance = up.clone();
            change(&mut instance);
            let Encoded { key, value } = Heartbeat.encode(&instance).unwrap();
            assert_eq!(key, Heartbeat.encode(&up).unwrap().key);
            value.is_some()
        };
        assert!(listed(|instance| instance.weight = Weight::new(7)));
        assert!(!listed(|instance| instance.weight = Weight::new(0)));
        assert!(!listed(|instance| instance.status = InstanceStatus::Draining));
        assert!(!listed(|instance| instance.status = InstanceStatus::Starting));
        assert!(!listed(|instance| instance.status = InstanceStatus::OutOfService));
    }

    #[test]
    fn an_address_that_is_too_long_to_be_an_id_is_refused() {
        let error = Heartbeat.encode(&worker("a", &format!("unix:///{}", "x".repeat(300))));
        let error = error.unwrap_err();
        assert_eq!(error.field(), "address");
        assert!(error.to_string().contains("longer than 253"), "{error}");
    }
}
