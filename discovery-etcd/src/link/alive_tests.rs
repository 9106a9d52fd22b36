//! Whether the connection is alive, and the store behind it the one it was.

use super::rig::*;
use super::*;

#[test]
fn a_stream_is_watched_over_from_its_first_word_on() {
    let mut rig = Rig::new();
    rig.up();
    assert_eq!(rig.machine.deadline(), None, "nobody has asked it for anything");
    rig.heard(7);
    assert!(rig.after(ms(2_999)).is_empty());
    // The first time, a count goes with the probe.
    assert_eq!(rig.tick(), (ms(1), vec![Action::Probe, Action::Count]));
    assert!(rig.hear(Input::Counted(Ok(7))).is_empty());
    assert!(rig.progress().is_empty());
    // A server that has answered a probe is only probed.
    for _ in 0..3 {
        assert_eq!(rig.tick(), (s(3), vec![Action::Probe]));
        assert!(rig.progress().is_empty());
    }
    // Any word will do.
    rig.after(s(2));
    rig.heard(8);
    assert_eq!(rig.wait(), s(3));
}

#[test]
fn silence_is_probed_after_3_s_in_doubt_at_5_and_dead_at_6() {
    let mut rig = Rig::new();
    rig.probed();
    assert_eq!(rig.tick(), (s(3), vec![Action::Probe]));
    let (waited, actions) = rig.tick();
    assert_eq!(waited, s(2));
    let [Action::Doubt(error)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(error.to_string(), "watch at b: no sign of life for 5 s");
    let (waited, actions) = rig.tick();
    assert_eq!((waited, down(&actions)), (s(1), "watch at b: no sign of life".to_owned()));
    assert_eq!(rig.connecting(), "c");

    let (_, mut rig) = reached(&["doubted"]).next().unwrap();
    assert_eq!(rig.heard(8), [Action::Trust]);
    assert_eq!(rig.tick(), (s(3), vec![Action::Probe]), "it is as any other");
}

#[test]
fn a_server_that_knows_no_probes_is_counted() {
    let mut rig = Rig::new();
    rig.alive(7);
    rig.tick();
    rig.hear(Input::Counted(Ok(7)));
    assert_eq!(rig.tick(), (s(2), vec![]));
    assert_eq!(rig.tick(), (s(3), vec![Action::Count]));
    rig.after(s(1));
    assert!(rig.hear(Input::Counted(Ok(9))).is_empty());
    assert_eq!(rig.tick(), (s(3), vec![Action::Count]));
    let (waited, actions) = rig.tick();
    assert_eq!((waited, down(&actions)), (s(2), "watch at b: no sign of life".to_owned()));
    // One that never answered anything is not given longer.
    let mut rig = Rig::new();
    rig.alive(7);
    rig.tick();
    let (waited, actions) = rig.tick();
    assert_eq!((waited, down(&actions)), (s(2), "watch at b: no sign of life".to_owned()));
}

#[test]
fn what_takes_too_long_has_the_server_asked_at_once() {
    let mut rig = Rig::new();
    rig.probed();
    rig.now += s(1);
    assert_eq!(rig.check(s(4)), [Action::Probe, Action::Count]);
    assert!(rig.check(s(4)).is_empty(), "once");
    assert_eq!(rig.wait(), s(2));
}

/// A member that is cut off from its disk keeps its streams and answers probes.
#[test]
fn a_server_that_answers_probes_and_no_reads_is_given_up_when_a_read_took_too_long() {
    let mut rig = Rig::new();
    rig.probed();
    rig.check(s(4));
    assert!(rig.progress().is_empty());
    rig.hear(Input::Counted(Err(error(Kind::Unreachable))));
    assert_eq!(rig.tick(), (s(3), vec![Action::Probe]));
    assert!(rig.progress().is_empty());
    let (waited, actions) = rig.tick();
    assert_eq!(
        (waited, down(&actions)),
        (s(1), "count at b: no read is answered within 4.0 s".to_owned())
    );
    assert_eq!(rig.machine.endpoint(), "c");

    // A refusal is an answer, and then the next one has its time, too.
    let refused = [Kind::Denied, Kind::Electing, Kind::Busy].map(|kind| Err(error(kind)));
    for counted in refused.into_iter().chain([Ok(7)]) {
        let mut rig = Rig::new();
        rig.probed();
        for _ in 0..2 {
            rig.check(s(4));
            rig.progress();
            rig.hear(Input::Counted(counted.clone()));
            assert_eq!(rig.tick(), (s(3), vec![Action::Probe]));
            rig.progress();
        }
    }

    // Who was kept from running gives the answer its time again.
    let mut rig = Rig::new();
    rig.probed();
    rig.check(s(4));
    rig.progress();
    rig.now += s(2);
    rig.progress();
    rig.now += s(2) + LATE + ms(1);
    assert!(rig.hear(Input::Tick).is_empty());
    assert!(rig.hear(Input::Counted(Ok(7))).is_empty());
}

/// What takes long of one user's is no reason to take the connection from all the others.
#[test]
fn a_connection_that_is_in_doubt_is_given_up_in_time_or_not_at_all() {
    for (name, reach) in [("unwatched", Rig::up as Reach), ("watched", |rig| rig.alive(7))] {
        let mut rig = Rig::new();
        reach(&mut rig);
        assert!(rig.check(ms(500)).contains(&Action::Count), "{name}");
        assert!(rig.check(ms(500)).is_empty(), "{name}: one count will do");
        rig.now += ms(499);
        assert!(rig.hear(Input::Counted(Ok(7))).is_empty(), "{name}");
        assert!(rig.after(ms(1)).is_empty(), "{name}");
        // The next one counts anew, and who has the least time decides.
        assert!(rig.check(s(4)).contains(&Action::Count), "{name}");
        rig.now += ms(100);
        assert!(rig.check(ms(300)).is_empty(), "{name}");
        let (waited, actions) = rig.tick();
        assert_eq!(waited, ms(300), "{name}");
        assert_eq!(down(&actions), "count at b: no read is answered within 0.4 s", "{name}");
    }
}

#[test]
fn a_count_behind_what_was_shown_tells_of_a_store_that_was_wiped() {
    let mut rig = Rig::new();
    rig.alive(7);
    rig.heard(9);
    // The count is asked for at 9; what was heard of since does not count against it.
    rig.tick();
    rig.heard(12);
    assert!(rig.hear(Input::Counted(Ok(9))).is_empty());

    let mut rig = Rig::new();
    rig.alive(9);
    // Not every message has a revision, and it may be a smaller one.
    rig.heard(8);
    rig.heard(0);
    rig.tick();
    let actions = rig.hear(Input::Counted(Ok(8)));
    assert_eq!(down(&actions), "watch at b: the store is at revision 8, behind 9");
    // The next connection starts from nothing.
    rig.alive(2);
    rig.tick();
    assert!(rig.hear(Input::Counted(Ok(2))).is_empty());
}

#[test]
fn a_count_that_fails_decides_nothing_by_itself() {
    let mut rig = Rig::new();
    rig.alive(7);
    rig.tick();
    for kind in [Kind::Busy, Kind::Denied, Kind::Unreachable] {
        assert!(rig.hear(Input::Counted(Err(error(kind)))).is_empty());
    }
    assert!(rig.progress().is_empty());
    assert_eq!(rig.wait(), s(3));
}
