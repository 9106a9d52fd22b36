//! From etcd's keys and values to the publisher's, by a [`Format`]. A value that cannot be read is
//! reported once, what its record stood for stays, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::Arc;

use discovery_core::{Instance, InstanceKey, Replacement, ServiceName, Update};

use super::audit::Audit;
use super::table::{Stands, Table};
use crate::format::{Entry, Format, Record, Undecodable};
use crate::observe;
use crate::wire::{Event, Page};

type Set = Replacement<InstanceKey, Instance>;
type Found = Vec<(InstanceKey, Arc<Instance>)>;

/// Translates what one watch says.
pub(crate) struct Translator {
    table: Table,
    reader: Reader,
    /// While one goes on.
    audit: Option<Box<Audit>>,
}

impl Translator {
    /// Translates for who watches `service`, or all of them: instances of others are left out.
    pub(crate) fn new(format: Arc<dyn Format>, service: Option<ServiceName>) -> Self {
        let figures = observe::Watch::new(&format.prefix(service.as_ref()));
        let reader = Reader { format, service, reports: Reports::new(figures) };
        Self { table: Table::default(), reader, audit: None }
    }

    /// The figures of what it translates.
    pub(crate) fn figures(&self) -> &observe::Watch {
        &self.reader.reports.figures
    }

    /// The pages of a whole set follow; those of an earlier one that was not finished do not count.
    pub(crate) fn begin(&mut self) {
        self.audit = None;
        self.table.begin_list();
        self.reader.reports.begin();
    }

    /// A page is the next part of the whole set.
    pub(crate) fn stage(
        &mut self,
        page: Page,
        replacement: &mut Set,
        is_held: impl Fn(&InstanceKey) -> bool,
    ) {
        let mut found = Found::with_capacity(page.entries.len());
        let format = self.reader.format.clone();
        for entry in page.entries {
            let (key, value, revision) = (entry.key, entry.value, entry.revision);
            match format.record(&key) {
                Ok(Record::Whole) => {
                    let (reader, found) = (&mut self.reader, &mut found);
                    let read = |key: &_, known: &_| {
                        reader.read(key, &[Entry { key, value: &value }], known, found)
                    };
                    if let Some(stood) = self.table.list(key, revision, read) {
                        keep(replacement, stood.keys(), &is_held);
                    }
                }
                Ok(Record::Part(name)) => {
                    let name = name.to_vec();
                    self.table.list_part(&name, key, revision, value);
                }
                Ok(Record::Nothing) => {}
                Err(error) => {
                    let entries = [Entry { key: &key, value: &value }];
                    self.reader.reports.unreadable(&key, &entries, &error);
                }
            }
        }
        replacement.extend(found);
    }

    /// All pages of the whole set have been staged. What is not in it is forgotten.
    pub(crate) fn finish(&mut self, replacement: &mut Set, is_held: impl Fn(&InstanceKey) -> bool) {
        let mut found = Found::new();
        self.table.end_list(|name, parts, stood| {
            let read = self.reader.read(name, parts, stood.keys(), &mut found);
            read.unwrap_or_else(|| {
                keep(replacement, stood.keys(), &is_held);
                stood
            })
        });
        self.reader.reports.finish();
        replacement.extend(found);
    }

    /// The changes of one or more revisions, as one batch.
    pub(crate) fn batch(&mut self, events: Vec<Event>) -> Vec<Update<InstanceKey, Arc<Instance>>> {
        let mut batch = Vec::with_capacity(events.len());
        let mut turn = Turn::default();
        for event in events {
            if turn.revision != event.revision() {
                self.end(&mut turn, &mut batch);
                turn.revision = event.revision();
            }
            self.event(event, &mut turn);
        }
        self.end(&mut turn, &mut batch);
        batch
    }

    fn event(&mut self, event: Event, turn: &mut Turn) {
        let format = self.reader.format.clone();
        if let (Some(audit), Event::Delete { key, revision }) = (&mut self.audit, &event) {
            audit.deleted(key, *revision);
        }
        match (format.record(event.key()), &event) {
            (Ok(Record::Whole), Event::Put(put)) => {
                let (reader, found) = (&mut self.reader, &mut turn.found);
                let entry = [Entry { key: &put.key, value: &put.value }];
                let read = |known: &_| reader.read(&put.key, &entry, known, found);
                let stood = self.table.put(&put.key, put.revision, read);
                turn.gone.extend_from_slice(stood.keys());
            }
            (Ok(Record::Whole), Event::Delete { key, .. }) => {
                turn.gone.extend_from_slice(self.table.remove(key).keys());
                self.reader.reports.forget(key);
            }
            (Ok(Record::Part(name)), Event::Put(put)) => {
                self.table.put_part(name, &put.key, put.revision, put.value.clone());
                turn.touched.insert(name.to_vec());
            }
            (Ok(Record::Part(name)), Event::Delete { key, .. }) => {
                self.table.remove_part(name, key);
                turn.touched.insert(name.to_vec());
            }
            (Ok(Record::Nothing), _) => {}
            (Err(error), Event::Put(put)) => {
                let entry = Entry { key: &put.key, value: &put.value };
                self.reader.reports.unreadable(&put.key, &[entry], &error);
            }
            (Err(_), Event::Delete { key, .. }) => self.reader.reports.forget(key),
        }
    }

    /// All events of a revision are in: only now is a record of several keys whole, and is it known
    /// that what one record dropped no other has taken over.
    fn end(&mut self, turn: &mut Turn, batch: &mut Vec<Update<InstanceKey, Arc<Instance>>>) {
        for name in std::mem::take(&mut turn.touched) {
            let (parts, known) = self.table.parts(&name);
            let stands = if parts.is_empty() {
                self.reader.reports.forget(&name);
                Some(Stands::none())
            } else {
                self.reader.read(&name, &parts, known, &mut turn.found)
            };
            if let Some(stands) = stands {
                let stood = self.table.join(&name, stands);
                turn.gone.extend_from_slice(stood.keys());
            }
        }
        let mut gone = std::mem::take(&mut turn.gone);
        if !gone.is_empty() && !turn.found.is_empty() {
            let there: HashSet<&InstanceKey> = turn.found.iter().map(|(key, _)| key).collect();
            gone.retain(|key| !there.contains(key));
        }
        batch.extend(gone.into_iter().map(Update::Remove));
        batch.extend(turn.found.drain(..).map(|(key, instance)| Update::Insert(key, instance)));
    }
}

/// Reads records.
struct Reader {
    format: Arc<dyn Format>,
    service: Option<ServiceName>,
    reports: Reports,
}

impl Reader {
    /// Adds the instances of a record, and says which they are; `None` if it cannot be read. `known` are
    /// those it stood for: who is still there shares the text of its names with what is there already.
    fn read(
        &mut self,
        name: &[u8],
        entries: &[Entry<'_>],
        known: &[InstanceKey],
        found: &mut Found,
    ) -> Option<Stands> {
        let decoded = match self.format.decode(entries) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.reports.unreadable(name, entries, &error);
                return None;
            }
        };
        self.reports.readable(name, decoded.differs());
        let (from, mut known) = (found.len(), known.iter());
        for mut instance in decoded.into_instances() {
            match &self.service {
                Some(service) if instance.service != *service => continue,
                Some(service) => instance.service = service.clone(),
                None => {}
            }
            let mut key = instance.key();
            if let Some(known) = known.next().filter(|known| **known == key) {
                key = known.clone();
                (instance.service, instance.id) = (key.service.clone(), key.id.clone());
            }
            found.push((key, Arc::new(instance)));
        }
        Some(found[from..].iter().map(|(key, _)| key).collect())
    }
}

/// The audit: keys and revisions are listed at one revision, while events go on.
impl Translator {
    /// The pages of an audit follow.
    pub(crate) fn audit_begin(&mut self) {
        self.table.next_mark();
        self.audit = Some(Box::default());
    }

    /// A page of keys and revisions; values do not matter.
    pub(crate) fn audit_page(&mut self, page: &Page) {
        let Some(audit) = &mut self.audit else { return };
        for entry in &page.entries {
            let name = match self.reader.format.record(&entry.key) {
                Ok(Record::Whole) => None,
                Ok(Record::Part(name)) => Some(name),
                Ok(Record::Nothing) | Err(_) => continue,
            };
            audit.has(&entry.key, entry.revision, self.table.mark(name, &entry.key));
        }
    }

    /// That was the last page; all of them are as of revision `at`.
    pub(crate) fn audit_end(&mut self, at: i64) {
        let Some(audit) = &mut self.audit else { return };
        for (key, known) in self.table.unmarked() {
            audit.lacks(key, at, known);
        }
    }

    /// How many keys are still not as the audit said, now that events had time to come. It counts up
    /// to some dozens; 0 if there is no audit, or a whole set has been staged since.
    pub(crate) fn audit_settle(&mut self) -> usize {
        let Some(audit) = self.audit.take() else { return 0 };
        audit.settle(|key| match self.reader.format.record(key) {
            Ok(Record::Part(name)) => self.table.revision(Some(name), key),
            _ => self.table.revision(None, key),
        })
    }
}

/// What the events of one revision come to.
#[derive(Default)]
struct Turn {
    revision: i64,
    found: Found,
    /// What records stood for before; some of it can be found again.
    gone: Vec<InstanceKey>,
    /// The records of several keys that changed.
    touched: BTreeSet<Vec<u8>>,
}

/// One that vanished before has not come back with a value that cannot be read.
fn keep(set: &mut Set, keys: &[InstanceKey], is_held: impl Fn(&InstanceKey) -> bool) {
    for key in keys.iter().filter(|key| !is_held(key)) {
        set.keep(key);
    }
}

/// What was said about records, so that each thing is said once. Nearly always that is nothing, which
/// costs least in trees.
struct Reports {
    figures: observe::Watch,
    /// Records that cannot be read, and their value as a hash.
    unreadable: BTreeMap<Vec<u8>, u64>,
    /// Records whose value names another service or id than the key.
    differing: BTreeSet<Vec<u8>>,
    /// Of both, those in the list that is under way, if one is.
    listed: Option<BTreeSet<Vec<u8>>>,
    hasher: RandomState,
}

impl Reports {
    fn new(figures: observe::Watch) -> Self {
        let (unreadable, differing) = (BTreeMap::new(), BTreeSet::new());
        Self { figures, unreadable, differing, listed: None, hasher: RandomState::new() }
    }

    fn readable(&mut self, name: &[u8], differs: bool) {
        if differs {
            if self.differing.insert(name.to_vec()) {
                tracing::info!(
                    key = shown(name),
                    "its value names another service or id; the key counts"
                );
            }
            self.list(name);
        }
        if self.unreadable.remove(name).is_some() {
            tracing::info!(key = shown(name), "the value can be read again");
        }
    }

    fn unreadable(&mut self, name: &[u8], entries: &[Entry<'_>], error: &Undecodable) {
        let mut hasher = self.hasher.build_hasher();
        for entry in entries {
            (entry.key, entry.value).hash(&mut hasher);
        }
        let hash = hasher.finish();
        if self.unreadable.insert(name.to_vec(), hash) != Some(hash) {
            let bytes: usize = entries.iter().map(|entry| entry.value.len()).sum();
            self.figures.undecodable();
            tracing::warn!(key = shown(name), %error, bytes, "not an instance; ignored");
        }
        self.list(name);
    }

    fn list(&mut self, name: &[u8]) {
        if let Some(listed) = &mut self.listed {
            listed.insert(name.to_vec());
        }
    }

    fn forget(&mut self, name: &[u8]) {
        self.unreadable.remove(name);
        self.differing.remove(name);
    }

    fn begin(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// The list is complete: what is not in it is gone.
    fn finish(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        self.unreadable.retain(|name, _| listed.contains(name));
        self.differing.retain(|name| listed.contains(name));
    }
}

/// A key for a log: one line, and not a long one.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().take(300).collect()
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
