//! The lease that many registrations of a process share: one renewal for all of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::lease::answer_within;
use super::messages::Home;
use crate::backoff::{self, Backoff};
use crate::link::{News, Ticket};
use crate::observe::renewal;
use crate::wire::{Kind, Result, Wire, WireError};

/// What a registration has of the lease; the lease is kept while there is one of these. Who only looks
/// at the news does not keep it, and is told of its end by theirs.
#[derive(Clone, Debug)]
pub(crate) struct Tenancy {
    pub(super) news: watch::Receiver<Option<Home>>,
    lease: Arc<Lent>,
}

impl Tenancy {
    /// A lease was not there: if it was this one, its owner need not wait for the next renewal to find
    /// that out.
    pub(super) fn doubt(&self) {
        self.lease.doubt.notify_one();
    }
}

/// What all uses of the lease have in common.
#[derive(Debug)]
struct Lent {
    news: watch::Receiver<Option<Home>>,
    doubt: Arc<Notify>,
    /// Closed with the last use.
    _used: watch::Receiver<()>,
}

/// Where to find a lease that others use already.
#[derive(Debug)]
pub(crate) struct Shared(Weak<Lent>);

impl Shared {
    pub(crate) fn of(tenancy: &Tenancy) -> Self {
        Self(Arc::downgrade(&tenancy.lease))
    }

    /// The use of the lease, if anybody still uses it.
    pub(crate) fn tenancy(&self) -> Option<Tenancy> {
        let lease = self.0.upgrade()?;
        Some(Tenancy { news: lease.news.clone(), lease })
    }
}

/// How long a grant, a new token or the last revocation may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The owner of the lease.
pub(crate) struct SharedLease<W: Wire> {
    ticket: Ticket<W>,
    ttl: Duration,
    rng: StdRng,
    wire: Option<W>,
    /// The id that was asked for last, and what of it was confirmed.
    id: Option<i64>,
    home: watch::Sender<Option<Home>>,
    used: watch::Sender<()>,
    /// Told when it may be gone.
    doubt: Arc<Notify>,
    backoff: Backoff,
    refreshed: bool,
    /// The trouble that was logged since something went well.
    said: Option<String>,
}

impl<W: Wire> SharedLease<W> {
    /// The owner, to be spawned, and the first use of the lease.
    pub(crate) fn new(ticket: Ticket<W>, ttl: Duration, rng: StdRng) -> (Self, Tenancy) {
        ticket.follow();
        let (home, news) = watch::channel(None);
        let doubt = Arc::new(Notify::new());
        let (used, use_of_it) = watch::channel(());
        let lent = Lent { news: news.clone(), doubt: doubt.clone(), _used: use_of_it };
        let tenancy = Tenancy { lease: Arc::new(lent), news };
        let owner = Self {
            ticket,
            ttl,
            rng,
            wire: None,
            id: None,
            home,
            used,
            doubt,
            backoff: Backoff::default(),
            refreshed: false,
            said: None,
        };
        (owner, tenancy)
    }

    /// Keeps the lease for as long as anybody uses it; then it is revoked.
    pub(crate) async fn keep(mut self) {
        let (used, doubt) = (self.used.clone(), self.doubt.clone());
        loop {
            let next = tokio::select! {
                () = used.closed() => break,
                next = self.work() => next,
            };
            tokio::select! {
                () = used.closed() => break,
                () = sleep_until(next) => {}
                // Where there is none, one is being asked for as fast as it may be.
                () = doubt.notified(), if self.home.borrow().is_some() => {}
                news = self.ticket.next() => self.told(news).await,
            }
        }
        if let (Some(wire), Some(id)) = (&self.wire, self.id) {
            // At worst it expires.
            let _ = timeout(ANSWER_WITHIN, wire.revoke(id)).await;
        }
    }

    async fn told(&mut self, news: Option<News<W>>) {
        match news {
            Some(News::Up(wire)) => self.wire = Some(wire),
            Some(News::Down(_)) => self.wire = None,
            Some(_) => {}
            // The runtime is shutting down.
            None => std::future::pending().await,
        }
    }

    /// Does what is due; returns when there is something to do again. Cancelled, it has at worst
    /// asked for what it asks for again.
    async fn work(&mut self) -> Instant {
        const FAR: Duration = Duration::from_secs(3600);
        let now = Instant::now();
        let Some(wire) = self.wire.clone() else { return now + FAR };
        let known = *self.home.borrow();
        let within = known.map_or(ANSWER_WITHIN, |home| answer_within(home.granted));
        let id = *self.id.get_or_insert_with(|| self.rng.random_range(1..=i64::MAX));
        let answer = match known {
            Some(home) => {
                let renewed = async { renewal(wire.renew(id)).await.map(|()| home.granted) };
                self.answer("renew", within, &wire, renewed).await
            }
            None => self.answer("grant", within, &wire, grant(&wire, id, self.ttl)).await,
        };
        self.over();
        match answer {
            Some(Ok(granted)) => self.confirmed(granted, now),
            Some(Err(error)) => self.failed(&wire, error).await,
            // Again, once there is a connection.
            None => Instant::now(),
        }
    }

    /// Waits for an answer. When half of its time is over, the link has to see whether the connection
    /// is alive; if it is, the answer may take longer. `None`: the connection is gone.
    async fn answer<T>(
        &mut self,
        what: &str,
        within: Duration,
        wire: &W,
        asked: impl Future<Output = Result<T>>,
    ) -> Option<Result<T>> {
        let (sent, mut checked) = (Instant::now(), false);
        let mut asked = std::pin::pin!(asked);
        loop {
            let until = sent + if checked { within * 3 / 2 } else { within / 2 };
            tokio::select! {
                answer = &mut asked => return Some(answer),
                () = sleep_until(until) => {}
                news = self.ticket.next() => {
                    self.told(news).await;
                    self.wire.as_ref()?;
                    continue;
                }
            }
            if checked {
                let cause = format!("no answer within {:.1} s", sent.elapsed().as_secs_f64());
                let attempt = format!("{what} the shared lease of {} s", self.ttl.as_secs());
                return Some(Err(WireError::unreachable(&attempt, &wire.endpoint(), cause)));
            }
            checked = true;
            self.ticket.check(Instant::now() + within / 2);
        }
    }

    fn confirmed(&mut self, granted: Duration, sent: Instant) -> Instant {
        let Some(id) = self.id else { return sent };
        (self.refreshed, self.backoff, self.said) = (false, Backoff::default(), None);
        let home = Home { id, granted, sent, over: Instant::now() };
        self.home.send_replace(Some(home));
        self.ticket.needed_by(Some(sent + granted));
        sent + granted.mul_f64(self.rng.random_range(0.9..1.1) / 3.0)
    }

    /// A renewal is over, whatever became of it: if etcd had it, then by now.
    fn over(&self) {
        self.home.send_if_modified(|home| {
            if let Some(home) = home {
                home.over = Instant::now();
            }
            home.is_some()
        });
    }

    async fn failed(&mut self, wire: &W, error: WireError) -> Instant {
        // Once for each text: it is tried again and again.
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            tracing::warn!(error = text, "the shared lease is in trouble; trying on");
            self.said = Some(text);
        }
        match error.kind {
            Kind::LeaseNotFound => {
                self.id = None;
                self.home.send_replace(None);
                Instant::now()
            }
            Kind::Denied if !self.refreshed => {
                self.refreshed = true;
                let _ = timeout(ANSWER_WITHIN, wire.refresh()).await;
                Instant::now()
            }
            Kind::Denied => {
                self.refreshed = false;
                let wait = backoff::denied(&mut self.rng);
                // While there is a lease it is not to be lost to a long wait.
                let renew = self.home.borrow().map(|home| answer_within(home.granted));
                Instant::now() + renew.unwrap_or(wait)
            }
            Kind::Busy | Kind::Rejected | Kind::Electing => {
                Instant::now() + self.backoff.next(&mut self.rng)
            }
            _ => {
                self.wire = None;
                self.ticket.condemn(error);
                Instant::now()
            }
        }
    }
}

/// Grants a lease, or finds that an earlier attempt did.
async fn grant<W: Wire>(wire: &W, id: i64, ttl: Duration) -> Result<Duration> {
    match wire.grant(id, ttl).await {
        Err(error) if error.kind == Kind::LeaseExists => match wire.granted_ttl(id).await? {
            Some(granted) => {
                // How much of its time has passed is not known.
                renewal(wire.renew(id)).await?;
                Ok(granted)
            }
            None => Err(WireError::new(
                Kind::LeaseNotFound,
                "grant the shared lease",
                &wire.endpoint(),
                "it is gone",
            )),
        },
        granted => granted,
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
