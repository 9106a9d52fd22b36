//! Who is left out for failing, for how long, and how it comes back.

use discovery_tower::balance::{
    Availability, CallError, Ejection, LeastPending, Limits, SlowStart, Standing, SuccessRate,
};
use futures::FutureExt as _;
use tokio::time::Instant;

use crate::support::{
    Answer, Bal, Request, Rig, Use, all_up, assert_near, failure, ms, rest, secs, spec, until,
};

/// Calls this one alone, so often.
async fn call_only(balance: &impl Use, key: u32, others: &[u32], times: usize) {
    for _ in 0..times {
        let called = balance.ask(Request::avoiding(others)).await;
        let by = match &called {
            Ok(served) => Some(*served.endpoint()),
            Err(error) => error.endpoint().copied(),
        };
        assert_eq!(by, Some(key), "{called:?}");
    }
    rest().await;
}

fn ejected(balance: &impl Use) -> Vec<u32> {
    let out = balance.all().into_iter().filter(|view| view.standing == Standing::Ejected);
    let mut keys: Vec<_> = out.map(|view| view.key).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_in_a_row_it_is_left_out_and_each_time_for_longer() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 4).await;
    assert!(ejected(&balance).is_empty(), "four are not enough");
    rig.world.answer(0, Answer::AtOnce);
    call_only(&balance, 0, &[1, 2], 1).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 4).await;
    assert!(ejected(&balance).is_empty(), "a success begins them anew");
    call_only(&balance, 0, &[1, 2], 1).await;
    for (times, wanted) in [(1, 30), (2, 60), (3, 90)] {
        let begun = Instant::now();
        assert_eq!(ejected(&balance), [0], "time {times}");
        let left = balance.view(0).ejected_for.expect("a time");
        assert_near("what it says", left, secs(wanted), ms(20));
        let called = rig.world.called(0);
        balance.load(4, 200).await.assert_no_errors();
        assert_eq!(rig.world.called(0), called, "nothing goes there");
        until_standing(&balance, 0, Standing::Probation).await;
        assert_near("how long it was out", begun.elapsed(), secs(wanted), ms(20));
        // One failure on probation is enough.
        call_only(&balance, 0, &[1, 2], 1).await;
    }
}

async fn until_standing(balance: &impl Use, key: u32, standing: Standing) {
    let deadline = Instant::now() + secs(400);
    while balance.view(key).standing != standing {
        assert!(Instant::now() < deadline, "{:?}", balance.view(key));
        tokio::time::sleep(ms(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_by_a_few_calls_one_at_a_time() {
    let (rig, balance) = Rig::serving_as(3, |b| {
        // Its slow start is not what holds calls back here.
        b.policy(LeastPending::new()).slow_start(SlowStart::none())
    })
    .await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 5).await;
    until_standing(&balance, 0, Standing::Probation).await;
    rig.world.answer_all(0..3, Answer::ByHand);
    rig.world.most_under_way(0);
    let mut calls: Vec<_> = (0..30).map(|_| Box::pin(balance.ask(Request::plain()))).collect();
    for call in &mut calls {
        assert!(call.now_or_never().is_none());
    }
    let mut passed = 0;
    while balance.view(0).standing == Standing::Probation {
        assert!(rig.world.under_way(0) <= 1, "one at a time");
        if rig.world.under_way(0) == 1 {
            rig.world.reply(0, Ok(()));
            passed += 1;
        }
        calls.retain_mut(|call| call.now_or_never().is_none());
        rest().await;
        calls.push(Box::pin(balance.ask(Request::plain())));
        let last = calls.last_mut().expect("the last");
        assert!(last.now_or_never().is_none());
        assert!(passed <= 4, "{:?}", balance.view(0));
    }
    assert_eq!(passed, 3, "calls that it had to serve");
    assert_eq!(rig.world.most_under_way(0), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_do_not_fail_when_the_only_endpoint_is_on_probation() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.answer(0, Answer::Fails);
    assert_eq!(balance.load(1, 5).await.errors.len(), 5);
    rig.world.answer(0, Answer::After(ms(50)));
    tokio::time::sleep(secs(31)).await;
    let begun = Instant::now();
    balance.load(8, 8).await.assert_no_errors();
    assert!(begun.elapsed() < ms(500), "they wait for nobody: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_in_a_panic_is_on_probation_after_it() {
    let (rig, balance) = Rig::serving_as(5, |b| {
        let ejection = Ejection::default().max_percent(100);
        b.policy(LeastPending::new()).slow_start(SlowStart::none()).ejection(ejection)
    })
    .await;
    let fail = async |key: u32| {
        rig.world.answer(key, Answer::Fails);
        let others: Vec<u32> = (0..5).filter(|other| *other != key).collect();
        call_only(&balance, key, &others, 5).await;
        rig.world.answer(key, Answer::AtOnce);
    };
    fail(0).await;
    tokio::time::sleep(secs(10)).await;
    for key in 1..4 {
        fail(key).await;
    }
    until_standing(&balance, 3, Standing::Up).await;
    tokio::time::sleep(secs(22)).await;
    let first = balance.view(0);
    assert!(first.ejected_for.is_none() && balance.view(1).ejected_for.is_some());
    assert_eq!(first.standing, Standing::Up, "all are used");
    until("the panic is over", || !panics(&balance)).await;
    assert_eq!(balance.view(0).standing, Standing::Probation);
    balance.load(1, 100).await.assert_no_errors();
    rest().await;
    assert_eq!(balance.view(0).standing, Standing::Up);
}

/// Whether somebody who is left out is used all the same.
fn panics(balance: &impl Use) -> bool {
    let mut all = balance.all().into_iter();
    all.any(|view| view.ejected_for.is_some() && view.standing == Standing::Up)
}

#[tokio::test(start_paused = true)]
async fn the_one_far_below_the_others_in_success_rate_is_left_out() {
    let (rig, balance) = Rig::serving_as(10, |b| {
        let rule = SuccessRate::default();
        b.policy(LeastPending::new())
            .ejection(Ejection::default().consecutive(0).success_rate(Some(rule)))
    })
    .await;
    rig.world.answer_all(0..10, Answer::After(ms(5)));
    // Two of three of its calls fail, never five in a row.
    let begun = Instant::now();
    while begun.elapsed() < secs(11) {
        for i in 0..3 {
            rig.world
                .answer(7, if i < 2 { Answer::FailsAfter(ms(5)) } else { Answer::After(ms(5)) });
            balance.load(20, 20).await;
        }
    }
    assert_eq!(ejected(&balance), [7]);
    let rates = Ejection::default().consecutive(0).success_rate(None);
    let (rig, balance) =
        Rig::serving_as(10, |b| b.policy(LeastPending::new()).ejection(rates)).await;
    rig.world.answer_all(0..10, Answer::After(ms(5)));
    rig.world.answer(7, Answer::FailsAfter(ms(5)));
    let begun = Instant::now();
    while begun.elapsed() < secs(11) {
        balance.load(20, 100).await;
    }
    assert!(ejected(&balance).is_empty(), "it can be left out");
}

/// Calls this one alone, and gives up so often.
async fn give_up(rig: &Rig, balance: &impl Use, key: u32, others: &[u32], times: usize) {
    rig.world.answer(key, Answer::Never);
    for _ in 0..times {
        assert!(balance.ask(Request::avoiding(others)).now_or_never().is_none());
    }
    rest().await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_given_up_say_nothing_in_a_success_rate() {
    // Of the others' calls one in five fails.
    for (failures, successes, out) in [(1, 0, false), (60, 40, true)] {
        let rates = Ejection::default().consecutive(0);
        let (rig, balance) =
            Rig::serving_as(10, |b| b.policy(LeastPending::new()).ejection(rates)).await;
        for key in 0..10 {
            let others: Vec<u32> = (0..10).filter(|other| *other != key).collect();
            let (failures, successes) = if key == 7 { (failures, successes) } else { (20, 80) };
            rig.world.answer(key, Answer::Fails);
            call_only(&balance, key, &others, failures).await;
            rig.world.answer(key, Answer::AtOnce);
            call_only(&balance, key, &others, successes).await;
            if key == 7 {
                give_up(&rig, &balance, key, &others, 300).await;
                let view = balance.view(key);
                let counted = (view.successes, view.failures);
                assert_eq!(counted, (successes as u64, failures as u64));
            }
        }
        tokio::time::sleep(secs(11)).await;
        assert_eq!(ejected(&balance) == [7], out, "{failures} of {}", failures + successes);
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_spared_for_its_success_rate_is_not_left_out_for_a_failure_later() {
    let (rig, balance) = Rig::serving_as(20, |b| {
        let ejection = Ejection::default().consecutive(0).max_percent(5);
        b.policy(LeastPending::new()).slow_start(SlowStart::none()).ejection(ejection)
    })
    .await;
    let others = |key: u32| (0..20).filter(|other| *other != key).collect::<Vec<_>>();
    let interval = async |failing: [usize; 2]| {
        for key in 0..20 {
            let failures = failing.get(key as usize).copied().unwrap_or(1);
            rig.world.answer(key, Answer::AtOnce);
            if balance.view(key).standing != Standing::Ejected {
                call_only(&balance, key, &others(key), 100 - failures).await;
                rig.world.answer(key, Answer::Fails);
                call_only(&balance, key, &others(key), failures).await;
            }
        }
        tokio::time::sleep(secs(9)).await;
    };
    // Two are far below the others, and one may be left out.
    interval([80, 60]).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(ejected(&balance), [0]);
    // When there is room again the other one is well, but for its last call, as the others are.
    for _ in 0..5 {
        interval([1, 1]).await;
        assert!(!ejected(&balance).contains(&1), "{:?}", balance.view(1));
    }
    assert!(ejected(&balance).is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_are_left_out_than_may_be() {
    for (count, bad, out) in [(10, 3, 1), (20, 5, 2), (3, 1, 1)] {
        let (rig, balance) = Rig::serving_as(count, |b| b.policy(LeastPending::new())).await;
        rig.world.answer_all(0..count, Answer::After(ms(5)));
        rig.world.answer_all(0..bad, Answer::FailsAfter(ms(5)));
        balance.load(2 * count as usize, 2_000).await;
        assert_eq!(ejected(&balance).len(), out, "{bad} bad ones of {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_pair_the_bad_one_is_left_out() {
    let (rig, balance) = Rig::serving_as(2, |b| b.policy(LeastPending::new())).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1], 5).await;
    assert_eq!(ejected(&balance), [0]);
    let called = rig.world.called(0);
    balance.load(4, 200).await.assert_no_errors();
    assert_eq!(rig.world.called(0), called, "nothing goes there");
}

#[tokio::test(start_paused = true)]
async fn row_34_when_all_fail_calls_are_spread_over_all() {
    for count in [1_u32, 2, 5, 20] {
        let (rig, balance) = Rig::serving_as(count, |b| b.policy(LeastPending::new())).await;
        rig.world.answer_all(0..count, Answer::FailsAfter(ms(10)));
        let tally = balance.load(count as usize, 2_000).await;
        assert_eq!(tally.errors.len(), 2_000);
        let foreign = tally.errors.iter().find(|error| error.endpoint().is_none());
        assert!(foreign.is_none(), "{foreign:?}");
        let before: Vec<_> = (0..count).map(|key| rig.world.called(key)).collect();
        balance.load(count as usize, 2_000).await;
        for (key, before) in (0..).zip(before) {
            let share = (rig.world.called(key) - before) as f64 / 2_000.0;
            let fair = 1.0 / f64::from(count);
            assert!((share - fair).abs() < fair * 0.4, "{key} of {count}: {share}");
        }
        // When they are well again, so is everything.
        rig.world.answer_all(0..count, Answer::After(ms(10)));
        balance.load(count as usize, 200).await.assert_no_errors();
        tokio::time::sleep(secs(400)).await;
        balance.load(count as usize, 400).await.assert_no_errors();
        all_up(&balance, count as usize).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_one_that_could_serve_is_not_left_out_whatever_the_others_are() {
    for others in ["weightless", "out of service", "not reachable", "connecting"] {
        let (rig, balance) = Rig::serving(6).await;
        for key in 1..6 {
            match others {
                "weightless" => rig.insert(key, spec(key).weight(0)),
                "out of service" => rig.insert(key, spec(key).availability(Availability::Out)),
                other => {
                    let ready = if other == "connecting" {
                        crate::support::Ready::Pending
                    } else {
                        crate::support::Ready::Fails
                    };
                    rig.world.ready(100 + key, ready);
                    rig.remove(key);
                    rig.insert(key, spec(100 + key));
                }
            }
        }
        until("the others are away", || {
            balance.all().iter().filter(|view| view.standing == Standing::Up).count() == 1
        })
        .await;
        rig.world.answer(0, Answer::Fails);
        for _ in 0..30 {
            let error = failure(balance.get().await);
            assert_eq!(error.endpoint(), Some(&0), "{others}: {error}");
            rest().await;
        }
        rig.world.answer(0, Answer::AtOnce);
        assert!(balance.get().await.is_ok(), "{others}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_endpoint_is_left_alone_as_long_as_it_asks() {
    let asks = [(Some(secs(3)), secs(3)), (None, secs(1)), (Some(secs(3_600)), secs(10))];
    for (asked, wanted) in asks {
        let (rig, balance) = Rig::serving(3).await;
        rig.world.answer(0, Answer::Overloaded(asked));
        call_only(&balance, 0, &[1, 2], 1).await;
        let begun = Instant::now();
        assert_eq!(ejected(&balance), [0]);
        rig.world.answer(0, Answer::AtOnce);
        let called = rig.world.called(0);
        balance.load(2, 100).await.assert_no_errors();
        assert_eq!(rig.world.called(0), called);
        until_standing(&balance, 0, Standing::Up).await;
        assert_near("how long it was left alone", begun.elapsed(), wanted, ms(20));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_overloaded_in_between_is_judged_by_its_failures_alone() {
    // Asked to be left alone for no time, it stays.
    let overloaded = Answer::Overloaded(Some(ms(0)));
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 4).await;
    rig.world.answer(0, overloaded);
    call_only(&balance, 0, &[1, 2], 7).await;
    assert!(ejected(&balance).is_empty(), "it failed four times");
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 1).await;
    assert_eq!(ejected(&balance), [0], "and a fifth time");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_used_and_out_at_its_first_failure() {
    let (rig, builder) = Rig::new();
    let balance: Bal<LeastPending> = builder.policy(LeastPending::new()).spawn();
    // More of them than may be left out for failing.
    rig.begin((0..10).map(|key| (key, if key < 3 { spec(key).suspect() } else { spec(key) })));
    all_up(&balance, 10).await;
    let tally = balance.load(10, 2_000).await;
    tally.assert_no_errors();
    tally.assert_shares(&[0.1; 10], 0.03);
    rig.world.answer_all(0..3, Answer::Fails);
    for key in 0..3 {
        let others: Vec<u32> = (0..10).filter(|other| *other != key).collect();
        call_only(&balance, key, &others, 1).await;
    }
    assert_eq!(ejected(&balance), [0, 1, 2]);
    let calls: usize = (0..3).map(|key| rig.world.called(key)).sum();
    balance.load(10, 500).await.assert_no_errors();
    assert_eq!((0..3).map(|key| rig.world.called(key)).sum::<usize>(), calls);
    // The source is sure of it again: it is as any other.
    rig.world.answer(0, Answer::AtOnce);
    rig.insert(0, spec(0));
    rest().await;
    assert_eq!(ejected(&balance), [1, 2]);
    let tally = balance.load(10, 2_000).await;
    tally.assert_no_errors();
    assert!(tally.of(0) > 0, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_none_any_more_when_it_is_judged_failed_once_and_no_more() {
    let (rig, builder) = Rig::new();
    let balance: Bal<LeastPending> = builder.policy(LeastPending::new()).spawn();
    rig.begin((0..3).map(|key| (key, if key == 0 { spec(key).suspect() } else { spec(key) })));
    all_up(&balance, 3).await;
    // More than is looked at in one turn, so that the source is heard in between.
    rig.world.answer(1, Answer::Overloaded(Some(ms(0))));
    for _ in 0..300 {
        failure(balance.ask(Request::avoiding([0, 2])).await);
    }
    rig.world.answer(0, Answer::Fails);
    failure(balance.ask(Request::avoiding([1, 2])).await);
    rig.insert(0, spec(0));
    rest().await;
    assert!(ejected(&balance).is_empty(), "{:?}", balance.view(0));
    rig.world.answer(0, Answer::AtOnce);
    call_only(&balance, 0, &[1, 2], 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_left_alone_is_used_however_often_it_fails() {
    let (rig, builder) = Rig::new();
    let balance: Bal<LeastPending> = builder.policy(LeastPending::new()).spawn();
    rig.begin([(0, spec(0).suspect())]);
    all_up(&balance, 1).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[], 10).await;
    rig.world.answer(0, Answer::AtOnce);
    balance.load(1, 10).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn one_that_drains_is_used_only_when_nobody_else_is_up() {
    let (rig, balance) = Rig::serving(2).await;
    rig.insert(0, spec(0).availability(Availability::LastResort));
    until("it drains", || balance.view(0).standing == Standing::LastResort).await;
    let tally = balance.load(4, 500).await;
    tally.assert_no_errors();
    assert_eq!(tally.of(1), 500);
    rig.remove(1);
    until("the other is gone", || balance.all().len() == 1).await;
    let tally = balance.load(4, 100).await;
    tally.assert_no_errors();
    assert_eq!(tally.of(0), 100);
    assert_eq!(rig.world.made(0), 1);
    rig.insert(2, spec(2));
    until("another is up", || balance.view(0).standing == Standing::LastResort).await;
    let tally = balance.load(4, 100).await;
    tally.assert_no_errors();
    assert_eq!((tally.of(2), tally.of(0)), (100, 0));
    // It may change its mind.
    rig.insert(0, spec(0));
    all_up(&balance, 2).await;
    tokio::time::sleep(secs(40)).await;
    assert!(balance.load(4, 500).await.of(0) > 150);
}

#[tokio::test(start_paused = true)]
async fn ejections_are_forgotten_with_time() {
    let (rig, balance) = Rig::serving(3).await;
    let out_for = async || {
        rig.world.answer(0, Answer::Fails);
        while ejected(&balance).is_empty() {
            call_only(&balance, 0, &[1, 2], 1).await;
        }
        let time = (balance.view(0).ejected_for.expect("a time") + ms(500)).as_secs();
        rig.world.answer(0, Answer::AtOnce);
        until_standing(&balance, 0, Standing::Probation).await;
        call_only(&balance, 0, &[1, 2], 3).await;
        assert_eq!(balance.view(0).standing, Standing::Up);
        time
    };
    assert_eq!((out_for().await, out_for().await), (30, 60));
    // Each interval without a failure takes one away.
    tokio::time::sleep(secs(25)).await;
    assert!(out_for().await <= 60);
    tokio::time::sleep(secs(120)).await;
    assert_eq!(out_for().await, 30);
}

#[tokio::test(start_paused = true)]
async fn row_27_what_flaps_is_judged_by_what_it_did_before() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 5).await;
    assert_eq!(ejected(&balance), [0]);
    rig.remove(0);
    until("it is gone", || balance.all().len() == 2).await;
    tokio::time::sleep(ms(200)).await;
    rig.insert(0, spec(0));
    until("it is there", || balance.all().len() == 3).await;
    rest().await;
    assert_eq!(ejected(&balance), [0]);
}

#[tokio::test(start_paused = true)]
async fn ejection_can_be_switched_off() {
    let (rig, balance) = Rig::serving_as(3, |b| b.ejection(Ejection::never())).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 100).await;
    assert!(ejected(&balance).is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_ejected_keeps_out_when_it_is_updated() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 5).await;
    rig.insert(0, spec(0).weight(3));
    until("it is told", || balance.view(0).weight == 3).await;
    assert_eq!(ejected(&balance), [0]);
    assert!(balance.view(0).ejected_for.is_some());
    balance.load(2, 100).await.assert_no_errors();
    let error = balance.ask(Request::avoiding([1, 2])).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_may_be_as_long_as_they_like() {
    use std::time::Duration;
    let (rig, builder) = Rig::new();
    let ejection = Ejection::default()
        .lasting(Duration::MAX, Duration::MAX)
        .interval(Duration::MAX)
        .consecutive(1);
    let limits = Limits::default().load(Duration::MAX).ready(Duration::MAX);
    let balance: Bal<LeastPending> =
        builder.policy(LeastPending::new()).ejection(ejection).limits(limits).spawn();
    let waits = tokio::spawn({
        let balance = balance.clone();
        async move { balance.get().await.is_ok() }
    });
    rest().await;
    rig.begin((0..3).map(|key| (key, spec(key))));
    all_up(&balance, 3).await;
    assert!(waits.await.unwrap());
    rig.world.answer(0, Answer::Fails);
    call_only(&balance, 0, &[1, 2], 1).await;
    assert_eq!(ejected(&balance), [0]);
    balance.load(3, 200).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_out_keeps_nobody_in() {
    let (rig, builder) = Rig::new();
    let balance: Bal<LeastPending> = builder.policy(LeastPending::new()).spawn();
    rig.begin((0..10).map(|key| (key, if key == 0 { spec(key).suspect() } else { spec(key) })));
    all_up(&balance, 10).await;
    rig.world.answer_all(0..2, Answer::Fails);
    balance.load(10, 1_000).await;
    assert_eq!(ejected(&balance), [0, 1]);
    balance.load(10, 200).await.assert_no_errors();
}
