//! Law 6: a request that certainly did not reach an endpoint goes to another one, unseen by the caller.
//! The requests here can be neither cloned nor shared, as those with a streaming body.

use discovery_tower::balance::{CallError, Ejection, LeastPending, Unavailable};
use tokio::time::Instant;

use crate::support::{
    Answer, ReadsAll, Ready, Request, Rig, Use as _, all_up, failure, ms, secs, spec, until,
};

#[tokio::test(start_paused = true)]
async fn law_06_when_connects_are_refused_calls_go_elsewhere_unseen() {
    let (rig, balance) = Rig::serving(4).await;
    rig.world.ready(0, Ready::Fails);
    rig.world.ready(1, Ready::Fails);
    let tally = balance.load(8, 2_000).await;
    tally.assert_no_errors();
    assert_eq!(tally.of(2) + tally.of(3), 2_000);
    assert_eq!((rig.world.called(0), rig.world.called(1)), (0, 0));
    let failures: u64 = balance.all().iter().map(|view| view.failures).sum();
    assert_eq!(failures, 0, "no call has failed");
}

#[tokio::test(start_paused = true)]
async fn law_06_a_request_that_comes_back_unsent_goes_elsewhere_as_it_is() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::GivesBack);
    rig.world.answer(1, Answer::GivesBack);
    for number in 1..200 {
        let served = balance.ask(Request::numbered(number)).await.expect("the third takes it");
        assert_eq!(*served.endpoint(), 2);
        assert_eq!(rig.world.last_number(2), number);
    }
    assert!(rig.world.called(0) > 0 && rig.world.called(1) > 0, "they were asked");
    assert_eq!(rig.world.called(2), 199, "and the third once for each");
}

#[tokio::test(start_paused = true)]
async fn law_06_it_ends_when_every_endpoint_gives_the_request_back() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer_all(0..3, Answer::GivesBack);
    let begun = Instant::now();
    let error = failure(balance.ask(Request::numbered(9)).await);
    let CallError::Unavailable { reason, causes, endpoints: 3, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*reason, Unavailable::Failed);
    assert_eq!(causes.len(), 3);
    assert!(causes.iter().all(|cause| cause.error.to_string() == "not sent"), "{error}");
    assert!(error.is_unsent());
    assert!(begun.elapsed() <= ms(1_010), "{:?}", begun.elapsed());
    for key in 0..3 {
        let times = rig.world.called(key);
        assert!((1..=4).contains(&times), "{key} was asked {times} times");
    }
    assert!(balance.all().iter().all(|view| view.pending == 0));
}

#[tokio::test(start_paused = true)]
async fn law_06_one_endpoint_that_gives_back_once_is_asked_again() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.answer(0, Answer::GivesBack);
    let begun = Instant::now();
    let (called, ()) = tokio::join!(balance.get(), async {
        until("it was asked", || rig.world.called(0) > 0).await;
        rig.world.answer(0, Answer::AtOnce);
        // Someone comes, so that whoever waits looks again.
        rig.insert(1, spec(1));
    });
    called.expect("someone takes it");
    assert!(begun.elapsed() < ms(100));
}

#[tokio::test(start_paused = true)]
async fn law_06_any_other_failure_is_the_callers() {
    let (rig, balance) = Rig::serving_as(2, |b| b.ejection(Ejection::never())).await;
    rig.world.answer_all(0..2, Answer::Fails);
    let error = failure(balance.ask(Request::numbered(3)).await);
    assert!(error.endpoint().is_some() && !error.is_unsent());
    assert_eq!(rig.world.called(0) + rig.world.called(1), 1, "it is sent once");
    // Whoever sends it again can say where it is not to go.
    let tried = *error.endpoint().unwrap();
    let again = failure(balance.ask(Request::avoiding([tried])).await);
    assert_eq!(again.endpoint(), Some(&(1 - tried)));
}

#[tokio::test(start_paused = true)]
async fn row_28_of_one_that_dies_callers_see_nothing_but_what_was_under_way() {
    let (rig, balance) = Rig::serving_as(3, |b| b.policy(LeastPending::new())).await;
    rig.world.answer_all(0..3, Answer::ByHand);
    let calls: Vec<_> = (0..9)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move { balance.get().await })
        })
        .collect();
    until("all are under way", || (0..3).all(|key| rig.world.under_way(key) == 3)).await;
    // It dies: what is under way fails, and nobody connects there any more.
    rig.world.ready(0, Ready::Fails);
    for _ in 0..3 {
        rig.world.reply(0, Err(crate::support::HostError::Failed));
        rig.world.reply(1, Ok(()));
        rig.world.reply(2, Ok(()));
    }
    let mut failed = 0;
    for call in calls {
        failed += usize::from(call.await.unwrap().is_err());
    }
    assert_eq!(failed, 3);
    rig.world.answer_all(0..3, Answer::AtOnce);
    let tally = balance.load(8, 2_000).await;
    tally.assert_no_errors();
    assert_eq!(tally.of(0), 0);
    // It comes back by itself.
    rig.world.ready(0, Ready::Yes);
    all_up(&balance, 3).await;
    tokio::time::sleep(secs(60)).await;
    let tally = balance.load(8, 3_000).await;
    tally.assert_shares(&[1.0 / 3.0; 3], 0.05);
}

#[tokio::test(start_paused = true)]
async fn law_06_a_policy_that_insists_on_one_endpoint_does_not_hold_up_the_rest() {
    use crate::support::Insists;
    let (rig, balance) = Rig::serving_as(2, |b| b.policy(Insists)).await;
    rig.world.ready(0, Ready::Fails);
    rig.world.ready(1, Ready::Fails);
    let begun = Instant::now();
    failure(balance.get().await);
    assert!(begun.elapsed() <= ms(5_010));
    rig.world.ready(0, Ready::Yes);
    rig.world.ready(1, Ready::Yes);
    all_up(&balance, 2).await;
    rig.world.answer_all(0..2, Answer::GivesBack);
    failure(balance.get().await);
    let asked = rig.world.called(0) + rig.world.called(1);
    assert!(asked <= 8, "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn law_11_a_protocol_that_panics_over_who_is_left_panics_nobody() {
    use crate::support::{Insists, Kind};
    let (rig, balance) =
        Rig::serving_as(2, |b| b.policy(Insists).protocol(ReadsAll(Kind::PanicsAtRequests))).await;
    rig.world.answer_all(0..2, Answer::GivesBack);
    // The policy does not ask who is to be avoided; who looks for somebody else does.
    let error = failure(balance.ask(Request::numbered(13)).await);
    assert!(error.is_unsent(), "{error}");
}
