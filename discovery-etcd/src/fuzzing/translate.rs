//! Lists, events and audits, told to the translator of a watch and to a model that knows nothing but
//! records and what they stand for.
//!
//! A course is text, one step a line:
//!
//! ```text
//! S                      first of all: of one service alone
//! L wa=12 | pa1=3 x=     a list, in pages
//! A wa=2                 a list that breaks off
//! E wa=13 ; -wa pa1=4    events, of one revision each between the semicolons
//! ? -wa +wb              an audit that does not have one key, and has another one newer
//! H 12                   instances that vanished and are still held as suspects
//! ```
//!
//! A key that begins with `w` is a record by itself, one with `p` a part of the record named by its
//! first two bytes, one with `n` says nothing, and any other is none. Each digit of a value is an
//! instance, whose port is its place; one with a `!` cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use discovery_core::{Instance, InstanceId, InstanceKey, Publisher, ServiceName, Update};

use crate::format::{Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable};
use crate::watch::Translator;
use crate::wire::{Event, KeyValue, Page};

/// The translator comes to the same set as the model, after each step of the course.
pub fn translate(data: &[u8]) -> bool {
    let service: Option<ServiceName> = data.starts_with(b"S\n").then(|| "a".parse().unwrap());
    let mut course = Course {
        translator: Translator::new(Arc::new(Digits), service.clone()),
        publisher: Publisher::new(),
        model: Model { service, ..Model::default() },
        held: BTreeSet::new(),
        is_complete: false,
        revision: 0,
    };
    let mut any = false;
    for line in data.split(|byte| *byte == b'\n') {
        if let Some((step, rest)) = line.split_first() {
            course.step(*step, rest);
            course.compare();
            any |= !course.model.set().is_empty();
        }
    }
    any
}

/// The keys of a record and their values.
type Parts = BTreeMap<Vec<u8>, KeyValue>;
/// Instances by their digit, with their port.
type Stands = BTreeMap<u8, u16>;

#[derive(Debug)]
struct Digits;

impl Format for Digits {
    fn prefix(&self, _: Option<&ServiceName>) -> Vec<u8> {
        Vec::new()
    }

    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        match key {
            [b'w', ..] => Ok(Record::Whole),
            [b'p', _, ..] => Ok(Record::Part(&key[..2])),
            [b'n', ..] => Ok(Record::Nothing),
            _ => Err(Undecodable::key("w, p or n")),
        }
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let value: Vec<u8> = entries.iter().flat_map(|entry| entry.value).copied().collect();
        if value.contains(&b'!') {
            return Err(Undecodable::value("!"));
        }
        let digits = value.iter().zip(1..).filter(|(byte, _)| byte.is_ascii_digit());
        let instances = digits.map(|(digit, port)| {
            let id = char::from(*digit).to_string();
            Instance::parse(service(*digit), &id, &format!("h:{port}")).unwrap()
        });
        Ok(instances.collect::<Decoded>().differing(value.contains(&b'~')))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        Err(Unencodable::new("instance id", &instance.id, "only read"))
    }
}

fn service(digit: u8) -> &'static str {
    if digit < b'5' { "a" } else { "b" }
}

#[derive(Clone, Default)]
struct Known {
    parts: Parts,
    stands: Stands,
    /// Of these, what was held as a suspect when a list came that could not be read.
    hidden: BTreeSet<u8>,
}

#[derive(Clone, Default)]
struct Model {
    service: Option<ServiceName>,
    records: BTreeMap<Vec<u8>, Known>,
}

impl Model {
    /// The record of a key; `None` if it is of none.
    fn record(key: &[u8]) -> Option<Vec<u8>> {
        match key {
            [b'w', ..] => Some(key.to_vec()),
            [b'p', second, ..] => Some(vec![b'p', *second]),
            _ => None,
        }
    }

    fn read(&self, parts: &Parts) -> Option<Stands> {
        let value: Vec<u8> = parts.values().flat_map(|part| part.value.clone()).collect();
        let ours = |digit: u8| self.service.is_none() || service(digit) == "a";
        (!value.contains(&b'!')).then(|| {
            let digits = value.into_iter().zip(1..);
            digits.filter(|(byte, _)| byte.is_ascii_digit() && ours(*byte)).collect()
        })
    }

    fn list(&mut self, entries: &[KeyValue], held: &BTreeSet<u8>) {
        let mut before = std::mem::take(&mut self.records);
        for entry in entries {
            if let Some(name) = Self::record(&entry.key) {
                let known = self.records.entry(name).or_default();
                known.parts.insert(entry.key.clone(), entry.clone());
            }
        }
        for (name, mut known) in std::mem::take(&mut self.records) {
            if let Some(stands) = self.read(&known.parts) {
                known.stands = stands;
            } else {
                let stood = before.remove(&name).unwrap_or_default();
                (known.stands, known.hidden) = (stood.stands, stood.hidden);
                let held = held.iter().filter(|id| known.stands.contains_key(id));
                known.hidden.extend(held);
            }
            self.records.insert(name, known);
        }
    }

    /// Events of one revision.
    fn turn(&mut self, events: &[Event]) {
        let mut touched = BTreeSet::new();
        for event in events {
            let Some(name) = Self::record(event.key()) else { continue };
            let known = self.records.entry(name.clone()).or_default();
            match event {
                Event::Put(put) => drop(known.parts.insert(put.key.clone(), put.clone())),
                Event::Delete { key, .. } => drop(known.parts.remove(key)),
            }
            touched.insert(name);
        }
        for name in touched {
            let Some(mut known) = self.records.remove(&name) else { continue };
            if known.parts.is_empty() {
                continue;
            }
            if let Some(stands) = self.read(&known.parts) {
                (known.stands, known.hidden) = (stands, BTreeSet::new());
            }
            self.records.insert(name, known);
        }
    }

    /// Whether each instance belongs to one record. Else it is not said what comes of it.
    fn is_lawful(&self) -> bool {
        let mut claimed = BTreeSet::new();
        self.records.values().flat_map(|known| known.stands.keys()).all(|id| claimed.insert(*id))
    }

    fn set(&self) -> Stands {
        let shown = |known: &Known| {
            let Known { stands, hidden, .. } = known.clone();
            stands.into_iter().filter(move |(id, _)| !hidden.contains(id))
        };
        self.records.values().flat_map(shown).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &KeyValue> {
        self.records.values().flat_map(|known| known.parts.values())
    }
}

struct Course {
    translator: Translator,
    publisher: Publisher<InstanceKey, Instance>,
    model: Model,
    held: BTreeSet<u8>,
    /// Whether the last list was. Events and audits follow no other.
    is_complete: bool,
    revision: i64,
}

impl Course {
    fn step(&mut self, step: u8, rest: &[u8]) {
        match step {
            b'L' => self.list(rest, true),
            b'A' => self.list(rest, false),
            b'E' if self.is_complete => self.events(rest),
            b'?' if self.is_complete => self.audit(rest),
            b'H' => self.held = rest.iter().copied().filter(u8::is_ascii_digit).collect(),
            _ => {}
        }
    }

    fn list(&mut self, text: &[u8], complete: bool) {
        self.revision += 1;
        let mut listed = BTreeSet::new();
        let pages: Vec<Vec<KeyValue>> = text
            .split(|byte| *byte == b'|')
            .map(|page| {
                let puts = events(page, self.revision).into_iter();
                let puts = puts.filter_map(|event| match event {
                    Event::Put(put) => Some(put),
                    Event::Delete { .. } => None,
                });
                puts.filter(|put| listed.insert(put.key.clone())).collect()
            })
            .collect();
        let mut model = self.model.clone();
        model.list(&pages.concat(), &self.held);
        if !model.is_lawful() {
            return;
        }
        let held = |key: &InstanceKey| self.held.contains(&digit(&key.id));
        let mut staged = self.publisher.replacement();
        self.translator.begin();
        self.is_complete = complete;
        for entries in pages {
            let page = Page { entries, more: true, revision: self.revision };
            self.translator.stage(page, &mut staged, held);
        }
        if complete {
            self.translator.finish(&mut staged, held);
            assert!(staged.commit(None));
            self.model = model;
        }
    }

    fn events(&mut self, text: &[u8]) {
        let mut batch = Vec::new();
        for turn in text.split(|byte| *byte == b';') {
            self.revision += 1;
            let mut changed = BTreeSet::new();
            let mut turn = events(turn, self.revision);
            turn.retain(|event| changed.insert(event.key().to_vec()));
            let mut model = self.model.clone();
            model.turn(&turn);
            if model.is_lawful() {
                self.model = model;
                batch.extend(turn);
            }
        }
        let is_one = batch.windows(2).all(|two| two[0].revision() == two[1].revision());
        let updates = self.translator.batch(batch);
        if is_one {
            // Whatever moved has not vanished, which would make it a suspect.
            let (inserted, others): (Vec<_>, Vec<_>) =
                updates.iter().partition(|update| matches!(update, Update::Insert(..)));
            let has =
                |key| inserted.iter().any(|each| matches!(each, Update::Insert(k, _) if k == key));
            assert!(!others.iter().any(|each| matches!(each, Update::Remove(key) if has(key))));
        }
        self.publisher.apply(updates, None);
    }

    fn audit(&mut self, text: &[u8]) {
        let named = |sign: u8| {
            let tokens = tokens(text).filter_map(move |token| token.strip_prefix(&[sign]));
            tokens.map(<[u8]>::to_vec).collect::<BTreeSet<_>>()
        };
        let (mut lacks, newer) = (named(b'-'), named(b'+'));
        let known: Vec<KeyValue> = self.model.keys().cloned().collect();
        lacks.retain(|key| !newer.contains(key) && known.iter().any(|known| known.key == *key));
        let of_ours = newer.iter().filter(|key| Model::record(key).is_some()).count();

        // Without news it is as of the last event.
        self.revision += i64::from(!newer.is_empty());
        let as_known = known
            .into_iter()
            .filter(|entry| !lacks.contains(&entry.key) && !newer.contains(&entry.key));
        let newer = newer.iter().map(|key| entry(key, b"", self.revision));
        let page =
            Page { entries: as_known.chain(newer).collect(), more: false, revision: self.revision };
        self.translator.audit_begin();
        self.translator.audit_page(&page);
        self.translator.audit_end(self.revision);
        assert_eq!(self.translator.audit_settle(), (of_ours + lacks.len()).min(64));
    }

    fn compare(&self) {
        let seen = self.publisher.snapshot().into_iter().map(|(key, instance)| {
            assert!(key == instance.key() && key.service.as_str() == service(digit(&key.id)));
            (digit(&key.id), instance.address.port().unwrap())
        });
        assert_eq!(seen.collect::<Stands>(), self.model.set());
    }
}

fn digit(id: &InstanceId) -> u8 {
    id.as_str().as_bytes()[0]
}

fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty())
}

/// `KEY=VALUE` is a put, `-KEY` a delete.
fn events(text: &[u8], revision: i64) -> Vec<Event> {
    let event = |token: &[u8]| {
        if let Some(key) = token.strip_prefix(b"-") {
            return Some(Event::Delete { key: key.to_vec(), revision });
        }
        let at = token.iter().position(|byte| *byte == b'=')?;
        Some(Event::Put(entry(&token[..at], &token[at + 1..], revision)))
    };
    tokens(text).filter_map(event).collect()
}

fn entry(key: &[u8], value: &[u8], revision: i64) -> KeyValue {
    KeyValue { key: key.to_vec(), value: value.to_vec(), revision, lease: 0 }
}
