//! Trouble of a prefix of its own, and denials.

use super::rig::*;
use super::*;

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
