//! Law 4: with nobody to send to, the caller is told which of the reasons it is, within a bound.

use std::error::Error as _;

use discovery_core::{Change, Publisher, SourceError};
use discovery_tower::balance::{
    Availability, Builder, CallError, Limits, PeakEwma, Seeded, Unavailable,
};
use tokio::time::Instant;

use crate::support::{
    Answer, Bal, MS, ReadsAll, Ready, Request, Rig, Spec, Use as _, World, all_up, assert_near,
    failure, ms, secs, spec, until,
};

/// Asserts that it is this reason, and tells the causes.
#[track_caller]
fn unavailable(error: &CallError<u32>, wanted: Unavailable) -> Vec<(u32, String)> {
    match error {
        CallError::Unavailable { reason, causes, .. } => {
            assert_eq!(*reason, wanted, "{error}");
            causes.iter().map(|cause| (cause.endpoint, cause.error.to_string())).collect()
        }
        other => panic!("{other:?} is not unavailability"),
    }
}

#[tokio::test(start_paused = true)]
async fn law_04_not_loaded_is_told_after_its_time_with_the_error_of_the_source() {
    let mut source: Publisher<u32, Spec> = Publisher::new();
    let world = World::new();
    let balance: Bal<PeakEwma> = {
        let world = world.clone();
        Builder::new(source.subscribe(), move |_: &u32, spec: &std::sync::Arc<Spec>| {
            world.connect(spec.address)
        })
        .protocol(ReadsAll::default())
        .entropy(Seeded::new(1))
        .named("orders")
        .status(source.status())
        .spawn()
    };
    let begun = Instant::now();
    let error = failure(balance.get().await);
    assert_near("the wait", begun.elapsed(), secs(5), 2 * MS);
    assert!(matches!(&error, CallError::NotLoaded { cause: None, .. }), "{error:?}");
    assert!(error.is_unsent());

    source.trouble(SourceError::new("no route to etcd"));
    let error = failure(balance.get().await).clone();
    let CallError::NotLoaded { service, waited, cause } = &error else { panic!("{error:?}") };
    assert_eq!(service.as_deref(), Some("orders"));
    assert_near("what it says of the wait", *waited, secs(5), 2 * MS);
    assert_eq!(cause.as_ref().unwrap().to_string(), "no route to etcd");
    assert_eq!(error.source().unwrap().to_string(), "no route to etcd");
    let text = error.to_string();
    assert!(text.contains("orders") && text.contains("no route to etcd"), "{text}");

    // The wait ends with the reason for it.
    let (called, ()) = tokio::join!(balance.get(), async {
        tokio::time::sleep(secs(3)).await;
        source.replace([(7, spec(7))], None);
    });
    assert_eq!(*called.unwrap().endpoint(), 7);
}

#[tokio::test(start_paused = true)]
async fn law_04_an_empty_set_is_told_at_once_and_is_not_final() {
    let (rig, builder) = Rig::new();
    let balance = builder.named("orders").spawn();
    rig.tell(Change::Synced);
    until("it has loaded", || balance.is_loaded()).await;
    let begun = Instant::now();
    let error = failure(balance.get().await);
    assert!(matches!(&error, CallError::NoEndpoints { .. }), "{error:?}");
    assert_eq!(error.to_string(), "no instances of orders");
    assert_eq!(begun.elapsed(), ms(0));
    rig.insert(0, spec(0));
    all_up(&balance, 1).await;
    assert!(balance.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn law_04_a_call_made_while_loading_is_told_at_once_when_the_set_turns_out_empty() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    let begun = Instant::now();
    let (called, ()) = tokio::join!(balance.get(), async {
        tokio::time::sleep(ms(300)).await;
        rig.tell(Change::Synced);
    });
    assert!(matches!(failure(called), CallError::NoEndpoints { .. }));
    assert_near("the wait", begun.elapsed(), ms(300), 2 * MS);
}

#[tokio::test(start_paused = true)]
async fn law_04_when_all_have_failed_the_first_few_causes_are_told() {
    let (rig, builder) = Rig::new();
    let balance = builder.named("orders").spawn();
    (0..5).for_each(|key| rig.world.ready(key, Ready::Fails));
    rig.begin((0..5).map(|key| (key, spec(key))));
    until("all have failed", || (0..5).all(|key| rig.world.made(key) > 1)).await;
    let begun = Instant::now();
    let error = failure(balance.get().await);
    assert_near("the wait", begun.elapsed(), secs(1), 2 * MS);
    let causes = unavailable(&error, Unavailable::Failed);
    assert_eq!(causes.len(), 3, "{causes:?}");
    assert!(causes.iter().all(|(_, cause)| cause == "connection refused"), "{causes:?}");
    assert!(matches!(error, CallError::Unavailable { endpoints: 5, .. }));
    assert_eq!(error.source().unwrap().to_string(), "connection refused");
    assert!(error.clone().to_string().contains("none of 5 endpoints of orders"), "{error}");
    assert!(error.is_unsent());

    // The wait ends when one of them is back.
    let begun = Instant::now();
    let (called, ()) = tokio::join!(balance.get(), async {
        // The longest that one is left alone between two tries is 5 s.
        rig.world.ready(3, Ready::Yes);
        rig.insert(9, spec(9));
    });
    assert!([3, 9].contains(called.unwrap().endpoint()));
    assert!(begun.elapsed() < ms(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn law_04_while_all_connect_a_call_waits_and_the_first_to_become_ready_has_it() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    (0..3).for_each(|key| rig.world.ready(key, Ready::Pending));
    rig.begin((0..3).map(|key| (key, spec(key))));
    until("all connect", || balance.all().len() == 3).await;
    let (called, ()) = tokio::join!(balance.get(), async {
        tokio::time::sleep(secs(4)).await;
        rig.world.ready(1, Ready::Yes);
    });
    assert_eq!(*called.unwrap().endpoint(), 1);
}

#[tokio::test(start_paused = true)]
async fn law_04_when_none_connects_in_time_that_is_told() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(0, Ready::Pending);
    rig.insert(0, spec(0));
    until("it connects", || balance.all().len() == 1).await;
    let begun = Instant::now();
    let error = failure(balance.get().await);
    assert_near("the wait", begun.elapsed(), secs(5), 2 * MS);
    unavailable(&error, Unavailable::NotReady);
}

#[tokio::test(start_paused = true)]
async fn law_04_a_busy_endpoint_is_passed_over_and_when_all_are_busy_the_first_to_be_free_has_it() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.ready(0, Ready::Pending);
    rig.world.ready(1, Ready::Pending);
    for _ in 0..30 {
        let begun = Instant::now();
        assert_eq!(*balance.get().await.unwrap().endpoint(), 2);
        assert_eq!(begun.elapsed(), ms(0), "nobody waits for the busy ones");
    }
    rig.world.ready(2, Ready::Pending);
    let (called, ()) = tokio::join!(balance.get(), async {
        tokio::time::sleep(secs(2)).await;
        rig.world.ready(1, Ready::Yes);
    });
    assert_eq!(*called.unwrap().endpoint(), 1);
    rig.world.ready(1, Ready::Pending);
    let begun = Instant::now();
    unavailable(&failure(balance.get().await), Unavailable::NotReady);
    assert_near("the wait", begun.elapsed(), secs(5), 2 * MS);
    assert!(balance.all().iter().all(|view| view.pending == 0), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn law_04_weights_all_zero_and_all_out_of_service_are_told_at_once() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.begin((0..2).map(|key| (key, spec(key).weight(0))));
    until("they are there", || balance.all().len() == 2).await;
    let begun = Instant::now();
    unavailable(&failure(balance.get().await), Unavailable::Weightless);
    rig.begin((0..2).map(|key| (key, spec(key).availability(Availability::Out))));
    until("they are out", || balance.all().iter().all(|view| view.weight == 1)).await;
    let called = Instant::now();
    let error = failure(balance.get().await);
    unavailable(&error, Unavailable::OutOfService);
    assert_eq!(called.elapsed(), ms(0));
    assert!(begun.elapsed() < ms(20));
    rig.insert(1, spec(1));
    all_up_of(&balance, 1).await;
    assert_eq!(*balance.get().await.unwrap().endpoint(), 1);
}

async fn all_up_of(balance: &Bal<PeakEwma>, key: u32) {
    until("it is up", || balance.view(key).standing == discovery_tower::balance::Standing::Up)
        .await;
}

#[tokio::test(start_paused = true)]
async fn law_04_a_request_that_is_to_avoid_all_is_told_so_at_once() {
    let (_rig, balance) = Rig::serving(2).await;
    let begun = Instant::now();
    let error = failure(balance.ask(Request::avoiding([0, 1])).await);
    unavailable(&error, Unavailable::Avoided);
    assert_eq!(begun.elapsed(), ms(0));
    assert_eq!(*balance.ask(Request::avoiding([0])).await.unwrap().endpoint(), 1);
}

#[tokio::test(start_paused = true)]
async fn law_04_the_limits_can_be_set() {
    let limits = Limits::default().load(ms(70)).ready(ms(80)).failed(ms(90));
    let (rig, builder) = Rig::new();
    let balance = builder.limits(limits).spawn();
    let begun = Instant::now();
    assert!(matches!(failure(balance.get().await), CallError::NotLoaded { .. }));
    assert_near("loading", begun.elapsed(), ms(70), 2 * MS);
    rig.world.ready(0, Ready::Pending);
    rig.insert(0, spec(0));
    until("it connects", || !balance.all().is_empty()).await;
    let begun = Instant::now();
    unavailable(&failure(balance.get().await), Unavailable::NotReady);
    assert_near("connecting", begun.elapsed(), ms(80), 2 * MS);
    rig.world.ready(0, Ready::Fails);
    until("it failed", || rig.world.made(0) > 3).await;
    let begun = Instant::now();
    unavailable(&failure(balance.get().await), Unavailable::Failed);
    assert_near("failed", begun.elapsed(), ms(90), 2 * MS);
}

#[tokio::test(start_paused = true)]
async fn law_04_calls_that_wait_end_when_the_endpoint_they_wait_for_is_gone() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(0, Ready::Pending);
    rig.insert(0, spec(0));
    until("it connects", || !balance.all().is_empty()).await;
    let begun = Instant::now();
    let (called, ()) = tokio::join!(balance.get(), async {
        tokio::time::sleep(ms(200)).await;
        rig.remove(0);
    });
    assert!(matches!(failure(called), CallError::NoEndpoints { .. }));
    assert_near("the wait", begun.elapsed(), ms(200), 2 * MS);
}

#[tokio::test(start_paused = true)]
async fn law_04_no_error_is_final() {
    let (rig, balance) = Rig::serving(1).await;
    rig.world.answer(0, Answer::Fails);
    for _ in 0..50 {
        let error = failure(balance.get().await);
        assert!(matches!(&error, CallError::Failed { endpoint: 0, .. }), "{error:?}");
        assert!(!error.is_unsent());
    }
    rig.world.answer(0, Answer::AtOnce);
    assert!(balance.get().await.is_ok());
}
