//! The way to being registered, conflicts, updates, and what overtakes what.

use super::rig::*;
use super::*;

#[test]
fn it_watches_its_key_and_reads_it_before_it_puts_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.machine.deadline(), None, "without a connection there is nothing to do");
    rig.up();
    assert_eq!(rig.asked, None, "nothing is asked before the watch stands");
    rig.watching();
    let lease = rig.grant();
    assert!(lease > 0);
    rig.get(None, 9);
    rig.puts(HERE, lease, Guard::Absent);
    assert!(rig.is_registering());
    rig.done(10);
    assert!(rig.is_registered(1));
    assert!(rig.reports.iter().filter(|status| status.applied == 1).count() == 1);
}

#[test]
fn a_grant_whose_answer_was_lost_is_asked_again_by_the_same_id_and_renewed_at_once() {
    let mut rig = Rig::begun(plan());
    let Question::Grant { lease, .. } = rig.question() else { panic!() };
    rig.fail(Kind::Unreachable);
    assert_eq!(rig.condemned, 1);
    rig.up();
    rig.watching();
    assert_eq!(rig.question(), Question::Grant { lease, ttl: TTL });
    rig.fail(Kind::LeaseExists);
    assert_eq!(rig.question(), Question::GrantedTtl { lease });
    rig.answer(Answer::GrantedTtl(Some(ms(20_000))));
    assert_eq!(rig.other_ttl, Some(ms(20_000)));
    let sent = rig.now;
    rig.renewed(lease);
    assert_eq!(rig.expires(), Some(sent + ms(20_000)));
    rig.get(None, 9);
    rig.puts(HERE, lease, Guard::Absent);
}

#[test]
fn a_lost_grant_that_is_over_by_now_is_followed_by_another_one() {
    let mut rig = Rig::begun(plan());
    let Question::Grant { lease, .. } = rig.question() else { panic!() };
    rig.fail(Kind::LeaseExists);
    rig.answer(Answer::GrantedTtl(None));
    assert_ne!(rig.grant(), lease);
}

#[test]
fn the_lease_is_renewed_at_a_third_of_the_granted_time_counted_from_when_it_was_sent() {
    for seed in 0..50 {
        let mut rig = Rig::of(plan(), seed);
        rig.up();
        rig.watching();
        let Question::Grant { lease, .. } = rig.question() else { panic!() };
        // Asked for 15 s, granted 30 s, and the answer took 2 s.
        let mut sent = rig.now;
        rig.now += ms(2_000);
        rig.answer(Answer::Granted(ms(30_000)));
        assert_eq!(rig.other_ttl, Some(ms(30_000)));
        rig.get(None, 9);
        rig.done(10);
        for _ in 0..5 {
            assert_eq!(rig.expires(), Some(sent + ms(30_000)), "seed {seed}");
            assert_eq!(rig.needed_by, rig.expires(), "seed {seed}");
            rig.until_asked();
            while rig.asked == Some(Question::Get(KEY.to_vec())) {
                rig.get(Some(entry(HERE, lease, 10)), 10);
                rig.until_asked();
            }
            let after = rig.now - sent;
            assert!(after >= ms(9_000) && after <= ms(11_000), "seed {seed}: {after:?}");
            sent = rig.now;
            rig.now += ms(1_500);
            rig.renewed(lease);
        }
        assert!(rig.is_registered(1));
    }
}

#[test]
fn a_granted_time_as_asked_for_is_nothing_to_report() {
    assert_eq!(Rig::registered().0.other_ttl, None);
}

#[test]
fn a_renewal_over_a_connection_that_dies_comes_first_on_the_next() {
    let (mut rig, lease) = Rig::registered();
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    assert_eq!(rig.dies(), TTL / 4);
    assert!(rig.is_registered(1));
    // What more the link says of it changes nothing.
    rig.down();
    rig.now += ms(1_000);
    rig.up();
    rig.renewed(lease);
    rig.watching();
    rig.get(Some(entry(HERE, lease, 10)), 20);
    assert!(rig.is_registered(1));
    assert_eq!((rig.asked, rig.condemned), (None, 0));
}

#[test]
fn a_lease_that_is_gone_is_followed_by_a_new_one_with_another_id_and_a_put() {
    for on_put in [false, true] {
        let (mut rig, lease) = Rig::registered();
        if on_put {
            rig.want(present("other", 2));
            rig.put();
        } else {
            rig.until_asked();
            assert_eq!(rig.question(), Question::Renew { lease });
        }
        rig.fail(Kind::LeaseNotFound);
        assert!(rig.is_registering());
        let another = rig.grant();
        assert_ne!(another, lease);
        rig.get(None, 20);
        rig.puts(if on_put { "other" } else { HERE }, another, Guard::Absent);
        rig.done(21);
        assert!(rig.is_registered(if on_put { 2 } else { 1 }));
        assert_eq!(rig.condemned, 0);
    }
}

#[test]
fn a_key_that_was_deleted_is_put_again_at_once() {
    let (mut rig, lease) = Rig::registered();
    rig.event(deleted(11));
    assert!(rig.is_registering());
    rig.puts(HERE, lease, Guard::Absent);
    rig.done(12);
    assert!(rig.is_registered(1));
}

#[test]
fn the_key_is_read_from_time_to_time_even_if_the_watch_says_nothing() {
    for (every, expected) in [(10_000, 5..=6), (30_000, 1..=2)] {
        let plan = Plan { verify_every: ms(every), ..plan() };
        let (mut rig, lease) = Rig::registered_with(plan, 1);
        let from = rig.now;
        let mut reads = 0;
        while rig.now - from < ms(60_000) {
            rig.until_asked();
            if let Question::Renew { .. } = rig.question() {
                rig.answer(Answer::Renewed);
            } else {
                reads += 1;
                rig.get(Some(entry(HERE, lease, 10)), 10);
            }
        }
        assert!(expected.contains(&reads), "{every}: {reads}");
        // What it reads counts.
        while rig.asked != Some(Question::Get(KEY.to_vec())) {
            if rig.asked.is_some() {
                rig.answer(Answer::Renewed);
            }
            rig.until_asked();
        }
        rig.get(None, 15);
        assert_eq!(rig.put().guard, Guard::Absent);
    }
}

#[test]
fn a_foreign_holder_is_a_conflict_that_names_it_and_is_never_put_over() {
    // Found at first, or after having been registered.
    for first in [true, false] {
        let mut rig = if first {
            let mut rig = Rig::begun(plan());
            rig.grant();
            rig.get(Some(there(9)), 9);
            rig
        } else {
            let (mut rig, _) = Rig::registered();
            rig.event(Event::Put(there(11)));
            rig
        };
        let conflict = rig.conflict().expect("a conflict").clone();
        assert_eq!((conflict.address, conflict.waiting), (Some(THERE.parse().unwrap()), true));
        for revision in 20..30 {
            rig.until_asked();
            match rig.question() {
                Question::Renew { .. } => rig.answer(Answer::Renewed),
                _ => rig.get(Some(there(11)), revision),
            }
            assert!(rig.conflict().is_some());
        }
        // It takes over when the holder is gone.
        rig.event(deleted(40));
        rig.until_asked();
        assert_eq!(rig.put().guard, Guard::Absent);
    }
}

#[test]
fn somebody_who_was_quicker_is_a_conflict() {
    let mut rig = Rig::begun(plan());
    rig.grant();
    rig.get(None, 9);
    rig.guarded(Some(there(10)), 10);
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
}

#[test]
fn a_holder_that_cannot_be_read_is_a_conflict_without_an_address() {
    let mut rig = Rig::begun(plan());
    rig.grant();
    rig.get(Some(entry("{", 0, 9)), 9);
    assert_eq!(rig.conflict().expect("a conflict").address, None);
}

#[test]
fn a_predecessor_at_our_address_is_replaced_by_its_revision_and_only_at_first() {
    let plan_replacing = || Plan { replace_same_address: true, ..plan() };
    let mut rig = Rig::begun(plan_replacing());
    let lease = rig.grant();
    rig.get(Some(entry(HERE, FOREIGN_LEASE, 5)), 9);
    assert!(rig.is_registering());
    rig.puts(HERE, lease, Guard::Revision(5));
    // It changed meanwhile: compared anew.
    rig.guarded(Some(entry(HERE, FOREIGN_LEASE, 10)), 10);
    assert_eq!(rig.put().guard, Guard::Revision(10));
    rig.done(11);
    assert!(rig.is_registered(1));
    // Now that we were registered, whoever takes it is alive.
    rig.event(Event::Put(entry(HERE, FOREIGN_LEASE, 12)));
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
    // Another address is never replaced, and nobody unless that was asked for.
    for (plan, address) in [(plan_replacing(), THERE), (plan(), HERE)] {
        let mut rig = Rig::begun(plan);
        rig.grant();
        rig.get(Some(entry(address, FOREIGN_LEASE, 5)), 9);
        assert!(rig.conflict().is_some());
        assert_eq!(rig.asked, None);
    }
}

#[test]
fn an_update_is_put_under_the_own_lease() {
    let (mut rig, lease) = Rig::registered();
    rig.want(present("new", 2));
    rig.puts("new", lease, Guard::Lease(lease));
    assert!(rig.is_registered(1));
    // Another one while the first is under way.
    rig.want(present("newer", 3));
    rig.done(11);
    assert!(!rig.is_registered(3));
    rig.puts("newer", lease, Guard::Lease(lease));
    rig.done(12);
    assert!(rig.is_registered(3));
    assert_eq!(rig.asked, None);
    // Refused, because it was deleted meanwhile.
    rig.want(present("newest", 4));
    rig.guarded(None, 13);
    assert_eq!(rig.put().guard, Guard::Absent);
}

/// As with health: the version stays, what is wanted does not.
#[test]
fn what_is_wanted_may_change_while_the_version_stays() {
    let (mut rig, lease) = Rig::registered();
    rig.want(wanted(Some("out of service"), 1, 2));
    rig.puts("out of service", lease, Guard::Lease(lease));
    // And back again, before that is answered.
    rig.want(wanted(Some(HERE), 1, 3));
    rig.done(11);
    rig.puts(HERE, lease, Guard::Lease(lease));
    rig.done(12);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
}

#[test]
fn an_update_that_cannot_be_in_etcd_is_told_and_leaves_what_was_wanted() {
    let (mut rig, _) = Rig::registered();
    let elsewhere = discovery_core::Instance::parse("a", "2", HERE).unwrap();
    let refused = rig.machine.plan().wanted(&elsewhere, 2, 2).unwrap_err();
    rig.hear(Input::Refused(refused));
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
    let told = rig.reports.last().unwrap();
    assert_eq!(told.refused.as_ref().map(|refused| refused.version), Some(2));
    assert!(told.last_error.is_some());
}

#[test]
fn a_value_that_somebody_changed_under_our_lease_is_put_right() {
    let (mut rig, lease) = Rig::registered();
    rig.event(Event::Put(entry("vandal", lease, 11)));
    rig.puts(HERE, lease, Guard::Lease(lease));
    rig.done(12);
    assert!(rig.is_registered(1));
}

#[test]
fn what_is_not_to_be_listed_is_deleted_under_guard_and_counts_as_registered() {
    let (mut rig, lease) = Rig::registered();
    rig.want(unlisted(2));
    rig.deletes(lease);
    assert!(rig.is_registered(1));
    rig.done(11);
    assert!(rig.is_registered(2));
    assert_eq!(rig.asked, None);
    // It stays so, whoever comes and goes, and a further version of that kind costs nothing.
    rig.want(unlisted(3));
    assert!(rig.is_registered(3));
    rig.event(Event::Put(there(12)));
    assert!(rig.conflict().is_some());
    rig.event(deleted(13));
    assert!(rig.is_registered(3));
    assert_eq!(rig.asked, None);
    // To be listed again, it is put.
    rig.want(present(HERE, 4));
    rig.puts(HERE, lease, Guard::Absent);
    rig.done(14);
    assert!(rig.is_registered(4));
}

#[test]
fn what_is_not_to_be_listed_at_first_is_never_put() {
    let mut rig = Rig::new();
    rig.want(unlisted(1));
    rig.up();
    rig.watching();
    rig.grant();
    rig.get(None, 9);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
}

#[test]
fn a_delete_that_came_too_late_for_its_guard_touches_nobody() {
    let (mut rig, lease) = Rig::registered();
    rig.want(unlisted(2));
    rig.deletes(lease);
    rig.guarded(Some(there(11)), 11);
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
}

#[test]
fn a_put_whose_answer_was_lost_is_found_and_not_repeated() {
    let mut rig = Rig::begun(plan());
    let lease = rig.grant();
    rig.get(None, 9);
    rig.put();
    rig.fail(Kind::Unreachable);
    rig.up();
    rig.renewed(lease);
    rig.watching();
    rig.get(Some(entry(HERE, lease, 10)), 11);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
}

#[test]
fn answers_and_events_may_overtake_each_other() {
    // The watch tells of our own put and of its end before the answer to the put comes.
    let mut rig = Rig::begun(plan());
    let lease = rig.grant();
    rig.get(None, 9);
    rig.put();
    rig.event(Event::Put(entry(HERE, lease, 10)));
    assert!(rig.is_registered(1));
    rig.event(deleted(11));
    assert!(rig.is_registering());
    rig.answer(Answer::Put(PutReply::Done { revision: 10 }));
    assert!(rig.is_registering());
    assert_eq!(rig.put().guard, Guard::Absent);
    rig.done(12);
    // And the other way round: old events come after newer answers.
    rig.event(Event::Put(entry(HERE, lease, 10)));
    rig.event(deleted(11));
    assert!(rig.is_registered(1));
    rig.event(Event::Put(entry(HERE, lease, 12)));
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
    // An answer of the same revision as an event is as new as it.
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    rig.put();
    rig.event(Event::Put(there(12)));
    rig.guarded(Some(there(12)), 12);
    assert!(rig.conflict().is_some());
}

#[test]
fn revisions_start_anew_with_each_connection() {
    let (mut rig, _) = Rig::registered();
    rig.reconnect();
    rig.fail(Kind::LeaseNotFound);
    rig.watching();
    rig.grant();
    // The store was wiped.
    rig.get(None, 1);
    rig.done(2);
    assert!(rig.is_registered(1));
    rig.event(deleted(3));
    assert!(rig.is_registering());
}

#[test]
fn late_news_of_a_connection_that_was_given_up_is_ignored() {
    let (mut rig, lease) = Rig::registered();
    rig.down();
    rig.event(deleted(11));
    rig.hear(Input::Watching);
    rig.hear(Input::NotWatching(error(Kind::Denied)));
    rig.hear(Input::Answer(Ok(Answer::Renewed)));
    assert!(rig.is_registered(1));
    assert_eq!((rig.asked.take(), rig.condemned), (None, 0));
    rig.up();
    assert_eq!(rig.question(), Question::Renew { lease });
}

/// A put under way may list what is not to be listed any more.
#[test]
fn what_is_not_to_be_listed_is_not_so_before_a_put_of_before_is_answered() {
    for lost in [false, true] {
        let (mut rig, lease) = Rig::registered();
        rig.want(unlisted(2));
        rig.done(11);
        rig.want(present(HERE, 3));
        rig.puts(HERE, lease, Guard::Absent);
        rig.want(unlisted(4));
        assert!(rig.is_registered(2), "it is not known yet");
        rig.event(deleted(12));
        assert!(rig.is_registered(2), "that says nothing of the put");
        if lost {
            // Refused: it was never put.
            rig.fail(Kind::Busy);
        } else {
            rig.done(13);
            assert!(rig.is_registered(2));
            rig.deletes(lease);
            rig.done(14);
        }
        assert!(rig.is_registered(4), "{lost}");
        assert_eq!(rig.asked, None);
    }
}
