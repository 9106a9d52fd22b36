//! Keys and values of the formats that come with this crate.

use discovery_core::{Instance, InstanceId};

use super::one_line;
use crate::format::{Encoded, Entry, Format, Heartbeat, Native, Record};

/// Longest error of a format, in characters.
const LONGEST: usize = 230;

/// A key and value of the native format, apart by an empty line; without one it is a value.
pub fn native(data: &[u8]) -> bool {
    let format = Native::new("/services");
    let (key, value) = key_and_value(data, b"/services/orders/7");
    let Some((instance, differs)) = decode(&format, key, value) else { return false };
    let names = format!("/services/{}/{}", instance.service, instance.id);
    assert_eq!(names.as_bytes(), key);

    let Encoded { key: written, value } = format.encode(&instance).unwrap();
    assert_eq!(written, key);
    let value = value.unwrap();
    let again = decode(&format, key, &value).unwrap();
    assert_eq!(again, (instance, false), "differed before: {differs}");
    // What ours write is what serde takes for an instance.
    assert_eq!(serde_json::from_slice::<Instance>(&value).unwrap(), again.0);
    true
}

/// A key and value of the heartbeat format, apart by an empty line; without one it is a value.
pub fn heartbeat(data: &[u8]) -> bool {
    let (key, value) = key_and_value(data, b"heartbeat|orders|http://10.0.0.7:8080");
    let Some((instance, _)) = decode(&Heartbeat, key, value) else { return false };
    let names = format!("heartbeat|{}|{}", instance.service, instance.id);
    assert_eq!(names.as_bytes(), key);
    let plain =
        Instance::new(instance.service.clone(), instance.id.clone(), instance.address.clone());
    assert_eq!(instance, plain, "the format says no more");
    let text = std::str::from_utf8(value).unwrap().trim();
    assert_eq!(text.parse().as_ref(), Ok(&instance.address));

    let url = instance.address.as_str();
    let Encoded { key: written, value } = match Heartbeat.encode(&instance) {
        Ok(encoded) => encoded,
        Err(error) => {
            one_line(&error, 1000);
            assert!(error.field() == "address" && InstanceId::new(url).is_err(), "{error}");
            return true;
        }
    };
    let again = decode(&Heartbeat, &written, &value.unwrap()).unwrap();
    // There its URL is its id.
    let mut known_as = instance.clone();
    known_as.id = url.parse().unwrap();
    assert_eq!(again, (known_as, false));
    true
}

fn key_and_value<'d>(data: &'d [u8], key: &'d [u8]) -> (&'d [u8], &'d [u8]) {
    let gap = data.windows(2).position(|two| two == b"\n\n");
    gap.map_or((key, data), |gap| (&data[..gap], &data[gap + 2..]))
}

/// The one instance of a key, and whether its value names another; `None` if it is refused.
fn decode(format: &impl Format, key: &[u8], value: &[u8]) -> Option<(Instance, bool)> {
    let record = format.record(key);
    let decoded = match format.decode(&[Entry { key, value }]) {
        Ok(decoded) => decoded,
        Err(error) => {
            one_line(&error, LONGEST);
            if let Err(error) = record {
                one_line(&error, LONGEST);
            }
            return None;
        }
    };
    assert_eq!(record, Ok(Record::Whole));
    let differs = decoded.differs();
    let instances: Vec<_> = decoded.into_instances().collect();
    let [instance] = <[Instance; 1]>::try_from(instances).unwrap();
    let (all, one) = (format.prefix(None), format.prefix(Some(&instance.service)));
    assert!(key.starts_with(&one) && one.starts_with(&all) && !instance.suspect);
    Some((instance, differs))
}
