use rand::SeedableRng as _;

use super::*;
use crate::wire::KeyValue;

fn rotation() -> Rotation {
    Rotation::new(&["a", "b", "c"].map(str::to_owned), 1)
}

const PREFIX: &[u8] = b"/services/a/";

/// A machine, its clock, and what it did since last asked.
struct Rig {
    machine: Machine,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self::seeded(1)
    }

    fn seeded(seed: u64) -> Self {
        let now = Instant::now();
        let rng = StdRng::seed_from_u64(seed);
        Self { machine: Machine::new(PREFIX.to_vec(), rotation(), rng, now), now }
    }

    fn hear(&mut self, input: Input) -> Vec<Action> {
        let ticked = matches!(input, Input::Tick);
        self.machine.handle(input, self.now);
        if ticked {
            let deadline = self.machine.deadline();
            assert!(deadline > self.now, "a busy loop: {:?}", self.machine);
        }
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    /// Goes on to the deadline; gives the time that passed, too.
    fn tick(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.machine.deadline();
        let passed = deadline.saturating_duration_since(self.now);
        self.now += passed;
        (passed, self.hear(Input::Tick))
    }

    fn watch(&mut self, message: WatchMessage) -> Vec<Action> {
        self.hear(Input::Watch(message))
    }

    fn fail(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Failed(error(kind)))
    }

    fn connecting(&mut self) -> usize {
        match self.tick().1.as_slice() {
            [Action::Connect(endpoint)] => *endpoint,
            other => panic!("not connecting: {other:?}"),
        }
    }

    fn opening(&mut self) {
        self.connecting();
        assert_eq!(self.hear(Input::Connected), [Action::Open]);
    }

    fn listing(&mut self, created: i64) {
        self.opening();
        assert_eq!(self.watch(WatchMessage::Created { revision: created }), [list(None, None)]);
    }

    fn live(&mut self, revision: i64) {
        self.listing(revision);
        let page = page(&[], false, revision);
        let done = [Action::Stage(page.clone()), Action::Commit { revision }];
        assert_eq!(self.hear(Input::Page(page)), done);
    }

    /// A failure in the state that `reach` reaches: given up, and the wait after it.
    fn gives_up(&mut self, kind: Kind) -> Duration {
        let given_up = [Action::Disconnect, Action::Trouble(error(kind))];
        assert_eq!(self.fail(kind), given_up);
        let deadline = self.machine.deadline();
        deadline - self.now
    }
}

fn error(kind: Kind) -> WireError {
    WireError::new(kind, "try", "etcd", "no")
}

fn entry(key: &str, revision: i64) -> KeyValue {
    KeyValue { key: key.into(), value: b"v".to_vec(), revision, lease: 0 }
}

fn put(key: &str, revision: i64) -> Event {
    Event::Put(entry(key, revision))
}

fn delete(key: &str, revision: i64) -> Event {
    Event::Delete { key: key.into(), revision }
}

fn page(keys: &[&str], more: bool, revision: i64) -> Page {
    Page { entries: keys.iter().map(|key| entry(key, 1)).collect(), more, revision }
}

fn list(after: Option<&str>, at: Option<i64>) -> Action {
    Action::List(List { prefix: PREFIX.to_vec(), after: after.map(Into::into), at })
}

type Reach = fn(&mut Rig);
/// Each state in which there is a connection, or one is being made.
const STATES: [(&str, Reach, Option<u64>); 4] = [
    ("connecting", |rig| assert_eq!(rig.connecting(), 1), Some(3)),
    ("opening", Rig::opening, Some(3)),
    ("listing", |rig| rig.listing(7), Some(4)),
    ("live", |rig| rig.live(7), None),
];

#[test]
fn it_connects_at_once_opens_the_watch_and_lists_only_when_the_watch_stands() {
    let mut rig = Rig::new();
    let (waited, actions) = rig.tick();
    assert_eq!((waited, actions), (Duration::ZERO, vec![Action::Connect(1)]));
    assert_eq!(rig.hear(Input::Connected), [Action::Open]);
    assert_eq!(rig.watch(WatchMessage::Created { revision: 7 }), [list(None, None)]);
    let page = page(&["k"], false, 9);
    let done = [Action::Stage(page.clone()), Action::Commit { revision: 9 }];
    assert_eq!(rig.hear(Input::Page(page)), done);
}

#[test]
fn pages_are_pinned_to_the_revision_of_the_first_and_follow_its_last_key() {
    let mut rig = Rig::new();
    rig.listing(7);
    let first = page(&["a", "b"], true, 9);
    let next = [Action::Stage(first.clone()), list(Some("b"), Some(9))];
    assert_eq!(rig.hear(Input::Page(first)), next);
    // Its own revision is the store's by then, be it further on or, after a change of member, behind.
    let second = page(&["c"], true, 12);
    let next = [Action::Stage(second.clone()), list(Some("c"), Some(9))];
    assert_eq!(rig.hear(Input::Page(second)), next);
    assert!(rig.watch(WatchMessage::Events(vec![put("a", 9), put("b", 10)])).is_empty());
    let third = page(&["d"], false, 14);
    let done = [
        Action::Stage(third.clone()),
        Action::Commit { revision: 9 },
        Action::Apply(vec![put("b", 10)]),
    ];
    assert_eq!(rig.hear(Input::Page(third)), done);
}

#[test]
fn a_page_that_promises_more_behind_nothing_is_not_taken_for_the_end() {
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.hear(Input::Page(page(&[], true, 9)));
    assert!(matches!(actions.as_slice(), [Action::Disconnect, Action::Trouble(_)]), "{actions:?}");
}

#[test]
fn each_page_has_its_own_time() {
    let mut rig = Rig::new();
    rig.listing(7);
    rig.now += Duration::from_secs(3);
    rig.hear(Input::Page(page(&["a"], true, 9)));
    assert_eq!(rig.machine.deadline(), rig.now + PAGE_WITHIN);
}

#[test]
fn events_during_the_list_are_held_and_follow_it_in_order_without_those_it_has() {
    let mut rig = Rig::new();
    rig.listing(7);
    for events in [
        vec![put("a", 8)],
        vec![put("a", 9), delete("b", 9)],
        vec![delete("a", 10)],
        vec![put("c", 11), put("d", 11)],
    ] {
        assert!(rig.watch(WatchMessage::Events(events)).is_empty());
    }
    let all = page(&["a"], false, 9);
    let done = [
        Action::Stage(all.clone()),
        Action::Commit { revision: 9 },
        // Of "a" the last event only.
        Action::Apply(vec![delete("a", 10), put("c", 11), put("d", 11)]),
    ];
    assert_eq!(rig.hear(Input::Page(all)), done);
}

#[test]
fn live_events_are_applied_once_each_and_never_those_at_or_below_the_list() {
    let mut rig = Rig::new();
    rig.live(9);
    for (events, applied) in [
        (vec![put("a", 8)], vec![]),
        (vec![put("a", 9)], vec![]),
        (vec![put("a", 9), delete("a", 10)], vec![delete("a", 10)]),
        (vec![put("a", 10)], vec![]),
        (vec![put("b", 12), put("c", 12)], vec![put("b", 12), put("c", 12)]),
        (vec![put("d", 12)], vec![]),
        (vec![], vec![]),
        (vec![put("e", 13), put("f", 15)], vec![put("e", 13), put("f", 15)]),
        (vec![put("g", 14)], vec![]),
    ] {
        let actions = rig.watch(WatchMessage::Events(events));
        let expected: Vec<_> =
            if applied.is_empty() { vec![] } else { vec![Action::Apply(applied)] };
        assert_eq!(actions, expected);
    }
    assert!(rig.watch(WatchMessage::Progress).is_empty());
    assert!(rig.watch(WatchMessage::Created { revision: 20 }).is_empty());
}

#[test]
fn a_list_older_than_the_watch_is_refused_and_one_of_the_same_revision_is_not() {
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.hear(Input::Page(page(&["a"], false, 6)));
    let [Action::Disconnect, Action::Trouble(error)] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert!(error.kind == Kind::Unreachable && error.to_string().contains("older"), "{error}");
    let mut rig = Rig::new();
    rig.listing(7);
    assert!(
        rig.hear(Input::Page(page(&["a"], false, 7))).contains(&Action::Commit { revision: 7 })
    );
}

#[test]
fn any_failure_in_any_state_gives_up_the_connection_and_takes_the_next_endpoint() {
    for (state, reach, _) in STATES {
        for kind in [Kind::Unreachable, Kind::Compacted, Kind::Busy, Kind::Rejected] {
            let mut rig = Rig::new();
            reach(&mut rig);
            assert!(rig.gives_up(kind) <= Duration::from_millis(50), "{state}");
            assert_eq!(rig.connecting(), 2, "{state}");
        }
        let mut rig = Rig::new();
        reach(&mut rig);
        let canceled = rig.watch(WatchMessage::Canceled(error(Kind::Compacted)));
        assert_eq!(canceled, [Action::Disconnect, Action::Trouble(error(Kind::Compacted))]);
        assert_eq!(rig.connecting(), 2, "{state}");
    }
}

#[test]
fn what_was_denied_is_tried_again_slowly() {
    for (state, reach, _) in STATES {
        let waits: Vec<_> = (0..200)
            .map(|seed| {
                let mut rig = Rig::seeded(seed);
                reach(&mut rig);
                if seed % 2 == 0 {
                    rig.fail(Kind::Denied);
                } else {
                    rig.watch(WatchMessage::Canceled(error(Kind::Denied)));
                }
                (rig.machine.deadline() - rig.now).as_secs_f64()
            })
            .collect();
        let least = waits.iter().copied().fold(f64::MAX, f64::min);
        let most = waits.iter().copied().fold(0.0, f64::max);
        assert!(
            (8.0..8.3).contains(&least) && (11.7..=12.0).contains(&most),
            "{state} {least} {most}"
        );
    }
}

#[test]
fn each_step_has_a_deadline_after_which_the_connection_is_given_up() {
    for (state, reach, within) in STATES {
        let mut rig = Rig::new();
        reach(&mut rig);
        // A live one is asked for signs of life: a test of its own.
        let Some(within) = within else { continue };
        // Too early is no harm.
        rig.now += Duration::from_millis(within * 1000 - 1);
        assert!(rig.hear(Input::Tick).is_empty(), "{state}");
        let (waited, actions) = rig.tick();
        assert_eq!(waited, Duration::from_millis(1), "{state}");
        let [Action::Disconnect, Action::Trouble(error)] = actions.as_slice() else {
            panic!("{state}: {actions:?}");
        };
        assert!(error.to_string().contains(&format!("within {within} s")), "{error}");
        assert_eq!(rig.connecting(), 2, "{state}");
    }
}

#[test]
fn late_news_of_a_connection_that_was_given_up_is_ignored() {
    let late = || {
        [
            Input::Connected,
            Input::Watch(WatchMessage::Created { revision: 9 }),
            Input::Watch(WatchMessage::Events(vec![put("a", 99)])),
            Input::Watch(WatchMessage::Progress),
            Input::Page(page(&["a"], false, 9)),
        ]
    };
    for (state, reach, _) in STATES {
        let mut rig = Rig::new();
        reach(&mut rig);
        rig.fail(Kind::Unreachable);
        let due = rig.machine.deadline();
        for input in late() {
            assert!(rig.hear(input).is_empty(), "{state}");
        }
        assert!(rig.fail(Kind::Unreachable).is_empty(), "{state}");
        assert!(rig.watch(WatchMessage::Canceled(error(Kind::Denied))).is_empty(), "{state}");
        assert_eq!(rig.machine.deadline(), due, "{state}");
        // Nothing that was held or staged is left for the next one.
        assert_eq!(rig.connecting(), 2);
        for input in late().into_iter().skip(1) {
            assert!(rig.hear(input).is_empty(), "{state}");
        }
        rig.hear(Input::Connected);
        for input in late().into_iter().skip(2) {
            assert!(rig.hear(input).is_empty(), "{state}");
        }
        rig.watch(WatchMessage::Created { revision: 3 });
        let done = rig.hear(Input::Page(page(&[], false, 3)));
        assert_eq!(done, [Action::Stage(page(&[], false, 3)), Action::Commit { revision: 3 }]);
    }
}

#[test]
fn the_endpoints_are_tried_in_turn() {
    let mut rig = Rig::new();
    let mut tried = Vec::new();
    for _ in 0..5 {
        tried.push(rig.connecting());
        rig.fail(Kind::Unreachable);
    }
    assert_eq!(tried, [1, 2, 0, 1, 2]);
}

/// How long it waits at most after `failures` failures, the last of which came after having been
/// live for `quiet`.
fn longest_wait(failures: usize, quiet: Duration) -> Duration {
    (0..100)
        .map(|seed| {
            let mut rig = Rig::seeded(seed);
            for _ in 1..failures {
                rig.connecting();
                rig.fail(Kind::Unreachable);
            }
            rig.live(7);
            rig.now += quiet;
            rig.gives_up(Kind::Unreachable)
        })
        .max()
        .unwrap()
}

#[test]
fn waits_grow_and_start_anew_only_after_a_quiet_time() {
    let ms = Duration::from_millis;
    assert!(longest_wait(1, ms(0)) <= ms(50));
    for (quiet, grown) in [(ms(0), true), (ms(9_999), true), (ms(10_000), false)] {
        let longest = longest_wait(8, quiet);
        assert!(longest <= if grown { ms(5_000) } else { ms(50) }, "{quiet:?} {longest:?}");
        assert!(!grown || longest > ms(4_000), "{quiet:?} {longest:?}");
    }
}

#[test]
fn a_store_that_was_set_back_is_believed() {
    let mut rig = Rig::new();
    rig.live(1_000);
    rig.watch(WatchMessage::Events(vec![put("a", 1_005)]));
    rig.fail(Kind::Unreachable);
    rig.live(2);
    let event = vec![put("a", 3)];
    assert_eq!(rig.watch(WatchMessage::Events(event.clone())), [Action::Apply(event)]);
}

#[test]
fn held_events_of_a_connection_that_was_given_up_are_gone() {
    let mut rig = Rig::new();
    rig.listing(7);
    rig.watch(WatchMessage::Events(vec![put("ghost", 8)]));
    rig.fail(Kind::Unreachable);
    rig.live(5);
}

#[test]
fn a_live_watch_that_is_silent_is_asked_for_signs_of_life() {
    let mut rig = Rig::new();
    rig.live(7);
    let (waited, actions) = rig.tick();
    assert_eq!((waited, actions), (Duration::from_secs(3), vec![Action::Probe, Action::Count]));
    assert!(rig.hear(Input::Counted(Ok(7))).is_empty());
    assert!(rig.watch(WatchMessage::Progress).is_empty());

    // It stops answering: stale, and then given up.
    assert_eq!(rig.tick(), (Duration::from_secs(3), vec![Action::Probe]));
    let (waited, actions) = rig.tick();
    assert_eq!(waited, Duration::from_secs(2));
    assert!(matches!(actions[..], [Action::Trouble(_)]), "{actions:?}");
    let (waited, actions) = rig.tick();
    assert_eq!(waited, Duration::from_secs(1));
    assert!(matches!(actions[..], [Action::Disconnect, Action::Trouble(_)]), "{actions:?}");
}

#[test]
fn a_late_sign_of_life_ends_the_doubt_before_anything_else_is_told() {
    let mut rig = Rig::new();
    rig.live(7);
    rig.tick();
    rig.watch(WatchMessage::Progress);
    rig.tick();
    rig.tick();
    let actions = rig.watch(WatchMessage::Events(vec![put("a", 8)]));
    assert_eq!(actions, [Action::Trust, Action::Apply(vec![put("a", 8)])]);
}

#[test]
fn a_count_that_was_asked_before_the_last_event_is_not_behind() {
    let mut rig = Rig::new();
    rig.live(7);
    rig.tick();
    rig.watch(WatchMessage::Events(vec![put("a", 8)]));
    assert!(rig.hear(Input::Counted(Ok(7))).is_empty());
    // A count that fails decides nothing by itself either.
    rig.tick();
    assert!(rig.hear(Input::Counted(Err(error(Kind::Busy)))).is_empty());
    assert!(rig.watch(WatchMessage::Progress).is_empty());
}

#[test]
fn a_store_that_was_set_back_is_listed_anew() {
    let mut rig = Rig::new();
    rig.live(7);
    rig.tick();
    let actions = rig.hear(Input::Counted(Ok(6)));
    assert!(matches!(actions[..], [Action::Disconnect, Action::Trouble(_)]), "{actions:?}");
    rig.live(3);
    let applied = rig.watch(WatchMessage::Events(vec![put("a", 4)]));
    assert_eq!(applied, [Action::Apply(vec![put("a", 4)])], "what is known starts anew");
}
