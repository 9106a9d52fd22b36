use std::time::Duration;

use super::*;
use crate::Weight;

/// A source of services with numbered instances, its stabiliser, and what readers see.
struct Source {
    stabiliser: Stabiliser,
    out: Out,
    start: Instant,
}

fn instance(service: &str, number: usize) -> Instance {
    Instance::parse(service, &number.to_string(), &format!("127.0.0.1:{}", number % 60_000 + 1))
        .unwrap()
}

impl Source {
    fn new(rules: Stabilise, crowd: &Crowd, services: &[(&str, usize)]) -> Self {
        let start = Instant::now();
        let mut out = Out::new();
        let mut stabiliser = Stabiliser::new(rules, crowd, services.len() != 1);
        let mut set = out.replacement();
        for (service, count) in services {
            set.extend((0..*count).map(|n| (instance(service, n).key(), instance(service, n))));
        }
        assert!(stabiliser.commit(set, Some(1), &mut out, start));
        Self { stabiliser, out, start }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn remove(&mut self, ms: u64, service: &str, numbers: impl IntoIterator<Item = usize>) {
        let removals = numbers.into_iter().map(|n| Update::Remove(instance(service, n).key()));
        let now = self.at(ms);
        self.stabiliser.apply(removals.collect(), None, &mut self.out, now);
    }

    fn insert(&mut self, ms: u64, instance: Instance) {
        let update = Update::Insert(instance.key(), Arc::new(instance));
        let now = self.at(ms);
        self.stabiliser.apply(vec![update], None, &mut self.out, now);
    }

    /// Ticks whenever something is due until then.
    fn until(&mut self, ms: u64) {
        while let Some(due) = self.stabiliser.deadline().filter(|due| *due <= self.at(ms)) {
            self.stabiliser.tick(&mut self.out, due);
            assert_ne!(self.stabiliser.deadline(), Some(due), "due for ever");
        }
    }

    /// How many readers see, and how many of them as suspects.
    fn seen(&self) -> (usize, usize) {
        let snapshot = self.out.snapshot();
        (snapshot.len(), snapshot.iter().filter(|(_, instance)| instance.suspect).count())
    }
}

fn ten() -> Source {
    Source::new(Stabilise::new(), &Crowd::new(), &[("a", 10)])
}

#[test]
fn one_that_leaves_alone_is_gone_after_a_moment() {
    let mut source = ten();
    source.remove(0, "a", [3]);
    source.until(499);
    assert_eq!(source.seen(), (10, 0));
    source.until(500);
    assert_eq!(source.seen(), (9, 0));
    assert_eq!(source.stabiliser.deadline(), None);
}

#[test]
fn one_that_said_so_before_is_gone_at_once() {
    let mut source = ten();
    for number in 0..10 {
        let mut leaving = instance("a", number);
        leaving.status = InstanceStatus::Draining;
        // Said and done in one batch, and in two.
        if number % 2 == 0 {
            let key = leaving.key();
            let batch = vec![Update::Insert(key.clone(), Arc::new(leaving)), Update::Remove(key)];
            source.stabiliser.apply(batch, None, &mut source.out, source.start);
        } else {
            source.insert(0, leaving);
            source.remove(0, "a", [number]);
        }
    }
    assert_eq!(source.seen(), (0, 0));
}

#[test]
fn many_that_vanish_together_are_suspects_for_a_while() {
    let mut source = ten();
    source.remove(0, "a", 0..3);
    source.remove(400, "a", [3]);
    source.until(500);
    assert_eq!(source.seen(), (10, 3));
    source.until(900);
    assert_eq!((source.seen(), source.stabiliser.suspects()), ((10, 4), 4));
    source.until(10_499);
    assert_eq!(source.seen(), (10, 4));
    source.until(10_500);
    assert_eq!(source.seen(), (7, 1));
    source.until(10_900);
    assert_eq!(source.seen(), (6, 0));
}

#[test]
fn both_bounds_count() {
    // 2 of 10 are more than 15 %, 2 of 14 are not; 1 of 2 is not at least two.
    for (of, vanish, suspects) in [(10, 2, 2), (13, 2, 2), (14, 2, 0), (2, 1, 0), (2, 2, 2)] {
        let mut source = Source::new(Stabilise::new(), &Crowd::new(), &[("a", of)]);
        source.remove(0, "a", 0..vanish);
        source.until(500);
        assert_eq!(source.seen().1, suspects, "{vanish} of {of}");
    }
}

#[test]
fn two_that_vanish_at_different_times_are_not_together() {
    let mut source = ten();
    source.remove(0, "a", [0]);
    source.until(501);
    source.remove(501, "a", [1]);
    source.until(1_001);
    assert_eq!(source.seen(), (8, 0));
}

#[test]
fn who_comes_back_is_simply_an_instance_again() {
    let mut source = ten();
    source.remove(0, "a", 0..5);
    source.insert(100, instance("a", 0));
    source.until(500);
    assert_eq!(source.seen(), (10, 4), "the one that came back is still company");
    let mut heavier = instance("a", 1);
    heavier.weight = Weight::new(7);
    source.insert(600, heavier.clone());
    assert_eq!(source.seen(), (10, 3));
    assert_eq!(*source.out.get(&heavier.key()).unwrap(), heavier);
    source.until(20_000);
    assert_eq!(source.seen(), (7, 0));
}

#[test]
fn services_of_one_instance_are_covered_by_what_happens_to_the_others() {
    let services = ["a", "b", "c", "d"].map(|service| (service, 1));
    let mut source = Source::new(Stabilise::new(), &Crowd::new(), &services);
    for service in ["a", "b", "c"] {
        source.remove(0, service, [0]);
    }
    source.until(500);
    assert_eq!(source.seen(), (4, 3));

    // The same over one watch each.
    let crowd = Crowd::new();
    let mut watches = services.map(|service| Source::new(Stabilise::new(), &crowd, &[service]));
    for (watch, (service, _)) in watches.iter_mut().zip(services).take(3) {
        watch.remove(0, service, [0]);
    }
    for watch in &mut watches {
        watch.until(500);
    }
    assert_eq!(watches.map(|watch| watch.seen()), [(1, 1), (1, 1), (1, 1), (1, 0)]);
}

/// After an outage each watch comes back at a time of its own, and sees one instance gone.
#[test]
fn watches_that_come_back_one_by_one_see_that_many_went() {
    let services = ["a", "b", "c", "d"].map(|service| (service, 1));
    let crowd = Crowd::new();
    let mut watches = services.map(|service| Source::new(Stabilise::new(), &crowd, &[service]));
    for watch in &mut watches {
        let now = watch.at(0);
        watch.stabiliser.lost(now);
    }
    // The first decides while others are away; the last when all are back, long after the first.
    for (watch, ms) in watches.iter_mut().zip([10_000, 10_900, 11_800, 17_000]) {
        let (set, now) = (watch.out.replacement(), watch.at(ms));
        assert!(watch.stabiliser.commit(set, None, &mut watch.out, now));
        watch.until(ms + 500);
        assert_eq!(watch.seen(), (1, 1), "{ms}");
    }
    // One that is back first and lists before anything is gone learns of it as it happens.
    for watch in &mut watches {
        let mut set = watch.out.replacement();
        set.extend(
            watch
                .out
                .snapshot()
                .into_iter()
                .map(|(key, _)| (key.clone(), instance(key.service.as_str(), 0))),
        );
        let now = watch.at(20_000);
        watch.stabiliser.commit(set, None, &mut watch.out, now);
        assert_eq!(watch.seen(), (1, 0));
        watch.stabiliser.lost(now);
    }
    let first = &mut watches[0];
    let mut set = first.out.replacement();
    set.insert(instance("a", 0).key(), instance("a", 0));
    let now = first.at(60_000);
    first.stabiliser.commit(set, None, &mut first.out, now);
    first.remove(60_010, "a", [0]);
    first.until(60_600);
    assert_eq!(first.seen(), (1, 1));
    // One that is alone out of touch, and misses one, misses just that.
    let mut alone = Source::new(Stabilise::new(), &Crowd::new(), &[("a", 10)]);
    let now = alone.at(0);
    alone.stabiliser.lost(now);
    let mut set = alone.out.replacement();
    set.extend((1..10).map(|n| (instance("a", n).key(), instance("a", n))));
    let now = alone.at(9_000);
    alone.stabiliser.commit(set, None, &mut alone.out, now);
    alone.until(9_500);
    assert_eq!(alone.seen(), (9, 0));
}

#[test]
fn what_two_watches_see_counts_once() {
    let crowd = Crowd::new();
    let mut all = Source::new(Stabilise::new(), &crowd, &[("a", 2), ("b", 1)]);
    let mut one = Source::new(Stabilise::new(), &crowd, &[("a", 2)]);
    for watch in [&mut all, &mut one] {
        watch.remove(0, "a", [0]);
    }
    for watch in [&mut all, &mut one] {
        watch.until(500);
    }
    assert_eq!((all.seen(), one.seen()), ((2, 0), (1, 0)));
}

#[test]
fn a_new_list_is_judged_like_changes() {
    let mut source = ten();
    source.remove(0, "a", [0, 1]);
    source.until(500);
    // 0 is back, 1 is still away, 2 to 4 went too.
    let mut set = source.out.replacement();
    for number in [0, 5, 6, 7, 8, 9] {
        set.insert(instance("a", number).key(), instance("a", number));
    }
    let now = source.at(1_000);
    source.stabiliser.commit(set, None, &mut source.out, now);
    assert_eq!(source.seen(), (10, 1));
    source.until(1_500);
    assert_eq!(source.seen(), (10, 4));
    source.until(10_500);
    assert_eq!(source.seen(), (9, 3), "a suspect's time goes on over a list");
    source.until(11_500);
    assert_eq!(source.seen(), (6, 0));
}

/// A key whose value cannot be read is there, and no sign of life: it stays what it is.
#[test]
fn a_list_with_an_unreadable_value_does_not_bring_a_suspect_back() {
    let mut source = ten();
    source.remove(0, "a", [0, 1]);
    source.until(500);
    let mut set = source.out.replacement();
    for number in 0..10 {
        let key = instance("a", number).key();
        if number != 0 || !source.stabiliser.is_held(&key) {
            set.insert(key, instance("a", number));
        }
    }
    let now = source.at(1_000);
    source.stabiliser.commit(set, None, &mut source.out, now);
    assert_eq!(source.seen(), (10, 1));
    source.until(10_500);
    assert_eq!(source.seen(), (9, 0));
}

/// Judging one of a crowd must not look at all of it: this would take minutes.
#[test]
fn a_crowd_can_be_large() {
    const MANY: usize = 30_000;
    let mut source = Source::new(Stabilise::new(), &Crowd::new(), &[("a", MANY)]);
    source.remove(0, "a", 0..MANY);
    source.until(500);
    assert_eq!(source.seen(), (MANY, MANY));
    source.until(10_500);
    assert_eq!(source.seen(), (0, 0));
}

#[test]
fn turned_off_it_passes_everything() {
    let rules = Stabilise::new().suspects_for(Duration::ZERO);
    let mut source = Source::new(rules, &Crowd::new(), &[("a", 10)]);
    source.remove(0, "a", 0..10);
    assert_eq!(source.seen(), (0, 0));
}
