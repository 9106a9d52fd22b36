//! The pool itself: carries out what the [state](super::state) decides.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use discovery_core::{Address, InstanceKey};
use http_body::Body;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use super::config::{HttpVersion, PoolConfig};
use super::connection::Connection;
use super::dial::dial;
use super::failure::Failure;
use super::lease::Lease;
use super::state::{Asked, Limits, State, Step};
use crate::http::target::Target;

/// To a caller that waits.
pub(super) type Answer<B> = Result<Lease<B>, Failure>;

/// The connections to one instance. The clones of an endpoint hold it; connections, those who use
/// them, and the tasks here do not, so that it ends with the last clone.
pub(super) struct Pool<B> {
    pub(super) target: Arc<Target>,
    pub(super) config: PoolConfig,
    pub(super) protocol: HttpVersion,
    state: Mutex<State<Connection<B>, oneshot::Sender<Answer<B>>>>,
    /// Set before anything is started.
    runner: OnceLock<Runner<B>>,
    reaper: Mutex<Option<AbortHandle>>,
}

/// Starts a task that makes a connection. It is stored, so that whoever drops a lease need not know
/// what a body is made of.
struct Runner<B> {
    runtime: Handle,
    connect: fn(&Arc<Pool<B>>, &Handle, u64),
    /// Waits for the end of an exchange.
    end: fn(&Handle, Lease<B>),
    reap: fn(&Arc<Pool<B>>, &Handle) -> AbortHandle,
}

/// What a caller that asks for a connection is told.
pub(super) enum Reserved<B> {
    Have(Lease<B>),
    Failed(Failure),
    Wait(u64, oneshot::Receiver<Answer<B>>),
}

impl<B> Pool<B> {
    pub(super) fn new(key: InstanceKey, address: Address, config: PoolConfig) -> Arc<Self> {
        let protocol = match address.scheme() {
            "grpc" | "grpcs" => HttpVersion::Http2,
            _ => config.protocol,
        };
        let shared = protocol == HttpVersion::Http2;
        let limits = Limits {
            max_connections: if shared { 1 } else { config.max_connections.max(1) },
            max_idle: config.max_idle,
            idle_timeout: config.idle_timeout,
        };
        Arc::new(Self {
            target: Arc::new(Target::new(key, address)),
            config,
            protocol,
            state: Mutex::new(State::new(shared, limits)),
            runner: OnceLock::new(),
            reaper: Mutex::new(None),
        })
    }

    /// Gives a connection back.
    pub(super) fn put(self: &Arc<Self>, connection: Connection<B>) {
        self.lock().put(connection, Instant::now());
        self.settle();
    }

    /// Gives a connection up.
    pub(super) fn discard(self: &Arc<Self>, connection: Connection<B>) {
        self.lock().discard(&connection, Instant::now());
        drop(connection);
        self.settle();
    }

    /// Has the connection come back when the exchange on it is over.
    pub(super) fn await_end(&self, lease: Lease<B>) {
        if let Some(runner) = self.runner.get() {
            (runner.end)(&runner.runtime, lease);
        }
    }

    /// A new connection has served a request.
    pub(super) fn served(self: &Arc<Self>) {
        self.lock().served();
        self.settle();
    }

    /// Some connection was closed, or takes more requests.
    pub(super) fn changed(self: &Arc<Self>) {
        self.lock().sweep();
        self.settle();
    }

    /// A caller does not want to wait any longer.
    pub(super) fn leave(&self, number: u64) {
        self.lock().leave(number);
    }

    /// A connection was made.
    fn made(self: &Arc<Self>, connection: Connection<B>) {
        self.lock().made(connection, Instant::now());
        self.settle();
    }

    /// An attempt came to nothing.
    fn failed(self: &Arc<Self>, period: u64, failure: &Failure) {
        let waiter = self.lock().failed(period, failure.clone(), Instant::now());
        if let Some(waiter) = waiter {
            // One that went away meanwhile need not know.
            let _ = waiter.send(Err(failure.clone()));
        }
        self.settle();
    }

    /// Does what there is to do. No lock is held while others are woken.
    fn settle(self: &Arc<Self>) {
        let Some(runner) = self.runner.get() else { return };
        loop {
            let step = self.lock().next(Instant::now());
            match step {
                Some(Step::Give(waiter, connection)) => {
                    let lease = Lease::new(Arc::downgrade(self), connection);
                    if let Err(Ok(lease)) = waiter.send(Ok(lease))
                        && let Some(connection) = lease.into_connection()
                    {
                        self.lock().put(connection, Instant::now());
                    }
                }
                Some(Step::Fail(waiters, failure)) => {
                    for waiter in waiters {
                        let _ = waiter.send(Err(failure.clone()));
                    }
                }
                Some(Step::Connect(period)) => (runner.connect)(self, &runner.runtime, period),
                None => break,
            }
        }
        self.reap(runner);
    }

    /// Sees to it that connections expire, if there are any that can.
    fn reap(self: &Arc<Self>, runner: &Runner<B>) {
        let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        if reaper.as_ref().is_some_and(|reaper| !reaper.is_finished()) {
            return;
        }
        if self.lock().expires(Instant::now()).is_some() {
            *reaper = Some((runner.reap)(self, &runner.runtime));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Connection<B>, oneshot::Sender<Answer<B>>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Asks for a connection.
    pub(super) fn reserve(self: &Arc<Self>) -> Reserved<B> {
        if !self.config.open.supports(self.target.address.scheme()) {
            return Reserved::Failed(Failure::unsupported(self.target.unsupported()));
        }
        if self.runner.get().is_none() {
            let Ok(runtime) = Handle::try_current() else {
                return Reserved::Failed(Failure::connect("there is no tokio runtime here"));
            };
            let _ = self.runner.set(Runner::new(runtime));
        }
        let mut receiver = None;
        let asked = self.lock().ask(Instant::now(), || {
            let (sender, waiting) = oneshot::channel();
            receiver = Some(waiting);
            sender
        });
        match (asked, receiver) {
            (Asked::Wait(number), Some(receiver)) => {
                self.settle();
                Reserved::Wait(number, receiver)
            }
            (Asked::Have(connection), _) => {
                Reserved::Have(Lease::new(Arc::downgrade(self), connection))
            }
            (Asked::Failed(failure), _) => Reserved::Failed(failure),
            (Asked::Wait(_), None) => Reserved::Failed(Failure::connect("nothing to wait for")),
        }
    }
}

impl<B> Runner<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            connect: |pool, runtime, period| {
                let attempt = Attempt { pool: Arc::downgrade(pool), period, open: true };
                let (target, config) = (pool.target.clone(), pool.config.clone());
                let protocol = pool.protocol;
                runtime.spawn(async move {
                    let pool = attempt.pool.clone();
                    let dialled = dial(pool, &target.address, protocol, &config, period).await;
                    attempt.end(dialled);
                });
            },
            end: |runtime, lease| drop(runtime.spawn(lease.ended())),
            reap: |pool, runtime| runtime.spawn(reap(Arc::downgrade(pool))).abort_handle(),
        }
    }
}

/// Lets connections expire, until there is none.
async fn reap<B>(pool: Weak<Pool<B>>) {
    loop {
        let next = match pool.upgrade() {
            Some(pool) => pool.lock().expire(Instant::now()),
            None => return,
        };
        match next {
            Some(next) => sleep_until(next).await,
            None => return,
        }
    }
}

/// A connection that is being made. It is accounted for, also when its task is dropped.
struct Attempt<B> {
    pool: Weak<Pool<B>>,
    period: u64,
    open: bool,
}

impl<B> Attempt<B> {
    fn end(mut self, dialled: Result<Connection<B>, Failure>) {
        self.open = false;
        let Some(pool) = self.pool.upgrade() else { return };
        match dialled {
            Ok(connection) => pool.made(connection),
            Err(failure) => pool.failed(self.period, &failure),
        }
    }
}

impl<B> Drop for Attempt<B> {
    fn drop(&mut self) {
        if self.open
            && let Some(pool) = self.pool.upgrade()
        {
            pool.failed(self.period, &Failure::connect("the runtime was shut down"));
        }
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        let reaper = self.reaper.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reaper) = reaper {
            reaper.abort();
        }
    }
}

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, waiting) = self.lock().counts();
        f.debug_struct("Pool")
            .field("key", &self.target.key)
            .field("address", &self.target.address)
            .field("protocol", &self.protocol)
            .field("connections", &connections)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
