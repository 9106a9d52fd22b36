//! Endpoints that leave and come back.

use discovery_tower::balance::Standing;

use crate::support::{Answer, Request, Rig, Use, all_up, ms, rest, secs, spec, until};

#[tokio::test(start_paused = true)]
async fn one_that_fails_and_comes_and_goes_is_left_out_as_if_it_had_stayed() {
    let (rig, balance) = Rig::serving(3).await;
    rig.world.answer(0, Answer::Fails);
    // Never five times in a row while it is there.
    for visit in 0..40_usize {
        balance.load(4, 60).await;
        if visit == 0 {
            let _ = balance.ask(Request::avoiding([1, 2])).await;
        }
        rig.remove(0);
        until("it is gone", || balance.all().len() == 2).await;
        tokio::time::sleep(ms(100)).await;
        rig.insert(0, spec(0));
        until("it is back", || balance.all().len() == 3).await;
        tokio::time::sleep(ms(100)).await;
    }
    // Five in a row, and those that were under way meanwhile.
    let called = rig.world.called(0);
    assert!((5..=8).contains(&called), "asked {called} times");
    assert_eq!(balance.view(0).standing, Standing::Ejected);

    // Its time is over while it is away: it has a few calls to serve one at a time.
    rig.remove(0);
    until("it is gone", || balance.all().len() == 2).await;
    tokio::time::sleep(secs(31)).await;
    rig.insert(0, spec(0));
    until("it is on probation", || {
        balance.all().iter().any(|view| view.standing == Standing::Probation)
    })
    .await;
    // And much later nothing is held against it.
    rig.remove(0);
    until("it is gone", || balance.all().len() == 2).await;
    tokio::time::sleep(secs(30)).await;
    rig.world.answer(0, Answer::AtOnce);
    rig.insert(0, spec(0));
    all_up(&balance, 3).await;
    rest().await;
}
