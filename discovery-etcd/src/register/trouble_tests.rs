//! What goes wrong on the way: a watch that ends, a server that is full, denials, a lease that runs
//! out, an application that hangs, and random courses of it all.

use rand::{RngExt as _, SeedableRng as _};

use super::rig::*;
use super::*;
use crate::wire::Found;

#[test]
fn a_watch_that_ended_is_opened_again_after_a_growing_wait_and_the_key_read_anew() {
    let (mut rig, lease) = Rig::registered();
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        let from = rig.now;
        rig.hear(Input::NotWatching(error(Kind::Unreachable)));
        assert!(rig.is_registered(1), "etcd still has it");
        while !rig.opens {
            rig.tick();
            if rig.asked.is_some() {
                rig.renewed(lease);
            }
        }
        rig.opens = false;
        longest = longest.max(rig.now - from);
    }
    assert!(longest > ms(1_000) && longest <= ms(5_000), "{longest:?}");
    rig.hear(Input::Watching);
    rig.get(Some(entry(HERE, lease, 10)), 20);
    assert!(rig.is_registered(1));
    // Nothing was heard meanwhile of what became of it.
    let (mut rig, lease) = Rig::registered();
    rig.hear(Input::NotWatching(error(Kind::Unreachable)));
    while !rig.opens {
        rig.tick();
    }
    rig.watching();
    rig.get(None, 20);
    rig.puts(HERE, lease, Guard::Absent);
}

#[test]
fn who_is_busy_or_refuses_waits_with_puts_and_grants_while_renewals_go_on() {
    for kind in [Kind::Busy, Kind::Rejected] {
        let (mut rig, lease) = Rig::registered();
        rig.want(present("new", 2));
        rig.put();
        rig.fail(kind);
        let (mut renewals, mut puts) = (0, 0);
        let from = rig.now;
        while rig.now - from < ms(30_000) {
            rig.until_asked();
            match rig.question() {
                Question::Renew { .. } => {
                    renewals += 1;
                    rig.answer(Answer::Renewed);
                }
                Question::Get(_) => rig.get(Some(entry(HERE, lease, 10)), 10),
                _ => {
                    puts += 1;
                    rig.put();
                    rig.fail(kind);
                }
            }
        }
        assert!((5..=7).contains(&renewals), "{kind:?} {renewals}");
        assert!((9..=31).contains(&puts), "{kind:?} {puts}");
        assert_eq!(rig.condemned, 0, "{kind:?}");
        // A grant waits in the same way.
        let mut rig = Rig::begun(plan());
        let Question::Grant { lease, .. } = rig.question() else { panic!() };
        rig.fail(kind);
        assert!(rig.trouble().is_some(), "{kind:?}");
        let waited = rig.until_asked();
        assert!(waited >= ms(1_000) && waited <= ms(3_000), "{kind:?} {waited:?}");
        assert_eq!(rig.question(), Question::Grant { lease, ttl: TTL });
        assert_eq!(rig.condemned, 0);
    }
}

#[test]
fn the_end_of_the_leases_time_ends_being_registered() {
    let (mut rig, lease) = Rig::registered();
    let expires = rig.expires().unwrap();
    rig.down();
    rig.tick();
    assert_eq!(rig.now, expires);
    assert!(rig.trouble().is_some());
    assert_eq!(rig.machine.deadline(), None);
    // It may still be there.
    rig.up();
    assert_eq!(rig.question(), Question::Renew { lease });
}

/// After the lease's time seemed to be over, a renewal that succeeds has the key read at once.
#[test]
fn a_lease_that_lives_on_after_all_is_registered_again_at_once() {
    let (mut rig, lease) = Rig::registered();
    // All the process stood still, and etcd did too.
    rig.now += TTL + ms(1_000);
    rig.hear(Input::Tick);
    assert!(rig.is_registering());
    rig.renewed(lease);
    rig.get(Some(entry(HERE, lease, 10)), 10);
    assert!(rig.is_registered(1));
}

/// An update that etcd refuses is seen in the status.
#[test]
fn trouble_while_registered_is_reported() {
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    rig.fail(Kind::Rejected);
    assert!(rig.is_registered(1));
    assert!(rig.machine.status.last_error.is_some());
    assert!(rig.reports.last().is_some_and(|report| report.last_error.is_some()));
}

#[test]
fn what_is_denied_has_a_new_token_asked_for_once_and_then_waits() {
    for seed in 0..50 {
        let mut rig = Rig::of(plan(), seed);
        rig.up();
        rig.watching();
        let Question::Grant { lease, .. } = rig.question() else { panic!() };
        rig.fail(Kind::Denied);
        assert_eq!(rig.question(), Question::Refresh);
        assert!(rig.is_registering() && rig.trouble().is_none(), "a token may be too old");
        rig.answer(Answer::Refreshed);
        assert_eq!(rig.question(), Question::Grant { lease, ttl: TTL });
        rig.fail(Kind::Denied);
        assert_eq!(rig.asked, None, "the token was new");
        assert!(rig.trouble().is_some());
        let waited = rig.until_asked();
        assert!(waited >= ms(8_000) && waited <= ms(12_000), "{waited:?}");
        // Then once more a new token, and with it all is well.
        rig.fail(Kind::Denied);
        rig.answer(Answer::Refreshed);
        assert_eq!(rig.grant(), lease);
        rig.get(None, 9);
        // A token that was good for something is worth replacing when it is not any more.
        rig.fail(Kind::Denied);
        assert_eq!(rig.question(), Question::Refresh);
        assert_eq!(rig.condemned, 0);
    }
}

#[test]
fn changed_credentials_end_the_wait() {
    let mut rig = Rig::begun(plan());
    rig.deny();
    rig.now += ms(100);
    rig.hear(Input::Retry);
    assert!(matches!(rig.question(), Question::Grant { .. }));
}

#[test]
fn a_watch_that_is_denied_has_a_new_token_asked_for_too() {
    let mut rig = Rig::new();
    rig.up();
    rig.opens = false;
    rig.hear(Input::NotWatching(error(Kind::Denied)));
    assert_eq!(rig.question(), Question::Refresh);
    rig.answer(Answer::Refreshed);
    assert!(std::mem::take(&mut rig.opens));
    rig.hear(Input::NotWatching(error(Kind::Denied)));
    assert_eq!(rig.asked, None);
    let waited = rig.tick();
    assert!(rig.opens && waited >= ms(8_000) && waited <= ms(12_000), "{waited:?}");
}

#[test]
fn a_watch_that_is_denied_while_the_lease_is_renewed_has_a_new_token_asked_for_then() {
    let (mut rig, lease) = Rig::registered();
    rig.reconnect();
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.hear(Input::NotWatching(error(Kind::Denied)));
    rig.opens = false;
    rig.renewed(lease);
    assert_eq!(rig.question(), Question::Refresh);
    rig.answer(Answer::Refreshed);
    assert!(rig.opens, "at once");
}

/// What is denied can be mended within a lease's time, and should cost nothing then.
#[test]
fn what_is_denied_is_not_at_the_cost_of_the_lease() {
    for seed in 0..50 {
        let (mut rig, lease) = Rig::registered_with(plan(), seed);
        // Just before a renewal.
        rig.now += ms(4_400);
        rig.want(present("new", 2));
        rig.deny();
        rig.until_asked();
        assert!(rig.now + TTL / 2 < rig.expires().unwrap());
        rig.renewed(lease);
        assert!(rig.is_registered(1));
    }
}

#[test]
fn a_renewal_that_is_denied_is_repeated_in_time_but_not_without_a_pause() {
    let (mut rig, lease) = Rig::registered();
    let expires = rig.expires().unwrap();
    rig.until_asked();
    let mut renewals = 0;
    while rig.now < expires {
        assert_eq!(rig.question(), Question::Renew { lease });
        renewals += 1;
        rig.deny();
        assert!(renewals < 10, "at {:?} before the end", expires - rig.now);
        rig.until_asked();
    }
    assert!(renewals >= 3, "{renewals}");
    assert_eq!(rig.condemned, 0);
}

#[test]
fn every_question_has_a_deadline() {
    let within = Rig::dies;
    for steps in 0..4 {
        let mut rig = Rig::begun(plan());
        let moves: [fn(&mut Rig); 3] = [
            |rig| assert!(rig.grant() > 0),
            |rig| rig.get(None, 9),
            |rig| {
                rig.done(10);
                rig.want(present("new", 2));
            },
        ];
        moves.into_iter().take(steps).for_each(|go| go(&mut rig));
        // Once there is a lease to be renewed, nothing may take long.
        let limit = if steps < 1 { ANSWER_WITHIN } else { answer_within(TTL) };
        assert_eq!(within(&mut rig), limit, "{steps}");
    }
    let mut rig = Rig::begun(plan());
    rig.fail(Kind::Denied);
    assert_eq!((rig.question(), within(&mut rig)), (Question::Refresh, ANSWER_WITHIN));
}

/// All registrations share the connection.
#[test]
fn what_is_slow_for_one_is_asked_again_and_the_connection_left_to_the_others() {
    // A grant, a read, a put.
    for steps in 0..3 {
        let mut rig = Rig::begun(plan());
        let moves: [fn(&mut Rig); 2] = [|rig| assert!(rig.grant() > 0), |rig| rig.get(None, 9)];
        moves.into_iter().take(steps).for_each(|go| go(&mut rig));
        let asked = rig.question();
        // Until the link has seen to it, and then half as long again.
        let limit = if steps < 1 { ANSWER_WITHIN } else { answer_within(TTL) };
        assert_eq!(rig.unanswered(), limit * 3 / 2, "{steps}");
        assert_eq!(rig.condemned, 0, "{steps}");
        assert!(rig.trouble().is_some_and(|error| error.to_string().contains("no answer within")));
        if let Question::Renew { lease } = rig.question() {
            rig.renewed(lease);
        }
        if steps == 2 {
            // What became of it is not known.
            rig.get(None, 9);
        }
        assert_eq!(rig.question(), asked, "{steps}");
    }
    // What is never answered here may be elsewhere; any answer in between proves that there are some.
    for answers in [false, true] {
        let mut rig = Rig::begun(plan());
        rig.unanswered();
        if answers {
            rig.fail(Kind::Busy);
            rig.until_asked();
        }
        rig.unanswered();
        assert_eq!(rig.condemned, usize::from(!answers));
    }
    // A slow answer is one.
    let (mut rig, _) = Rig::registered();
    rig.want(present("slow", 2));
    while rig.check.is_none() {
        rig.tick();
    }
    rig.now += answer_within(TTL) * 9 / 10;
    rig.done(20);
    assert!(rig.is_registered(2));
}

#[test]
fn a_renewal_that_is_never_answered_is_asked_elsewhere_while_its_lease_lives() {
    let (mut rig, lease) = Rig::registered();
    let expires = rig.expires().unwrap();
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    assert_eq!(rig.unanswered(), answer_within(TTL) * 3 / 2);
    assert_eq!(rig.condemned, 1);
    assert!(rig.now + ms(3_000) < expires, "{:?}", expires - rig.now);
}

/// Many leave one after the other when programs are replaced, and a slow disk delays them all.
#[test]
fn who_leaves_slowly_takes_the_connection_from_nobody() {
    let (mut rig, lease) = Rig::registered();
    rig.leave();
    while !rig.has_given_up() {
        assert_eq!(rig.question(), Question::Revoke { lease });
        rig.unanswered();
    }
    assert_eq!(rig.condemned, 0);
}

/// What was attempted, on which endpoint and with which key.
#[test]
fn an_error_says_which_key_it_is_about() {
    let said = |rig: &Rig| {
        let said = rig.machine.status.last_error.as_ref().expect("trouble").to_string();
        assert!(said.contains("/services/a/1"), "{said}");
        said
    };
    let unanswered = |rig: &mut Rig| {
        rig.unanswered();
        said(rig)
    };
    let mut rig = Rig::begun(plan());
    assert_eq!(
        unanswered(&mut rig),
        "grant a lease for /services/a/1 at etcd: no answer within 6.0 s"
    );
    let (mut rig, _) = Rig::registered();
    rig.until_asked();
    assert!(unanswered(&mut rig).starts_with("renew the lease of /services/a/1 at etcd: no"));
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    assert!(unanswered(&mut rig).starts_with("put /services/a/1 at etcd: no"));
    // What etcd says of a lease says nothing of the key by itself.
    let mut rig = Rig::begun(plan());
    rig.fail(Kind::Busy);
    assert_eq!(said(&rig), "for /services/a/1: try at etcd: no");
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    let deleted = rig.trouble().expect("it was deleted").to_string();
    assert_eq!(deleted, "/services/a/1 at etcd: the key was deleted");
    let (mut rig, _) = Rig::registered();
    rig.hear(Input::Alive(false));
    said(&rig);
}

#[test]
fn a_dead_application_is_left_to_expire_and_registered_anew_at_its_next_sign_of_life() {
    let (mut rig, lease) = Rig::registered();
    rig.hear(Input::Alive(false));
    assert!(rig.reports.last().is_some_and(|report| report.last_error.is_some()));
    assert!(rig.is_registered(1), "it is still there");
    let expires = rig.expires().unwrap();
    rig.tick();
    assert_eq!((rig.now, rig.asked.clone()), (expires, None), "nothing is renewed or read");
    assert!(rig.trouble().is_some_and(|error| error.to_string().contains("no sign of life")));
    assert_eq!(rig.machine.deadline(), None);
    rig.event(deleted(11));
    assert_eq!(rig.asked, None, "it is not put again");
    assert!(rig.trouble().is_some_and(|error| error.to_string().contains("no sign of life")));
    // Nor over a new connection.
    rig.reconnect();
    assert_eq!((rig.asked.clone(), rig.opens), (None, false));
    rig.hear(Input::Alive(true));
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.fail(Kind::LeaseNotFound);
    rig.watching();
    let another = rig.grant();
    rig.get(None, 12);
    rig.puts(HERE, another, Guard::Absent);
    rig.done(13);
    assert!(rig.is_registered(1));
}

/// Random answers to random questions at random times: no step may leave a deadline in the past, and
/// nothing is asked that the state does not allow (the rig checks both).
#[test]
fn no_course_of_events_makes_it_spin() {
    for seed in 0..1_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let fails = seed % 3 == 0;
        let on_conflict = if fails { OnConflict::Fail } else { OnConflict::Wait };
        let (replace_same_address, share_lease) = (seed % 2 == 0, seed % 5 < 2);
        let plan = Plan { on_conflict, replace_same_address, share_lease, ..plan() };
        let mut rig = Rig::of(plan, seed);
        let mut revision = 1;
        let mut version = 1;
        for _ in 0..300 {
            if rig.ended {
                break;
            }
            revision += rng.random_range(0..3);
            random_step(&mut rig, &mut rng, revision, &mut version, share_lease);
        }
        // Wherever it is, it can be ended in time.
        let deadline = if rig.ended { rig.now } else { rig.leave() };
        while !rig.has_given_up() {
            if rig.asked.is_some() && rng.random_bool(0.3) {
                rig.fail([Kind::Denied, Kind::Busy, Kind::Unreachable][rng.random_range(0..3)]);
            } else if rng.random_bool(0.2) && matches!(rig.machine.link, Link::Down) {
                rig.up();
            } else {
                rig.tick();
            }
        }
        assert!(rig.now <= deadline, "seed {seed}");
    }
}

fn random_step(rig: &mut Rig, rng: &mut StdRng, revision: i64, version: &mut u64, shares: bool) {
    let lease = rig.machine.lease.as_ref().map_or(HOME, |lease| lease.id);
    let entry = match rng.random_range(0..5) {
        0 => None,
        1 => Some(there(revision)),
        2 => Some(entry(HERE, FOREIGN_LEASE, revision)),
        3 if shares => Some(entry(HERE, HOME, revision)),
        _ => Some(entry(HERE, lease, revision)),
    };
    let found = Found { entry: entry.clone(), revision };
    let kinds = [
        Kind::Unreachable,
        Kind::Denied,
        Kind::Denied,
        Kind::Busy,
        Kind::Rejected,
        Kind::LeaseNotFound,
    ];
    match rng.random_range(0..100) {
        0..15 if rig.machine.deadline().is_some() => drop(rig.tick()),
        15..25 => rig.now += ms(rng.random_range(0..4_000)),
        25..35 => rig.event(entry.map_or(deleted(revision), Event::Put)),
        35..38 => rig.down(),
        38..42 => {
            *version += 1;
            let next =
                if rng.random_bool(0.3) { unlisted(*version) } else { present("new", *version) };
            rig.want(next);
        }
        42 if rng.random_bool(0.3) => drop(rig.leave()),
        43..45 => {
            let alive = rng.random();
            rig.hear(Input::Alive(alive));
        }
        45..47 => rig.hear(Input::NotWatching(error(kinds[rng.random_range(0..2)]))),
        47..49 => rig.hear(Input::Retry),
        49..54 if shares => match rng.random_range(0..4) {
            0 => rig.hear(Input::Home(None)),
            1 => rig.home(HOME - 1),
            _ => rig.home(HOME),
        },
        _ if matches!(rig.machine.link, Link::Down) => rig.up(),
        _ if rig.opens => rig.watching(),
        _ if rig.asked.is_none() => {
            if rig.machine.deadline().is_some() {
                rig.tick();
            }
        }
        54..66 => rig.fail(kinds[rng.random_range(0..kinds.len())]),
        _ => {
            let answer = match rig.question() {
                Question::Grant { .. } if rng.random_bool(0.3) => {
                    return rig.fail(Kind::LeaseExists);
                }
                Question::Refresh => Answer::Refreshed,
                Question::Grant { .. } => Answer::Granted(TTL),
                Question::GrantedTtl { .. } => {
                    Answer::GrantedTtl(rng.random_bool(0.7).then_some(TTL))
                }
                Question::Renew { .. } => Answer::Renewed,
                Question::Get(_) => Answer::Found(found),
                Question::Put(_) if rng.random_bool(0.3) => Answer::Put(PutReply::Refused(found)),
                Question::Put(_) => Answer::Put(PutReply::Done { revision }),
                Question::Revoke { .. } => Answer::Revoked,
            };
            rig.answer(answer);
        }
    }
}

/// A member that lags tells of the past first: who held the key then, or that it was gone.
#[test]
fn what_the_watch_says_before_the_key_was_read_is_not_taken_for_now() {
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    let reconnect = |rig: &mut Rig| {
        rig.reconnect();
        rig.renewed(lease);
        rig.watching();
    };
    // Our predecessor, who has left since.
    reconnect(&mut rig);
    rig.event(Event::Put(there(5)));
    assert!(rig.conflict().is_none() && rig.is_registered(1));
    rig.event(deleted(6));
    assert!(rig.is_registered(1));
    rig.get(Some(entry(HERE, lease, 10)), 20);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
    // What happened after the key was read counts, though it was heard before.
    reconnect(&mut rig);
    rig.event(deleted(21));
    rig.get(Some(entry(HERE, lease, 10)), 20);
    rig.puts(HERE, lease, Guard::Absent);
    // Nothing of it outlives the connection.
    reconnect(&mut rig);
    rig.event(Event::Put(there(30)));
    reconnect(&mut rig);
    rig.get(Some(entry(HERE, lease, 22)), 22);
    assert!(rig.is_registered(1));
}

/// The old ones may be refused after that.
#[test]
fn credentials_that_change_while_they_are_presented_are_presented_at_once_after_it() {
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    rig.fail(Kind::Denied);
    assert_eq!(rig.question(), Question::Refresh);
    rig.hear(Input::Retry);
    rig.fail(Kind::Denied);
    assert_eq!(rig.question(), Question::Refresh);
    rig.answer(Answer::Refreshed);
    rig.put();
}

/// It has to do with the load on etcd; to tear down what all registrations share would add to it.
#[test]
fn a_revocation_that_is_refused_for_the_load_is_tried_again_on_the_same_connection() {
    let (mut rig, lease) = Rig::registered();
    rig.leave();
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.fail(Kind::Busy);
    assert_eq!((rig.condemned, rig.until_asked()), (0, LEAVE_HOLD));
    rig.revoked(lease);
    assert!(rig.is_deregistered());
}
