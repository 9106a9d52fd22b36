//! What must hold of a saved file, whatever stands in it; see [`crate::fuzzing`].

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::format::{Saved, Subject, decode, encode, head};
use crate::fuzzing::one_line;
use crate::{Instance, ServiceName};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A file is taken as a whole or refused in one line. The bytes are tried as they are and, since
/// chance never finds a sum, as a body with the head that belongs to it. Says whether one of them is
/// taken.
pub fn last_good(data: &[u8]) -> bool {
    let body = [head(data).as_bytes(), data].concat();
    let subjects = [None, Some("orders")].map(|service| Subject {
        source: "etcd".to_owned(),
        service: service.map(|name| ServiceName::new(name).unwrap()),
    });
    let mut good = false;
    for subject in &subjects {
        for file in [data, &body] {
            good |= taken(file, subject);
        }
    }
    good
}

fn taken(file: &[u8], subject: &Subject) -> bool {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let saved = match decode(file, subject, now, DAY) {
        Ok(saved) => saved,
        Err(error) => {
            one_line(&error);
            return false;
        }
    };
    assert!(decode(&file[..file.len() - 1], subject, now, DAY).is_err(), "cut off");
    whole(file, &saved);
    assert!(saved.age <= DAY && saved.at <= now + Duration::from_secs(60));
    for (key, instance) in &saved.set {
        assert!(*key == instance.key() && !instance.suspect);
        assert!(subject.service.as_ref().is_none_or(|service| *service == key.service));
    }
    written_and_read(&saved, subject, now);
    true
}

/// Nothing that stands in the file is left out.
fn whole(file: &[u8], saved: &Saved) {
    let start = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // A field that nobody reads can hold what is no value.
    let Ok(body) = serde_json::from_slice::<Value>(&file[start..]) else { return };
    let listed = field(&body, "instances", 3).as_array().unwrap().iter();
    let named = |each| (field(each, "name", 1).as_str(), field(each, "id", 0).as_str());
    let listed: BTreeSet<_> = listed.map(named).collect();
    let read = saved.set.keys().map(|key| (Some(key.service.as_str()), Some(key.id.as_str())));
    assert_eq!(listed, read.collect());
}

/// Fields can be told by their names or, in a list, by their places.
fn field<'v>(value: &'v Value, name: &str, place: usize) -> &'v Value {
    if value.is_array() { &value[place] } else { &value[name] }
}

fn written_and_read(saved: &Saved, subject: &Subject, now: SystemTime) {
    let set: Vec<Held<'_>> = saved.set.values().map(Held).collect();
    let file = encode(subject, &set, saved.at).unwrap();
    let again = decode(&file, subject, now, DAY).unwrap();
    assert_eq!(again, *saved);
}

struct Held<'a>(&'a Instance);

impl AsRef<Instance> for Held<'_> {
    fn as_ref(&self) -> &Instance {
        self.0
    }
}
