//! What runs beside the calls: it follows the source, gets services ready, judges endpoints, and
//! publishes the set. It goes on while nobody calls, and whatever state the source is in.

mod books;
mod departed;
mod entries;
mod entry;
mod judging;
mod lists;
mod placing;
mod readying;
mod retrying;
mod slow_start;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use discovery_core::Change;
use futures_channel::mpsc::UnboundedReceiver;
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{error, info};

pub(crate) use books::Rules;
use books::{Books, Made};
use retrying::Due;
pub use slow_start::SlowStart;

use super::attributes::Attributes;
use super::error::share;
use super::flight::guarded;
use super::hub::{Event, later};
use super::logged::Logged;
use super::observe::Telling;
use super::parts::Parts;
use super::policy::Policy as _;
use super::settle::Readying;
use super::shared::Shared;
use crate::MakeEndpoint;

/// How much of each kind is done before others have a turn.
const BUDGET: usize = 256;
/// How many turns a batch of changes may take before what is known of it by then is published.
const BATCH: usize = 1_024;
/// How often those in their slow start are given more.
const RAMP: Duration = Duration::from_millis(500);

pin_project! {
    /// What runs beside the calls of a [`Balance`](super::Balance): a future that has to be polled for
    /// the balancer to follow its source. It ends when the last handle is dropped; dropped before,
    /// calls go on among the endpoints as they were.
    ///
    /// It never blocks, and does a bounded amount of work before it lets others run.
    #[must_use = "without it the balancer learns of no endpoint"]
    pub struct Driver<T: Parts, D, M> {
        #[pin]
        changes: Option<D>,
        make: Make<T, M>,
        books: Books<T>,
        readying: FuturesUnordered<Readying<T>>,
        events: UnboundedReceiver<Event<T>>,
        shared: Weak<Shared<T>>,
        sweep_at: Instant,
        ramp_at: Option<Instant>,
        // How many turns the present batch of changes has taken.
        turns: usize,
        telling: Telling,
        #[pin]
        sleep: Sleep,
    }
}

/// Makes services, and reads what endpoints say of themselves.
pub(crate) struct Make<T: Parts, M> {
    maker: M,
    describe: Describing<T>,
}

pub(crate) type Describing<T> =
    Box<dyn Fn(&<T as Parts>::Key, &<T as Parts>::Endpoint) -> Attributes + Send>;

impl<T: Parts, D, M> Driver<T, D, M> {
    pub(crate) fn new(
        changes: D,
        maker: M,
        describe: Describing<T>,
        rules: Rules,
        events: UnboundedReceiver<Event<T>>,
        shared: &Arc<Shared<T>>,
    ) -> Self {
        let books = Books::new(shared.hub.clone(), rules);
        let sweep_at = later(Instant::now(), books.interval());
        Self {
            changes: Some(changes),
            make: Make { maker, describe },
            books,
            readying: FuturesUnordered::new(),
            events,
            shared: Arc::downgrade(shared),
            sweep_at,
            ramp_at: None,
            turns: 0,
            telling: Telling::default(),
            sleep: sleep_until(sweep_at),
        }
    }
}

impl<T, M> Make<T, M>
where
    T: Parts,
    M: MakeEndpoint<T::Key, T::Endpoint, Service = T::Service>,
{
    fn apply<V>(&mut self, change: Change<T::Key, V>, books: &mut Books<T>, now: Instant)
    where
        V: Into<Arc<T::Endpoint>>,
    {
        match change {
            Change::Insert(key, endpoint) => self.insert(key, endpoint.into(), books, now),
            Change::Remove(key) => books.remove(&key),
            Change::Synced => books.set_loaded(),
            _ => {}
        }
    }

    fn insert(
        &mut self,
        key: T::Key,
        endpoint: Arc<T::Endpoint>,
        books: &mut Books<T>,
        now: Instant,
    ) {
        let Some(attributes) = guarded(|| (self.describe)(&key, &endpoint)) else {
            error!(endpoint = ?Logged(&key), "what an endpoint says of itself cannot be read: a panic");
            return;
        };
        let Some(made_for) = books.made_for(&key) else {
            if let Some(made) = self.make(&key, &endpoint, books) {
                books.insert(key, endpoint, made, attributes, now);
            }
            return;
        };
        books.update(&key, &endpoint, attributes);
        let serves = guarded(|| self.maker.still_serves(&key, &made_for, &endpoint));
        if serves.is_none() {
            error!(endpoint = ?Logged(&key), "the maker of services panicked; the endpoint keeps its own");
        }
        if serves == Some(false)
            && let Some(made) = self.make(&key, &endpoint, books)
        {
            books.replace(&key, endpoint, made);
        }
    }

    fn retry(&mut self, due: Due<T>, books: &mut Books<T>, now: Instant) {
        match self.make(&due.key, &due.endpoint, books) {
            Some(made) => books.retry(due, made),
            None => books.retry_later(due, share("no service could be made: a panic"), now),
        }
    }

    fn make(
        &mut self,
        key: &T::Key,
        endpoint: &Arc<T::Endpoint>,
        books: &Books<T>,
    ) -> Option<Made<T>> {
        let made = guarded(|| Made {
            service: self.maker.make(key, endpoint),
            load: books.hub.policy.load(),
        });
        if made.is_none() {
            error!(endpoint = ?Logged(key), "the maker of services or the policy panicked over an endpoint");
        }
        made
    }
}

impl<T, D, M, V> Future for Driver<T, D, M>
where
    T: Parts,
    D: Stream<Item = Change<T::Key, V>>,
    V: Into<Arc<T::Endpoint>>,
    M: MakeEndpoint<T::Key, T::Endpoint, Service = T::Service>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let books = this.books;
        books.hub.register_driver(cx.waker());
        if books.hub.is_closed() {
            return Poll::Ready(());
        }
        let now = Instant::now();
        let mut more = false;

        let mut left = BUDGET;
        while let Poll::Ready(Some(event)) = this.events.poll_next_unpin(cx) {
            match event {
                Event::Struck(endpoint, enough) => books.struck(&endpoint, enough, now),
                Event::Passed(endpoint) => books.passed(&endpoint),
                Event::Overloaded(endpoint, time) => books.overloaded(&endpoint, time, now),
                Event::Unready(endpoint, cause) => books.broken(&endpoint, cause, now),
            }
            left -= 1;
            if left == 0 {
                more = true;
                break;
            }
        }

        let mut left = BUDGET;
        let mut whole = true;
        while let Some(changes) = this.changes.as_mut().as_pin_mut() {
            let Some(polled) = guarded(|| changes.poll_next(cx)) else {
                error!(
                    service = books.hub.name().as_deref(),
                    "the source panicked; the endpoints stay as they are"
                );
                this.changes.set(None);
                whole = true;
                break;
            };
            match polled {
                Poll::Ready(Some(change)) => {
                    whole = matches!(change, Change::Synced);
                    this.make.apply(change, books, now);
                }
                Poll::Ready(None) => {
                    // It said all it had to say; what it said last stays.
                    info!(
                        service = books.hub.name().as_deref(),
                        "the source has ended; the endpoints stay as they are"
                    );
                    this.changes.set(None);
                    books.set_loaded();
                    whole = true;
                }
                Poll::Pending => break,
            }
            left -= 1;
            if left == 0 {
                more = true;
                break;
            }
        }
        if !whole && *this.turns < BATCH {
            // In the middle of a batch there may be nobody, which the source never said. A stream that
            // is pending there may only have used up its turn; if not, the next turn brings no change.
            *this.turns += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        *this.turns = 0;

        for due in books.due(now) {
            this.make.retry(due, books, now);
        }
        if now >= *this.sweep_at {
            books.sweep(now);
            *this.sweep_at = later(now, books.interval());
        }
        if books.hub.take_review() {
            let at = books.hub.at(now);
            let hub = books.hub.clone();
            guarded(|| hub.policy.review(books.members(), at));
        }

        // Most services are ready at once; the others are waited for.
        for mut readying in std::mem::take(&mut books.to_ready) {
            if !books.awaits(&readying) {
                continue;
            }
            let mut quick = Context::from_waker(Waker::noop());
            match Pin::new(&mut readying).poll(&mut quick) {
                Poll::Ready((endpoint, ready)) => {
                    books.readied(&endpoint, ready.map(drop), now);
                }
                Poll::Pending => this.readying.push(readying),
            }
        }
        let mut left = BUDGET;
        loop {
            if books.take_abandoned() {
                // One that hangs would else be held for good.
                let kept = std::mem::take(this.readying).into_iter();
                *this.readying = kept.filter(|readying| books.awaits(readying)).collect();
            }
            let Poll::Ready(Some((endpoint, ready))) = this.readying.poll_next_unpin(cx) else {
                break;
            };
            books.readied(&endpoint, ready.map(drop), now);
            left -= 1;
            if left == 0 {
                more = true;
                break;
            }
        }

        if books.is_ramping() {
            if this.ramp_at.is_none_or(|at| now >= at) {
                books.ramp(now);
                *this.ramp_at = Some(now + RAMP);
            }
        } else {
            *this.ramp_at = None;
        }

        let Some(shared) = this.shared.upgrade() else { return Poll::Ready(()) };
        let former = shared.snapshot.load();
        let (mut panic, mut published) = (former.panic, false);
        if let Some(snapshot) = books.publish(&former) {
            drop(former);
            (panic, published) = (snapshot.panic, true);
            shared.snapshot.store(Arc::new(snapshot));
            shared.published.notify_waiters();
        }
        let (seen, status) = (&books.hub.seen, shared.status.as_ref());
        this.telling.tell(seen, now, published, books.members(), panic, status);

        let times = [Some(*this.sweep_at), *this.ramp_at, books.next_due(), this.telling.next()];
        let next = times.into_iter().flatten().min();
        if let Some(next) = next
            && this.sleep.deadline() != next
        {
            this.sleep.as_mut().reset(next);
        }
        if more || this.sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<T: Parts, D, M> fmt::Debug for Driver<T, D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}
