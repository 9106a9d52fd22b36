//! Leaving: the lease is revoked whatever was under way, nothing is put any more, and what cannot be
//! confirmed is said.

use super::rig::*;
use super::*;

/// Each phase of a registration; whether there is a lease that may be alive.
fn phases() -> Vec<(&'static str, Rig, bool)> {
    let mut phases = Vec::new();
    let upto = |steps: usize| {
        let mut rig = Rig::new();
        let moves: [fn(&mut Rig); 6] = [
            Rig::up,
            Rig::watching,
            |rig| assert!(rig.grant() > 0),
            |rig| rig.get(None, 9),
            |rig| rig.done(10),
            |rig| assert!(rig.until_asked() > ms(4_000)),
        ];
        moves.into_iter().take(steps).for_each(|go| go(&mut rig));
        rig
    };
    for (steps, name) in
        ["connecting", "watching", "granting", "reading", "putting", "idle", "renewing"]
            .into_iter()
            .enumerate()
    {
        if steps != 2 {
            phases.push((name, upto(steps), steps >= 3));
        }
        let mut rig = upto(steps);
        rig.down();
        phases.push((name, rig, steps >= 3));
        let mut rig = upto(steps);
        if rig.asked.is_some() && steps != 2 {
            rig.deny();
            phases.push((name, rig, true));
        }
    }
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    phases.push(("putting again", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.event(Event::Put(there(11)));
    phases.push(("conflict", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    rig.fail(Kind::Busy);
    phases.push(("holding", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.hear(Input::NotWatching(error(Kind::Unreachable)));
    phases.push(("without a watch", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.hear(Input::Alive(false));
    phases.push(("dead", rig, true));
    phases
}

#[test]
fn leaving_revokes_at_once_and_is_over_when_confirmed_or_never_begun() {
    for gone in [false, true] {
        for (phase, mut rig, leased) in phases() {
            let deadline = rig.leave();
            if !leased {
                assert!(rig.is_deregistered(), "{phase}");
                continue;
            }
            assert!(matches!(rig.state(), RegistrationState::Deregistering), "{phase}");
            assert_eq!(rig.hurry, Some(deadline), "{phase}: the link is to make haste");
            if matches!(rig.machine.link, Link::Down) {
                assert_eq!(rig.asked, None);
                rig.up();
            }
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase} {:?}", rig.asked);
            // News of the key and of the watch change nothing.
            rig.event(deleted(90));
            rig.event(Event::Put(there(91)));
            rig.hear(Input::NotWatching(error(Kind::Denied)));
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            // Not answered: elsewhere, in time.
            assert_eq!(rig.dies(), LEAVE_WITHIN, "{phase}");
            assert!(!rig.ended && rig.now + ms(1_900) < deadline, "{phase}");
            rig.up();
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            // Who leaves does not come back.
            rig.want(present("again", 9));
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            assert!(!rig.opens, "{phase}");
            if gone {
                rig.fail(Kind::LeaseNotFound);
            } else {
                rig.answer(Answer::Revoked);
            }
            assert!(rig.is_deregistered(), "{phase}");
            assert_eq!(rig.needed_by, None);
        }
    }
}

#[test]
fn a_put_in_doubt_is_fenced_off_by_its_lease() {
    // Whether its answer still comes or not: it is revoked, and nothing is over before.
    let (mut rig, lease) = Rig::registered();
    rig.event(deleted(11));
    rig.puts(HERE, lease, Guard::Absent);
    rig.leave();
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.event(Event::Put(entry(HERE, lease, 12)));
    rig.reconnect();
    assert!(!rig.ended);
    rig.revoked(lease);
    assert!(rig.is_deregistered());
}

#[test]
fn an_answer_to_what_was_asked_before_leaving_is_ignored() {
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    rig.put();
    rig.leave();
    rig.asked = None;
    rig.machine.asked = None;
    rig.hear(Input::Answer(Ok(Answer::Put(PutReply::Done { revision: 12 }))));
    assert!(!rig.ended);
    assert!(matches!(rig.question(), Question::Revoke { .. }));
}

#[test]
fn leaving_gives_up_at_the_deadline_and_says_how_long_the_key_may_stay() {
    let (mut rig, lease) = Rig::registered();
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    // It may have arrived, though the answer did not: etcd counts from then.
    rig.now += ms(1_000);
    rig.fail(Kind::Unreachable);
    let heard = rig.now;
    rig.now += ms(2_000);
    let deadline = rig.leave();
    rig.up();
    rig.fail(Kind::Unreachable);
    rig.nothing_comes_through();
    assert_eq!(rig.now, deadline);
    assert_eq!(rig.gone_at(), Some(heard + TTL + ms(500)));
    let RegistrationState::Abandoned(unconfirmed) = rig.state() else { panic!() };
    assert!(unconfirmed.cause.is_some());
}

#[test]
fn a_renewal_under_way_when_leaving_may_have_arrived() {
    let (mut rig, _) = Rig::registered();
    rig.until_asked();
    rig.now += ms(2_000);
    let left = rig.now;
    rig.leave();
    rig.nothing_comes_through();
    assert_eq!(rig.gone_at(), Some(left + TTL + ms(500)));
}

/// A lease whose grant is not confirmed has no key: it is revoked if that is easy.
#[test]
fn leaving_while_granting_does_not_wait_for_what_was_never_put() {
    let ends: [fn(&mut Rig); 5] = [
        |rig| rig.answer(Answer::Revoked),
        |rig| rig.fail(Kind::LeaseNotFound),
        |rig| rig.fail(Kind::Denied),
        |rig| rig.down(),
        |rig| assert_eq!(rig.dies(), LEAVE_WITHIN),
    ];
    for end in ends {
        let mut rig = Rig::begun(plan());
        rig.leave();
        assert!(matches!(rig.question(), Question::Revoke { .. }));
        end(&mut rig);
        assert!(rig.is_deregistered());
    }
    // Nor if there is no time at all.
    let mut rig = Rig::begun(plan());
    rig.want(Wanted::Absent { deadline: rig.now + ms(10) });
    rig.tick();
    assert!(rig.is_deregistered());
}

#[test]
fn nothing_can_be_there_if_no_grant_was_confirmed() {
    let mut rig = Rig::begun(plan());
    rig.fail(Kind::Unreachable);
    rig.leave();
    assert!(rig.is_deregistered());
}

#[test]
fn a_dropped_handle_revokes_for_a_while_and_does_not_shorten_an_orderly_leave() {
    let (mut rig, lease) = Rig::registered();
    rig.want(Wanted::Abandoned);
    assert_eq!(rig.question(), Question::Revoke { lease });
    let from = rig.now;
    rig.nothing_comes_through();
    assert_eq!(rig.now - from, ms(3_000));
    let (mut rig, _) = Rig::registered();
    let from = rig.now;
    rig.want(Wanted::Absent { deadline: rig.now + ms(20_000) });
    rig.want(Wanted::Abandoned);
    rig.nothing_comes_through();
    assert_eq!(rig.now - from, ms(20_000));
}

/// The time for leaving is short, and a renewal that would be due meanwhile is not.
#[test]
fn what_is_refused_while_leaving_is_tried_again_soon_and_nothing_else_is_done() {
    let (mut rig, lease) = Rig::registered();
    // When a renewal is due.
    rig.now = rig.machine.deadline().unwrap();
    let deadline = rig.leave();
    let mut attempts = 0;
    while rig.now < deadline - LEAVE_HOLD {
        assert_eq!(rig.question(), Question::Revoke { lease });
        rig.deny();
        attempts += 1;
        // What becomes of the watch is of no interest.
        rig.hear(Input::NotWatching(error(Kind::Denied)));
        assert_eq!(rig.tick(), LEAVE_HOLD);
    }
    assert_eq!(attempts, 14);
    // A new token may be all that it takes.
    rig.fail(Kind::Denied);
    rig.answer(Answer::Refreshed);
    rig.revoked(lease);
    assert!(rig.is_deregistered());
}

#[test]
fn who_fails_in_a_conflict_revokes_its_lease_and_ends() {
    let mut rig = Rig::begun(failing());
    let lease = rig.grant();
    rig.get(Some(there(9)), 9);
    assert!(!rig.conflict().expect("a conflict").waiting);
    rig.revoked(lease);
    assert!(rig.ended && rig.conflict().is_some());
}

#[test]
fn a_conflict_that_failed_is_final_whatever_becomes_of_the_holder() {
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    rig.event(Event::Put(there(11)));
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.event(deleted(12));
    assert!(rig.conflict().is_some());
    rig.fail(Kind::Unreachable);
    rig.up();
    assert!(!rig.opens);
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.ended && rig.conflict().is_some());
    // Also if the lease turns out to be gone by a renewal that was under way.
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.event(Event::Put(there(11)));
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.ended && rig.conflict().is_some());
}

#[test]
fn a_final_conflict_whose_lease_cannot_be_revoked_waits_quietly() {
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    rig.event(Event::Put(there(11)));
    rig.now += TTL / 3;
    rig.deny();
    let waited = rig.until_asked();
    assert!(waited >= ms(8_000), "{waited:?}");
    rig.revoked(lease);
    assert!(rig.ended && rig.conflict().is_some());
}
