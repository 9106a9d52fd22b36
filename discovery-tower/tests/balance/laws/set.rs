//! Laws 1 to 3: it follows its source by itself; what an update does; what a removal does.

use std::time::Duration;

use discovery_core::Change;
use discovery_tower::balance::{CallError, Standing};
use futures::FutureExt as _;
use tokio::time::Instant;

use crate::support::{Answer, MS, Ready, Rig, Use as _, all_up, ms, rest, secs, spec, until};

#[tokio::test(start_paused = true)]
async fn law_01_it_connects_and_follows_its_source_while_nobody_calls() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(1, Ready::Pending);
    rig.begin([(0, spec(0)), (1, spec(1))]);
    until("one of two is up", || balance.all().len() == 2 && balance.is_loaded()).await;
    until("the first is up", || balance.view(0).standing == Standing::Up).await;
    assert_eq!(balance.view(1).standing, Standing::Connecting);
    rig.world.ready(1, Ready::Yes);
    all_up(&balance, 2).await;
    rig.remove(0);
    until("one is left", || balance.all().len() == 1).await;
    assert_eq!((rig.world.called(0), rig.world.called(1)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn law_01_one_that_cannot_connect_is_tried_until_it_can_while_nobody_calls() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(0, Ready::Fails);
    rig.insert(0, spec(0));
    until("it has failed", || rig.world.made(0) > 6).await;
    assert_eq!(balance.view(0).standing, Standing::Failed);
    rig.world.ready(0, Ready::Yes);
    let begun = Instant::now();
    all_up(&balance, 1).await;
    assert!(begun.elapsed() <= ms(5_050), "tried again within 5 s: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn law_01_a_source_that_is_silent_or_has_ended_breaks_no_call() {
    let (mut rig, balance) = Rig::serving(3).await;
    tokio::time::advance(secs(3_600)).await;
    balance.load(4, 100).await.assert_no_errors();
    rig.end();
    tokio::time::advance(secs(3_600)).await;
    let tally = balance.load(4, 300).await;
    tally.assert_no_errors();
    assert!((0..3).all(|key| tally.of(key) > 0), "{tally:?}");
    // Connections are still mended.
    rig.world.ready(0, Ready::Fails);
    balance.load(1, 50).await.assert_no_errors();
    rig.world.ready(0, Ready::Yes);
    all_up(&balance, 3).await;
}

#[tokio::test(start_paused = true)]
async fn law_02_an_update_keeps_the_service_its_calls_and_what_is_known_of_it() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::After(ms(20)));
    balance.load(2, 200).await.assert_no_errors();
    rig.world.answer(0, Answer::ByHand);
    rig.world.answer(1, Answer::ByHand);
    let mut calls: Vec<_> = (0..4).map(|_| Box::pin(balance.get())).collect();
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
    let before = balance.view(0);
    assert_eq!(before.pending, 2);
    assert!(before.successes >= 80, "{before:?}");

    rig.insert(0, crate::support::Spec { zone: "b", ..spec(0).weight(7) });
    until("it is told", || balance.view(0).endpoint.zone == "b").await;
    let after = balance.view(0);
    assert_eq!((after.weight, after.standing), (7, Standing::Up));
    assert_eq!((after.pending, after.successes), (before.pending, before.successes));
    assert!((after.ramp - 1.0).abs() < 1e-9, "no slow start: {after:?}");
    assert_eq!(rig.world.made(0), 1, "the same service");
    rig.world.reply(0, Ok(()));
    until("a call has ended", || {
        calls.retain_mut(|call| call.now_or_never().is_none());
        balance.view(0).pending == 1
    })
    .await;
    assert_eq!(balance.view(0).successes, before.successes + 1);
}

#[tokio::test(start_paused = true)]
async fn law_02_an_endpoint_with_a_new_address_serves_at_the_old_one_until_the_new_one_is_ready() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(100, Ready::Pending);
    rig.insert(0, spec(100));
    until("a service is made", || rig.world.made(100) == 1).await;
    for _ in 0..20 {
        assert_eq!(*balance.get().await.unwrap().get_ref(), 0, "the old one serves");
    }
    rig.world.answer(0, Answer::ByHand);
    let mut under_way = Box::pin(balance.get());
    assert!((&mut under_way).now_or_never().is_none());
    rig.world.ready(100, Ready::Yes);
    until("the new one serves", || {
        rig.world.called(100) > 0 || {
            drop(balance.get().now_or_never());
            false
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(*balance.get().await.unwrap().get_ref(), 100, "the new one serves");
    }
    // What was under way at the old one ends there.
    while rig.world.under_way(0) > 0 {
        rig.world.reply(0, Ok(()));
        drop((&mut under_way).now_or_never());
        rest().await;
    }
    assert_eq!((rig.world.made(0), rig.world.made(100)), (1, 1));
    until("the old service is dropped", || rig.world.alive() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn law_02_a_new_address_is_reached_though_the_old_one_dies_meanwhile() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(100, Ready::Pending);
    rig.insert(0, spec(100));
    until("a service is made", || rig.world.made(100) == 1).await;
    rig.world.ready(0, Ready::Fails);
    let call = tokio::spawn({
        let balance = balance.clone();
        async move { balance.get().await }
    });
    tokio::time::sleep(ms(500)).await;
    rig.world.ready(100, Ready::Yes);
    let served = call.await.unwrap().expect("the new address serves");
    assert_eq!(*served.get_ref(), 100);
    assert_eq!(rig.world.made(0), 1, "nobody wants the old address any more");
}

#[tokio::test(start_paused = true)]
async fn law_02_an_address_that_is_taken_back_before_it_was_reached_is_not_used() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(100, Ready::Fails);
    rig.insert(0, spec(100));
    until("the new address has failed", || rig.world.made(100) > 0).await;
    rig.insert(0, spec(0).weight(3));
    until("it is told", || balance.view(0).weight == 3).await;
    rig.world.ready(100, Ready::Yes);
    tokio::time::sleep(secs(30)).await;
    for _ in 0..20 {
        assert_eq!(*balance.get().await.unwrap().get_ref(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn law_03_a_removed_endpoint_gets_no_new_call_and_ends_those_it_has() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::ByHand);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move { balance.get().await })
        })
        .collect();
    until("all are under way", || rig.world.under_way(0) + rig.world.under_way(1) == 8).await;
    let held = rig.world.under_way(0);
    assert!(held > 0);
    rig.world.answer(1, Answer::AtOnce);
    rig.tell(Change::Remove(0));
    rig.tell(Change::Synced);
    until("it is gone", || balance.all().len() == 1).await;
    let before = rig.world.called(0);
    let tally = balance.load(8, 500).await;
    tally.assert_no_errors();
    assert_eq!((tally.of(1), rig.world.called(0)), (500, before));

    assert_eq!(rig.world.under_way(0), held, "no call is torn away");
    (0..held).for_each(|_| rig.world.reply(0, Ok(())));
    (held..8).for_each(|_| rig.world.reply(1, Ok(())));
    let mut by = [0; 2];
    for call in calls {
        by[*call.await.unwrap().expect("it ends well").endpoint() as usize] += 1;
    }
    assert_eq!(by, [held, 8 - held]);
    until("its service is dropped", || rig.world.alive() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn law_03_a_call_that_waits_for_an_endpoint_that_is_removed_goes_to_another() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(0, Ready::Pending);
    let mut call = Box::pin(balance.get());
    assert!((&mut call).now_or_never().is_none());
    rig.world.ready(1, Ready::Pending);
    rig.insert(1, spec(1));
    rig.remove(0);
    until("the other is there", || balance.all().iter().all(|view| view.key == 1)).await;
    assert!((&mut call).now_or_never().is_none());
    rig.world.ready(0, Ready::Yes);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut call).await.is_err());
    rig.world.ready(1, Ready::Yes);
    assert_eq!(*call.await.unwrap().endpoint(), 1);
    assert_eq!(rig.world.called(0), 0);
}

#[tokio::test(start_paused = true)]
async fn law_03_after_the_last_endpoint_is_removed_calls_are_told_so_at_once() {
    let (rig, balance) = Rig::serving(1).await;
    rig.remove(0);
    until("it is gone", || balance.all().is_empty()).await;
    let begun = Instant::now();
    let error = balance.get().await.unwrap_err();
    assert!(matches!(error, CallError::NoEndpoints { .. }), "{error}");
    assert!(begun.elapsed() < MS);
}
