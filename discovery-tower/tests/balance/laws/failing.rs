//! Law 5: failing fast is not being fast; what is cancelled or hangs can only look worse.

use discovery_tower::balance::{AnyCall, Balance, Builder, Ejection, LeastPending, PeakEwma};
use futures::FutureExt as _;

use crate::support::{Answer, Bal, Request, Rig, Use as _, ms, rest, secs, until};

async fn one_of_four_fails(balance: &Bal<PeakEwma>, rig: &Rig, in_flight: usize) -> f64 {
    rig.world.answer_all(0..3, Answer::After(ms(20)));
    rig.world.answer(3, Answer::Fails);
    let calls = 20_000;
    balance.load(in_flight, calls).await.errors.len() as f64 / calls as f64
}

#[tokio::test(start_paused = true)]
async fn law_05_one_of_four_that_fails_at_once_gets_under_two_percent() {
    for in_flight in [1, 20, 64] {
        let (rig, balance) = Rig::serving(4).await;
        let failed = one_of_four_fails(&balance, &rig, in_flight).await;
        assert!(failed < 0.02, "{in_flight} in flight: {failed}");
        assert!(failed > 0.0, "it is tried");
    }
}

#[tokio::test(start_paused = true)]
async fn law_05_one_of_four_that_fails_at_once_gets_under_two_percent_of_least_pending() {
    for in_flight in [1, 20] {
        let (rig, balance) = Rig::serving_as(4, |b| b.policy(LeastPending::new())).await;
        rig.world.answer_all(0..3, Answer::After(ms(20)));
        rig.world.answer(3, Answer::Fails);
        let failed = balance.load(in_flight, 20_000).await.errors.len();
        assert!(failed < 400, "{in_flight} in flight: {failed} of 20000");
    }
}

#[tokio::test(start_paused = true)]
async fn law_05_errors_count_as_latency_without_ejection_too() {
    for in_flight in [1, 20] {
        let (rig, balance) = Rig::serving_as(4, |b| b.ejection(Ejection::never())).await;
        // It fails after a round trip, so that time passes.
        rig.world.answer_all(0..3, Answer::After(ms(20)));
        rig.world.answer(3, Answer::FailsAfter(ms(1)));
        // What is known of it has to come about first.
        let first = balance.load(in_flight, 10_000).await.errors.len();
        let failed = balance.load(in_flight, 10_000).await.errors.len();
        assert!(failed < 200, "{in_flight} in flight: {failed} of 10000, before it {first}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_05_those_that_fail_and_may_not_be_left_out_get_less_than_their_share() {
    for in_flight in [1, 20] {
        let (rig, balance) = Rig::serving(10).await;
        rig.world.answer_all(0..7, Answer::After(ms(20)));
        rig.world.answer_all(7..10, Answer::FailsAfter(ms(1)));
        let first = balance.load(in_flight, 10_000).await.errors.len();
        let failed = balance.load(in_flight, 10_000).await.errors.len();
        assert!(first < 1_500, "{in_flight} in flight: {first} of 10000");
        assert!(failed < 200, "{in_flight} in flight: {failed} of 10000, before it {first}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_05_a_failure_makes_it_cost_more_never_less() {
    let (rig, balance) = Rig::serving_as(2, |b| b.ejection(Ejection::never())).await;
    rig.world.answer_all(0..2, Answer::After(ms(20)));
    balance.load(2, 400).await.assert_no_errors();
    let mut cost = balance.view(0).cost;
    rig.world.answer(0, Answer::Fails);
    let mut rose = 0;
    while rose < 30 {
        tokio::time::sleep(ms(100)).await;
        // Held against the other one, so that this one is asked.
        if balance.ask(Request::avoiding([1])).await.is_err() {
            let now = balance.view(0).cost;
            assert!(now >= cost, "after a failure {cost} became {now}");
            cost = now;
            rose += 1;
        }
    }
    assert!(cost > balance.view(1).cost, "{cost}");
}

#[tokio::test(start_paused = true)]
async fn law_05_cancelled_calls_only_raise_the_cost() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::After(ms(100)));
    balance.load(2, 400).await.assert_no_errors();
    rest().await;
    let mut cost = balance.view(0).cost;
    rig.world.answer(0, Answer::Never);
    for _ in 0..40 {
        let call = balance.ask(Request::avoiding([1]));
        assert!(tokio::time::timeout(ms(50), call).await.is_err());
        let now = balance.view(0).cost;
        assert!(now >= cost, "a call that was cancelled early made {now} of {cost}");
        cost = now;
    }
    for _ in 0..40 {
        let call = balance.ask(Request::avoiding([1]));
        assert!(tokio::time::timeout(secs(1), call).await.is_err());
        let now = balance.view(0).cost;
        assert!(now >= cost, "a call that was cancelled made {now} of {cost}");
        cost = now;
    }
    assert!(cost > balance.view(1).cost, "{cost}");
    assert_eq!(balance.view(0).pending, 0, "nothing is left of them");
}

#[tokio::test(start_paused = true)]
async fn law_05_what_callers_give_up_early_costs_no_less_than_what_is_left_alone() {
    let (rig, balance) = Rig::serving(5).await;
    rig.world.answer_all(0..3, Answer::After(ms(20)));
    rig.world.answer_all(3..5, Answer::After(ms(200)));
    for _ in 0..5 {
        for key in 0..5 {
            let others: Vec<u32> = (0..5).filter(|other| *other != key).collect();
            balance.ask(Request::avoiding(&others)).await.expect("a response");
        }
    }
    rest().await;
    for _ in 0..1_500 {
        let call = balance.ask(Request::avoiding([0, 1, 2, 4]));
        assert!(tokio::time::timeout(ms(9), call).await.is_err());
    }
    let (given_up, left_alone) = (balance.view(3).cost, balance.view(4).cost);
    assert!(left_alone > 1.5, "{left_alone}");
    assert!(given_up >= left_alone * 0.95, "{given_up}, not {left_alone}");
}

#[tokio::test(start_paused = true)]
async fn law_05_what_hangs_costs_more_the_longer_it_hangs_also_while_callers_give_up() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::After(ms(20)));
    balance.load(2, 400).await.assert_no_errors();
    rig.world.answer(0, Answer::Never);
    let mut hung = Box::pin(balance.ask(Request::avoiding([1])));
    assert!((&mut hung).now_or_never().is_none());
    let mut cost = balance.view(0).cost;
    for _ in 0..20 {
        tokio::time::sleep(ms(100)).await;
        let now = balance.view(0).cost;
        assert!(now >= cost, "{cost} became {now}");
        cost = now;
        // Someone else gives up there: what is known of it does not get better by that.
        let mut other = Box::pin(balance.ask(Request::avoiding([1])));
        assert!((&mut other).now_or_never().is_none());
        drop(other);
        let now = balance.view(0).cost;
        assert!(now >= cost, "one gave up: {cost} became {now}");
    }
    assert!(cost > 20.0, "{cost}");
}

#[tokio::test(start_paused = true)]
async fn row_29_the_share_of_one_that_hangs_falls_within_a_second() {
    let (rig, balance) = Rig::serving(4).await;
    rig.world.answer_all(0..4, Answer::After(ms(5)));
    balance.load(4, 2_000).await.assert_no_errors();
    rig.world.answer(3, Answer::Never);
    let under_load = |calls: usize| {
        let balance = balance.clone();
        async move {
            use futures::StreamExt as _;
            let calls = futures::stream::iter(0..calls).map(|_| {
                let balance = balance.clone();
                async move { tokio::time::timeout(ms(50), balance.get()).await.is_err() }
            });
            calls.buffer_unordered(8).filter(|hung| std::future::ready(*hung)).count().await
        }
    };
    // About a second at 8 in flight.
    under_load(1_000).await;
    let hung = under_load(2_000).await;
    assert!(hung < 100, "{hung} of 2000 calls hang after the first second");
    // It wakes up, and has its share again.
    rig.world.answer(3, Answer::After(ms(5)));
    until("what hangs has ended", || rig.world.under_way(3) == 0).await;
    tokio::time::sleep(secs(30)).await;
    balance.load(8, 4_000).await.assert_no_errors();
    tokio::time::sleep(secs(30)).await;
    let tally = balance.load(8, 4_000).await;
    tally.assert_no_errors();
    assert!(tally.share(3) > 0.15, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn row_30_the_share_of_one_that_is_ten_times_as_slow_falls_below_five_percent() {
    let (rig, balance) = Rig::serving(4).await;
    rig.world.answer_all(0..3, Answer::About(ms(5)));
    rig.world.answer(3, Answer::About(ms(50)));
    balance.load(8, 20_000).await.assert_no_errors();
    let tally = balance.load(8, 20_000).await;
    tally.assert_no_errors();
    assert!(tally.share(3) < 0.05, "{}", tally.share(3));
    // What is held against it fades: it is tried now and then.
    let before = rig.world.called(3);
    tokio::time::sleep(secs(60)).await;
    balance.load(8, 1_000).await.assert_no_errors();
    assert!(rig.world.called(3) > before);
}

/// What callers get with nothing set at all.
#[tokio::test(start_paused = true)]
async fn law_05_an_error_is_a_failure_unless_a_judge_says_otherwise() {
    use std::sync::Arc;

    use discovery_core::Change;
    use discovery_tower::balance::Outcome;

    use crate::support::{HostError, Request, Scripted, Spec, World, spec};

    async fn failures_of<C>(
        builder: Builder<
            crate::support::Once,
            impl FnMut(&u32, &Arc<Spec>) -> Scripted + Send + 'static,
            u32,
            Spec,
            PeakEwma,
            C,
        >,
    ) -> u64
    where
        C: discovery_tower::balance::Protocol<Request, u32, HostError, u32>,
    {
        let balance: Balance<u32, Spec, Scripted, Request, PeakEwma, C> = builder.spawn();
        until("it has loaded", || balance.is_loaded()).await;
        for _ in 0..3 {
            let call = tower::ServiceExt::oneshot(balance.clone(), Request::plain());
            assert!(call.await.is_err());
        }
        balance.endpoints()[0].failures
    }

    let world = World::new();
    world.answer(0, Answer::Fails);
    let source = || futures::stream::iter([Change::Insert(0, spec(0)), Change::Synced]);
    let maker = || {
        let world = world.clone();
        move |_: &u32, spec: &Arc<Spec>| world.connect(spec.address)
    };
    assert_eq!(failures_of(Builder::new(source(), maker())).await, 3);
    let judge = |result: Result<&u32, &HostError>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Ignore,
    };
    let judged = AnyCall::judged_by(judge);
    assert_eq!(failures_of(Builder::new(source(), maker()).protocol(judged)).await, 0);
}
