//! Hosts that endpoint services reach, and that do as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use discovery_tower::balance::{Entropy as _, Seeded};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tower::Service;

/// A request like one with a streaming body: it can be neither cloned nor shared.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) avoids: Vec<u32>,
    _not_shared: std::marker::PhantomData<std::cell::Cell<()>>,
}

impl Request {
    pub(crate) fn plain() -> Self {
        Self::default()
    }

    pub(crate) fn numbered(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(crate) fn avoiding(avoids: impl AsRef<[u32]>) -> Self {
        Self { avoids: avoids.as_ref().to_vec(), ..Self::default() }
    }
}

/// What `poll_ready` of a host's services says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ready {
    Yes,
    Pending,
    Fails,
    Panics,
}

/// What becomes of a call to a host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    AtOnce,
    After(Duration),
    /// As long as chance has it.
    About(Duration),
    Fails,
    FailsAfter(Duration),
    GivesBack,
    Overloaded(Option<Duration>),
    Never,
    /// When the test says so.
    ByHand,
    Panics,
}

/// What a host fails with, and the request if that came back unsent.
#[derive(Debug)]
pub(crate) enum HostError {
    Unready,
    Failed,
    Overloaded(Option<Duration>),
    Unsent(Option<Request>),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unready => "connection refused",
            Self::Failed => "it failed",
            Self::Overloaded(_) => "too busy",
            Self::Unsent(_) => "not sent",
        })
    }
}

// A request is not `Sync`, and an error has to be: it is gone before this is shared.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Told {}

impl From<HostError> for tower::BoxError {
    fn from(error: HostError) -> Self {
        Box::new(Told(error.to_string()))
    }
}

type Reply = Result<(), HostError>;

struct Host {
    ready: Ready,
    answer: Answer,
    wakers: Vec<Waker>,
    made: usize,
    called: usize,
    under_way: usize,
    most_under_way: usize,
    by_hand: VecDeque<oneshot::Sender<Reply>>,
    last_number: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            ready: Ready::Yes,
            answer: Answer::AtOnce,
            wakers: Vec::new(),
            made: 0,
            called: 0,
            under_way: 0,
            most_under_way: 0,
            by_hand: VecDeque::new(),
            last_number: 0,
        }
    }
}

/// All hosts, by their address.
#[derive(Clone)]
pub(crate) struct World(Arc<Inside>);

struct Inside {
    hosts: Mutex<BTreeMap<u32, Host>>,
    /// Services and clones of them that are not dropped.
    alive: AtomicUsize,
    chance: Seeded,
    /// Who was called, in order.
    log: Mutex<Vec<u32>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inside {
            hosts: Mutex::default(),
            alive: AtomicUsize::new(0),
            chance: Seeded::new(77),
            log: Mutex::default(),
        }))
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<u32, Host>> {
        self.0.hosts.lock().unwrap()
    }

    fn host<R>(&self, address: u32, look: impl FnOnce(&mut Host) -> R) -> R {
        look(self.hosts().entry(address).or_default())
    }

    /// From now on its services say this when they are asked whether they are ready.
    pub(crate) fn ready(&self, address: u32, ready: Ready) {
        let wakers = self.host(address, |host| {
            host.ready = ready;
            std::mem::take(&mut host.wakers)
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// From now on it answers calls like this.
    pub(crate) fn answer(&self, address: u32, answer: Answer) {
        self.host(address, |host| host.answer = answer);
    }

    pub(crate) fn answer_all(&self, addresses: std::ops::Range<u32>, answer: Answer) {
        addresses.for_each(|address| self.answer(address, answer));
    }

    /// Ends the oldest of the calls that are answered by hand.
    #[track_caller]
    pub(crate) fn reply(&self, address: u32, reply: Reply) {
        let waiting = self.host(address, |host| host.by_hand.pop_front());
        drop(waiting.expect("a call that waits for its answer").send(reply));
    }

    /// How many services were made for it.
    pub(crate) fn made(&self, address: u32) -> usize {
        self.host(address, |host| host.made)
    }

    pub(crate) fn called(&self, address: u32) -> usize {
        self.host(address, |host| host.called)
    }

    pub(crate) fn under_way(&self, address: u32) -> usize {
        self.host(address, |host| host.under_way)
    }

    /// How many calls were under way at a time, at most, since this was asked last.
    pub(crate) fn most_under_way(&self, address: u32) -> usize {
        self.host(address, |host| std::mem::take(&mut host.most_under_way))
    }

    pub(crate) fn last_number(&self, address: u32) -> u64 {
        self.host(address, |host| host.last_number)
    }

    /// How many services and clones of them live.
    pub(crate) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }

    /// Who was called, in order, since this was asked last.
    pub(crate) fn take_log(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.log.lock().unwrap())
    }

    /// A service that reaches this host.
    pub(crate) fn connect(&self, address: u32) -> Scripted {
        self.host(address, |host| host.made += 1);
        Scripted { address, alive: Alive::new(self) }
    }

    fn some_time(&self, mean: Duration) -> Duration {
        let part = (self.0.chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(-(1.0 - part).ln())
    }
}

struct Alive(World);

impl Alive {
    fn new(world: &World) -> Self {
        world.0.alive.fetch_add(1, Ordering::SeqCst);
        Self(world.clone())
    }
}

impl Clone for Alive {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A service that reaches a host.
#[derive(Clone)]
pub(crate) struct Scripted {
    address: u32,
    alive: Alive,
}

/// A call counts as under way as long as this lives.
struct UnderWay(World, u32);

impl UnderWay {
    fn new(world: &World, address: u32) -> Self {
        world.host(address, |host| {
            host.under_way += 1;
            host.most_under_way = host.most_under_way.max(host.under_way);
        });
        Self(world.clone(), address)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.host(self.1, |host| host.under_way -= 1);
    }
}

impl Service<Request> for Scripted {
    type Response = u32;
    type Error = HostError;
    type Future = Pin<Box<dyn Future<Output = Result<u32, HostError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HostError>> {
        let ready = self.alive.0.host(self.address, |host| {
            if host.ready == Ready::Pending {
                host.wakers.push(cx.waker().clone());
            }
            host.ready
        });
        match ready {
            Ready::Yes => Poll::Ready(Ok(())),
            Ready::Pending => Poll::Pending,
            Ready::Fails => Poll::Ready(Err(HostError::Unready)),
            Ready::Panics => panic!("poll_ready was told to panic"),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (world, address) = (self.alive.0.clone(), self.address);
        let number = request.number;
        let (answer, reply) = world.host(address, |host| {
            assert_eq!(host.ready, Ready::Yes, "called without being ready");
            host.called += 1;
            host.last_number = number;
            let (answered, reply) = oneshot::channel();
            if host.answer == Answer::ByHand {
                host.by_hand.push_back(answered);
            }
            (host.answer, reply)
        });
        world.0.log.lock().unwrap().push(address);
        let under_way = UnderWay::new(&world, address);
        // What a real connection's future holds.
        let alive = self.alive.clone();
        Box::pin(async move {
            let (_under_way, _alive) = (under_way, alive);
            match answer {
                Answer::AtOnce => {}
                Answer::After(time) => sleep(time).await,
                Answer::About(mean) => sleep(world.some_time(mean)).await,
                Answer::Fails => return Err(HostError::Failed),
                Answer::FailsAfter(time) => {
                    sleep(time).await;
                    return Err(HostError::Failed);
                }
                Answer::GivesBack => {
                    // A round trip, so that nobody goes round and round within one poll.
                    tokio::task::yield_now().await;
                    return Err(HostError::Unsent(Some(request)));
                }
                Answer::Overloaded(time) => return Err(HostError::Overloaded(time)),
                Answer::Never => pending().await,
                Answer::ByHand => reply.await.unwrap_or(Err(HostError::Failed))?,
                Answer::Panics => poll_fn(|_| panic!("the call was told to panic")).await,
            }
            Ok(address)
        })
    }
}
