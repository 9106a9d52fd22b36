//! Laws 9 and 10: response and error tell who served; what is counted is shared by all clones.

use discovery_tower::balance::LeastPending;
use futures::FutureExt as _;

use crate::support::{Answer, Rig, Use as _, failure, ms, rest, spec, until};

#[tokio::test(start_paused = true)]
async fn law_09_a_response_and_an_error_tell_who_served() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    // Keys that are not the addresses.
    rig.begin((0..3).map(|i| (100 + i, spec(i))));
    until("they are there", || balance.all().len() == 3).await;
    rig.world.answer(2, Answer::Fails);
    let mut seen = [0; 3];
    for _ in 0..60 {
        match balance.get().await {
            Ok(served) => {
                assert_eq!(*served.endpoint(), 100 + *served.get_ref());
                seen[*served.get_ref() as usize] += 1;
            }
            Err(error) => {
                assert_eq!(error.endpoint(), Some(&102));
                assert_eq!(error.to_string(), "it failed", "the error is the endpoint's own");
                assert!(error.downcast_ref::<crate::support::Told>().is_some());
                seen[2] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn law_09_so_it_does_after_the_request_came_back_from_others() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::GivesBack);
    rig.world.answer(1, Answer::GivesBack);
    assert_eq!(*balance.get().await.unwrap().endpoint(), 2);
    rig.world.answer(2, Answer::Fails);
    assert_eq!(failure(balance.get().await).endpoint(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn law_10_all_clones_know_of_all_calls() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::ByHand);
    // Two calls through one clone: one at each.
    let other = balance.clone();
    let mut calls: Vec<_> = (0..2).map(|_| Box::pin(other.get())).collect();
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
    assert_eq!((rig.world.under_way(0), rig.world.under_way(1)), (1, 1));
    // The first of them ends; whoever calls next through whichever clone goes there.
    rig.world.reply(0, Ok(()));
    rest().await;
    calls.retain_mut(|call| call.now_or_never().is_none());
    for _ in 0..20 {
        let clone = balance.clone();
        let mut call = Box::pin(clone.get());
        assert!((&mut call).now_or_never().is_none());
        assert_eq!((rig.world.under_way(0), rig.world.under_way(1)), (1, 1));
        drop(call);
    }
    assert_eq!(balance.view(1).pending, other.view(1).pending);
    assert_eq!(balance.view(1).pending, 1);
}

#[tokio::test(start_paused = true)]
async fn law_10_fifty_clones_balance_as_well_as_one() {
    let (rig, balance) = Rig::serving_as(10, |b| b.policy(LeastPending::new())).await;
    rig.world.answer_all(0..10, Answer::About(ms(20)));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move { balance.load(1, 100).await.assert_no_errors() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Fifty calls at ten endpoints: with counts of their own some would have twice their part.
    let most = (0..10).map(|key| rig.world.most_under_way(key)).max().unwrap_or(0);
    assert!(most <= 6, "{most} at one of them at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn law_10_counts_are_right_when_calls_begin_and_end_on_many_threads() {
    let (rig, balance) = {
        let (rig, builder) = Rig::new();
        let balance = builder.spawn();
        rig.begin((0..4).map(|key| (key, spec(key))));
        while balance.all().len() < 4 {
            tokio::task::yield_now().await;
        }
        (rig, balance)
    };
    rig.world.answer(3, Answer::Fails);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move { balance.load(8, 2_000).await.errors.len() })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        failed += task.await.unwrap();
    }
    let all = balance.all();
    assert!(all.iter().all(|view| view.pending == 0), "{all:?}");
    let counted: u64 = all.iter().map(|view| view.failures).sum();
    let ended: u64 = all.iter().map(|view| view.successes + view.failures).sum();
    assert_eq!((counted, ended), (failed as u64, 16_000));
}
