//! The way to the store and what goes wrong on it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::store::{Sent, Store};
use crate::wire::{
    Connect, Found, GuardedPut, Heard, Keys, Kind, List, Page, PutReply, Result, WatchStream, Wire,
    WireError,
};

/// How often requests go wrong, of all; each in a way of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Lost, refused, or answered late or never.
    pub(crate) trouble: f64,
    /// Refused for lack of permission.
    pub(crate) denied: f64,
    /// Grants and puts refused for lack of space.
    pub(crate) busy: f64,
    /// What is written has to wait until this is over; what is read has not.
    pub(crate) slow: bool,
    /// Nothing is answered, whatever it is.
    pub(crate) away: bool,
}

/// The longest that a request may be on its way, in either direction.
pub(crate) const LATEST: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Well,
    /// Nothing comes through, and nobody says so.
    Stalled,
    Dead,
}

struct Connection {
    life: watch::Sender<Life>,
}

struct Inner {
    store: Store,
    faults: Faults,
    connections: BTreeMap<usize, Connection>,
    made: usize,
    /// How often somebody tried to make one.
    attempts: usize,
    /// How many streams of watches there ever were.
    streams: usize,
    /// How many whole lists were asked for.
    lists: usize,
    rng: StdRng,
}

/// An etcd of three members that share one store.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Inner>>);

/// What becomes of a request.
struct Fate {
    before: Duration,
    applied: bool,
    after: Duration,
    /// The answer is its own, this error, or (`Err`) none.
    answer: std::result::Result<Option<Kind>, ()>,
}

fn failed(kind: Kind) -> WireError {
    WireError::new(kind, "ask", "fake", "a fault of the test")
}

impl Fake {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let fake = Self(Arc::new(Mutex::new(Inner {
            store: Store::new(StdRng::from_rng(&mut rng)),
            faults: Faults::default(),
            connections: BTreeMap::new(),
            made: 0,
            attempts: 0,
            streams: 0,
            lists: 0,
            rng,
        })));
        let etcd = Arc::downgrade(&fake.0);
        tokio::spawn(async move {
            while let Some(inner) = etcd.upgrade() {
                Fake(inner).lock().store.expire();
                sleep(Duration::from_millis(500)).await;
            }
        });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the store itself.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        work(&mut self.lock().store)
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// How many connections were made, and how many whole lists were asked for.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.made, inner.lists)
    }

    /// How often somebody tried to connect.
    pub(crate) fn attempts(&self) -> usize {
        self.lock().attempts
    }

    /// How many streams of watches were made.
    pub(crate) fn streams(&self) -> usize {
        self.lock().streams
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.lock().connections.values().filter(|one| one.life.receiver_count() > 0).count()
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        for (_, connection) in std::mem::take(&mut self.lock().connections) {
            connection.life.send_replace(Life::Dead);
        }
    }

    /// Stalls all connections: some go on later, the others are found to be dead in the end, as
    /// HTTP/2 pings would.
    pub(crate) fn stall(&self) {
        let mut inner = self.lock();
        let (recovers, after) = (inner.rng.random(), inner.rng.random_range(500..15_000));
        for connection in inner.connections.values() {
            let life = connection.life.clone();
            life.send_replace(Life::Stalled);
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                let next = if recovers { Life::Well } else { Life::Dead };
                life.send_if_modified(|life| {
                    let stalled = *life == Life::Stalled;
                    if stalled {
                        *life = next;
                    }
                    stalled
                });
            });
        }
    }

    /// Stalls all connections, until they [go on](Self::resume).
    pub(crate) fn hang(&self) {
        for connection in self.lock().connections.values() {
            connection.life.send_replace(Life::Stalled);
        }
    }

    /// Those that are stalled go on.
    pub(crate) fn resume(&self) {
        for connection in self.lock().connections.values() {
            connection.life.send_replace(Life::Well);
        }
    }

    /// All data is lost.
    pub(crate) fn wipe(&self) {
        self.lock().store.wipe();
        self.cut();
    }

    /// etcd is stopped and started on its data.
    pub(crate) fn restart(&self) {
        self.lock().store.restart();
        self.cut();
    }

    fn fate(&self, writes: bool) -> Fate {
        let mut inner = self.lock();
        let faults = inner.faults;
        let rng = &mut inner.rng;
        let ms = Duration::from_millis;
        let (before, after) = (ms(rng.random_range(0..5)), ms(rng.random_range(0..5)));
        let fate = |applied, answer| Fate { before, applied, after, answer };
        if faults.away {
            return fate(false, Err(()));
        }
        if rng.random_bool(faults.denied) {
            return fate(false, Ok(Some(Kind::Denied)));
        }
        if writes && rng.random_bool(faults.busy) {
            return fate(false, Ok(Some(Kind::Busy)));
        }
        if !rng.random_bool(faults.trouble) {
            return fate(true, Ok(None));
        }
        let late = LATEST.mul_f64(rng.random());
        match rng.random_range(0..6) {
            0 => fate(false, Err(())),
            1 => fate(true, Err(())),
            2 => fate(false, Ok(Some(Kind::Unreachable))),
            3 => fate(true, Ok(Some(Kind::Unreachable))),
            4 => Fate { before: late, ..fate(true, Ok(None)) },
            _ => Fate { after: late, ..fate(true, Ok(None)) },
        }
    }

    /// Sends a request and waits for the answer. The request goes on without who asked.
    async fn ask<T: Send + 'static>(
        &self,
        life: &watch::Receiver<Life>,
        writes: bool,
        apply: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let fate = self.fate(writes);
        let (answer, answered) = oneshot::channel();
        let (etcd, sent_over) = (self.clone(), life.clone());
        tokio::spawn(async move {
            sleep(fate.before).await;
            // Over a dead connection only what was sent before it died may arrive.
            let lost = *sent_over.borrow() != Life::Well && etcd.lock().rng.random();
            let mut result = Err(failed(Kind::Unreachable));
            if fate.applied && !lost {
                result = apply(&mut etcd.lock());
            }
            sleep(fate.after).await;
            let _ = match fate.answer {
                Ok(None) if lost => return,
                Ok(None) => answer.send(result),
                Ok(Some(kind)) => answer.send(Err(failed(kind))),
                Err(()) => return,
            };
        });
        let came = async {
            let Ok(result) = answered.await else { return pending().await };
            well(life).await;
            result
        };
        tokio::select! {
            biased;
            () = dead(life) => Err(failed(Kind::Unreachable)),
            result = came => result,
        }
    }
}

async fn dead(life: &watch::Receiver<Life>) {
    if life.clone().wait_for(|life| *life == Life::Dead).await.is_err() {
        pending::<()>().await;
    }
}

async fn well(life: &watch::Receiver<Life>) {
    if life.clone().wait_for(|life| *life == Life::Well).await.is_err() {
        pending::<()>().await;
    }
}

impl Connect for Fake {
    type Wire = FakeWire;

    async fn connect(&self, endpoint: &str) -> Result<FakeWire> {
        assert!(["a", "b", "c"].contains(&endpoint));
        self.lock().attempts += 1;
        let (_alive, life) = watch::channel(Life::Well);
        let life = self
            .ask(&life, false, |inner| {
                inner.made += 1;
                let (life, living) = watch::channel(Life::Well);
                inner.connections.insert(inner.made, Connection { life });
                Ok(living)
            })
            .await?;
        Ok(FakeWire { etcd: self.clone(), life, tokens: Arc::default() })
    }
}

#[derive(Clone)]
pub(crate) struct FakeWire {
    etcd: Fake,
    life: watch::Receiver<Life>,
    tokens: Arc<AtomicU64>,
}

impl FakeWire {
    /// While writes are slow.
    async fn slow(&self) {
        while self.etcd.lock().faults.slow {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        writes: bool,
        apply: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.etcd.ask(&self.life, writes, move |inner| apply(&mut inner.store)).await
    }
}

impl Wire for FakeWire {
    type Stream = FakeStream;

    fn endpoint(&self) -> Arc<str> {
        "fake".into()
    }

    fn stream(&self) -> FakeStream {
        let (to, from) = mpsc::unbounded_channel();
        self.etcd.lock().streams += 1;
        FakeStream { wire: self.clone(), to, from, creating: false, next: None, probed: None }
    }

    async fn refresh(&self) -> Result<()> {
        self.ask(false, |_| Ok(())).await?;
        self.tokens.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    async fn members(&self) -> Result<Vec<String>> {
        self.ask(false, |_| Ok(["b", "c"].map(str::to_owned).to_vec())).await
    }

    async fn list(&self, list: List) -> Result<Page> {
        if list.at.is_none() && !list.keys_only {
            self.etcd.lock().lists += 1;
        }
        self.ask(false, move |store| store.list(&list)).await
    }

    async fn count(&self, _: &Keys) -> Result<i64> {
        self.ask(false, move |store| Ok(store.get(b"").revision)).await
    }

    async fn get(&self, key: &[u8]) -> Result<Found> {
        let key = key.to_vec();
        self.ask(false, move |store| Ok(store.get(&key))).await
    }

    async fn put(&self, put: GuardedPut) -> Result<PutReply> {
        self.slow().await;
        self.ask(true, move |store| store.put(put)).await
    }

    async fn grant(&self, lease: i64, ttl: Duration) -> Result<Duration> {
        self.slow().await;
        self.ask(true, move |store| store.grant(lease, ttl)).await
    }

    async fn granted_ttl(&self, lease: i64) -> Result<Option<Duration>> {
        self.ask(false, move |store| Ok(store.granted_ttl(lease))).await
    }

    async fn renew(&self, lease: i64) -> Result<()> {
        self.slow().await;
        self.ask(false, move |store| store.renew(lease)).await
    }

    async fn revoke(&self, lease: i64) -> Result<()> {
        self.slow().await;
        self.ask(false, move |store| store.revoke(lease)).await
    }
}

/// The stream of all watches of a connection.
pub(crate) struct FakeStream {
    wire: FakeWire,
    to: mpsc::UnboundedSender<Sent>,
    from: UnboundedReceiver<Sent>,
    /// A watch was asked for and is not answered yet.
    creating: bool,
    /// On its way.
    next: Option<Sent>,
    probed: Option<Instant>,
}

impl WatchStream for FakeStream {
    fn create(&mut self, id: i64, keys: Keys) {
        assert!(!self.creating, "two at a time: which one is refused?");
        self.creating = true;
        let denied = {
            let mut inner = self.wire.etcd.lock();
            let denied = inner.faults.denied;
            inner.rng.random_bool(denied)
        };
        let (wire, to) = (self.wire.clone(), self.to.clone());
        tokio::spawn(async move {
            let stream = to.clone();
            let asked = wire.ask(false, move |store| {
                store.watch(id, keys, to, denied);
                Ok(())
            });
            tokio::select! {
                _ = asked => {}
                // Nobody waits for the answer any more.
                () = stream.closed() => {}
            }
        });
    }

    fn cancel(&mut self, id: i64) {
        let etcd = &self.wire.etcd;
        etcd.with(|store| store.cancel(id, &self.to));
    }

    fn probe(&mut self) {
        if self.wire.etcd.with(|store| store.answers_probes) {
            self.probed = Some(Instant::now() + Duration::from_millis(1));
        }
    }

    async fn next(&mut self) -> Result<Heard> {
        let life = &self.wire.life;
        let arrived = async {
            if self.next.is_none() {
                self.next = self.from.recv().await;
            }
            let at = self.next.as_ref().map_or_else(Instant::now, |(at, _)| *at);
            sleep_until(at).await;
            well(life).await;
        };
        let probed = self.probed;
        let answered = async move {
            let Some(at) = probed else { return pending().await };
            sleep_until(at).await;
            well(life).await;
        };
        tokio::select! {
            biased;
            () = dead(life) => return Err(failed(Kind::Unreachable)),
            () = arrived => {}
            () = answered => {
                self.probed = None;
                return Ok(Heard::Progress);
            }
        }
        let heard = self.next.take().map(|(_, message)| message);
        if let Some(Heard::Created { .. } | Heard::Refused(_)) = heard {
            self.creating = false;
        }
        heard.ok_or_else(|| failed(Kind::Unreachable))
    }
}
