use super::rig::*;
use super::*;

#[test]
fn there_is_a_connection_only_while_somebody_uses_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.machine.deadline(), None);
    assert!(rig.hear(Input::Tick).is_empty());
    assert!(rig.hear(Input::Used(false)).is_empty());
    assert!(rig.hear(Input::Used(true)).is_empty());
    assert_eq!(rig.tick(), (Duration::ZERO, vec![Action::Connect("b".to_owned())]));
    assert_eq!(rig.hear(Input::Connected), [Action::Up]);
    // Others who come and go change nothing.
    let before = rig.state();
    assert!(rig.hear(Input::Used(true)).is_empty());
    assert_eq!(rig.state(), before);
}

#[test]
fn without_users_it_is_closed_in_every_state_and_begins_anew_with_the_next_one() {
    for (state, reach) in &STATES[1..] {
        let mut rig = Rig::new();
        reach(&mut rig);
        assert_eq!(rig.hear(Input::Used(false)), [Action::Close], "{state}");
        assert_eq!(rig.machine.deadline(), None, "{state}");
        assert!(rig.hear(Input::Tick).is_empty(), "{state}");
        rig.hear(Input::Used(true));
        let (waited, actions) = rig.tick();
        // Who comes and goes does not cut short the rest after a failure.
        let rests = ["waiting", "denied"].contains(state);
        assert_eq!(waited == Duration::ZERO, !rests, "{state} {waited:?}");
        assert!(matches!(actions[..], [Action::Connect(_)]), "{state}");
    }
    // Who left in a hurry took it along.
    let mut rig = Rig::new();
    rig.up();
    rig.hear(Input::Hurry { until: rig.now + s(60) });
    rig.hear(Input::Used(false));
    rig.connecting();
    assert_eq!(rig.wait(), CONNECT_WITHIN);
}

#[test]
fn credentials_that_change_during_an_attempt_are_tried_at_once_after_it() {
    let mut rig = Rig::new();
    rig.connecting();
    rig.hear(Input::Retry);
    rig.fail(Kind::Denied);
    assert!(rig.wait() <= ms(50), "the former ones were denied");
    rig.connecting();
    rig.fail(Kind::Denied);
    assert!(rig.wait() >= s(8));
}

#[test]
fn after_each_failure_the_next_endpoint_has_its_turn() {
    let mut rig = Rig::new();
    let mut tried = Vec::new();
    for failure in 0..6 {
        tried.push(rig.connecting());
        match failure {
            0 => down(&rig.fail(Kind::Unreachable)),
            1 => down(&rig.fail(Kind::Denied)),
            // It does not answer.
            2 => down(&rig.tick().1),
            3 => {
                rig.hear(Input::Connected);
                down(&rig.hear(Input::Condemned(error(Kind::Unreachable))))
            }
            _ => {
                rig.hear(Input::Connected);
                down(&rig.fail(Kind::Busy))
            }
        };
    }
    assert_eq!(tried, ["b", "c", "a", "b", "c", "a"]);
}

#[test]
fn the_users_are_told_what_went_wrong() {
    for kind in [Kind::Unreachable, Kind::Compacted, Kind::Busy, Kind::Rejected, Kind::Denied] {
        for (state, mut rig) in reached(&["connecting", "up", "alive", "probing", "doubted"]) {
            assert_eq!(rig.fail(kind), [Action::Down(error(kind))], "{state}");
        }
    }
}

#[test]
fn an_attempt_has_3_s() {
    let mut rig = Rig::new();
    rig.connecting();
    assert!(rig.after(ms(2_999)).is_empty());
    let (waited, actions) = rig.tick();
    assert_eq!(waited, ms(1));
    assert_eq!(down(&actions), "connect at b: no answer within 3.0 s");
}

/// How long it waits at least and at most after `failures` failures; the last one is `last`.
fn waits(failures: usize, last: impl Fn(&mut Rig)) -> (Duration, Duration) {
    let waits = (0..200).map(|seed| {
        let mut rig = Rig::seeded(seed);
        for _ in 1..failures {
            rig.connecting();
            rig.fail(Kind::Unreachable);
        }
        rig.connecting();
        last(&mut rig);
        rig.wait()
    });
    let waits: Vec<_> = waits.collect();
    (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
}

#[test]
fn waits_grow_with_jitter_and_start_anew_only_after_10_s_up() {
    fn fails(rig: &mut Rig) {
        rig.fail(Kind::Unreachable);
    }
    for (failures, shortest, most) in
        [(1, 0, 50), (2, 0, 150), (4, 0, 1_350), (8, 2_500, 5_000), (30, 2_500, 5_000)]
    {
        let (least, longest) = waits(failures, fails);
        assert!(longest <= ms(most) && longest > ms(most) * 9 / 10, "{failures} {longest:?}");
        assert!(least >= ms(shortest), "{failures} {least:?}");
        assert!(least < ms(shortest) + ms(most) / 10, "{failures} {least:?}");
    }
    let ends: [(&str, Reach, bool); 3] = [
        ("at once", |rig| drop(rig.hear(Input::Connected)), true),
        ("too early", |rig| drop((rig.hear(Input::Connected), rig.after(ms(9_999)))), true),
        ("quiet", |rig| drop((rig.hear(Input::Connected), rig.after(s(10)))), false),
    ];
    for (end, reach, grown) in ends {
        let (_, longest) = waits(9, |rig| {
            reach(rig);
            fails(rig);
        });
        assert!(if grown { longest > s(4) } else { longest <= ms(50) }, "{end} {longest:?}");
    }
}

#[test]
fn an_attempt_that_hung_has_waited_already() {
    // After eight failures up to 5 s, of which 3 have passed.
    let hung = |rig: &mut Rig| drop(rig.tick());
    let (least, longest) = waits(9, hung);
    assert!(longest <= s(2) && longest > ms(1_500), "{longest:?}");
    assert!(least <= BREATH, "{least:?}");
    // And it is not repeated without a breath.
    let (_, longest) = waits(3, hung);
    assert!(longest <= BREATH && longest > BREATH / 2, "{longest:?}");
}

#[test]
fn what_was_denied_is_tried_again_slowly_or_when_credentials_change() {
    for reach in [|_: &mut Rig| {}, |rig: &mut Rig| drop(rig.hear(Input::Connected))] {
        let waits = (0..300).map(|seed| {
            let mut rig = Rig::seeded(seed);
            rig.connecting();
            reach(&mut rig);
            rig.fail(Kind::Denied);
            rig.wait().as_secs_f64()
        });
        let waits: Vec<_> = waits.collect();
        let least = waits.iter().copied().fold(f64::MAX, f64::min);
        let most = waits.iter().copied().fold(0.0, f64::max);
        assert!((8.0..8.2).contains(&least) && (11.8..=12.0).contains(&most), "{least} {most}");
    }
    let (_, mut rig) = reached(&["denied"]).next().unwrap();
    assert!(rig.hear(Input::Retry).is_empty());
    assert_eq!(rig.tick(), (Duration::ZERO, vec![Action::Connect("c".to_owned())]));
    // The same where there was nobody to use it meanwhile, whenever they come.
    for come in [Input::Used(true), Input::Retry] {
        let (_, mut rig) = reached(&["denied"]).next().unwrap();
        rig.hear(Input::Used(false));
        rig.hear(come);
        rig.hear(Input::Retry);
        rig.hear(Input::Used(true));
        assert_eq!(rig.wait(), Duration::ZERO);
    }
    // What waits for another reason is not helped by credentials.
    let (_, mut rig) = reached(&["waiting"]).next().unwrap();
    let before = rig.wait();
    rig.hear(Input::Retry);
    assert_eq!(rig.wait(), before);
}

#[test]
fn who_leaves_does_not_wait_for_a_server_that_hangs() {
    // The attempt under way has a second, and the ones after it.
    let mut rig = Rig::new();
    rig.connecting();
    rig.now += ms(500);
    rig.hear(Input::Hurry { until: rig.now + s(3) });
    let (waited, actions) = rig.tick();
    assert_eq!(waited, s(1));
    down(&actions);
    rig.connecting();
    assert_eq!(rig.wait(), s(1));
    down(&rig.tick().1);
    // Until there is nobody in a hurry any more.
    rig.now += s(3);
    rig.hear(Input::Tick);
    assert_eq!(rig.wait(), s(3));

    // An attempt that ends soon gets no longer for it.
    let mut rig = Rig::new();
    rig.connecting();
    rig.now += ms(2_500);
    rig.hear(Input::Hurry { until: rig.now + s(3) });
    assert_eq!(rig.wait(), ms(500));

    // The one who has most time decides.
    let mut rig = Rig::new();
    rig.up();
    rig.hear(Input::Hurry { until: rig.now + s(60) });
    rig.hear(Input::Hurry { until: rig.now + s(1) });
    rig.now += s(30);
    rig.fail(Kind::Unreachable);
    rig.connecting();
    assert_eq!(rig.wait(), s(1));
}

#[test]
fn who_leaves_does_not_cut_short_what_others_need() {
    let hurry = |rig: &mut Rig| drop(rig.hear(Input::Hurry { until: rig.now + s(60) }));
    let mut rig = Rig::new();
    rig.hear(Input::Stays(true));
    rig.connecting();
    hurry(&mut rig);
    assert_eq!(rig.wait(), s(3), "nor the attempt under way");
    down(&rig.tick().1);
    rig.connecting();
    assert_eq!(rig.wait(), s(3), "nor the next one");
    // The last of them leaves, too; and another one comes.
    rig.now += ms(1_500);
    assert!(rig.hear(Input::Stays(false)).is_empty());
    assert_eq!(rig.wait(), s(1));
    assert!(rig.hear(Input::Stays(true)).is_empty());
    assert_eq!(rig.wait(), ms(1_500));
    // Those who stay and are in no hurry change nothing.
    let mut rig = Rig::new();
    rig.connecting();
    for stays in [true, false] {
        rig.hear(Input::Stays(stays));
        assert_eq!(rig.wait(), s(3));
    }
}

#[test]
fn who_leaves_has_the_next_attempt_made_at_once_and_the_waits_start_anew() {
    for name in ["waiting", "denied"] {
        let (_, mut rig) = reached(&[name]).next().unwrap();
        for _ in 0..9 {
            rig.connecting();
            rig.fail(Kind::Unreachable);
        }
        assert!(rig.hear(Input::Hurry { until: rig.now + s(3) }).is_empty());
        let (waited, actions) = rig.tick();
        assert_eq!(waited, Duration::ZERO, "{name}");
        assert!(matches!(actions[..], [Action::Connect(_)]), "{name}");
        rig.fail(Kind::Unreachable);
        assert!(rig.wait() <= ms(50), "{name}");
    }
    let (_, longest) = waits(9, |rig| {
        rig.hear(Input::Hurry { until: rig.now + s(3) });
        rig.fail(Kind::Unreachable);
    });
    assert!(longest <= ms(50), "{longest:?}");
}

#[test]
fn the_less_time_a_lease_has_left_the_shorter_the_wait() {
    // It waits for 8 s or more.
    let denied = || reached(&["denied"]).next().unwrap().1;
    for (left, waits) in [(10_000, 5_000), (3_000, 1_500), (2_000, 1_000), (150, 1_000), (1, 1_000)]
    {
        let mut rig = denied();
        assert!(rig.hear(Input::NeededBy(rig.now + ms(left))).is_empty());
        assert_eq!(rig.wait(), ms(waits), "{left}");
    }
    // Never longer, and without any time left there is no hurry.
    for left in [60_000, 0] {
        let mut rig = denied();
        let before = rig.wait();
        rig.hear(Input::NeededBy(rig.now + ms(left)));
        assert_eq!(rig.wait(), before, "{left}");
    }
    let mut rig = denied();
    let (before, past) = (rig.wait(), rig.now);
    rig.now += ms(1);
    rig.hear(Input::NeededBy(past));
    assert_eq!(rig.wait(), before.saturating_sub(ms(1)));
}

#[test]
fn the_members_are_asked_for_at_once_and_every_minute_more_or_less_a_fifth() {
    let waits = (0..200).map(|seed| {
        let mut rig = Rig::following(seed, true);
        rig.up();
        assert_eq!(rig.tick(), (Duration::ZERO, vec![Action::Members]));
        let first = rig.wait();
        assert_eq!(rig.tick().1, [Action::Members]);
        assert_ne!(rig.wait(), first, "each time anew");
        first.as_secs_f64()
    });
    let waits: Vec<_> = waits.collect();
    let least = waits.iter().copied().fold(f64::MAX, f64::min);
    let most = waits.iter().copied().fold(0.0, f64::max);
    assert!((48.0..49.0).contains(&least) && (71.0..=72.0).contains(&most), "{least} {most}");
    // With a stream to watch over, neither is forgotten.
    let mut rig = Rig::following(1, true);
    rig.up();
    rig.heard(7);
    assert_eq!(rig.tick(), (Duration::ZERO, vec![Action::Members]));
    assert_eq!(rig.tick(), (s(3), vec![Action::Probe, Action::Count]));
}

#[test]
fn members_are_used_from_the_next_turn_on() {
    let mut rig = Rig::new();
    rig.up();
    rig.hear(Input::Members(["b", "d"].map(str::to_owned).to_vec()));
    assert_eq!(rig.machine.endpoint(), "b", "the one in use stays in use");
    rig.fail(Kind::Unreachable);
    assert_eq!(rig.connecting(), "d");
}

#[test]
fn late_news_of_every_kind_is_ignored_in_every_state() {
    fn late(now: Instant) -> Vec<(&'static str, Input)> {
        vec![
            ("connected", Input::Connected),
            ("failed", Input::Failed(error(Kind::Unreachable))),
            ("condemned", Input::Condemned(error(Kind::Denied))),
            ("check", Input::Check { by: now + s(4) }),
            ("heard", Input::Heard { progress: false, revision: 99 }),
            ("progress", Input::Heard { progress: true, revision: 0 }),
            ("counted", Input::Counted(Ok(99))),
            ("behind", Input::Counted(Ok(1))),
            ("not counted", Input::Counted(Err(error(Kind::Unreachable)))),
            ("retry", Input::Retry),
            ("needed", Input::NeededBy(now + ms(1))),
            ("members", Input::Members(Vec::new())),
            ("tick", Input::Tick),
        ]
    }
    for (state, reach) in STATES {
        let fits: &[&str] = match state {
            // The wait is less than 100 ms already.
            "idle" | "waiting" => &[],
            "denied" => &["retry", "needed"],
            "connecting" => &["connected", "failed", "condemned", "retry"],
            "up" | "alive" => &["failed", "condemned", "check", "heard", "progress"],
            "probing" => {
                &["failed", "condemned", "check", "heard", "progress", "counted", "behind"]
            }
            _ => &["failed", "condemned", "check", "heard", "progress", "behind"],
        };
        let kinds = late(Instant::now()).len();
        for kind in 0..kinds {
            let mut rig = Rig::new();
            reach(&mut rig);
            let before = rig.state();
            let (name, input) = late(rig.now).swap_remove(kind);
            let actions = rig.hear(input);
            let ignored = actions.is_empty() && rig.state() == before;
            assert_eq!(ignored, !fits.contains(&name), "{state}, {name}: {actions:?}");
        }
    }
}
