//! Callers that ask a gateway all the time and keep a record of every answer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use discovery_test_support::{eventually, slack};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Answer, Http, SOON};

/// A body too large for one segment of the loopback's smallest buffers, so that it is really sent.
const BODY: usize = 3000;

/// What became of one request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) method: Method,
    /// Who answered it; nothing if the gateway itself did, or nobody.
    pub(crate) by: String,
    /// The status; 0 if there was no answer.
    pub(crate) status: u16,
    /// What it says if it is not the answer to this request with status 200.
    pub(crate) failure: Option<String>,
}

/// Callers, each with a connection of its own that is kept, until they are told to stop.
pub(crate) struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Load {
    /// So many callers ask for the service `orders`, in turns by each of these methods, a request of
    /// all but GET with a body. Together they begin `rate` requests a second, if they can.
    pub(crate) fn start(
        gateway: &str,
        callers: usize,
        rate: u32,
        methods: &'static [Method],
    ) -> Self {
        let caller = || {
            let http = Http::new();
            move |request| {
                let http = http.clone();
                async move { http.try_send(request).await }
            }
        };
        Self::through(&format!("{gateway}/send/orders"), caller, callers, rate, methods)
    }

    /// The same below this URL, each through what `caller` makes for it. Who served an answer is to
    /// stand in it as in those of the gateway.
    pub(crate) fn through<S, F>(
        url: &str,
        caller: impl Fn() -> S,
        callers: usize,
        rate: u32,
        methods: &'static [Method],
    ) -> Self
    where
        S: Fn(Request<Full<Bytes>>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, String>> + Send + 'static,
    {
        let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let period = Duration::from_secs(1) * u32::try_from(callers).unwrap() / rate;
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let (url, stop, send) = (url.to_owned(), stop.clone(), caller());
            let records: Arc<Mutex<Vec<Record>>> = Arc::clone(&records);
            // Spread over the period.
            let first = period * u32::try_from(number).unwrap() / u32::try_from(callers).unwrap();
            tasks.spawn(async move {
                let mut turn = tokio::time::interval_at((Instant::now() + first).into(), period);
                turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for (turns, method) in methods.iter().cycle().enumerate() {
                    turn.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let record = ask(&send, &url, method, &format!("/{number}/{turns}")).await;
                    records.lock().unwrap().push(record);
                }
            });
        }
        Self { callers: tasks, stop, records }
    }

    /// How many are answered.
    pub(crate) fn count(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    /// Waits until this many more are answered.
    pub(crate) async fn goes_on(&self, more: usize) {
        let target = self.count() + more;
        eventually(SOON * 6, format!("{more} more requests are answered"), async || {
            let missing = target.saturating_sub(self.count());
            if missing == 0 { Ok(()) } else { Err(missing) }
        })
        .await;
    }

    /// What became of the requests so far that began at these times.
    pub(crate) fn begun(&self, times: Range<Instant>) -> Tally {
        let records = self.records.lock().unwrap();
        Tally::of(records.iter().filter(|record| times.contains(&record.started)).cloned())
    }

    /// Waits until the time is over and returns what became of the requests of which it is the
    /// beginning. They have all ended when those that begin later have.
    pub(crate) async fn during(&self, time: Duration) -> Tally {
        let begin = Instant::now();
        let end = begin + slack(time);
        eventually(time + SOON, "a request that began later is answered", async || {
            self.records.lock().unwrap().iter().any(|record| record.started > end)
        })
        .await;
        self.begun(begin..end)
    }

    /// Ends it when all that is under way is answered.
    pub(crate) async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        Tally::of(self.records.lock().unwrap().drain(..))
    }
}

/// What became of many requests.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) all: usize,
    /// How many each instance answered.
    pub(crate) by: BTreeMap<String, usize>,
    pub(crate) slowest: Duration,
    took: Times,
    pub(crate) failures: Vec<Record>,
}

impl Tally {
    fn of(records: impl Iterator<Item = Record>) -> Self {
        let mut tally = Self {
            all: 0,
            by: BTreeMap::new(),
            slowest: Duration::ZERO,
            took: Times(Vec::new()),
            failures: Vec::new(),
        };
        for record in records {
            tally.all += 1;
            *tally.by.entry(record.by.clone()).or_default() += 1;
            tally.slowest = tally.slowest.max(record.took);
            tally.took.0.push(record.took);
            if record.failure.is_some() {
                tally.failures.push(record);
            }
        }
        tally.took.0.sort_unstable();
        tally
    }

    /// How long it took at most for so many of a hundred, those that took longest left out.
    pub(crate) fn within(&self, percent: usize) -> Duration {
        self.took.within(percent)
    }

    /// How many an instance answered.
    pub(crate) fn count(&self, id: &str) -> usize {
        self.by.get(id).copied().unwrap_or_default()
    }

    /// How many of a hundred an instance answered.
    pub(crate) fn percent(&self, id: &str) -> usize {
        self.count(id) * 100 / self.all.max(1)
    }

    /// None of so many, and not of fewer, may have failed.
    #[track_caller]
    pub(crate) fn none_failed(&self, of: usize) {
        let (failed, first) = (self.failures.len(), self.failures.iter().take(5));
        let first: Vec<_> = first.collect();
        assert!(failed == 0, "{failed} of {} failed: {first:#?}", self.all);
        assert!(self.all >= of, "only {} were asked", self.all);
    }
}

/// How long each request took, the shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn within(&self, percent: usize) -> Duration {
        let last = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(last).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries([50, 95, 99].map(|percent| (percent, self.within(percent)))).finish()
    }
}

async fn ask<S, F>(send: &S, url: &str, method: &Method, path: &str) -> Record
where
    S: Fn(Request<Full<Bytes>>) -> F,
    F: Future<Output = Result<Answer, String>>,
{
    let body = if method == Method::GET { Bytes::new() } else { Bytes::from(vec![b'x'; BODY]) };
    let request = Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .body(Full::from(body))
        .unwrap();
    let started = Instant::now();
    let answer = send(request).await;
    let took = started.elapsed();
    let (by, status) = match &answer {
        Ok(answer) => (answer.served_by().to_owned(), answer.status.as_u16()),
        Err(_) => (String::new(), 0),
    };
    let is_right = answer.as_ref().is_ok_and(|answer| is_answer(answer, &by, path));
    let failure = (!is_right).then(|| format!("{answer:?}"));
    Record { started, took, method: method.clone(), by, status, failure }
}

/// Whether it is a node's answer to this request, and of the node it is said to be.
fn is_answer(answer: &Answer, by: &str, path: &str) -> bool {
    let body: Result<Value, _> = serde_json::from_slice(&answer.body);
    answer.status.as_u16() == 200 && body.is_ok_and(|body| body["path"] == path && body["id"] == by)
}
