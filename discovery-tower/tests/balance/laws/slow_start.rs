//! Law 8: an endpoint that is new among others comes to its share little by little.

use discovery_core::{Change, Publisher};
use discovery_tower::balance::{
    Builder, LeastPending, PeakEwma, Policy, Seeded, SlowStart, Standing,
};
use tokio::time::Instant;

use crate::support::{
    Answer, Bal, ReadsAll, Request, Rig, Spec, Use, World, all_up, ms, secs, spec, until,
};

async fn a_newcomer_ramps_up<P: Policy<Request, u32, Spec>>(policy: P, in_flight: usize) {
    let (rig, balance) = Rig::serving_as(3, |b| b.policy(policy)).await;
    rig.world.answer_all(0..4, Answer::About(ms(10)));
    balance.load(in_flight, 3_000).await.assert_no_errors();
    rig.insert(3, spec(3));
    all_up(&balance, 4).await;
    let begun = Instant::now();
    assert!((balance.view(3).ramp - 0.1).abs() < 0.02, "{}", balance.view(3).ramp);
    let fair = 1.0 / 31.0;
    // For about a second.
    let tally = balance.load(in_flight, 100 * in_flight).await;
    assert!(tally.share(3) < fair + 0.04, "begins with {}", tally.share(3));
    tokio::time::sleep_until(begun + secs(15)).await;
    let half = balance.view(3).ramp;
    assert!((half - 0.5).abs() < 0.03, "half way {half}");
    let tally = balance.load(in_flight, 200 * in_flight).await;
    let share = tally.share(3);
    assert!((0.08..0.21).contains(&share), "half way it has {share}");
    tokio::time::sleep_until(begun + secs(31)).await;
    assert!((balance.view(3).ramp - 1.0).abs() < 1e-9);
    let tally = balance.load(in_flight, 8_000).await;
    tally.assert_shares(&[0.25; 4], 0.05);
}

#[tokio::test(start_paused = true)]
async fn law_08_one_that_is_new_among_others_begins_at_a_tenth_and_reaches_its_share() {
    a_newcomer_ramps_up(LeastPending::new(), 8).await;
}

#[tokio::test(start_paused = true)]
async fn law_08_so_it_does_with_the_default_policy() {
    a_newcomer_ramps_up(PeakEwma::new(), 8).await;
}

#[tokio::test(start_paused = true)]
async fn law_08_one_that_is_new_costs_no_more_than_its_peers() {
    let (rig, balance) = Rig::serving_as(3, |b| b.slow_start(SlowStart::none())).await;
    rig.world.answer_all(0..4, Answer::After(ms(500)));
    balance.load(6, 200).await.assert_no_errors();
    rig.insert(3, spec(3));
    all_up(&balance, 4).await;
    let (new, old) = (balance.view(3).cost, balance.view(0).cost);
    assert!((new - old).abs() < 1e-9, "{new} beside {old}");
    let tally = balance.load(8, 800).await;
    tally.assert_shares(&[0.25; 4], 0.05);
}

/// All that are up have their full share.
fn nobody_ramps(balance: &impl Use) {
    for view in balance.all() {
        assert!((view.ramp - 1.0).abs() < 1e-9, "{view:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_08_the_first_set_has_no_slow_start_however_slowly_it_connects() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    (0..4).for_each(|key| rig.world.ready(key, crate::support::Ready::Pending));
    rig.begin((0..4).map(|key| (key, spec(key))));
    for key in 0..4 {
        rig.world.ready(key, crate::support::Ready::Yes);
        until("it is up", || {
            balance.all().len() == 4 && balance.view(key).standing == Standing::Up
        })
        .await;
        nobody_ramps(&balance);
        tokio::time::sleep(secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn law_08_a_set_that_is_replaced_as_a_whole_has_no_slow_start_whatever_is_told_first() {
    for removed_first in [true, false] {
        let (rig, balance) = Rig::serving(4).await;
        let remove = || (0..4).for_each(|key| rig.tell(Change::Remove(key)));
        if removed_first {
            remove();
        }
        (10..14).for_each(|key| rig.tell(Change::Insert(key, spec(key))));
        if !removed_first {
            remove();
        }
        rig.tell(Change::Synced);
        until("they are there", || balance.all().iter().all(|view| view.key >= 10)).await;
        all_up(&balance, 4).await;
        nobody_ramps(&balance);
    }
}

#[tokio::test(start_paused = true)]
async fn law_08_nor_has_one_that_is_replaced_before_the_new_ones_have_connected() {
    let (rig, balance) = Rig::serving(3).await;
    (10..13).for_each(|key| rig.world.ready(key, crate::support::Ready::Pending));
    (10..13).for_each(|key| rig.tell(Change::Insert(key, spec(key))));
    (0..3).for_each(|key| rig.tell(Change::Remove(key)));
    rig.tell(Change::Synced);
    until("they are there", || balance.all().iter().all(|view| view.key >= 10)).await;
    for key in 10..13 {
        rig.world.ready(key, crate::support::Ready::Yes);
        until("it is up", || balance.view(key).standing == Standing::Up).await;
        nobody_ramps(&balance);
    }
}

#[tokio::test(start_paused = true)]
async fn law_08_a_large_set_is_replaced_whole_by_a_source_without_slow_start_and_never_empty() {
    // More than the driver takes in at a time; a publisher tells the new ones first.
    for size in [256_u32, 300, 1_000] {
        let mut source: Publisher<u32, Spec> = Publisher::new();
        let world = World::new();
        let hosts = world.clone();
        let maker = move |_: &u32, spec: &std::sync::Arc<Spec>| hosts.connect(spec.address);
        let balance: Bal<PeakEwma> = Builder::new(source.subscribe(), maker)
            .protocol(ReadsAll::default())
            .entropy(Seeded::new(1))
            .spawn();
        source.replace((0..size).map(|key| (key, spec(key))), None);
        all_up(&balance, size as usize).await;
        source.replace((size..2 * size).map(|key| (key, spec(key))), None);
        // The driver has a turn between two of these calls.
        balance.load(1, 100).await.assert_no_errors();
        all_up(&balance, size as usize).await;
        assert!(balance.all().iter().all(|view| view.key >= size));
        nobody_ramps(&balance);
    }
}

#[tokio::test(start_paused = true)]
async fn law_08_a_large_set_whose_removals_come_first_is_never_seen_empty() {
    let (rig, balance) = Rig::serving(256).await;
    (0..256).for_each(|key| rig.tell(Change::Remove(key)));
    (256..600).for_each(|key| rig.tell(Change::Insert(key, spec(key))));
    rig.tell(Change::Synced);
    let tally = balance.load(1, 50).await;
    tally.assert_no_errors();
    all_up(&balance, 344).await;
    nobody_ramps(&balance);
}

#[tokio::test(start_paused = true)]
async fn law_08_those_that_are_left_when_the_old_ones_go_do_not_wait_for_their_share() {
    let (rig, balance) = Rig::serving(2).await;
    rig.begin([(2, spec(2)), (3, spec(3))]);
    all_up(&balance, 4).await;
    assert!(balance.view(2).ramp < 0.2);
    rig.tell(Change::Remove(0));
    rig.remove(1);
    all_up(&balance, 2).await;
    nobody_ramps(&balance);
}

#[tokio::test(start_paused = true)]
async fn law_08_slow_start_can_be_set_and_left_out() {
    let window = SlowStart::default().over(secs(4), 50);
    let (rig, balance) = Rig::serving_as(2, |b| b.slow_start(window)).await;
    rig.insert(2, spec(2));
    all_up(&balance, 3).await;
    assert!((balance.view(2).ramp - 0.5).abs() < 0.02);
    tokio::time::sleep(secs(5)).await;
    nobody_ramps(&balance);
    let (rig, balance) = Rig::serving_as(2, |b| b.slow_start(SlowStart::none())).await;
    rig.insert(2, spec(2));
    all_up(&balance, 3).await;
    nobody_ramps(&balance);
}
