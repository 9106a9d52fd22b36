//! A key under a shared lease: it gets there by way of a lease of its own, and whatever is in doubt
//! when it leaves is fenced off.

use super::rig::*;
use super::*;

fn sharing() -> Plan {
    Plan { share_lease: true, ..plan() }
}

/// Asked to put the key under a lease of its own, at first; gives that lease.
fn putting() -> (Rig, i64) {
    let mut rig = Rig::of(sharing(), 1);
    rig.home(HOME);
    rig.up();
    rig.watching();
    rig.get(None, 9);
    let own = rig.grant();
    rig.puts(HERE, own, Guard::Absent);
    (rig, own)
}

/// Asked to move the key to the shared lease.
fn moving() -> (Rig, i64) {
    let (mut rig, own) = putting();
    rig.done(10);
    assert!(rig.is_registered(1));
    rig.puts(HERE, HOME, Guard::Lease(own));
    (rig, own)
}

/// Registered under the shared lease, with no other.
fn moved() -> Rig {
    let (mut rig, own) = moving();
    rig.done(11);
    rig.revoked(own);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
    rig
}

#[test]
fn a_key_is_put_under_a_lease_of_its_own_then_moved_and_the_own_one_revoked() {
    let mut rig = moved();
    assert_eq!(rig.needed_by, None, "the shared lease's owner sees to it");
    assert_eq!(rig.reports.iter().filter(|status| status.applied == 0).count(), 1);
    // Its time is the shared lease's, and there is nothing to renew.
    let sent = rig.now;
    for _ in 0..4 {
        assert!(rig.until_asked() > ms(8_000));
        rig.get(Some(entry(HERE, HOME, 11)), 20);
        rig.home(HOME);
    }
    assert!(rig.is_registered(1));
    assert!(rig.now - sent > ms(36_000));
    assert_eq!(rig.expires(), Some(rig.now + TTL));
}

#[test]
fn without_a_shared_lease_yet_the_key_stands_under_its_own_and_moves_later() {
    let mut rig = Rig::of(sharing(), 1);
    rig.up();
    rig.watching();
    rig.get(None, 9);
    let own = rig.grant();
    rig.done(10);
    assert!(rig.is_registered(1));
    assert_eq!(rig.expires(), Some(rig.now + TTL));
    rig.until_asked();
    rig.renewed(own);
    rig.home(HOME);
    rig.puts(HERE, HOME, Guard::Lease(own));
    // Its event comes before its answer.
    rig.event(Event::Put(entry(HERE, HOME, 11)));
    rig.done(11);
    rig.revoked(own);
    assert!(rig.is_registered(1));
}

#[test]
fn updates_and_deletes_of_a_key_that_is_ours_are_guarded_by_the_shared_lease() {
    let mut rig = moved();
    rig.want(present("new", 2));
    rig.puts("new", HOME, Guard::Lease(HOME));
    rig.done(12);
    assert!(rig.is_registered(2));
    rig.want(unlisted(3));
    rig.deletes(HOME);
    rig.done(13);
    assert!(rig.is_registered(3));
    assert_eq!(rig.asked, None);
    // Absent, it is not ours: the long way again.
    rig.want(present(HERE, 4));
    let own = rig.grant();
    rig.puts(HERE, own, Guard::Absent);
    rig.done(14);
    rig.puts(HERE, HOME, Guard::Lease(own));
}

#[test]
fn an_update_while_the_key_moves_is_put_after_it() {
    let (mut rig, own) = moving();
    rig.want(present("new", 2));
    rig.done(11);
    rig.puts("new", HOME, Guard::Lease(HOME));
    rig.done(12);
    rig.revoked(own);
    assert!(rig.is_registered(2));
}

#[test]
fn a_key_that_somebody_deleted_goes_the_long_way_again() {
    // Also with a lease that is still there because it was just moved away from.
    for revoked in [true, false] {
        let mut rig = moving().0;
        let own = rig.machine.lease.as_ref().unwrap().id;
        rig.done(11);
        if revoked {
            rig.revoked(own);
        }
        rig.event(deleted(12));
        assert!(rig.is_registering());
        if !revoked {
            rig.revoked(own);
            rig.get(None, 12);
        }
        let another = rig.grant();
        assert_ne!(another, own);
        rig.puts(HERE, another, Guard::Absent);
        rig.done(13);
        rig.puts(HERE, HOME, Guard::Lease(another));
        rig.done(14);
        rig.revoked(another);
        assert!(rig.is_registered(1));
    }
}

#[test]
fn the_end_of_the_shared_lease_is_the_end_of_the_key() {
    // Told with the next one, or before there is one; before it can be read or with the link down.
    for next in [Some(HOME - 1), None] {
        let mut rig = moved();
        match next {
            Some(next) => rig.home(next),
            None => rig.hear(Input::Home(None)),
        }
        assert!(rig.is_registering(), "{:?}", rig.state());
        assert!(rig.trouble().is_some());
        rig.get(None, 20);
        let own = rig.grant();
        rig.puts(HERE, own, Guard::Absent);
        rig.done(21);
        assert!(rig.is_registered(1));
        rig.home(HOME - 1);
        rig.puts(HERE, HOME - 1, Guard::Lease(own));
        rig.done(22);
        rig.revoked(own);
        assert!(rig.is_registered(1));
    }
    // The connection was lost in between, and the lease's owner was the first to ask.
    let mut rig = moved();
    rig.reconnect();
    rig.hear(Input::Home(None));
    assert!(rig.is_registering(), "{:?}", rig.state());
}

#[test]
fn a_move_to_a_shared_lease_that_is_gone_leaves_the_key_where_it_stands() {
    // The owner of the lease may have found out before, and even have another one.
    for home in [Some(HOME), Some(HOME - 1), None] {
        let (mut rig, own) = moving();
        match home {
            Some(HOME) => {}
            Some(other) => rig.home(other),
            None => rig.hear(Input::Home(None)),
        }
        rig.fail(Kind::LeaseNotFound);
        assert!(rig.is_registered(1), "{home:?} {:?}", rig.state());
        if home != Some(HOME - 1) {
            assert_eq!(rig.asked, None, "{home:?}");
            rig.until_asked();
            rig.renewed(own);
            rig.home(HOME - 1);
        }
        rig.puts(HERE, HOME - 1, Guard::Lease(own));
        rig.done(21);
        rig.revoked(own);
        assert!(rig.is_registered(1));
    }
}

#[test]
fn an_own_lease_that_is_lost_before_the_move_is_followed_by_another() {
    // By a renewal before the put, by the put, by an event, by the move's guard.
    let (mut rig, own) = putting();
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.is_registering());
    rig.get(None, 10);
    let another = rig.grant();
    assert_ne!(own, another);
    rig.puts(HERE, another, Guard::Absent);

    let (mut rig, own) = moving();
    rig.event(deleted(11));
    rig.guarded(None, 11);
    assert!(rig.is_registering());
    rig.puts(HERE, own, Guard::Absent);
    rig.fail(Kind::LeaseNotFound);
    rig.get(None, 12);
    assert_ne!(rig.grant(), own);

    let (mut rig, own) = moving();
    rig.reconnect();
    assert_eq!(rig.question(), Question::Renew { lease: own });
    rig.fail(Kind::LeaseNotFound);
    rig.watching();
    rig.get(None, 12);
    assert_ne!(rig.grant(), own);
}

#[test]
fn the_loss_of_an_own_lease_that_the_key_has_left_is_nothing_to_report() {
    let (mut rig, own) = moving();
    rig.done(11);
    assert_eq!(rig.question(), Question::Revoke { lease: own });
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None, "and the key is known to be there");
    // The revocation is refused until the lease is to be renewed, and its time is over by then.
    let (mut rig, own) = moving();
    rig.done(11);
    while rig.question() != (Question::Renew { lease: own }) {
        rig.fail(Kind::Busy);
        rig.until_asked();
    }
    rig.fail(Kind::LeaseNotFound);
    assert_eq!(rig.machine.lease.as_ref().map(|lease| lease.id), None, "{own}");
    assert!(rig.is_registered(1));
}

#[test]
fn a_move_whose_answer_was_lost_is_found_and_its_own_lease_revoked() {
    let (mut rig, own) = moving();
    rig.fail(Kind::Unreachable);
    rig.up();
    rig.renewed(own);
    rig.watching();
    rig.get(Some(entry(HERE, HOME, 11)), 20);
    rig.revoked(own);
    assert!(rig.is_registered(1));
    // Or it never arrived: once more.
    let (mut rig, own) = moving();
    rig.fail(Kind::Unreachable);
    rig.up();
    rig.renewed(own);
    rig.watching();
    rig.get(Some(entry(HERE, own, 10)), 20);
    rig.puts(HERE, HOME, Guard::Lease(own));
}

#[test]
fn a_conflict_is_never_put_over_and_waits_without_a_lease() {
    let mut rig = Rig::of(sharing(), 1);
    rig.home(HOME);
    rig.up();
    rig.watching();
    rig.get(Some(there(9)), 9);
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
    rig.event(deleted(10));
    let own = rig.grant();
    // Somebody was quicker.
    rig.guarded(Some(there(11)), 11);
    assert!(rig.conflict().is_some());
    rig.event(deleted(12));
    rig.puts(HERE, own, Guard::Absent);
    // After the move, somebody takes it away.
    let mut rig = moved();
    rig.event(Event::Put(there(12)));
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
    rig.leave();
    assert!(rig.is_deregistered(), "it is not ours to delete");
}

#[test]
fn who_fails_in_a_conflict_leaves_no_lease_and_deletes_nothing() {
    let plan = Plan { share_lease: true, ..failing() };
    let mut rig = Rig::of(plan, 1);
    rig.home(HOME);
    rig.up();
    rig.watching();
    rig.get(None, 9);
    let own = rig.grant();
    rig.guarded(Some(there(10)), 10);
    rig.revoked(own);
    assert!(rig.ended && rig.conflict().is_some());
}

#[test]
fn a_predecessor_at_our_address_is_replaced_under_the_own_lease() {
    let plan = Plan { replace_same_address: true, ..sharing() };
    let mut rig = Rig::of(plan, 1);
    rig.home(HOME);
    rig.up();
    rig.watching();
    // Of a process of before, under its shared lease.
    rig.get(Some(entry(HERE, FOREIGN_LEASE, 5)), 9);
    let own = rig.grant();
    rig.puts(HERE, own, Guard::Revision(5));
    rig.done(10);
    rig.puts(HERE, HOME, Guard::Lease(own));
}

#[test]
fn a_dead_applications_key_is_deleted_and_put_again_when_it_lives() {
    let mut rig = moved();
    rig.hear(Input::Alive(false));
    rig.deletes(HOME);
    rig.done(12);
    assert!(rig.trouble().is_some_and(|error| error.to_string().contains("no sign of life")));
    assert_eq!(rig.asked, None);
    rig.until_asked();
    rig.get(None, 13);
    rig.hear(Input::Alive(true));
    let own = rig.grant();
    rig.puts(HERE, own, Guard::Absent);
    // Before it was moved, it is deleted as well.
    rig.done(14);
    rig.hear(Input::Alive(false));
    rig.done(15);
    rig.deletes(HOME);
}

/// After the lease's time seemed to be over, a renewal that succeeds has the key read at once.
#[test]
fn a_shared_lease_that_lives_on_after_all_is_registered_again_at_once() {
    let plan = Plan { verify_every: ms(60_000), ..sharing() };
    let mut rig = Rig::of(plan, 1);
    rig.home(HOME);
    rig.up();
    rig.watching();
    rig.get(Some(entry(HERE, HOME, 9)), 9);
    assert!(rig.is_registered(1));
    rig.now += TTL + ms(1_000);
    rig.hear(Input::Tick);
    assert!(rig.is_registering());
    rig.home(HOME);
    rig.get(Some(entry(HERE, HOME, 9)), 9);
    assert!(rig.is_registered(1));
}

// Leaving. etcd is thought of as what a question in doubt may still do to it: nothing may be left of
// the key after the last answer, whenever that question arrives.

#[test]
fn a_put_in_doubt_is_fenced_off_by_the_own_lease_when_leaving() {
    let (mut rig, own) = putting();
    rig.leave();
    // Late, it finds no lease. It was never moved, so there is nothing more to do.
    rig.revoked(own);
    assert!(rig.is_deregistered());
    // After the registration was under the shared lease, that is looked at as well.
    let mut rig = moved();
    rig.event(deleted(12));
    let own = rig.grant();
    rig.puts(HERE, own, Guard::Absent);
    rig.leave();
    rig.revoked(own);
    rig.deletes(HOME);
    rig.guarded(None, 13);
    assert!(rig.is_deregistered());
}

#[test]
fn a_move_in_doubt_needs_the_own_lease_revoked_before_the_key_is_deleted() {
    // The other way round it could come after the delete.
    for arrived in [true, false] {
        for reconnects in [true, false] {
            let (mut rig, own) = moving();
            if reconnects {
                rig.fail(Kind::Unreachable);
            }
            rig.leave();
            if reconnects {
                rig.up();
            }
            rig.revoked(own);
            rig.deletes(HOME);
            assert!(!rig.ended);
            if arrived {
                rig.done(12);
            } else {
                rig.guarded(None, 12);
            }
            assert!(rig.is_deregistered());
        }
    }
    // A lease that is gone by now is as good.
    let (mut rig, own) = moving();
    rig.leave();
    assert_eq!(rig.question(), Question::Revoke { lease: own });
    rig.fail(Kind::LeaseNotFound);
    rig.deletes(HOME);
}

#[test]
fn an_update_in_doubt_finds_the_key_under_no_lease_after_it_was_deleted() {
    let mut rig = moved();
    rig.want(present("new", 2));
    rig.puts("new", HOME, Guard::Lease(HOME));
    rig.leave();
    rig.deletes(HOME);
    rig.done(12);
    assert!(rig.is_deregistered());
}

#[test]
fn a_revocation_in_doubt_is_repeated_before_the_key_is_deleted() {
    let (mut rig, own) = moving();
    rig.done(11);
    assert_eq!(rig.question(), Question::Revoke { lease: own });
    rig.leave();
    rig.tick();
    rig.up();
    assert_eq!(rig.question(), Question::Revoke { lease: own });
    rig.fail(Kind::LeaseNotFound);
    rig.deletes(HOME);
    rig.done(12);
    assert!(rig.is_deregistered());
}

#[test]
fn a_delete_in_doubt_is_repeated_and_touches_nobody_who_came_meanwhile() {
    let ends: [fn(&mut Rig); 3] =
        [|rig| rig.done(13), |rig| rig.guarded(None, 12), |rig| rig.guarded(Some(there(13)), 13)];
    for (end, dead) in ends.into_iter().flat_map(|end| [(end, true), (end, false)]) {
        let mut rig = moved();
        let deadline = rig.leave();
        assert_eq!(rig.hurry, Some(deadline));
        rig.deletes(HOME);
        if dead {
            assert_eq!(rig.dies(), LEAVE_WITHIN);
            rig.up();
        } else {
            assert_eq!(rig.unanswered(), LEAVE_WITHIN * 3 / 2);
        }
        assert!(!rig.opens && rig.condemned == 0);
        rig.deletes(HOME);
        end(&mut rig);
        assert!(rig.is_deregistered());
    }
}

#[test]
fn a_delete_that_is_refused_is_tried_again_soon() {
    for kind in [Kind::Busy, Kind::Rejected, Kind::Denied] {
        let mut rig = moved();
        rig.leave();
        rig.fail(kind);
        if kind == Kind::Denied {
            rig.fail(kind);
        }
        assert_eq!(rig.until_asked(), LEAVE_HOLD, "{kind:?}");
        rig.deletes(HOME);
    }
}

#[test]
fn a_key_that_went_with_the_shared_lease_needs_no_delete() {
    // Before it leaves, or while it does.
    let mut rig = moved();
    rig.hear(Input::Home(None));
    rig.leave();
    assert!(rig.is_deregistered());
    let mut rig = moved();
    rig.leave();
    rig.deletes(HOME);
    rig.hear(Input::Home(None));
    rig.fail(Kind::Unreachable);
    assert!(rig.is_deregistered());
    // Under another lease that is shared now there is nothing either, but that has to be seen.
    let mut rig = moved();
    rig.home(HOME - 1);
    rig.leave();
    rig.deletes(HOME - 1);
    rig.guarded(None, 12);
    assert!(rig.is_deregistered());
}

#[test]
fn a_move_to_a_lease_that_was_lost_meanwhile_is_still_followed_by_the_revocation() {
    let (mut rig, own) = moving();
    rig.hear(Input::Home(None));
    rig.fail(Kind::LeaseNotFound);
    rig.leave();
    rig.revoked(own);
    assert!(rig.is_deregistered());
}

#[test]
fn what_is_known_to_be_gone_ends_at_once_and_what_is_not_to_be_listed_too() {
    let mut rig = moved();
    rig.want(unlisted(2));
    rig.done(12);
    rig.leave();
    assert!(rig.is_deregistered());
    let mut rig = Rig::of(sharing(), 1);
    rig.home(HOME);
    rig.leave();
    assert!(rig.is_deregistered(), "it was never put");
}

#[test]
fn while_nothing_comes_through_it_says_how_long_the_key_may_stay() {
    // Under the shared lease, which was renewed last (or may have been) at `over`.
    let mut rig = moved();
    let sent = rig.now;
    rig.now += ms(5_000);
    let over = rig.now;
    rig.hear(Input::Home(Some(Home { id: HOME, granted: TTL, sent, over })));
    rig.now += ms(1_000);
    rig.down();
    let deadline = rig.leave();
    rig.nothing_comes_through();
    assert_eq!(rig.now, deadline);
    assert_eq!(rig.gone_at(), Some(over + TTL + ms(500)));
    let RegistrationState::Abandoned(unconfirmed) = rig.state() else { panic!() };
    assert!(unconfirmed.cause.is_some());
    // On the way to it: whichever of the two leases lives longer.
    let (mut rig, _) = moving();
    let granted = rig.now;
    rig.down();
    rig.leave();
    rig.nothing_comes_through();
    assert_eq!(rig.gone_at(), Some(granted + TTL + ms(500)));
    let (mut rig, _) = moving();
    rig.now += ms(1_000);
    rig.home(HOME);
    let renewed = rig.now;
    rig.down();
    rig.leave();
    rig.nothing_comes_through();
    assert_eq!(rig.gone_at(), Some(renewed + TTL + ms(500)));
}

/// Others keep the lease alive, and the key with it.
#[test]
fn who_gave_up_goes_on_deleting_what_stands_under_the_shared_lease() {
    let mut rig = moved();
    rig.down();
    rig.leave();
    rig.nothing_comes_through();
    assert!(!rig.ended);
    assert_eq!(rig.machine.deadline(), None);
    rig.now += ms(60_000);
    rig.up();
    rig.deletes(HOME);
    // Now there is time.
    rig.deny();
    assert!(matches!(rig.state(), RegistrationState::Abandoned(_)));
    let waited = rig.until_asked();
    assert!(waited >= ms(8_000), "{waited:?}");
    rig.deletes(HOME);
    rig.done(12);
    assert!(rig.is_deregistered());
    // First what fences off a move.
    let (mut rig, own) = moving();
    rig.leave();
    rig.nothing_comes_through();
    rig.up();
    rig.revoked(own);
    rig.deletes(HOME);
    rig.guarded(None, 12);
    assert!(rig.is_deregistered());
    // A lease of its own expires by itself.
    let (mut rig, _) = putting();
    rig.down();
    rig.leave();
    rig.nothing_comes_through();
    assert!(rig.ended);
}

#[test]
fn its_time_is_the_one_of_the_lease_it_stands_under() {
    let (mut rig, _) = moving();
    let own = rig.now + TTL;
    assert_eq!(rig.expires(), Some(own));
    rig.now += ms(1_000);
    rig.home(HOME);
    assert_eq!(rig.expires(), Some(own), "it is not moved yet");
    rig.done(11);
    assert_eq!(rig.expires(), Some(rig.now + TTL));
    let mut rig = moved();
    let expires = rig.expires();
    rig.down();
    assert_eq!(rig.machine.deadline(), expires, "also while it cannot be seen");
    rig.tick();
    assert!(rig.is_registering());
}

/// Others keep the shared lease alive, so who believed a member that lags would leave the key for ever.
#[test]
fn a_deletion_of_the_past_is_no_proof_that_the_key_is_gone() {
    let mut rig = moved();
    rig.reconnect();
    rig.watching();
    rig.event(deleted(8));
    rig.leave();
    assert!(!rig.ended);
    rig.deletes(HOME);
    rig.done(12);
    assert!(rig.is_deregistered());
}
