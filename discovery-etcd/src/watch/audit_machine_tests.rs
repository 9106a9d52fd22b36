//! The audit: when it is due, what it asks, and what comes of it.

use super::rig::*;
use super::*;

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
