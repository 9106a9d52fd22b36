use rand::SeedableRng as _;

use super::*;
use crate::wire::KeyValue;

const PREFIX: &[u8] = b"/services/a/";
const AUDIT: Duration = Duration::from_secs(300);

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
        Self::audited(seed, Some(AUDIT))
    }

    fn audited(seed: u64, every: Option<Duration>) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { machine: Machine::new(PREFIX.to_vec(), every, rng), now: Instant::now() }
    }

    fn hear(&mut self, input: Input) -> Vec<Action> {
        let ticked = matches!(input, Input::Tick);
        self.machine.handle(input, self.now);
        if ticked {
            let later = self.machine.deadline().is_none_or(|deadline| deadline > self.now);
            assert!(later, "a busy loop: {:?}", self.machine);
        }
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    /// How long until the deadline.
    fn wait(&self) -> Duration {
        self.machine.deadline().expect("a deadline").saturating_duration_since(self.now)
    }

    /// Goes on to the deadline; gives the time that passed, too.
    fn tick(&mut self) -> (Duration, Vec<Action>) {
        let passed = self.wait();
        self.now += passed;
        (passed, self.hear(Input::Tick))
    }

    fn up(&mut self) {
        assert_eq!(self.hear(Input::Up("etcd".into())), [Action::Open]);
    }

    fn created(&mut self, revision: i64) {
        assert_eq!(self.hear(Input::Created { revision }), [list(None, None)]);
    }

    fn listed(&mut self, revision: i64) {
        let page = page(&[], false, revision);
        let done = [Action::Stage(page.clone()), Action::Commit { revision }];
        assert_eq!(self.hear(Input::Page(Ok(page))), done);
    }

    fn listing(&mut self, created: i64) {
        self.up();
        self.created(created);
    }

    fn live(&mut self, revision: i64) {
        self.listing(revision);
        self.listed(revision);
    }

    /// From live on.
    fn auditing(&mut self) {
        assert_eq!(self.tick().1, [Action::AuditBegin, keys(None, None)]);
    }

    fn settling(&mut self, at: i64) {
        self.auditing();
        let page = page(&[], false, at);
        let done = [Action::AuditPage(page.clone()), Action::AuditEnd { at }];
        assert_eq!(self.hear(Input::Page(Ok(page))), done);
    }

    fn events(&mut self, events: Vec<Event>) -> Vec<Action> {
        self.hear(Input::Events(events))
    }

    fn refuse(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Refused(error(kind)))
    }

    fn no_page(&mut self, kind: Kind) -> Vec<Action> {
        self.hear(Input::Page(Err(error(kind))))
    }

    /// What tells two states apart.
    fn state(&self) -> String {
        format!("{:?}", self.machine.state)
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
    let after = after.map(Into::into);
    Action::List(List { prefix: PREFIX.to_vec(), after, at, keys_only: false })
}

fn keys(after: Option<&str>, at: Option<i64>) -> Action {
    let after = after.map(Into::into);
    Action::List(List { prefix: PREFIX.to_vec(), after, at, keys_only: true })
}

fn given_up(kind: Kind) -> [Action; 2] {
    [Action::Abandon, Action::Trouble(error(kind))]
}

fn condemned(actions: &[Action]) -> &WireError {
    match actions {
        [Action::Abandon, Action::Trouble(error), Action::Condemn(same)] if error == same => error,
        other => panic!("not condemned: {other:?}"),
    }
}

type Reach = fn(&mut Rig);
/// Each state.
const STATES: [(&str, Reach); 8] = [
    ("down", |_| {}),
    ("waiting", |rig| {
        rig.up();
        rig.refuse(Kind::Busy);
    }),
    ("refreshing", |rig| {
        rig.up();
        rig.refuse(Kind::Denied);
    }),
    ("opening", Rig::up),
    ("listing", |rig| rig.listing(7)),
    ("live", |rig| rig.live(7)),
    ("auditing", |rig| {
        rig.live(7);
        rig.auditing();
    }),
    ("settling", |rig| {
        rig.live(7);
        rig.settling(7);
    }),
];

fn reached(names: &[&str]) -> impl Iterator<Item = (&'static str, Rig)> {
    STATES.iter().filter(|(state, _)| names.contains(state)).map(|(state, reach)| {
        let mut rig = Rig::new();
        reach(&mut rig);
        (*state, rig)
    })
}

const ALL: [&str; 8] =
    ["down", "waiting", "refreshing", "opening", "listing", "live", "auditing", "settling"];

#[test]
fn it_opens_the_watch_at_once_and_lists_only_when_the_watch_stands() {
    let mut rig = Rig::new();
    assert_eq!(rig.machine.deadline(), None, "without a connection there is nothing to do");
    rig.up();
    assert_eq!(rig.machine.deadline(), None, "whether a watch hangs is the link's question");
    rig.created(7);
    let page = page(&["k"], false, 9);
    let done = [Action::Stage(page.clone()), Action::Commit { revision: 9 }];
    assert_eq!(rig.hear(Input::Page(Ok(page))), done);
}

#[test]
fn pages_are_pinned_to_the_revision_of_the_first_and_asked_for_before_the_one_at_hand_is_read() {
    let mut rig = Rig::new();
    rig.listing(7);
    let first = page(&["a", "b"], true, 9);
    let next = [list(Some("b"), Some(9)), Action::Stage(first.clone())];
    assert_eq!(rig.hear(Input::Page(Ok(first))), next);
    // Its own revision is the store's by then, be it further on or, after a change of member, behind.
    let second = page(&["c"], true, 6);
    let next = [list(Some("c"), Some(9)), Action::Stage(second.clone())];
    assert_eq!(rig.hear(Input::Page(Ok(second))), next);
    assert!(rig.events(vec![put("a", 9), put("b", 10)]).is_empty());
    let third = page(&["d"], false, 14);
    let done = [
        Action::Stage(third.clone()),
        Action::Commit { revision: 9 },
        Action::Apply(vec![put("b", 10)]),
    ];
    assert_eq!(rig.hear(Input::Page(Ok(third))), done);
}

#[test]
fn a_page_that_promises_more_behind_nothing_is_not_taken_for_the_end() {
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.hear(Input::Page(Ok(page(&[], true, 9))));
    assert!(condemned(&actions).to_string().contains("without keys"), "{actions:?}");
}

#[test]
fn each_page_has_its_own_time() {
    let mut rig = Rig::new();
    rig.listing(7);
    rig.now += Duration::from_secs(3);
    rig.hear(Input::Page(Ok(page(&["a"], true, 9))));
    assert_eq!(rig.wait(), PAGE_WITHIN);
}

#[test]
fn events_during_the_list_are_held_and_follow_it_in_order_without_those_it_has() {
    let mut rig = Rig::new();
    rig.listing(7);
    for events in [
        vec![put("a", 8)],
        vec![put("a", 9), delete("b", 9)],
        vec![delete("a", 10)],
        vec![put("d", 11), put("c", 12)],
    ] {
        assert!(rig.events(events).is_empty());
    }
    let all = page(&["a"], false, 9);
    let done = [
        Action::Stage(all.clone()),
        Action::Commit { revision: 9 },
        // Of "a" the last event only.
        Action::Apply(vec![delete("a", 10), put("d", 11), put("c", 12)]),
    ];
    assert_eq!(rig.hear(Input::Page(Ok(all))), done);
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
        let expected: Vec<_> =
            if applied.is_empty() { vec![] } else { vec![Action::Apply(applied)] };
        assert_eq!(rig.events(events), expected);
    }
}

#[test]
fn a_list_older_than_the_watch_is_refused_and_one_of_the_same_revision_is_not() {
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.hear(Input::Page(Ok(page(&["a"], false, 6))));
    assert!(condemned(&actions).to_string().contains("older"), "{actions:?}");
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.hear(Input::Page(Ok(page(&["a"], false, 7))));
    assert!(actions.contains(&Action::Commit { revision: 7 }));
}

#[test]
fn a_watch_that_is_refused_or_ended_is_opened_again_and_the_connection_is_kept() {
    for kind in [Kind::Unreachable, Kind::Compacted, Kind::Busy, Kind::Rejected] {
        for (state, mut rig) in reached(&["opening", "live", "auditing", "settling"]) {
            assert_eq!(rig.refuse(kind), given_up(kind), "{state}");
            let (waited, actions) = rig.tick();
            assert!(waited <= Duration::from_millis(50), "{state}");
            assert_eq!(actions, [Action::Open], "{state}");
            rig.created(3);
        }
    }
}

#[test]
fn a_list_that_fails_is_begun_anew_and_condemns_the_connection_if_that_is_why() {
    for kind in [Kind::Compacted, Kind::Busy, Kind::Rejected] {
        let mut rig = Rig::new();
        rig.listing(7);
        assert_eq!(rig.no_page(kind), given_up(kind));
        assert_eq!(rig.tick().1, [Action::Open]);
    }
    let mut rig = Rig::new();
    rig.listing(7);
    let actions = rig.no_page(Kind::Unreachable);
    assert_eq!(*condemned(&actions), error(Kind::Unreachable));
    // So does a token that cannot be had.
    let mut rig = Rig::new();
    rig.up();
    rig.refuse(Kind::Denied);
    let actions = rig.hear(Input::Refreshed(Err(error(Kind::Unreachable))));
    assert_eq!(*condemned(&actions), error(Kind::Unreachable));
}

#[test]
fn what_is_late_may_be_our_own_fault_so_the_connection_is_only_checked() {
    let cases = [("refreshing", 3_000, "authenticate"), ("listing", 4_000, "within 4 s")];
    for (name, within, says) in cases {
        let (_, mut rig) = reached(&[name]).next().unwrap();
        // Too early is no harm.
        rig.now += Duration::from_millis(within - 1);
        assert!(rig.hear(Input::Tick).is_empty(), "{name}");
        let (waited, actions) = rig.tick();
        assert_eq!(waited, Duration::from_millis(1), "{name}");
        let [Action::Abandon, Action::Trouble(error), Action::Check] = actions.as_slice() else {
            panic!("{name}: {actions:?}");
        };
        let error = error.to_string();
        assert!(error.contains(says) && error.contains("/services/a/ at etcd"), "{error}");
        assert_eq!(rig.tick().1, [Action::Open], "{name}");
    }
}

/// The old ones may be refused after that.
#[test]
fn credentials_that_change_while_something_is_asked_are_tried_at_once_after_it() {
    for name in ["refreshing", "listing"] {
        let mut rig = Rig::new();
        rig.up();
        rig.refuse(Kind::Denied);
        if name == "listing" {
            rig.hear(Input::Refreshed(Ok(())));
            rig.created(5);
        }
        assert!(rig.hear(Input::Retry).is_empty(), "{name}");
        let actions = match name {
            "listing" => rig.no_page(Kind::Denied),
            _ => rig.hear(Input::Refreshed(Err(error(Kind::Denied)))),
        };
        assert_eq!(actions, [Action::Abandon, Action::Refresh], "{name}");
        // Once: if those are refused, too, only people can mend it.
        let actions = rig.hear(Input::Refreshed(Err(error(Kind::Denied))));
        assert_eq!(actions, given_up(Kind::Denied), "{name}");
    }
}

#[test]
fn what_was_published_meanwhile_makes_the_list_begin_anew() {
    let mut rig = Rig::new();
    rig.live(7);
    let actions = rig.hear(Input::Outdated);
    assert!(matches!(actions[..], [Action::Abandon, Action::Trouble(_)]), "{actions:?}");
    assert_eq!(rig.tick().1, [Action::Open]);
}

#[test]
fn who_is_denied_gets_a_new_token_once_and_tries_again_at_once() {
    for (state, mut rig) in reached(&["opening", "listing", "live", "auditing", "settling"]) {
        let actions = rig.refuse(Kind::Denied);
        let was_live = !["opening", "listing"].contains(&state);
        let expected = if was_live {
            // The set is not followed any more from here on.
            vec![Action::Abandon, Action::Trouble(error(Kind::Denied)), Action::Refresh]
        } else {
            vec![Action::Abandon, Action::Refresh]
        };
        assert_eq!(actions, expected, "{state}");
        assert_eq!(rig.hear(Input::Refreshed(Ok(()))), [Action::Open], "{state}");
        // Denied again, a new token is no use.
        assert_eq!(rig.refuse(Kind::Denied), given_up(Kind::Denied), "{state}");
        let (waited, actions) = rig.tick();
        assert!(waited >= Duration::from_secs(8), "{state} {waited:?}");
        assert_eq!(actions, [Action::Open], "{state}");
        // It is worth another try by then.
        assert_eq!(rig.refuse(Kind::Denied), [Action::Abandon, Action::Refresh], "{state}");
    }
}

#[test]
fn a_token_is_asked_for_again_after_a_new_connection_or_a_whole_set() {
    let mut rig = Rig::new();
    rig.up();
    rig.refuse(Kind::Denied);
    rig.hear(Input::Refreshed(Ok(())));
    rig.hear(Input::Down(error(Kind::Unreachable)));
    rig.up();
    assert_eq!(rig.refuse(Kind::Denied), [Action::Abandon, Action::Refresh]);
    rig.hear(Input::Refreshed(Ok(())));
    rig.created(7);
    rig.listed(7);
    assert!(rig.refuse(Kind::Denied).contains(&Action::Refresh));
}

#[test]
fn what_was_denied_is_tried_again_slowly_or_when_credentials_change() {
    let denied = |seed| {
        let mut rig = Rig::seeded(seed);
        rig.up();
        rig.refuse(Kind::Denied);
        match seed % 3 {
            // The server does not know the user any more.
            0 => {
                let actions = rig.hear(Input::Refreshed(Err(error(Kind::Denied))));
                assert_eq!(actions, given_up(Kind::Denied));
            }
            1 => {
                rig.hear(Input::Refreshed(Ok(())));
                rig.refuse(Kind::Denied);
            }
            _ => {
                rig.hear(Input::Refreshed(Ok(())));
                rig.created(7);
                assert_eq!(rig.no_page(Kind::Denied), given_up(Kind::Denied));
            }
        }
        rig
    };
    let waits: Vec<_> = (0..300).map(|seed| denied(seed).wait().as_secs_f64()).collect();
    let least = waits.iter().copied().fold(f64::MAX, f64::min);
    let most = waits.iter().copied().fold(0.0, f64::max);
    assert!((8.0..8.2).contains(&least) && (11.8..=12.0).contains(&most), "{least} {most}");

    let mut rig = denied(0);
    assert!(rig.hear(Input::Retry).is_empty());
    assert_eq!(rig.tick(), (Duration::ZERO, vec![Action::Open]));
    // What waits for another reason is not helped by credentials.
    let (_, mut rig) = reached(&["waiting"]).next().unwrap();
    let before = rig.wait();
    rig.hear(Input::Retry);
    assert_eq!(rig.wait(), before);
}

/// How long it waits at most after `failures` failures, before the last of which it was live for
/// `quiet`; `last` is that failure, and what follows from it up to the wait.
fn longest_wait(failures: usize, quiet: Duration, last: Reach) -> Duration {
    (0..100)
        .map(|seed| {
            let mut rig = Rig::seeded(seed);
            rig.up();
            for _ in 1..failures {
                rig.refuse(Kind::Busy);
                assert_eq!(rig.tick().1, [Action::Open]);
            }
            rig.created(7);
            rig.listed(7);
            rig.now += quiet;
            last(&mut rig);
            rig.wait()
        })
        .max()
        .unwrap()
}

#[test]
fn waits_grow_and_start_anew_only_after_a_quiet_time() {
    let ms = Duration::from_millis;
    let ends: [(&str, Reach); 3] = [
        ("ended", |rig| {
            rig.refuse(Kind::Unreachable);
        }),
        ("lost", |rig| {
            rig.hear(Input::Down(error(Kind::Unreachable)));
            rig.up();
            rig.refuse(Kind::Unreachable);
        }),
        ("denied", |rig| {
            rig.refuse(Kind::Denied);
            rig.hear(Input::Refreshed(Err(error(Kind::Busy))));
        }),
    ];
    for (end, last) in ends {
        assert!(longest_wait(1, ms(0), last) <= ms(50), "{end}");
        for (quiet, grown) in [(ms(0), true), (ms(9_999), true), (ms(10_000), false)] {
            let longest = longest_wait(8, quiet, last);
            assert!(
                longest <= if grown { ms(5_000) } else { ms(50) },
                "{end} {quiet:?} {longest:?}"
            );
            assert!(!grown || longest > ms(4_000), "{end} {quiet:?} {longest:?}");
        }
    }
}

#[test]
fn without_a_connection_everything_is_given_up_and_with_a_new_one_it_begins_anew() {
    for (state, mut rig) in reached(&ALL) {
        let down = rig.hear(Input::Down(error(Kind::Unreachable)));
        assert_eq!(down, given_up(Kind::Unreachable), "{state}");
        assert_eq!(rig.machine.deadline(), None, "{state}: it is the link that tries");
        assert!(rig.hear(Input::Tick).is_empty(), "{state}");
        // Each attempt that fails is told of.
        assert_eq!(rig.hear(Input::Down(error(Kind::Denied))), given_up(Kind::Denied), "{state}");
        rig.live(3);
    }
    for (state, mut rig) in reached(&ALL) {
        rig.live(3);
        assert_eq!(rig.events(vec![put("a", 4)]), [Action::Apply(vec![put("a", 4)])], "{state}");
    }
}

#[test]
fn a_store_that_was_set_back_is_believed() {
    let mut rig = Rig::new();
    rig.live(1_000);
    rig.events(vec![put("a", 1_005)]);
    rig.hear(Input::Down(error(Kind::Unreachable)));
    rig.live(2);
    let event = vec![put("a", 3)];
    assert_eq!(rig.events(event.clone()), [Action::Apply(event)]);
}

#[test]
fn held_events_of_a_watch_that_was_given_up_are_gone() {
    let ends = [Input::Down(error(Kind::Unreachable)), Input::Refused(error(Kind::Unreachable))];
    for end in ends {
        let mut rig = Rig::new();
        rig.listing(7);
        rig.events(vec![put("ghost", 8)]);
        rig.hear(end);
        rig.live(5);
    }
}

/// Everything that the machine may be told late, after what it belongs to was given up.
fn late() -> Vec<(&'static str, Input)> {
    vec![
        ("doubt", Input::Doubt(error(Kind::Unreachable))),
        ("trust", Input::Trust),
        ("retry", Input::Retry),
        ("created", Input::Created { revision: 9 }),
        ("refused", Input::Refused(error(Kind::Unreachable))),
        ("denied", Input::Refused(error(Kind::Denied))),
        ("events", Input::Events(vec![put("a", 99)])),
        ("page", Input::Page(Ok(page(&["a"], true, 9)))),
        ("no page", Input::Page(Err(error(Kind::Unreachable)))),
        ("page denied", Input::Page(Err(error(Kind::Denied)))),
        ("token", Input::Refreshed(Ok(()))),
        ("no token", Input::Refreshed(Err(error(Kind::Denied)))),
        ("outdated", Input::Outdated),
        ("same", Input::Audited(0)),
        ("differs", Input::Audited(2)),
        ("tick", Input::Tick),
    ]
}

#[test]
fn late_news_of_every_kind_is_ignored_in_every_state() {
    let live = ["doubt", "refused", "denied", "events", "page denied", "outdated", "differs"];
    for (state, reach) in STATES {
        let fits: &[&str] = match state {
            "down" | "waiting" => &[],
            "refreshing" => &["token", "no token"],
            "opening" => &["created", "refused", "denied"],
            "listing" => &["refused", "denied", "events", "page", "no page", "page denied"],
            "auditing" => &[&live[..], &["page", "no page"]].concat(),
            _ => &live,
        };
        for (name, input) in late() {
            let mut rig = Rig::new();
            reach(&mut rig);
            let (before, endpoint) = (rig.state(), rig.machine.endpoint.clone());
            let actions = rig.hear(input);
            let ignored = actions.is_empty() && rig.state() == before;
            assert_eq!(ignored, !fits.contains(&name), "{state}, {name}: {actions:?}");
            assert_eq!(rig.machine.endpoint, endpoint);
        }
    }
}

#[test]
fn a_set_that_is_live_is_in_doubt_and_trusted_with_the_connection() {
    for (state, mut rig) in reached(&["live", "auditing", "settling"]) {
        assert!(rig.hear(Input::Trust).is_empty(), "{state}: there was no doubt");
        let doubt = rig.hear(Input::Doubt(error(Kind::Unreachable)));
        assert_eq!(doubt, [Action::Trouble(error(Kind::Unreachable))], "{state}");
        // It is followed all the same.
        assert_eq!(rig.events(vec![put("a", 8)]), [Action::Apply(vec![put("a", 8)])], "{state}");
        assert_eq!(rig.hear(Input::Trust), [Action::Trust], "{state}");
        assert!(rig.hear(Input::Trust).is_empty(), "{state}: once");
    }
}

#[test]
fn a_doubt_that_is_over_when_the_set_is_not_live_never_makes_it_fresh() {
    let ends: [(&str, Reach); 4] = [
        ("ended", |rig| drop(rig.refuse(Kind::Unreachable))),
        ("denied", |rig| drop(rig.refuse(Kind::Denied))),
        ("lost", |rig| drop(rig.hear(Input::Down(error(Kind::Unreachable))))),
        ("differs", |rig| drop(rig.hear(Input::Audited(1)))),
    ];
    for (end, give_up) in ends {
        let mut rig = Rig::new();
        rig.live(7);
        rig.hear(Input::Doubt(error(Kind::Unreachable)));
        give_up(&mut rig);
        assert!(rig.hear(Input::Trust).is_empty(), "{end}");
        assert!(rig.hear(Input::Doubt(error(Kind::Unreachable))).is_empty(), "{end}");
        assert!(rig.hear(Input::Trust).is_empty(), "{end}");
    }
}

#[test]
fn the_audit_is_due_after_its_time_more_or_less_a_fifth() {
    let waits: Vec<_> = (0..300)
        .map(|seed| {
            let mut rig = Rig::seeded(seed);
            rig.live(7);
            rig.wait().as_secs_f64() / AUDIT.as_secs_f64()
        })
        .collect();
    let least = waits.iter().copied().fold(f64::MAX, f64::min);
    let most = waits.iter().copied().fold(0.0, f64::max);
    assert!((0.8..0.82).contains(&least) && (1.18..=1.2).contains(&most), "{least} {most}");
    let mut rig = Rig::audited(1, None);
    rig.live(7);
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn an_audit_lists_keys_at_one_revision_and_is_settled_when_events_had_their_time() {
    let mut rig = Rig::new();
    rig.live(7);
    rig.auditing();
    rig.now += Duration::from_secs(3);
    let first = page(&["a", "b"], true, 9);
    let next = [Action::AuditPage(first.clone()), keys(Some("b"), Some(9))];
    assert_eq!(rig.hear(Input::Page(Ok(first))), next);
    assert_eq!(rig.wait(), PAGE_WITHIN, "each page has its own time");
    // Events are not held back.
    assert_eq!(rig.events(vec![put("c", 10)]), [Action::Apply(vec![put("c", 10)])]);
    let second = page(&["c"], false, 11);
    let done = [Action::AuditPage(second.clone()), Action::AuditEnd { at: 9 }];
    assert_eq!(rig.hear(Input::Page(Ok(second))), done);
    assert_eq!(rig.tick(), (SETTLE, vec![Action::AuditSettle]));
    // As it should be: the next one has its time.
    assert!(rig.hear(Input::Audited(0)).is_empty());
    assert!(rig.wait() >= AUDIT.mul_f64(0.8));
    rig.auditing();
}

#[test]
fn what_differs_is_listed_anew_on_the_same_watch_with_events_held() {
    let mut rig = Rig::new();
    rig.live(7);
    rig.events(vec![put("a", 9)]);
    rig.settling(8);
    rig.tick();
    let repair = [Action::Repair { differing: 2 }, list(None, None)];
    assert_eq!(rig.hear(Input::Audited(2)), repair);
    assert_eq!(rig.wait(), PAGE_WITHIN);
    assert!(rig.events(vec![put("b", 11), put("c", 13)]).is_empty());
    let all = page(&["a"], false, 12);
    let done = [
        Action::Stage(all.clone()),
        Action::Commit { revision: 12 },
        Action::Apply(vec![put("c", 13)]),
    ];
    assert_eq!(rig.hear(Input::Page(Ok(all))), done);
    // A list that is older than what is known already would take it back.
    let mut rig = Rig::new();
    rig.live(7);
    rig.events(vec![put("a", 9)]);
    rig.hear(Input::Audited(1));
    let actions = rig.hear(Input::Page(Ok(page(&[], false, 8))));
    assert!(condemned(&actions).to_string().contains("older"));
}

#[test]
fn an_audit_that_fails_is_put_off_and_nothing_else() {
    for kind in [Kind::Unreachable, Kind::Compacted, Kind::Busy, Kind::Rejected] {
        let (_, mut rig) = reached(&["auditing"]).next().unwrap();
        assert!(rig.no_page(kind).is_empty(), "{kind:?}");
        assert!(rig.wait() >= AUDIT.mul_f64(0.8), "{kind:?}");
        rig.auditing();
    }
    // One that hangs makes one wonder who is there.
    let (_, mut rig) = reached(&["auditing"]).next().unwrap();
    assert_eq!(rig.tick(), (PAGE_WITHIN, vec![Action::Check]));
    assert!(rig.hear(Input::Page(Ok(page(&["a"], false, 9)))).is_empty(), "it is too late");
    rig.auditing();
}

#[test]
fn an_audit_that_is_denied_goes_the_way_of_a_denial() {
    let (_, mut rig) = reached(&["auditing"]).next().unwrap();
    let denied = error(Kind::Denied);
    let expected = [Action::Abandon, Action::Trouble(denied), Action::Refresh];
    assert_eq!(rig.no_page(Kind::Denied), expected);
    assert_eq!(rig.hear(Input::Refreshed(Ok(()))), [Action::Open]);
    assert_eq!(rig.refuse(Kind::Denied), given_up(Kind::Denied));
    assert!(rig.wait() >= Duration::from_secs(8));
}
