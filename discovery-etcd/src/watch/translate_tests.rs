use std::collections::{BTreeMap, VecDeque};

use discovery_core::Publisher;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::format::other_tests::{Servers, Upstreams};
use crate::format::{Decoded, Encoded, Heartbeat, Native, Unencodable};
use crate::wire::KeyValue;

/// A translator and the set it leads to.
struct Rig {
    translator: Translator,
    publisher: Publisher<InstanceKey, Instance>,
    staged: Option<Set>,
}

impl Rig {
    fn new(format: impl Format) -> Self {
        Self::of(format, None)
    }

    fn of(format: impl Format, service: Option<&str>) -> Self {
        let service = service.map(|service| service.parse().unwrap());
        let translator = Translator::new(Arc::new(format), service);
        Self { translator, publisher: Publisher::new(), staged: None }
    }

    /// A page of a list; the first one begins it.
    fn stage(&mut self, entries: &[(&str, &str, i64)]) {
        let staged = self.staged.get_or_insert_with(|| {
            self.translator.begin();
            self.publisher.replacement()
        });
        self.translator.stage(page(entries), staged, |_| false);
    }

    fn finish(&mut self) {
        let mut staged = self.staged.take().unwrap();
        self.translator.finish(&mut staged, |_| false);
        assert!(staged.commit(None));
    }

    fn list(&mut self, entries: &[(&str, &str, i64)]) {
        self.stage(entries);
        self.finish();
    }

    fn apply(&mut self, events: Vec<Event>) {
        let batch = self.translator.batch(events);
        self.publisher.apply(batch, None);
    }

    fn put(&mut self, key: &str, value: &str, revision: i64) {
        self.apply(vec![put(key, value, revision)]);
    }

    fn delete(&mut self, key: &str, revision: i64) {
        self.apply(vec![delete(key, revision)]);
    }

    /// What readers see: `service/id address*weight`.
    fn seen(&self) -> Vec<String> {
        let set = self.publisher.snapshot().into_iter();
        let mut seen: Vec<_> = set
            .map(|(key, instance)| {
                let address = instance.address.authority();
                format!("{key} {address}*{}", instance.weight)
            })
            .collect();
        seen.sort();
        seen
    }
}

fn page(entries: &[(&str, &str, i64)]) -> Page {
    let entries = entries.iter().map(|(key, value, revision)| entry(key, value, *revision));
    Page { entries: entries.collect(), more: false, revision: 0 }
}

fn entry(key: &str, value: &str, revision: i64) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), revision, lease: 0 }
}

fn put(key: &str, value: &str, revision: i64) -> Event {
    Event::Put(entry(key, value, revision))
}

fn delete(key: &str, revision: i64) -> Event {
    Event::Delete { key: key.into(), revision }
}

const A: &str = r#"{"address":"a:1"}"#;
const B: &str = r#"{"address":"b:1"}"#;
const BAD: &str = r#"{"address":7}"#;

fn native() -> Rig {
    Rig::new(Native::new("/s"))
}

#[test]
fn a_value_that_cannot_be_read_leaves_the_last_good_one_until_it_is_gone() {
    let mut rig = native();
    rig.list(&[("/s/a/1", A, 1), ("/s/a/2", BAD, 2)]);
    assert_eq!(rig.seen(), ["a/1 a:1*1"]);
    rig.put("/s/a/1", BAD, 3);
    rig.put("/s/a/2", B, 4);
    assert_eq!(rig.seen(), ["a/1 a:1*1", "a/2 b:1*1"]);
    // Also through a list.
    rig.list(&[("/s/a/1", BAD, 3), ("/s/a/2", BAD, 5)]);
    assert_eq!(rig.seen(), ["a/1 a:1*1", "a/2 b:1*1"]);
    rig.delete("/s/a/1", 6);
    assert_eq!(rig.seen(), ["a/2 b:1*1"]);
    rig.list(&[]);
    assert_eq!(rig.seen(), [""; 0]);
    assert_eq!(rig.translator.table.revision(None, b"/s/a/2"), None);
}

#[test]
fn who_is_still_there_keeps_the_text_of_its_names() {
    let texts = |rig: &Rig| {
        let (key, instance) = rig.publisher.snapshot().pop().unwrap();
        let texts = [key.service.as_str(), instance.service.as_str()].map(str::as_ptr);
        (texts, [key.id.as_str(), instance.id.as_str()].map(str::as_ptr))
    };
    // Whether a service is asked for or all of them.
    for service in [None, Some("a")] {
        let mut rig = Rig::of(Native::new("/s"), service);
        rig.list(&[("/s/a/1", A, 1)]);
        let ([of_service, _], [of_id, _]) = texts(&rig);
        rig.put("/s/a/1", B, 2);
        assert_eq!(texts(&rig), ([of_service; 2], [of_id; 2]));
        rig.list(&[("/s/a/1", A, 3)]);
        assert_eq!(
            (texts(&rig), rig.seen()),
            (([of_service; 2], [of_id; 2]), vec!["a/1 a:1*1".into()])
        );
    }
}

#[test]
fn an_unreadable_value_does_not_bring_back_one_that_vanished() {
    let mut rig = native();
    rig.list(&[("/s/a/1", A, 1)]);
    let mut staged = rig.publisher.replacement();
    rig.translator.begin();
    rig.translator.stage(page(&[("/s/a/1", BAD, 2)]), &mut staged, |key| key.id.as_str() == "1");
    rig.translator.finish(&mut staged, |_| true);
    assert!(staged.commit(None));
    assert_eq!(rig.seen(), [""; 0]);
}

#[test]
fn what_is_no_key_of_ours_disturbs_nobody() {
    let mut rig = native();
    rig.list(&[("/s/a/1", A, 1), ("/s/a/b/c", A, 2), ("/s/a b/1", A, 3)]);
    assert_eq!(rig.seen(), ["a/1 a:1*1"]);
    rig.apply(vec![put("/s/x", A, 4), delete("/s/a/b/c", 5), put("/s/a/2", B, 6)]);
    assert_eq!(rig.seen(), ["a/1 a:1*1", "a/2 b:1*1"]);
}

#[test]
fn a_list_that_breaks_off_changes_nothing_that_is_known() {
    let mut rig = Rig::new(Upstreams);
    rig.list(&[("/apisix/upstreams/a", r#"{"nodes":{"a:1":1}}"#, 1)]);
    rig.stage(&[("/apisix/upstreams/a", r#"{"nodes":{"b:1":1}}"#, 2)]);
    rig.staged = None;
    // The next one finds a value that cannot be read: it keeps what readers have.
    rig.list(&[("/apisix/upstreams/a", "{", 3)]);
    assert_eq!(rig.seen(), ["a/a:1 a:1*1"]);
    rig.delete("/apisix/upstreams/a", 4);
    assert_eq!(rig.seen(), [""; 0]);
}

#[test]
fn a_record_of_several_instances_drops_those_it_no_longer_names() {
    let mut rig = Rig::new(Upstreams);
    let key = "/apisix/upstreams/orders";
    rig.list(&[(key, r#"{"nodes":{"a:1":1,"b:1":2}}"#, 1)]);
    assert_eq!(rig.seen(), ["orders/a:1 a:1*1", "orders/b:1 b:1*2"]);
    rig.put(key, r#"{"nodes":{"b:1":3,"c:1":1}}"#, 2);
    assert_eq!(rig.seen(), ["orders/b:1 b:1*3", "orders/c:1 c:1*1"]);
    rig.put(key, r#"{"nodes":7}"#, 3);
    assert_eq!(rig.seen(), ["orders/b:1 b:1*3", "orders/c:1 c:1*1"]);
    rig.list(&[(key, r#"{"nodes":{"c:1":1,"d:1":1}}"#, 4)]);
    assert_eq!(rig.seen(), ["orders/c:1 c:1*1", "orders/d:1 d:1*1"]);
    rig.put(key, r#"{"nodes":{}}"#, 5);
    assert_eq!(rig.seen(), [""; 0]);
    rig.put(key, r#"{"nodes":[{"host":"a","port":1,"weight":1}]}"#, 6);
    assert_eq!(rig.seen(), ["orders/a:1 a:1*1"]);
    rig.delete(key, 7);
    assert_eq!(rig.seen(), [""; 0]);
}

#[test]
fn who_asks_for_one_service_does_not_get_others_that_a_prefix_covers() {
    let mut rig = Rig::of(Upstreams, Some("order"));
    let nodes = r#"{"nodes":{"a:1":1}}"#;
    rig.list(&[("/apisix/upstreams/order", nodes, 1), ("/apisix/upstreams/orders", nodes, 2)]);
    assert_eq!(rig.seen(), ["order/a:1 a:1*1"]);
    rig.put("/apisix/upstreams/order2", nodes, 3);
    assert_eq!(rig.seen(), ["order/a:1 a:1*1"]);
}

#[test]
fn a_record_of_several_keys_is_joined_and_changes_with_each_of_them() {
    let mut rig = Rig::new(Servers);
    let key = |rest: &str| format!("traefik/http/services/a/loadbalancer/servers/{rest}");
    let (url, weight) = (&key("1/url"), &key("1/weight"));
    // They can stand on two pages.
    rig.stage(&[(url, "http://a:1/", 1)]);
    rig.stage(&[(weight, "5", 1), (&key("1-b/url"), "http://b:1", 2)]);
    rig.finish();
    assert_eq!(rig.seen(), ["a/1 a:1*5", "a/1-b b:1*1"]);
    rig.put(weight, "7", 3);
    assert_eq!(rig.seen(), ["a/1 a:1*7", "a/1-b b:1*1"]);
    rig.put(weight, "x", 4);
    assert_eq!(rig.seen(), ["a/1 a:1*7", "a/1-b b:1*1"]);
    rig.delete(weight, 5);
    assert_eq!(rig.seen(), ["a/1 a:1*1", "a/1-b b:1*1"]);
    rig.delete(url, 6);
    assert_eq!(rig.seen(), ["a/1-b b:1*1"]);
    // What changes at one revision is read as one.
    rig.apply(vec![put(weight, "3", 7), put(url, "c:1", 7)]);
    assert_eq!(rig.seen(), ["a/1 c:1*3", "a/1-b b:1*1"]);
    rig.apply(vec![delete(url, 8), delete(weight, 8), delete(&key("1-b/url"), 8)]);
    assert_eq!(rig.seen(), [""; 0]);
    assert!(rig.translator.table.parts(key("1").as_bytes()).0.is_empty());
    // One that cannot be read keeps what it stood for through a list, and is gone with the list.
    rig.list(&[(url, "a:1", 9)]);
    rig.list(&[(url, "a:1", 9), (weight, "x", 10)]);
    assert_eq!(rig.seen(), ["a/1 a:1*1"]);
    rig.list(&[("traefik/http/services/a/loadbalancer/passhostheader", "true", 11)]);
    assert_eq!(rig.seen(), [""; 0]);
    assert!(rig.translator.reader.reports.unreadable.is_empty());
}

/// Records `KEY` whose value is the service and id of an instance, so that it can move.
#[derive(Debug)]
struct Free;

impl Format for Free {
    fn prefix(&self, _: Option<&ServiceName>) -> Vec<u8> {
        Vec::new()
    }

    fn record<'k>(&self, _: &'k [u8]) -> Result<Record<'k>, Undecodable> {
        Ok(Record::Whole)
    }

    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
        let id = String::from_utf8_lossy(entries[0].value).into_owned();
        Ok(Decoded::one(Instance::parse("w", &id, "a:1")?))
    }

    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
        Ok(Encoded { key: b"x".to_vec(), value: Some(instance.id.to_string().into_bytes()) })
    }
}

#[test]
fn an_instance_that_moves_to_another_record_at_one_revision_stays() {
    let mut rig = Rig::new(Free);
    rig.list(&[("x", "1", 1)]);
    let batch = rig.translator.batch(vec![put("b", "1", 2), delete("x", 2)]);
    assert!(batch.iter().all(|update| matches!(update, Update::Insert(..))), "none vanished");
    rig.publisher.apply(batch, None);
    assert_eq!(rig.seen(), ["w/1 a:1*1"]);
    // And from one revision to the next, in one batch.
    rig.apply(vec![put("b", "2", 3), put("a", "1", 4), delete("b", 5), put("c", "2", 5)]);
    assert_eq!(rig.seen(), ["w/1 a:1*1", "w/2 a:1*1"]);
    // What comes and goes in one batch is gone.
    rig.apply(vec![put("d", "3", 6), delete("d", 7)]);
    assert_eq!(rig.seen(), ["w/1 a:1*1", "w/2 a:1*1"]);
    rig.apply(vec![delete("a", 8), delete("c", 8)]);
    assert_eq!(rig.seen(), [""; 0]);
}

#[test]
fn what_only_a_list_that_broke_off_had_is_not_taken_from_another_record() {
    let mut rig = Rig::new(Free);
    rig.stage(&[("a", "1", 1)]);
    rig.staged = None;
    rig.list(&[("a", "not read", 2), ("b", "1", 2)]);
    rig.delete("a", 3);
    assert_eq!(rig.seen(), ["w/1 a:1*1"]);
}

#[test]
fn a_value_that_says_other_names_than_its_key_is_noted_once_and_forgotten_with_the_key() {
    let mut rig = Rig::new(Heartbeat);
    rig.list(&[("heartbeat|w|http://a:1", "http://b:1", 1), ("heartbeat|w|http://c:1", "", 1)]);
    assert_eq!(rig.seen(), ["w/http://a:1 b:1*1"]);
    let noted = |rig: &Rig| {
        (
            rig.translator.reader.reports.differing.len(),
            rig.translator.reader.reports.unreadable.len(),
        )
    };
    assert_eq!(noted(&rig), (1, 1));
    rig.put("heartbeat|w|http://a:1", "http://b:2", 2);
    assert_eq!(noted(&rig), (1, 1));
    rig.delete("heartbeat|w|http://a:1", 3);
    rig.put("heartbeat|w|http://c:1", "http://c:1", 4);
    assert_eq!(noted(&rig), (0, 0));
    rig.put("heartbeat|w|http://c:1", "x y", 5);
    rig.list(&[]);
    assert_eq!(noted(&rig), (0, 0));
}

/// What is known when an audit begins: `a` of revision 5, `b` of revision 7.
fn audited() -> Rig {
    let mut rig = native();
    rig.list(&[("/s/x/a", A, 5), ("/s/x/b", B, 7)]);
    rig.translator.audit_begin();
    rig
}

/// What the audit comes to when it lists these keys at `at` and then these events come.
fn comes_to(listed: &[(&str, i64)], at: i64, events: Vec<Event>) -> usize {
    let mut rig = audited();
    for (key, revision) in listed {
        rig.translator.audit_page(&page(&[(&format!("/s/x/{key}"), "", *revision)]));
    }
    rig.translator.audit_end(at);
    for event in events {
        rig.apply(vec![event]);
    }
    rig.translator.audit_settle()
}

#[test]
fn an_audit_doubts_what_differs_and_no_event_explains() {
    let both = [("a", 5), ("b", 7)];
    let add = |key, revision| vec![put(&format!("/s/x/{key}"), A, revision)];
    let drop = |key, revision| vec![delete(&format!("/s/x/{key}"), revision)];
    assert_eq!(comes_to(&both, 9, vec![]), 0);
    // Ours is newer.
    assert_eq!(comes_to(&[("a", 4), ("b", 6)], 9, vec![]), 0);
    // Ours is missing or older, and stays so or not.
    for (listed, key) in
        [([("a", 5), ("b", 7), ("c", 8)], "c"), ([("a", 5), ("b", 7), ("b", 8)], "b")]
    {
        assert_eq!(comes_to(&listed, 9, vec![]), 1);
        assert_eq!(comes_to(&listed, 9, add(key, 8)), 0);
        assert_eq!(comes_to(&listed, 9, add(key, 12)), 0);
        assert_eq!(comes_to(&listed, 9, drop(key, 12)), 0);
    }
    // Deleted before what the audit saw: that is not explained by it.
    assert_eq!(comes_to(&[("a", 5), ("b", 8)], 9, drop("b", 7)), 1);
    // Ours is not in the audit, and stays or not.
    assert_eq!(comes_to(&[("b", 7)], 9, vec![]), 1);
    assert_eq!(comes_to(&[("b", 7)], 9, drop("a", 8)), 0);
    assert_eq!(comes_to(&[("b", 7)], 9, add("a", 12)), 0);
    // It came after the audit's revision.
    assert_eq!(comes_to(&[("a", 5)], 6, vec![]), 0);
    assert_eq!(comes_to(&[], 9, vec![]), 2);
}

#[test]
fn events_may_come_between_the_pages_of_an_audit() {
    let mut rig = audited();
    rig.translator.audit_page(&page(&[("/s/x/a", "", 5), ("/s/x/a2", "", 9)]));
    // Late news of what the audit has, and news from after it.
    rig.put("/s/x/a2", A, 9);
    rig.put("/s/x/c", A, 11);
    rig.delete("/s/x/b", 12);
    rig.translator.audit_page(&page(&[("/s/x/b", "", 7)]));
    rig.translator.audit_end(10);
    assert_eq!(rig.translator.audit_settle(), 0);
    assert_eq!(rig.translator.audit_settle(), 0, "it is over");
}

#[test]
fn keys_that_mean_nothing_are_no_doubt_and_parts_are_keys_like_others() {
    let mut rig = Rig::new(Servers);
    let key = |rest: &str| format!("traefik/http/services/a/loadbalancer/{rest}");
    rig.list(&[
        (&key("passhostheader"), "true", 1),
        (&key("servers/1/url"), "a:1", 2),
        ("x", "", 3),
    ]);
    let mut audit = |listed: &[(&str, &str, i64)]| {
        rig.translator.audit_begin();
        rig.translator.audit_page(&page(listed));
        rig.translator.audit_end(9);
        rig.translator.audit_settle()
    };
    let (nothing, url, weight) =
        (key("passhostheader"), key("servers/1/url"), key("servers/1/weight"));
    assert_eq!(audit(&[(&nothing, "", 1), (&url, "", 2), ("x", "", 3), ("y", "", 4)]), 0);
    assert_eq!(audit(&[(&url, "", 2), (&weight, "", 4)]), 1);
    assert_eq!(audit(&[(&url, "", 4)]), 1);
    assert_eq!(audit(&[]), 1);
    // Values that cannot be read are known, too.
    let mut rig = native();
    rig.list(&[("/s/a/1", BAD, 1)]);
    rig.put("/s/a/2", BAD, 2);
    rig.translator.audit_begin();
    rig.translator.audit_page(&page(&[("/s/a/1", "", 1), ("/s/a/2", "", 2)]));
    rig.translator.audit_end(2);
    assert_eq!(rig.translator.audit_settle(), 0);
}

#[test]
fn a_whole_set_ends_an_audit_and_doubts_are_counted_up_to_a_limit() {
    let mut rig = audited();
    rig.list(&[]);
    rig.translator.audit_end(9);
    assert_eq!(rig.translator.audit_settle(), 0);
    let listed: Vec<_> = (0..1000).map(|each| (format!("/s/x/{each}"), each + 1)).collect();
    let listed: Vec<_> = listed.iter().map(|(key, revision)| (&**key, "", *revision)).collect();
    rig.translator.audit_begin();
    rig.translator.audit_page(&page(&listed));
    rig.translator.audit_end(2000);
    assert_eq!(rig.translator.audit_settle(), 64);
}

/// A store whose events come late, and of which some may be lost.
struct Course {
    rng: StdRng,
    revision: i64,
    store: BTreeMap<String, i64>,
    /// Whether the last event of a key was lost.
    last: BTreeMap<String, bool>,
    /// The last delete of a key that was not lost.
    told_gone: BTreeMap<String, i64>,
    late: VecDeque<Event>,
    /// One in so many events is lost; 0: none.
    loses: u32,
}

impl Course {
    fn change(&mut self) {
        let key = format!("/s/x/{}", self.rng.random_range(0..12));
        self.revision += 1;
        let revision = self.revision;
        let event = if self.store.contains_key(&key) && self.rng.random_bool(0.5) {
            self.store.remove(&key);
            delete(&key, revision)
        } else {
            self.store.insert(key.clone(), revision);
            put(&key, A, revision)
        };
        let lost = self.loses > 0 && self.rng.random_ratio(1, self.loses);
        if !lost {
            if let Event::Delete { .. } = event {
                self.told_gone.insert(key.clone(), revision);
            }
            self.late.push_back(event);
        }
        self.last.insert(key, lost);
    }

    /// Changes happen and news of some arrives.
    fn goes_on(&mut self, rig: &mut Rig) {
        for _ in 0..self.rng.random_range(0..8) {
            if self.rng.random_bool(0.5) {
                self.change();
            } else if let Some(event) = self.late.pop_front() {
                rig.apply(vec![event]);
            }
        }
    }
}

#[test]
fn in_random_courses_an_audit_finds_what_was_lost_and_nothing_else() {
    let (mut found, mut clean) = (0, 0);
    for seed in 0..2000 {
        let loses = if seed % 2 == 0 { 0 } else { 8 };
        let mut course = Course {
            rng: StdRng::seed_from_u64(seed),
            revision: 0,
            store: BTreeMap::new(),
            last: BTreeMap::new(),
            told_gone: BTreeMap::new(),
            late: VecDeque::new(),
            loses,
        };
        let mut rig = native();
        rig.list(&[]);
        for _ in 0..4 {
            course.goes_on(&mut rig);
        }
        rig.translator.audit_begin();
        course.goes_on(&mut rig);
        let (at, listed) = (course.revision, course.store.clone());
        let last = course.last.clone();
        for (key, revision) in &listed {
            rig.translator.audit_page(&page(&[(key, "", *revision)]));
            course.goes_on(&mut rig);
        }
        rig.translator.audit_end(at);
        course.goes_on(&mut rig);
        // In the end all news that was not lost has arrived.
        while let Some(event) = course.late.pop_front() {
            rig.apply(vec![event]);
        }
        // A key is wrong for good if its last event up to the audit was lost, that made a difference,
        // and no later event put it right.
        let is_wrong = |key: &String, lost: bool| {
            let known = rig.translator.table.revision(None, key.as_bytes());
            let right = match listed.get(key) {
                Some(revision) => {
                    let deleted = course.told_gone.get(key).is_some_and(|gone| *gone > at);
                    deleted || known.is_some_and(|known| known >= *revision)
                }
                None => known.is_none_or(|known| known > at),
            };
            lost && !right
        };
        let wrong = last.iter().filter(|(key, lost)| is_wrong(key, **lost)).count();
        let settled = rig.translator.audit_settle();
        assert_eq!(settled, wrong, "seed {seed}");
        assert!(loses > 0 || wrong == 0, "seed {seed}: {wrong}");
        *(if wrong > 0 { &mut found } else { &mut clean }) += 1;
    }
    assert!(found > 200 && clean > 200, "{found} {clean}");
}
