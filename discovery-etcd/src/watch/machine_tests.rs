use super::rig::*;
use super::*;

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
fn what_was_published_meanwhile_makes_the_list_begin_anew() {
    let mut rig = Rig::new();
    rig.live(7);
    let actions = rig.hear(Input::Outdated);
    assert!(matches!(actions[..], [Action::Abandon, Action::Trouble(_)]), "{actions:?}");
    assert_eq!(rig.tick().1, [Action::Open]);
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
