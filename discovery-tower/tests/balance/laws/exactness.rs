//! Law 11: clock and chance are given, so that runs are exact; no data and no panic of what it was
//! given brings it down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use discovery_core::Change;
use discovery_tower::MakeEndpoint;
use discovery_tower::balance::{
    Builder, CallError, Describe as _, LeastPending, PeakEwma, Policy, Seeded, Standing,
};
use futures::FutureExt as _;

use crate::support::{
    Answer, At, Bal, Kind, Panics, ReadsAll, Ready, Request, Rig, Scripted, Spec, Use as _, World,
    all_up, ms, rest, secs, spec, until,
};

/// Who is picked in a run in which all kinds of things happen.
async fn run<P: Policy<Request, u32, Spec>>(policy: P) -> Vec<u32> {
    let (rig, balance) = Rig::serving_as(6, |b| b.policy(policy)).await;
    rig.world.answer_all(0..8, Answer::About(ms(20)));
    balance.load(8, 500).await;
    rig.world.answer(0, Answer::FailsAfter(ms(2)));
    rig.insert(1, spec(1).weight(3));
    rig.insert(7, spec(7));
    balance.load(8, 500).await;
    rig.world.ready(2, Ready::Fails);
    rig.remove(3);
    balance.load(8, 500).await;
    rig.world.ready(2, Ready::Yes);
    balance.load(16, 2_000).await;
    rig.world.take_log()
}

#[tokio::test(start_paused = true)]
async fn law_11_the_same_seed_and_clock_give_the_same_picks() {
    let (first, second) = (run(PeakEwma::new()).await, run(PeakEwma::new()).await);
    assert!(first.len() > 3_000, "{}", first.len());
    assert_eq!(first, second);
    assert_eq!(run(LeastPending::new()).await, run(LeastPending::new()).await);
}

#[tokio::test(start_paused = true)]
async fn law_11_a_clock_that_stands_still_breaks_nothing() {
    // No time passes between any two of these calls.
    for in_flight in [1, 16] {
        let (rig, balance) = Rig::serving(4).await;
        let tally = balance.load(in_flight, 4_000).await;
        tally.assert_no_errors();
        tally.assert_shares(&[0.25; 4], 0.05);
        assert!(balance.all().iter().all(|view| view.cost.is_finite() && view.cost >= 0.0));
        rig.world.answer(3, Answer::Fails);
        let failed = balance.load(in_flight, 4_000).await.errors.len();
        assert!(failed < 80, "{failed} of 4000");
    }
}

#[tokio::test(start_paused = true)]
async fn law_11_a_clock_that_leaps_breaks_nothing() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(2, Answer::Fails);
    for _ in 0..5 {
        balance.load(4, 100).await;
        tokio::time::advance(secs(40_000_000)).await;
        assert!(balance.all().iter().all(|view| view.cost.is_finite()));
    }
    rig.world.answer(2, Answer::AtOnce);
    balance.load(4, 100).await;
    until("all are up again", || balance.all().iter().all(|v| v.standing != Standing::Ejected))
        .await;
    balance.load(4, 100).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn law_11_any_change_in_any_order_is_taken() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.tell(Change::Remove(4));
    rig.tell(Change::Synced);
    rig.tell(Change::Synced);
    for weight in [0, 1, u32::MAX, 0, u32::MAX, 7] {
        rig.insert(1, spec(1).weight(weight));
        rig.insert(1, spec(1).weight(weight));
    }
    rig.tell(Change::Remove(1));
    rig.tell(Change::Remove(1));
    rig.insert(1, spec(1).weight(u32::MAX));
    rig.insert(2, spec(2).weight(u32::MAX));
    until("they are there", || balance.all().len() == 2).await;
    balance.load(64, 1_000).await.assert_no_errors();
    assert!(balance.all().iter().all(|view| view.cost.is_finite()));
}

#[tokio::test(start_paused = true)]
async fn law_11_a_policy_that_panics_fails_the_call_and_nothing_else() {
    let at = Arc::new(At::default());
    let (rig, balance) = Rig::serving_as(3, |b| b.policy(Panics(at.clone()))).await;
    at.pick.store(true, SeqCst);
    let error = balance.get().await.unwrap_err();
    assert!(matches!(error, CallError::Panicked { what: "policy" }), "{error:?}");
    at.pick.store(false, SeqCst);
    for panics in [&at.started, &at.finished, &at.review] {
        panics.store(true, SeqCst);
        balance.load(2, 20).await.assert_no_errors();
        rest().await;
        balance.load(2, 20).await.assert_no_errors();
        panics.store(false, SeqCst);
    }
    at.state.store(true, SeqCst);
    rig.insert(3, spec(3));
    all_up(&balance, 4).await;
    balance.load(2, 20).await.assert_no_errors();
    at.state.store(false, SeqCst);
    assert!(balance.all().iter().all(|view| view.pending == 0));
}

#[tokio::test(start_paused = true)]
async fn law_11_a_policy_that_panics_over_a_new_endpoint_does_not_stop_the_driver() {
    let at = Arc::new(At::default());
    let (rig, balance) = Rig::serving_as(2, |b| b.policy(Panics(at.clone()))).await;
    at.load.store(true, SeqCst);
    rig.insert(2, spec(2));
    rest().await;
    at.load.store(false, SeqCst);
    rig.insert(3, spec(3));
    until("the next is there", || balance.all().iter().any(|view| view.key == 3)).await;
    balance.load(2, 20).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn law_11_a_protocol_that_panics_fails_the_call_and_nothing_else() {
    for kind in [Kind::PanicsAtErrors, Kind::PanicsAtResponses, Kind::PanicsAtRequests] {
        let (rig, builder) = Rig::new();
        let balance: Bal<PeakEwma> = builder.protocol(ReadsAll(kind)).spawn();
        rig.begin((0..2).map(|key| (key, spec(key))));
        all_up(&balance, 2).await;
        if kind == Kind::PanicsAtErrors {
            rig.world.answer_all(0..2, Answer::Fails);
        }
        for _ in 0..10 {
            let error = balance.ask(Request::numbered(13)).await.unwrap_err();
            assert!(matches!(error, CallError::Panicked { .. }), "{kind:?}: {error:?}");
        }
        rig.world.answer_all(0..2, Answer::AtOnce);
        assert!(balance.all().iter().all(|view| view.pending == 0), "{kind:?}");
        if kind != Kind::PanicsAtResponses {
            balance.load(2, 20).await.assert_no_errors();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_11_a_call_that_panics_is_the_callers_and_leaves_nothing_behind() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer(0, Answer::Panics);
    rig.world.answer(1, Answer::Panics);
    for _ in 0..10 {
        let balance = balance.clone();
        assert!(tokio::spawn(async move { balance.get().await }).await.unwrap_err().is_panic());
    }
    assert!(balance.all().iter().all(|view| view.pending == 0));
    rig.world.answer_all(0..2, Answer::AtOnce);
    balance.load(2, 20).await.assert_no_errors();
}

/// Makes services, and panics where it is told to.
struct Moody {
    world: World,
    make: Arc<AtomicBool>,
    compare: Arc<AtomicBool>,
}

impl MakeEndpoint<u32, Spec> for Moody {
    type Service = Scripted;

    fn make(&mut self, _: &u32, spec: &Arc<Spec>) -> Scripted {
        assert!(!self.make.load(SeqCst), "the maker was told to panic");
        self.world.connect(spec.address)
    }

    fn still_serves(&mut self, _: &u32, old: &Arc<Spec>, new: &Arc<Spec>) -> bool {
        assert!(!self.compare.load(SeqCst), "the maker was told to panic");
        old.address == new.address
    }
}

#[tokio::test(start_paused = true)]
async fn law_11_a_maker_or_a_description_that_panics_costs_that_endpoint_and_nothing_else() {
    let (make, compare) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tell, said) = tokio::sync::mpsc::unbounded_channel();
    let said = tokio_stream::wrappers::UnboundedReceiverStream::new(said);
    let world = World::new();
    let maker = Moody { world: world.clone(), make: make.clone(), compare: compare.clone() };
    let describe = |_: &u32, spec: &Spec| {
        assert!(spec.weight != 13, "the description was told to panic");
        spec.attributes()
    };
    let balance: Bal<PeakEwma> = Builder::described_by(said, maker, describe)
        .protocol(ReadsAll::default())
        .entropy(Seeded::new(1))
        .spawn();
    let insert = |key: u32, spec: Spec| {
        tell.send(Change::Insert(key, spec)).expect("the driver lives");
        tell.send(Change::Synced).expect("the driver lives");
    };
    insert(0, spec(0));
    all_up(&balance, 1).await;
    make.store(true, SeqCst);
    insert(1, spec(1));
    insert(0, spec(100));
    rest().await;
    make.store(false, SeqCst);
    compare.store(true, SeqCst);
    insert(0, spec(0).weight(2));
    rest().await;
    compare.store(false, SeqCst);
    insert(0, spec(0).weight(13));
    insert(2, spec(2).weight(13));
    insert(3, spec(3));
    all_up(&balance, 2).await;
    balance.load(2, 20).await.assert_no_errors();
    // One that has to be made anew while the maker panics is tried again.
    make.store(true, SeqCst);
    world.ready(3, Ready::Fails);
    balance.load(1, 20).await.assert_no_errors();
    tokio::time::sleep(secs(20)).await;
    make.store(false, SeqCst);
    world.ready(3, Ready::Yes);
    all_up(&balance, 2).await;
}

#[tokio::test(start_paused = true)]
async fn law_11_a_service_that_panics_when_asked_whether_it_is_ready_costs_nobody_else() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.ready(2, Ready::Panics);
    rig.insert(2, spec(2));
    rest().await;
    rig.insert(3, spec(3));
    until("the next is up", || {
        balance.all().iter().any(|view| view.key == 3 && view.standing == Standing::Up)
    })
    .await;
    // Nor one that panics later.
    rig.world.ready(0, Ready::Panics);
    for _ in 0..20 {
        drop(std::panic::AssertUnwindSafe(balance.get()).catch_unwind().await);
    }
    assert!(balance.all().iter().all(|view| view.pending == 0));
    rig.world.ready(0, Ready::Yes);
    balance.load(2, 20).await.assert_no_errors();
}
