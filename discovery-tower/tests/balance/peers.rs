//! What goes wrong with the balancers that there are, done to tower's and to ours; where it is another
//! one's than tower's, to ours alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_core::{Change, Publisher, SourceError};
use discovery_tower::balance::{Builder, CallError, LeastPending, PeakEwma, Seeded, Unavailable};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::time::timeout;
use tower::balance::p2c;
use tower::buffer::Buffer;
use tower::discover::Change as Stock;
use tower::load::{CompleteOnResponse, Constant, Load, PeakEwmaDiscover};
use tower::{BoxError, Service, ServiceExt as _};

use crate::support::{
    Answer, Bal, ReadsAll, Ready, Request, Rig, Scripted, Spec, Use as _, World, all_up, failure,
    ms, rest, secs, spec, until,
};

type Told<S> = Result<Stock<u32, S>, BoxError>;

fn same<S>(service: S) -> Constant<S, u32> {
    Constant::new(service, 1)
}

fn ours<D>(changes: D, world: &World) -> Bal<PeakEwma>
where
    D: Stream<Item = Change<u32, Spec>> + Send + 'static,
{
    let world = world.clone();
    Builder::new(changes, move |_: &u32, spec: &Arc<Spec>| world.connect(spec.address))
        .protocol(ReadsAll::default())
        .entropy(Seeded::new(3))
        .spawn()
}

#[tokio::test(start_paused = true)]
async fn peer_a_a_stream_that_ends() {
    let world = World::new();
    let service = same(world.connect(0));
    let once = stream::unfold(Some(service), |service| async {
        Some((Ok::<_, BoxError>(Stock::Insert(0, service?)), None))
    });
    let mut stock = p2c::Balance::new(Box::pin(once));
    let polled = AssertUnwindSafe(async {
        for _ in 0..3 {
            stock.ready().await.unwrap().call(Request::plain()).await.unwrap();
        }
    });
    assert!(polled.catch_unwind().await.is_err(), "tower's polls it after its end");

    let once = stream::unfold(Some(()), |left| async move {
        left.map(|()| (Change::Insert(0, spec(0)), None))
    });
    let balance = ours(once, &world);
    all_up(&balance, 1).await;
    balance.load(1, 10).await.assert_no_errors();
}

#[tokio::test(start_paused = true)]
async fn peer_b_an_error_of_the_source() {
    let world = World::new();
    let told: [Told<_>; 3] = [
        Ok(Stock::Insert(0, same(world.connect(0)))),
        Err("etcd blip".into()),
        Ok(Stock::Insert(1, same(world.connect(1)))),
    ];
    let stock = p2c::Balance::new(stream::iter(told).chain(stream::pending()));
    let stock = Buffer::new(stock, 8);
    for _ in 0..20 {
        let called = stock.clone().oneshot(Request::plain()).await;
        assert!(called.unwrap_err().to_string().contains("etcd blip"), "for ever");
    }

    let mut source: Publisher<u32, Spec> = Publisher::new();
    source.replace([(0, spec(0))], None);
    let changes = source.subscribe();
    let hosts = world.clone();
    let maker = move |_: &u32, spec: &Arc<Spec>| hosts.connect(spec.address);
    let balance: Bal<PeakEwma> =
        Builder::new(changes, maker).protocol(ReadsAll::default()).status(source.status()).spawn();
    all_up(&balance, 1).await;
    source.trouble(SourceError::new("etcd blip"));
    rest().await;
    balance.load(2, 20).await.assert_no_errors();
    source.replace([(0, spec(0)), (1, spec(1))], None);
    all_up(&balance, 2).await;
}

#[tokio::test(start_paused = true)]
async fn peer_c_one_of_four_that_fails_at_once() {
    let (rig, balance) = Rig::serving(4).await;
    rig.world.answer_all(0..3, Answer::After(ms(20)));
    rig.world.answer(3, Answer::Fails);
    let told = (0..4).map(|key| Ok::<_, BoxError>(Stock::Insert(key, rig.world.connect(key))));
    let told = PeakEwmaDiscover::new(
        stream::iter(told.collect::<Vec<_>>()).chain(stream::pending()),
        ms(30),
        secs(10),
        CompleteOnResponse::default(),
    );
    let mut stock = p2c::Balance::new(told);
    let mut failed = 0;
    for _ in 0..5_000 {
        let call = stock.ready().await.unwrap().call(Request::plain());
        failed += usize::from(call.await.is_err());
    }
    assert!(failed > 1_500, "tower's sends it more than its fair part: {failed} of 5000");

    for in_flight in [1, 20] {
        let failed = balance.load(in_flight, 5_000).await.errors.len();
        assert!(failed < 100, "{in_flight} in flight: {failed} of 5000");
    }
}

#[tokio::test(start_paused = true)]
async fn peer_d_an_empty_set() {
    let none = stream::pending::<Told<Constant<Scripted, u32>>>();
    let mut stock = p2c::Balance::<_, Request>::new(none);
    assert!(timeout(secs(3_600), stock.ready()).await.is_err(), "tower's is never ready");

    let balance = ours(stream::iter([Change::Synced]).chain(stream::pending()), &World::new());
    until("it has loaded", || balance.is_loaded()).await;
    let told = balance.get().now_or_never().expect("at once");
    assert!(matches!(failure(told), CallError::NoEndpoints { .. }));
}

#[tokio::test(start_paused = true)]
async fn peer_e_all_weights_are_zero() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.begin((0..3).map(|key| (key, spec(key).weight(0))));
    until("they are there", || balance.all().len() == 3).await;
    let error = failure(balance.get().await);
    let wanted = Unavailable::Weightless;
    assert!(matches!(error, CallError::Unavailable { reason, .. } if reason == wanted), "{error}");
}

/// What a wrapper can do for weights with tower's.
struct Weighed(Scripted, f64);

impl Load for Weighed {
    type Metric = f64;

    fn load(&self) -> f64 {
        1.0 / self.1
    }
}

impl Service<Request> for Weighed {
    type Response = u32;
    type Error = <Scripted as Service<Request>>::Error;
    type Future = <Scripted as Service<Request>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn peer_f_weights_that_differ_much() {
    let world = World::new();
    let weights = [198, 1, 1];
    let told: Vec<_> = (0_u32..)
        .zip(weights)
        .map(|(key, weight)| {
            Ok::<_, BoxError>(Stock::Insert(key, Weighed(world.connect(key), f64::from(weight))))
        })
        .collect();
    let mut stock = p2c::Balance::new(stream::iter(told).chain(stream::pending()));
    for _ in 0..6_000 {
        stock.ready().await.unwrap().call(Request::plain()).await.unwrap();
    }
    let share = world.called(0) as f64 / 6_000.0;
    assert!(share < 0.7, "tower's cannot give it more than two of three: {share}");

    let (rig, builder) = Rig::new();
    let balance: Bal<LeastPending> = builder.policy(LeastPending::new()).spawn();
    rig.begin((0..).zip(weights).map(|(key, weight)| (key, spec(key).weight(weight))));
    all_up(&balance, 3).await;
    balance.load(1, 20_000).await.assert_shares(&[0.99, 0.005, 0.005], 0.005);
}

#[tokio::test(start_paused = true)]
async fn peer_h_one_that_hangs_while_callers_give_up() {
    let (rig, balance) = Rig::serving(2).await;
    rig.world.answer_all(0..2, Answer::After(ms(100)));
    let mut stock = tower::load::PeakEwma::new(
        rig.world.connect(0),
        ms(100),
        secs(10).as_nanos() as f64,
        CompleteOnResponse::default(),
    );
    for _ in 0..20 {
        stock.ready().await.unwrap().call(Request::plain()).await.unwrap();
    }
    balance.load(2, 40).await.assert_no_errors();
    let (was, cost) = (stock.load(), balance.view(0).cost);
    rig.world.answer(0, Answer::Never);
    for _ in 0..100 {
        let call = stock.ready().await.unwrap().call(Request::plain());
        assert!(timeout(ms(50), call).await.is_err());
    }
    assert!(stock.load() < was, "tower's takes it for faster");

    for _ in 0..100 {
        let call = balance.ask(Request::avoiding([1]));
        assert!(timeout(ms(50), call).await.is_err());
        assert!(balance.view(0).cost >= cost);
    }
    let call = balance.ask(Request::avoiding([1]));
    tokio::pin!(call);
    assert!(timeout(secs(10), &mut call).await.is_err());
    assert!(balance.view(0).cost > cost + 1.0, "{}", balance.view(0).cost);
}

#[tokio::test(start_paused = true)]
async fn peer_k_changes_while_nobody_calls() {
    let world = World::new();
    let (tell, said) = tokio::sync::mpsc::channel::<Told<Constant<Scripted, u32>>>(4);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let _stock = Buffer::<Request, _>::new(p2c::Balance::new(said), 8);
    let mut taken = 0;
    for key in 0..20 {
        let told = tell.send(Ok(Stock::Insert(key, same(world.connect(key)))));
        taken += usize::from(timeout(secs(60), told).await.is_ok());
    }
    assert_eq!(taken, 4, "tower's reads nothing; the channel is full");

    let (tell, said) = tokio::sync::mpsc::channel(4);
    let balance = ours(tokio_stream::wrappers::ReceiverStream::new(said), &world);
    for key in 0..100 {
        let told = tell.send(Change::Insert(key, spec(key)));
        timeout(secs(1), told).await.expect("it reads").expect("it lives");
    }
    all_up(&balance, 100).await;
}

#[tokio::test(start_paused = true)]
async fn peer_l_a_live_key_whose_replacement_is_not_ready_yet() {
    let world = World::new();
    world.ready(100, Ready::Pending);
    let (tell, said) = tokio::sync::mpsc::unbounded_channel::<Told<_>>();
    let said = tokio_stream::wrappers::UnboundedReceiverStream::new(said);
    let mut stock = p2c::Balance::new(said);
    tell.send(Ok(Stock::Insert(0, same(world.connect(0))))).unwrap();
    for _ in 0..2 {
        stock.ready().await.unwrap().call(Request::plain()).await.unwrap();
    }
    tell.send(Ok(Stock::Insert(0, same(world.connect(100))))).unwrap();
    assert!(timeout(secs(60), stock.ready()).await.is_err(), "tower's has nobody meanwhile");

    let (rig, balance) = Rig::serving(1).await;
    rig.world.ready(100, Ready::Pending);
    rig.insert(0, spec(100));
    until("a service is made", || rig.world.made(100) == 1).await;
    for _ in 0..100 {
        assert_eq!(*balance.get().await.expect("the old one serves").get_ref(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_m_what_waits_does_not_spin() {
    struct Counted<F>(F, usize);
    impl<F: Future + Unpin> Future for Counted<F> {
        type Output = F::Output;

        fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            self.1 += 1;
            self.0.poll_unpin(cx)
        }
    }
    let (rig, builder) = Rig::new();
    let (balance, driver) = builder.build();
    let mut driver = Counted(Box::pin(driver), 0);
    rig.begin((0..4).map(|key| (key, spec(key))));
    rig.world.answer(0, Answer::Fails);
    rig.world.ready(3, Ready::Pending);
    let fails = async {
        for _ in 0..5 {
            drop(balance.ask(Request::avoiding([1, 2, 3])).await);
        }
        rest().await;
    };
    tokio::select! {
        () = &mut driver => panic!("the driver has ended"),
        () = fails => {}
    }
    assert!(balance.view(0).ejected_for.is_some());
    let before = driver.1;
    // A call that waits for the one that is not ready, and the driver beside it.
    let mut call = Counted(Box::pin(balance.ask(Request::avoiding([0, 1, 2]))), 0);
    tokio::select! {
        () = &mut driver => panic!("the driver has ended"),
        _ = &mut call => {}
        () = tokio::time::sleep(ms(200)) => {}
    }
    assert!(driver.1 - before < 20, "{} polls of the driver in 200 ms", driver.1 - before);
    assert!(call.1 < 20, "{} polls of the call in 200 ms", call.1);
}

#[tokio::test(start_paused = true)]
async fn peer_n_two_live_and_one_that_refuses() {
    let (rig, builder) = Rig::new();
    let balance = builder.spawn();
    rig.world.ready(2, Ready::Fails);
    rig.begin((0..3).map(|key| (key, spec(key))));
    until("they are there", || balance.all().len() == 3).await;
    for in_flight in [1, 16] {
        let tally = balance.load(in_flight, 3_000).await;
        tally.assert_no_errors();
        assert_eq!(tally.of(2), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_o_the_only_endpoint_is_removed() {
    let world = World::new();
    let told = [Ok::<_, BoxError>(Stock::Insert(0, same(world.connect(0)))), Ok(Stock::Remove(0))];
    let mut stock = p2c::Balance::<_, Request>::new(stream::iter(told).chain(stream::pending()));
    assert!(timeout(secs(60), stock.ready()).await.is_err(), "tower's hangs");

    let (rig, balance) = Rig::serving(1).await;
    rig.remove(0);
    until("it is gone", || balance.all().is_empty()).await;
    let told = balance.get().now_or_never().expect("at once");
    assert!(matches!(failure(told), CallError::NoEndpoints { .. }));
}

#[tokio::test(start_paused = true)]
async fn peer_p_more_than_a_thousand_endpoints() {
    for count in [1_025_u32, 5_000] {
        let (rig, balance) = Rig::serving(count).await;
        balance.load(64, 2_000).await.assert_no_errors();
        (0..count).step_by(2).for_each(|key| rig.tell(Change::Remove(key)));
        rig.tell(Change::Synced);
        all_up(&balance, count as usize / 2).await;
        balance.load(64, 2_000).await.assert_no_errors();
    }
}
