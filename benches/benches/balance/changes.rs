//! What the driver takes for changes: polled by hand, as the runtime does, so that nothing else is in
//! it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use discovery_benches::{Pairs, Report, Row, cpu, is_measuring, number, percent, percentile, time};
use discovery_core::Change;
use discovery_tower::balance::{Builder, LeastPending};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use tokio::runtime;
use tower::Service as _;
use tower::balance::p2c;
use tower::discover;

use crate::Outcome;
use crate::subject::{NoOp, Nothing, Ours, Pending, usable, with_pending};

const ROUNDS: usize = 15;
const MANY: usize = 100_000;

type One = Change<usize, Arc<()>>;

pub(crate) fn run() -> Outcome<Report> {
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    let guard = runtime.enter();
    let mut report = Report::new("Changes, the driver's time", "ours", "against");
    let (rounds, many) = if is_measuring() { (ROUNDS, MANY) } else { (1, 1_000) };
    let mut pairs = Pairs::default();
    for _ in 0..rounds {
        pairs.push(inserted(many), inserted_in_tower(many));
    }
    let what = format!("{many} inserted until the last can be picked / tower");
    report.add(Row::times(what, &pairs, Some(0.7)));
    for (count, goal) in [(many / 10, 5e-6), (many, 20e-6)] {
        let mut subject = Subject::with(count);
        let mut tower = Tower::with(count);
        let (mut took, mut beside) = (Vec::new(), Pairs::default());
        for _ in 0..rounds * 4 {
            let (ours, theirs) = (subject.change(), tower.change());
            took.push(ours);
            beside.push(ours, theirs);
        }
        let what = format!("one change among {count} / the goal");
        report.add(Row::numbers(what, percentile(&took, 50), goal, time, Some(1.0)));
        report.add(Row::times(format!("  the same / tower, of {count}"), &beside, None));
    }
    let burst = f64::from(Subject::with(many / 10).burst(200));
    report.add(Row::numbers("publications of a burst of 200", burst, 1.0, number, Some(1.0)));
    drop(guard);
    let (rounds, time, each) = if is_measuring() { (7, 1_000, 1_000) } else { (1, 100, 10) };
    let time = Duration::from_millis(time);
    let mut used = Pairs::default();
    for _ in 0..rounds {
        used.push(steady(many / 10, time, each)?, steady(0, time, each)?);
    }
    let what = format!("{each} changes a second among {} / 1 % of a core", many / 10);
    report.add(Row::numbers(what, used.ours(), 0.01, percent, Some(1.0)));
    let what = "  the same / a task that only takes them";
    report.add(Row::numbers(what, used.ours(), used.floor(), percent, None));
    Ok(report)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A balancer, and its driver to be polled.
struct Subject {
    balance: Ours<LeastPending>,
    driver: Pin<Box<dyn Future<Output = ()>>>,
    tell: UnboundedSender<One>,
    one: Arc<()>,
    woken: Arc<Woken>,
    waker: Waker,
    count: usize,
    changed: usize,
}

impl Subject {
    /// That knows nothing yet.
    fn new() -> Self {
        let (tell, changes) = unbounded();
        let (balance, driver) = Builder::new(changes, |_: &usize, _: &Arc<()>| NoOp)
            .policy(LeastPending::new())
            .build::<_, u64>();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let (driver, one) = (Box::pin(driver), Arc::new(()));
        Self { balance, driver, tell, one, woken, waker, count: 0, changed: 0 }
    }

    fn with(count: usize) -> Self {
        let mut subject = Self::new();
        subject.insert_all(count);
        subject.run();
        subject
    }

    fn insert_all(&mut self, count: usize) {
        self.count = count;
        (0..count).for_each(|key| self.tell(Change::Insert(key, self.one.clone())));
        self.tell(Change::Synced);
    }

    fn tell(&self, change: One) {
        assert!(self.tell.unbounded_send(change).is_ok(), "the driver is there");
    }

    /// Polls the driver until it has nothing to do, and says how often it published.
    fn run(&mut self) -> u32 {
        let mut published = 0;
        loop {
            let balance = self.balance.clone();
            let mut changed = Box::pin(balance.changed());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(changed.as_mut().poll(&mut cx).is_pending());
            self.woken.0.store(false, Ordering::Relaxed);
            assert!(self.driver.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending());
            published += u32::from(changed.as_mut().poll(&mut cx).is_ready());
            if !self.woken.0.load(Ordering::Relaxed) {
                return published;
            }
        }
    }

    /// Endpoints go and come back, one change at a time: how long one takes.
    fn change(&mut self) -> f64 {
        let times = 100;
        let mut took = Duration::ZERO;
        for _ in 0..times / 2 {
            self.changed += 1;
            // Far apart, and all of them in turn.
            let key = self.changed * 7_919 % self.count;
            for change in [Change::Remove(key), Change::Insert(key, self.one.clone())] {
                self.tell(change);
                let start = Instant::now();
                let polled = self.driver.as_mut().poll(&mut Context::from_waker(&self.waker));
                took += start.elapsed();
                assert!(polled.is_pending());
            }
        }
        took.as_secs_f64() / f64::from(times)
    }

    /// How many publications so many changes at once are.
    fn burst(mut self, changes: usize) -> u32 {
        (0..changes).for_each(|key| self.tell(Change::Insert(self.count + key, self.one.clone())));
        let published = self.run();
        assert_eq!(usable(&self.balance), self.count + changes);
        published
    }
}

/// How long until so many endpoints can be picked, for each of them.
fn inserted(count: usize) -> f64 {
    let mut subject = Subject::new();
    subject.insert_all(count);
    let start = Instant::now();
    loop {
        subject.woken.0.store(false, Ordering::Relaxed);
        let polled = subject.driver.as_mut().poll(&mut Context::from_waker(&subject.waker));
        assert!(polled.is_pending());
        if !subject.woken.0.load(Ordering::Relaxed) {
            break;
        }
    }
    let took = start.elapsed();
    assert_eq!(usable(&subject.balance), count);
    took.as_secs_f64()
}

type Told = Result<discover::Change<usize, Pending>, Nothing>;

struct Tower {
    balance: p2c::Balance<futures::channel::mpsc::UnboundedReceiver<Told>, u64>,
    tell: UnboundedSender<Told>,
    count: usize,
    changed: usize,
}

impl Tower {
    fn with(count: usize) -> Self {
        let mut tower = Self::told(count);
        tower.poll();
        tower
    }

    /// That was told of so many, and has not looked.
    fn told(count: usize) -> Self {
        let (tell, changes) = unbounded();
        let tower = Self { balance: p2c::Balance::new(changes), tell, count, changed: 0 };
        (0..count).for_each(|key| tower.tell(discover::Change::Insert(key, with_pending())));
        tower
    }

    fn tell(&self, change: discover::Change<usize, Pending>) {
        assert!(self.tell.unbounded_send(Ok(change)).is_ok(), "the balancer is there");
    }

    fn poll(&mut self) {
        let polled = self.balance.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(()))), "all are ready");
    }

    fn change(&mut self) -> f64 {
        let times = 100;
        let mut took = Duration::ZERO;
        for _ in 0..times / 2 {
            self.changed += 1;
            let key = self.changed * 7_919 % self.count;
            for change in
                [discover::Change::Remove(key), discover::Change::Insert(key, with_pending())]
            {
                self.tell(change);
                let start = Instant::now();
                self.poll();
                took += start.elapsed();
            }
        }
        took.as_secs_f64() / f64::from(times)
    }
}

fn inserted_in_tower(count: usize) -> f64 {
    let mut tower = Tower::told(count);
    let start = Instant::now();
    tower.poll();
    let took = start.elapsed();
    assert_eq!(tower.balance.len(), count);
    took.as_secs_f64()
}

/// What part of a processor the driver's thread takes while changes come one by one, `each` a second:
/// waking up and all else that belongs to it. Without endpoints, a task that only takes them.
fn steady(count: usize, time: Duration, each: u32) -> Outcome<f64> {
    const THREAD: &str = "driver";
    let (tell, changes) = unbounded::<One>();
    let (done, wait) = futures::channel::oneshot::channel::<()>();
    let one = Arc::new(());
    let send = |change| tell.unbounded_send(change).map_err(|error| error.to_string());
    (0..count).try_for_each(|key| send(Change::Insert(key, one.clone())))?;
    send(Change::Synced)?;
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new().name(THREAD.into()).spawn(move || {
        runtime.block_on(async move {
            if count == 0 {
                tokio::spawn(futures::StreamExt::for_each(changes, |_| async {}));
                let _ = wait.await;
                return;
            }
            let _balance = Builder::new(changes, |_: &usize, _: &Arc<()>| NoOp)
                .policy(LeastPending::new())
                .spawn::<_, u64, _>();
            let _ = wait.await;
        });
    })?;
    thread::sleep(time / 5);
    let (start, before) = (Instant::now(), cpu::thread(THREAD)?);
    for step in 0_u32.. {
        let due = start + Duration::from_secs(1) / each * step;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if start.elapsed() >= time {
            break;
        }
        let key = usize::try_from(step / 2)? * 7_919 % count.max(1);
        send(if step % 2 == 0 { Change::Remove(key) } else { Change::Insert(key, one.clone()) })?;
    }
    let used =
        cpu::thread(THREAD)?.saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64();
    drop(done);
    thread.join().map_err(|_| "the driver's thread panicked")?;
    Ok(used)
}
