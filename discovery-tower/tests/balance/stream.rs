//! The source's stream, the driver and the handles: what ends with what, and that nothing is left.

use std::sync::Arc;

use discovery_core::Change;
use discovery_tower::balance::{Builder, CallError, PeakEwma, Standing};
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::support::{
    Answer, Bal, ReadsAll, Ready, Request, Rig, Spec, Use as _, World, all_up, failure, ms, rest,
    secs, spec, until,
};

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_leaves_the_set_as_it_was() {
    let (mut rig, balance) = Rig::serving(2).await;
    rig.tell(Change::Insert(2, spec(2)));
    rig.end();
    until("what it said last is known", || balance.all().len() == 3).await;
    tokio::time::sleep(secs(100)).await;
    balance.load(2, 100).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_word_is_an_empty_set() {
    let (mut rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.end();
    until("that is known", || balance.is_loaded()).await;
    assert!(matches!(failure(balance.get().await), CallError::NoEndpoints { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_leaves_the_set_as_it_was() {
    let (rig, _) = Rig::new();
    let said = stream::iter([Change::Insert(0, spec(0)), Change::Synced]);
    let said = said.chain(stream::poll_fn(|_| panic!("the source was told to panic")));
    let world = rig.world.clone();
    let make = move |_: &u32, spec: &Arc<Spec>| world.connect(spec.address);
    let balance: Bal<PeakEwma> = Builder::new(said, make).protocol(ReadsAll::default()).spawn();
    all_up(&balance, 1).await;
    balance.load(2, 20).await.assert_no_errors();
    // Its endpoints are looked after.
    rig.world.ready(0, Ready::Fails);
    failure(balance.get().await);
    rig.world.ready(0, Ready::Yes);
    all_up(&balance, 1).await;
    balance.load(2, 20).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn of_a_stream_that_panics_before_it_has_loaded_nothing_is_known() {
    let said = stream::poll_fn(|_| -> std::task::Poll<Option<Change<u32, Spec>>> {
        panic!("the source was told to panic")
    });
    let make = |_: &u32, _: &Arc<Spec>| World::new().connect(0);
    let balance: Bal<PeakEwma> = Builder::new(said, make).protocol(ReadsAll::default()).spawn();
    assert!(matches!(failure(balance.get().await), CallError::NotLoaded { .. }));
    assert!(!balance.is_loaded());
}

#[tokio::test(start_paused = true)]
async fn what_is_inserted_twice_is_there_once() {
    let (rig, balance) = Rig::serving(1).await;
    for _ in 0..10 {
        rig.insert(0, spec(0));
    }
    rest().await;
    assert_eq!(balance.all().len(), 1);
    assert_eq!((rig.world.made(0), rig.world.alive()), (1, 1));
    rig.remove(0);
    until("it is gone", || balance.all().is_empty()).await;
    assert_eq!(rig.world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_removal_of_one_that_is_not_there_changes_nothing() {
    let (rig, balance) = Rig::serving(2).await;
    rig.remove(77);
    rig.remove(0);
    rig.remove(0);
    until("one is left", || balance.all().len() == 1).await;
    balance.load(2, 20).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_says_synced_is_followed_too() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    for key in 0..1_000 {
        rig.tell(Change::Insert(key, spec(key)));
    }
    all_up(&balance, 1_000).await;
    balance.load(8, 100).await.assert_no_errors();
    assert!(!balance.is_loaded());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_done_is_followed_too() {
    use std::sync::Arc;

    use discovery_tower::KeepIf;
    use discovery_tower::balance::{Builder, PeakEwma, Seeded};

    use crate::support::{Bal, ReadsAll, Spec, World};

    let world = World::new();
    let hosts = world.clone();
    let weights = (0_u32..).map(|n| Change::Insert(n % 3, spec(n % 3).weight(1 + n / 300_000)));
    let make = move |_: &u32, spec: &Arc<Spec>| hosts.connect(spec.address);
    let maker = KeepIf::new(make, |_: &u32, old: &Spec, new: &Spec| old.address == new.address);
    let balance: Bal<PeakEwma> = Builder::new(futures::stream::iter(weights), maker)
        .protocol(ReadsAll::default())
        .entropy(Seeded::new(1))
        .spawn();
    while balance.all().len() < 3 {
        tokio::task::yield_now().await;
    }
    balance.load(1, 100).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn with_the_driver_gone_calls_go_on_among_the_endpoints_as_they_were() {
    let (rig, builder) = Rig::new();
    let (balance, driver) = builder.build();
    let mut driver = Box::pin(driver);
    rig.begin((0..3).map(|key| (key, spec(key))));
    for _ in 0..10 {
        assert!((&mut driver).now_or_never().is_none());
    }
    all_up(&balance, 3).await;
    drop(driver);
    assert!(!rig.is_read(), "the stream is dropped with it");
    let tally = balance.load(4, 300).await;
    tally.assert_no_errors();
    assert!((0..3).all(|key| tally.of(key) > 50));
    rig.world.answer(0, Answer::Fails);
    assert!(balance.load(1, 100).await.errors.len() < 60);
    drop(balance);
    assert_eq!(rig.world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_driver_from_the_start_calls_are_told_that_nothing_is_known() {
    let (_rig, builder) = Rig::new();
    let (balance, driver) = builder.build::<crate::support::Scripted, Request>();
    drop(driver);
    let error = failure(balance.get().await);
    assert!(matches!(error, CallError::NotLoaded { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_driver_and_drops_all_services() {
    let (rig, balance) = Rig::serving(20).await;
    // Some are connecting, failed, ejected, or have another one beside them.
    rig.world.ready(50, Ready::Pending);
    rig.insert(50, spec(50));
    rig.world.ready(51, Ready::Fails);
    rig.insert(51, spec(51));
    rig.world.ready(52, Ready::Pending);
    rig.insert(1, spec(52));
    rig.world.answer(2, Answer::Fails);
    balance.load(8, 500).await;
    let clone = balance.clone();
    drop(balance);
    rest().await;
    assert!(rig.is_read(), "a clone is left");
    clone.load(4, 20).await.assert_no_errors();
    drop(clone);
    until("the driver has ended", || !rig.is_read()).await;
    assert_eq!(rig.world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_outlive_the_last_handle() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer_all(0..3, Answer::ByHand);
    let call = || Box::pin(tower::Service::call(&mut balance.clone(), Request::plain()));
    let mut calls: Vec<_> = (0..6).map(|_| call()).collect();
    for call in &mut calls {
        assert!(call.now_or_never().is_none());
    }
    drop(balance);
    until("the driver has ended", || !rig.is_read()).await;
    for key in 0..3 {
        while rig.world.under_way(key) > 0 && calls.len() > 1 {
            rig.world.reply(key, Ok(()));
            let before = calls.len();
            calls.retain_mut(|call| match call.now_or_never() {
                None => true,
                Some(served) => {
                    assert_eq!(*served.expect("it ends well").endpoint(), key);
                    false
                }
            });
            assert_eq!(calls.len(), before - 1);
        }
    }
    // One is cancelled.
    assert_eq!(calls.len(), 1);
    drop(calls);
    assert_eq!(rig.world.alive(), 0, "the last call takes the last service with it");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_keeps_the_balancer_until_it_has_ended() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(0, Ready::Pending);
    rig.insert(0, spec(0));
    until("it connects", || !balance.all().is_empty()).await;
    let call = tower::Service::call(&mut balance.clone(), Request::plain());
    drop(balance);
    let (called, ()) = tokio::join!(call, async {
        tokio::time::sleep(ms(500)).await;
        rig.world.ready(0, Ready::Yes);
    });
    assert_eq!(*called.expect("it is served").endpoint(), 0);
    until("the driver has ended", || !rig.is_read()).await;
    assert_eq!(rig.world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn row_27_of_what_flaps_nothing_is_left_connected_or_not() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(2, Ready::Pending);
    rig.world.ready(3, Ready::Fails);
    for _ in 0..200 {
        for key in 1..4 {
            rig.insert(key, spec(key));
        }
        rest().await;
        for key in 1..4 {
            rig.remove(key);
        }
        rest().await;
        balance.load(1, 5).await.assert_no_errors();
    }
    until("the first alone is there", || balance.all().len() == 1).await;
    assert_eq!(rig.world.alive(), 1, "services that are not dropped");
    rig.insert(1, spec(1));
    all_up(&balance, 2).await;
    assert_eq!(rig.world.alive(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_addresses_that_were_never_reached_nothing_is_left() {
    let (rig, balance) = Rig::serving(1).await;
    for address in 100..200 {
        rig.world.ready(address, Ready::Pending);
        rig.insert(0, spec(address));
        rest().await;
    }
    assert_eq!(rig.world.alive(), 2 + 1, "the present one, the next, and the clone that is asked");
    rig.insert(0, spec(0).weight(2));
    until("it is told", || balance.view(0).weight == 2).await;
    until("it has settled", || rig.world.alive() <= 2).await;
    balance.load(1, 5).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn changed_wakes_at_each_change_of_the_set_or_of_how_one_stands() {
    let (rig, balance) = Rig::serving(1).await;
    let mut changed = Box::pin(balance.changed());
    assert!((&mut changed).now_or_never().is_none());
    balance.load(2, 20).await.assert_no_errors();
    assert!((&mut changed).now_or_never().is_none(), "calls that go well change nothing");
    rig.world.ready(1, Ready::Pending);
    rig.insert(1, spec(1));
    changed.await;
    assert_eq!(balance.all().len(), 2);
    let mut changed = Box::pin(balance.changed());
    assert!((&mut changed).now_or_never().is_none());
    rig.world.ready(1, Ready::Yes);
    changed.await;
    assert_eq!(balance.view(1).standing, Standing::Up);
    let mut changed = Box::pin(balance.changed());
    assert!((&mut changed).now_or_never().is_none());
    rig.remove(1);
    changed.await;
    assert_eq!(balance.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn changed_misses_nothing_that_happens_between_making_it_and_awaiting_it() {
    let (rig, balance) = Rig::serving(1).await;
    let changed = balance.changed();
    rig.remove(0);
    until("it is gone", || balance.all().is_empty()).await;
    tokio::time::timeout(ms(10), changed).await.expect("it was told");
}
