//! Law 7: weights are honoured at every load, and changed live.

use discovery_tower::balance::{CallError, Ejection, LeastPending, PeakEwma, Policy, Unavailable};

use crate::support::{
    Answer, Bal, Request, Rig, Spec, Use as _, all_up, failure, ms, rest, spec, until,
};

const CALLS: usize = 20_000;

/// Endpoints of these weights, which take as long as chance has it.
async fn weighted<P: Policy<Request, u32, Spec>>(weights: &[u32], policy: P) -> (Rig, Bal<P>) {
    let (rig, balance) = there(weights, policy).await;
    all_up(&balance, weights.len()).await;
    (rig, balance)
}

async fn there<P: Policy<Request, u32, Spec>>(weights: &[u32], policy: P) -> (Rig, Bal<P>) {
    let (rig, builder) = Rig::new();
    // Chance alone is not to put anybody out.
    let balance = builder.policy(policy).ejection(Ejection::never()).spawn();
    let keyed = || (0..).zip(weights).map(|(key, &weight)| (key, spec(key).weight(weight)));
    keyed().for_each(|(key, _)| rig.world.answer(key, Answer::About(ms(10))));
    rig.begin(keyed());
    until("they are there", || balance.all().len() == weights.len()).await;
    (rig, balance)
}

async fn shares_follow_weights<P, F>(policy: F)
where
    P: Policy<Request, u32, Spec>,
    F: Fn() -> P,
{
    for in_flight in [1, 8, 64] {
        let (_rig, balance) = weighted(&[4, 2, 1, 1], policy()).await;
        let tally = balance.load(in_flight, CALLS).await;
        tally.assert_no_errors();
        tally.assert_shares(&[0.5, 0.25, 0.125, 0.125], 0.03);
        let (_rig, balance) = weighted(&[198, 1, 1], policy()).await;
        let tally = balance.load(in_flight, CALLS).await;
        tally.assert_no_errors();
        tally.assert_shares(&[0.99, 0.005, 0.005], 0.012);
        assert!(tally.of(1) > 20 && tally.of(2) > 20, "nobody starves: {tally:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn law_07_shares_follow_weights_at_every_load_with_least_pending() {
    shares_follow_weights(LeastPending::new).await;
}

#[tokio::test(start_paused = true)]
async fn law_07_shares_follow_weights_at_every_load_with_peak_ewma() {
    shares_follow_weights(PeakEwma::new).await;
}

#[tokio::test(start_paused = true)]
async fn law_07_equal_weights_give_equal_shares_at_every_load() {
    // Up to 32 all are compared, above that two are drawn.
    for count in [4, 32, 33, 100] {
        for in_flight in [1, 64] {
            let fair = 1.0 / count as f64;
            let (rig, balance) = weighted(&vec![3; count], PeakEwma::new()).await;
            // All alike: what it has to say about those that are slower now and then is not asked here.
            (0..).take(count).for_each(|key| rig.world.answer(key, Answer::After(ms(10))));
            let tally = balance.load(in_flight, CALLS).await;
            tally.assert_no_errors();
            tally.assert_shares(&vec![fair; count], fair * 0.4);
            let (_rig, balance) = weighted(&vec![3; count], LeastPending::new()).await;
            let tally = balance.load(in_flight, CALLS).await;
            tally.assert_no_errors();
            tally.assert_shares(&vec![fair; count], fair * 0.4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_07_weights_are_changed_live_and_zero_drains() {
    let (rig, balance) = weighted(&[1, 1, 1], LeastPending::new()).await;
    balance.load(8, CALLS).await.assert_shares(&[1.0 / 3.0; 3], 0.03);
    rig.insert(0, spec(0).weight(6));
    until("it is told", || balance.view(0).weight == 6).await;
    balance.load(8, CALLS).await.assert_shares(&[0.75, 0.125, 0.125], 0.05);
    rig.insert(1, spec(1).weight(0));
    until("it is told", || balance.view(1).weight == 0).await;
    let before = rig.world.called(1);
    balance.load(8, CALLS).await.assert_shares(&[6.0 / 7.0, 0.0, 1.0 / 7.0], 0.05);
    assert_eq!(rig.world.called(1), before, "not one call");
    rig.insert(1, spec(1).weight(7));
    until("it is told", || balance.view(1).weight == 7).await;
    rest().await;
    balance.load(8, CALLS).await.assert_shares(&[6.0 / 14.0, 0.5, 1.0 / 14.0], 0.05);
    assert!((0..3).all(|key| rig.world.made(key) == 1), "and no service was made for it");
}

#[tokio::test(start_paused = true)]
async fn law_07_all_weights_zero_is_an_error_and_no_panic() {
    let (rig, balance) = there(&[0, 0], PeakEwma::new()).await;
    let error = failure(balance.get().await);
    assert!(
        matches!(error, CallError::Unavailable { reason: Unavailable::Weightless, .. }),
        "{error}"
    );
    rig.insert(1, spec(1).weight(1));
    until("it is told", || balance.view(1).weight == 1).await;
    assert_eq!(*balance.get().await.unwrap().endpoint(), 1);
}

#[tokio::test(start_paused = true)]
async fn law_07_weights_of_all_sizes_are_honoured() {
    let (_rig, balance) =
        weighted(&[u32::MAX, u32::MAX, u32::MAX / 2, 1], LeastPending::new()).await;
    let tally = balance.load(64, CALLS).await;
    tally.assert_no_errors();
    tally.assert_shares(&[0.4, 0.4, 0.2, 0.0], 0.03);
}

#[tokio::test(start_paused = true)]
async fn law_07_weights_hold_in_large_sets_too() {
    // More than a piece of the published list, and changed in the midst of it.
    let weights: Vec<u32> = (0..600).map(|i| 1 + i % 3).collect();
    let (rig, balance) = weighted(&weights, LeastPending::new()).await;
    for key in 200..400 {
        rig.insert(key, spec(key).weight(0));
    }
    for key in (0..600).step_by(50) {
        rig.remove(key);
    }
    until("it is told", || balance.all().len() == 588 && balance.view(399).weight == 0).await;
    let tally = balance.load(64, 60_000).await;
    tally.assert_no_errors();
    let (mut by_weight, mut sum) = ([0_usize; 4], [0_usize; 4]);
    for (key, weight) in (0..).zip(weights).filter(|(key, _)| !(200..400).contains(key)) {
        if key % 50 == 0 {
            assert_eq!(tally.of(key), 0);
        } else {
            by_weight[weight as usize] += tally.of(key);
            sum[weight as usize] += weight as usize;
        }
    }
    assert_eq!(by_weight.iter().sum::<usize>(), 60_000);
    let total: usize = sum.iter().sum();
    for weight in 1..4 {
        let (is, wanted) = (by_weight[weight] as f64 / 60_000.0, sum[weight] as f64 / total as f64);
        assert!((is - wanted).abs() < 0.02, "weight {weight}: {is}, not {wanted}");
    }
}
