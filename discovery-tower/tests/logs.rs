//! What a balancer logs: each change of state once, with the endpoint and why, and nothing of calls.

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use discovery_core::{Change, SourceError};
use discovery_tower::balance::{
    AnyCall, Balance, Builder, Ejection, LeastPending, Outcome, Seeded, SlowStart, Standing,
};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::sleep;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{Service, ServiceExt as _};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// The lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Those since the last time.
    fn take(&self) -> Vec<String> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8(std::mem::take(&mut *bytes)).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Which endpoints fail calls, and which cannot be connected to.
type Bad = Arc<Mutex<(BTreeSet<usize>, BTreeSet<usize>)>>;

#[derive(Clone)]
struct Stub(usize, Bad);

impl Service<()> for Stub {
    type Response = ();
    type Error = SourceError;
    type Future = Ready<Result<(), SourceError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SourceError>> {
        let refuses = self.1.lock().unwrap().1.contains(&self.0);
        Poll::Ready(if refuses { Err(SourceError::new("refused")) } else { Ok(()) })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let fails = self.1.lock().unwrap().0.contains(&self.0);
        ready(if fails { Err(SourceError::new("failed")) } else { Ok(()) })
    }
}

type Bal = Balance<usize, (), Stub, (), LeastPending>;

async fn calls(balance: &Bal, count: usize) {
    for _ in 0..count {
        // Some fail.
        drop(balance.clone().oneshot(()).await);
    }
    sleep(Duration::from_millis(1)).await;
}

type Told = tokio::sync::mpsc::UnboundedSender<Change<usize, ()>>;

/// What is logged on this thread.
fn lines() -> (Lines, DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(lines.clone())
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .finish();
    let here = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    (lines, here)
}

/// A balancer that is told what there is, who is bad, and what is logged.
fn logged() -> (Bal, Told, Bad, Lines, DefaultGuard) {
    let (lines, here) = lines();
    let bad = Bad::default();
    let (tell, changes) = unbounded_channel();
    let made_bad = bad.clone();
    let balance =
        Builder::new(UnboundedReceiverStream::new(changes), move |key: &usize, _: &Arc<()>| {
            Stub(*key, made_bad.clone())
        })
        .policy(LeastPending::new())
        .entropy(Seeded::new(1))
        .slow_start(SlowStart::none())
        .ejection(Ejection::default().success_rate(None))
        .named("orders")
        .spawn::<Stub, (), ()>();
    (balance, tell, bad, lines, here)
}

#[tokio::test(start_paused = true)]
async fn each_change_of_state_is_logged_once_and_calls_are_not() {
    let (balance, tell, bad, lines, _here) = logged();
    bad.lock().unwrap().1.insert(9);
    for key in 0..10 {
        tell.send(Change::Insert(key, ())).unwrap();
    }
    tell.send(Change::Synced).unwrap();

    // It is tried again and again.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(lines.take(), ["WARN endpoint cannot be used endpoint=9 error=refused"]);
    bad.lock().unwrap().1.clear();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(lines.take(), ["INFO endpoint is ready again endpoint=9"]);

    calls(&balance, 1_000).await;
    assert!(lines.take().is_empty());
    bad.lock().unwrap().0.insert(3);
    calls(&balance, 1_000).await;
    let out = "WARN endpoint is left out for failing endpoint=3 why=Consecutive times=1 time=30s";
    assert_eq!(lines.take(), [out]);
    bad.lock().unwrap().0.clear();
    sleep(Duration::from_secs(31)).await;
    assert!(lines.take().is_empty(), "it is on probation");
    calls(&balance, 1_000).await;
    assert_eq!(lines.take(), ["INFO endpoint is used again endpoint=3"]);

    bad.lock().unwrap().0.extend(0..10);
    calls(&balance, 1_000).await;
    let all = lines.take();
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(all[0].starts_with("WARN endpoint is left out for failing endpoint="), "{}", all[0]);
    let panic = "WARN so many endpoints fail that all are used service=\"orders\" bad=6 all=10";
    assert_eq!(all[1], panic);
    bad.lock().unwrap().0.clear();
    calls(&balance, 1_000).await;
    sleep(Duration::from_secs(11)).await;
    let over = "INFO endpoints that fail are left out again service=\"orders\" bad=1 all=10";
    assert_eq!(lines.take(), [over]);

    drop(tell);
    sleep(Duration::from_secs(1)).await;
    let ended = "INFO the source has ended; the endpoints stay as they are service=\"orders\"";
    assert_eq!(lines.take(), [ended]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_and_goes_is_logged_no_more_until_it_stays() {
    let (balance, tell, bad, lines, _here) = logged();
    tell.send(Change::Insert(9, ())).unwrap();
    tell.send(Change::Synced).unwrap();
    sleep(Duration::from_secs(1)).await;
    let down = "WARN endpoint cannot be used endpoint=9 error=refused";
    let back = "INFO endpoint is ready again endpoint=9";
    let flaps = "WARN endpoint comes and goes; it is told again when it has stayed endpoint=9 error=refused";
    let flap = async || {
        bad.lock().unwrap().1.insert(9);
        calls(&balance, 1).await;
        bad.lock().unwrap().1.clear();
        sleep(Duration::from_secs(6)).await;
    };
    for expected in [&[down, back][..], &[flaps]].into_iter().chain([&[][..]; 50]) {
        flap().await;
        assert_eq!(lines.take(), expected);
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(lines.take(), [back]);
    flap().await;
    assert_eq!(lines.take(), [down, back]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_its_source_takes_and_gives_is_logged_at_most_once_an_interval() {
    let (_balance, tell, bad, lines, _here) = logged();
    bad.lock().unwrap().1.insert(9);
    for _ in 0..300 {
        tell.send(Change::Insert(9, ())).unwrap();
        tell.send(Change::Synced).unwrap();
        sleep(Duration::from_millis(200)).await;
        tell.send(Change::Remove(9)).unwrap();
        tell.send(Change::Synced).unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    // Two minutes, which have twelve intervals.
    let told = lines.take();
    assert!((1..=13).contains(&told.len()), "{told:#?}");
}

/// Panics when it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shy;

impl fmt::Debug for Shy {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("it was told to panic")
    }
}

impl fmt::Display for Shy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Shy {}

/// Is ready when it may be.
#[derive(Clone)]
struct Opens(Arc<AtomicBool>);

impl Service<()> for Opens {
    type Response = ();
    type Error = Shy;
    type Future = Ready<Result<(), Shy>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Shy>> {
        Poll::Ready(if self.0.load(SeqCst) { Ok(()) } else { Err(Shy) })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_when_it_is_logged_ends_nothing() {
    let (lines, _here) = lines();
    let open = Arc::new(AtomicBool::new(false));
    let service = Opens(open.clone());
    let changes = tokio_stream::iter([Change::Insert(Shy, ()), Change::Synced]);
    let balance =
        Builder::new(changes, move |_: &Shy, _: &Arc<()>| service.clone()).spawn::<Opens, (), ()>();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        lines.take().last().unwrap(),
        "WARN endpoint cannot be used endpoint=(a panic) error=(a panic)"
    );
    open.store(true, SeqCst);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(lines.take(), ["INFO endpoint is ready again endpoint=(a panic)"]);
    assert!(balance.endpoints().iter().all(|view| view.standing == Standing::Up));
    assert!(balance.oneshot(()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_only_endpoint_that_is_overloaded_again_and_again_is_not_logged() {
    let (lines, _here) = lines();
    let changes = tokio_stream::iter([Change::Insert(0, ()), Change::Synced]);
    let busy = |_: Result<&(), &SourceError>| Outcome::Overloaded { retry_after: None };
    let balance = Builder::new(changes, move |_: &usize, _: &Arc<()>| Stub(0, Bad::default()))
        .protocol(AnyCall::judged_by(busy))
        .spawn::<Stub, (), ()>();
    sleep(Duration::from_secs(1)).await;
    lines.take();
    for _ in 0..60 {
        assert!(balance.clone().oneshot(()).await.is_ok());
        sleep(Duration::from_secs(2)).await;
    }
    assert!(lines.take().is_empty());
}
