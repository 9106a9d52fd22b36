//! The figures of balancers, as a recorder gets them, in virtual time. Each test has a recorder and a
//! service name of its own.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Change, Instance, InstanceKey, Publisher, SourceError};
use discovery_tower::balance::{
    AnyCall, Attributes, Availability, Balance, Builder, CallError, Describe, Ejection,
    LeastPending, Limits, Outcome, Seeded, SlowStart, SuccessRate,
};
use discovery_tower::http::{Http, Replay, RetryLayer};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{Layer as _, Service, ServiceExt as _};

/// What is told within a second while something happens.
const TOLD: Duration = Duration::from_millis(1_100);
/// What is told of calls alone, after a quiet time.
const TOLD_LATE: Duration = Duration::from_secs(11);

/// An endpoint and how its service does.
#[derive(Clone, Debug, Default)]
struct End {
    attributes: Attributes,
    ready: Ready,
    /// Whether it fails whatever it is asked.
    bad: bool,
}

impl PartialEq for End {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

#[derive(Clone, Debug, Default)]
enum Ready {
    #[default]
    Yes,
    No,
    Fails,
    FailsUnless(Arc<AtomicBool>),
}

impl Describe for End {
    fn attributes(&self) -> Attributes {
        self.attributes
    }
}

fn end(ready: Ready) -> End {
    End { ready, ..End::default() }
}

/// What an endpoint is to make of a call, and when.
#[derive(Clone, Copy, Debug)]
struct Ask(Outcome, Duration);

const AT_ONCE: Duration = Duration::ZERO;
const OVERLOADED: Outcome = Outcome::Overloaded { retry_after: Some(Duration::ZERO) };

#[derive(Clone)]
struct Stub(Arc<End>);

type Answer = Pin<Box<dyn Future<Output = Result<Outcome, SourceError>> + Send>>;

impl Service<Ask> for Stub {
    type Response = Outcome;
    type Error = SourceError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SourceError>> {
        let fails = || Poll::Ready(Err(SourceError::new("refused")));
        match &self.0.ready {
            Ready::Yes => Poll::Ready(Ok(())),
            Ready::No => Poll::Pending,
            Ready::FailsUnless(up) if up.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
            Ready::Fails | Ready::FailsUnless(_) => fails(),
        }
    }

    fn call(&mut self, Ask(outcome, after): Ask) -> Answer {
        let outcome = if self.0.bad { Outcome::Failure } else { outcome };
        Box::pin(async move {
            sleep(after).await;
            Ok(outcome)
        })
    }
}

type Judging = fn(Result<&Outcome, &SourceError>) -> Outcome;
type Balanced = Balance<usize, End, Stub, Ask, LeastPending, AnyCall<Judging>>;
type Stream = UnboundedReceiverStream<Change<usize, End>>;
type Made =
    Builder<Stream, fn(&usize, &Arc<End>) -> Stub, usize, End, LeastPending, AnyCall<Judging>>;

fn judge(result: Result<&Outcome, &SourceError>) -> Outcome {
    result.copied().unwrap_or(Outcome::Failure)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as a maker has it")]
fn make(_: &usize, end: &Arc<End>) -> Stub {
    Stub(end.clone())
}

struct Fixture {
    recorder: PrometheusHandle,
    service: &'static str,
    tell: UnboundedSender<Change<usize, End>>,
    _here: LocalRecorderGuard<'static>,
}

/// A recorder of this thread, which is all that the runtime of a test has.
fn recorder() -> (PrometheusHandle, LocalRecorderGuard<'static>) {
    let recorder: &'static PrometheusRecorder =
        Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    (recorder.handle(), metrics::set_default_local_recorder(recorder))
}

impl Fixture {
    fn new(service: &'static str, set: impl FnOnce(Made) -> Made) -> (Self, Balanced) {
        let (recorder, here) = recorder();
        let (tell, changes) = unbounded_channel();
        let made = Builder::new(UnboundedReceiverStream::new(changes), make as fn(&_, &_) -> _)
            .policy(LeastPending::new())
            .protocol(AnyCall::judged_by(judge as Judging))
            .entropy(Seeded::new(7))
            .slow_start(SlowStart::none())
            .named(service);
        let balance = set(made).spawn::<Stub, Ask, End>();
        (Self { recorder, service, tell, _here: here }, balance)
    }

    fn insert(&self, key: usize, end: End) {
        self.tell.send(Change::Insert(key, end)).unwrap();
    }

    fn remove(&self, key: usize) {
        self.tell.send(Change::Remove(key)).unwrap();
    }

    /// These endpoints, all of them up.
    async fn has(&self, keys: std::ops::Range<usize>) {
        for key in keys {
            self.insert(key, End::default());
        }
        self.tell.send(Change::Synced).unwrap();
        sleep(Duration::from_millis(1)).await;
    }

    fn figure(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        // What is exported is documented, and described.
        let text = self.recorder.render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let readme = include_str!("../README.md");
            assert!(readme.contains(&format!("\n| `{name}` | {kind}")), "{name} is not documented");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} means nothing");
        }
        let labels = [&[("service", self.service)], labels].concat();
        figure(&self.recorder, name, &labels)
    }

    fn calls(&self) -> [Option<f64>; 5] {
        ["success", "failure", "ignored", "overloaded", "cancelled"]
            .map(|outcome| self.figure("calls_total", &[("outcome", outcome)]))
    }

    fn standing(&self, standing: &str) -> Option<f64> {
        self.figure("endpoints", &[("standing", standing)])
    }

    fn ejections(&self, cause: &str) -> Option<f64> {
        self.figure("ejections_total", &[("cause", cause)])
    }

    fn refused(&self, reason: &str) -> Option<f64> {
        self.figure("refused_total", &[("reason", reason)])
    }
}

/// The value of a figure with exactly these labels; `None` if there is no such figure.
fn figure(recorder: &PrometheusHandle, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = recorder.render();
    let name = format!("discovery_balance_{name}");
    let mut values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let rest = series.strip_prefix(&name)?.strip_prefix('{')?;
        let is = labels.iter().all(|(key, value)| rest.contains(&format!("{key}=\"{value}\"")));
        (is && rest.matches('=').count() == labels.len()).then(|| value.parse::<f64>().unwrap())
    });
    let first = values.next();
    assert_eq!(values.next(), None, "{name} with {labels:?} is more than one series");
    first
}

async fn call(balance: &Balanced, ask: Ask) -> Result<(), CallError<usize>> {
    balance.clone().oneshot(ask).await.map(drop)
}

async fn calls(balance: &Balanced, outcome: Outcome, times: usize) {
    for _ in 0..times {
        call(balance, Ask(outcome, AT_ONCE)).await.unwrap();
    }
}

/// Calls that fail, so many in a row at each of `endpoints`.
async fn failing(balance: &Balanced, endpoints: usize, times: usize) {
    for _ in 0..times {
        // At the same time, so that each endpoint has one of them.
        let ask = Ask(Outcome::Failure, Duration::from_millis(1));
        let all: Vec<_> =
            (0..endpoints).map(|_| tokio::spawn(balance.clone().oneshot(ask))).collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_is_told_once_as_what_became_of_it() {
    let (seen, balance) = Fixture::new("calls", |made| made.ejection(Ejection::never()));
    seen.has(0..2).await;
    assert_eq!(seen.calls(), [Some(0.0), Some(0.0), None, None, None]);
    calls(&balance, Outcome::Success, 70).await;
    calls(&balance, Outcome::Failure, 20).await;
    calls(&balance, Outcome::Ignore, 9).await;
    calls(&balance, OVERLOADED, 5).await;
    for _ in 0..3 {
        let hangs = call(&balance, Ask(Outcome::Success, Duration::from_secs(3_600)));
        assert!(timeout(Duration::from_millis(200), hangs).await.is_err());
    }
    sleep(TOLD).await;
    let all = [70.0, 20.0, 9.0, 5.0, 3.0].map(Some);
    assert_eq!(seen.calls(), all);
    assert_eq!(seen.figure("pending", &[]), Some(0.0));
    sleep(Duration::from_secs(100)).await;
    assert_eq!(seen.calls(), all, "nothing is told twice");

    // A call that hangs is pending, and told when it has ended.
    let slow = tokio::spawn(balance.clone().oneshot(Ask(Outcome::Success, TOLD_LATE)));
    calls(&balance, Outcome::Success, 1).await;
    sleep(Duration::from_millis(10_900)).await;
    assert_eq!(seen.figure("pending", &[]), Some(1.0));
    assert_eq!(seen.calls()[0], Some(71.0));
    slow.await.unwrap().unwrap();
    sleep(TOLD_LATE).await;
    assert_eq!(seen.calls()[0], Some(72.0));
    assert_eq!(seen.figure("pending", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_last_calls_of_what_is_removed_replaced_or_dropped_are_told() {
    let (seen, balance) = Fixture::new("last", |made| made.ejection(Ejection::never()));
    seen.has(0..1).await;
    calls(&balance, Outcome::Success, 10).await;
    let slow = Ask(Outcome::Failure, Duration::from_secs(30));
    let late = tokio::spawn(balance.clone().oneshot(slow));
    sleep(Duration::from_millis(1)).await;
    seen.remove(0);
    sleep(TOLD).await;
    assert_eq!(seen.calls()[..2], [Some(10.0), Some(0.0)]);
    late.await.unwrap().unwrap();
    sleep(TOLD_LATE).await;
    assert_eq!(seen.calls()[..2], [Some(10.0), Some(1.0)]);

    // Its service breaks and is made anew: what the former one had is counted once.
    let up = Arc::new(AtomicBool::new(true));
    seen.insert(1, end(Ready::FailsUnless(up.clone())));
    sleep(TOLD).await;
    calls(&balance, Outcome::Success, 5).await;
    up.store(false, Ordering::Relaxed);
    let finds_it_broken = tokio::spawn(balance.clone().oneshot(Ask(Outcome::Success, AT_ONCE)));
    sleep(Duration::from_millis(1)).await;
    up.store(true, Ordering::Relaxed);
    finds_it_broken.await.unwrap().unwrap();
    calls(&balance, Outcome::Success, 4).await;
    sleep(TOLD_LATE).await;
    assert_eq!(seen.calls()[..2], [Some(20.0), Some(1.0)]);
    assert_eq!(seen.figure("passed_on_total", &[]), Some(1.0));
    let failures = seen.figure("connection_failures_total", &[]).unwrap();
    assert!(failures >= 1.0, "{failures}");

    // The balancer goes, and one call after it.
    let late = tokio::spawn(balance.clone().oneshot(slow));
    sleep(Duration::from_millis(1)).await;
    calls(&balance, Outcome::Success, 3).await;
    drop(balance);
    late.await.unwrap().unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(seen.calls()[..2], [Some(23.0), Some(2.0)]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_told_by_how_they_stand_until_they_are_gone() {
    let (seen, balance) = Fixture::new("standing", |made| made);
    let attributes = Attributes::default();
    let leaving = attributes.availability(Availability::LastResort);
    seen.insert(5, End { attributes: leaving, ..End::default() });
    seen.insert(6, End { attributes: attributes.weight(0), ..End::default() });
    seen.insert(7, end(Ready::No));
    seen.insert(8, end(Ready::Fails));
    seen.has(0..3).await;
    sleep(TOLD).await;
    let standings = || {
        ["up", "last_resort", "out", "connecting", "failed", "ejected"].map(|s| seen.standing(s))
    };
    let some = [3.0, 1.0, 1.0, 1.0, 1.0].map(Some);
    assert_eq!((&standings()[..5], standings()[5]), (&some[..], None));
    assert_eq!(seen.figure("panic", &[]), Some(0.0));
    assert_eq!(seen.figure("stale_seconds", &[]), None, "nobody knows");

    seen.remove(0);
    seen.remove(8);
    seen.insert(5, End::default());
    sleep(TOLD).await;
    let some = [3.0, 0.0, 1.0, 1.0, 0.0].map(Some);
    assert_eq!((&standings()[..5], standings()[5]), (&some[..], None));

    // Two of one name add up, and each takes its own along.
    let (tell, changes) = unbounded_channel();
    let twin = Builder::new(UnboundedReceiverStream::new(changes), make)
        .named("standing")
        .spawn::<Stub, Ask, End>();
    tell.send(Change::Insert(0, End::default())).unwrap();
    sleep(TOLD).await;
    assert_eq!(seen.standing("up"), Some(4.0));
    drop(balance);
    assert_eq!(seen.standing("up"), Some(1.0));
    assert_eq!(seen.standing("out"), Some(0.0));
    drop(twin);
    sleep(TOLD_LATE).await;
    assert_eq!((&standings()[..5], standings()[5]), (&[Some(0.0); 5][..], None));
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_comes_late_gets_the_gauges() {
    let (seen, _balance) = Fixture::new("late", |made| made);
    seen.has(0..2).await;
    sleep(TOLD_LATE).await;
    let (late, _here) = recorder();
    sleep(TOLD_LATE).await;
    let up = figure(&late, "endpoints", &[("service", "late"), ("standing", "up")]);
    assert_eq!(up, Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn ejections_are_told_by_their_cause_and_panic_while_it_lasts() {
    let mut rate = SuccessRate::default();
    rate.min_calls = 20;
    let ejection = Ejection::default().consecutive(3).success_rate(Some(rate));
    let (seen, balance) = Fixture::new("ejections", |made| made.ejection(ejection));
    seen.has(0..1).await;
    // One of them alone: all is panic, and it goes on.
    failing(&balance, 1, 3).await;
    sleep(TOLD_LATE).await;
    assert_eq!((seen.ejections("consecutive"), seen.figure("panic", &[])), (Some(1.0), Some(1.0)));
    seen.has(1..10).await;
    sleep(TOLD).await;
    assert_eq!(seen.figure("panic", &[]), Some(0.0));
    assert_eq!((seen.standing("ejected"), seen.standing("up")), (Some(1.0), Some(9.0)));

    // It comes back, one call at a time, and fails again.
    sleep(Duration::from_secs(31)).await;
    assert_eq!((seen.standing("ejected"), seen.standing("probation")), (Some(0.0), Some(1.0)));
    failing(&balance, 10, 1).await;
    sleep(TOLD_LATE).await;
    assert_eq!((seen.ejections("probation"), seen.standing("ejected")), (Some(1.0), Some(1.0)));
    assert_eq!(seen.ejections("consecutive"), Some(1.0));

    // Under its own key it would be left out still.
    seen.remove(0);
    seen.insert(10, End::default());
    sleep(TOLD).await;
    calls(&balance, Outcome::Overloaded { retry_after: None }, 1).await;
    sleep(TOLD_LATE).await;
    assert_eq!((seen.ejections("overloaded"), seen.standing("up")), (Some(1.0), Some(10.0)));

    for key in 1..11 {
        seen.remove(key);
    }
    seen.has(20..21).await;
    let suspect = Attributes::default().suspect(true);
    seen.insert(30, End { attributes: suspect, ..End::default() });
    sleep(TOLD).await;
    failing(&balance, 2, 1).await;
    sleep(TOLD_LATE).await;
    assert_eq!((seen.ejections("suspect"), seen.ejections("consecutive")), (Some(1.0), Some(1.0)));
    assert_eq!(seen.ejections("success_rate"), None);
}

#[tokio::test(start_paused = true)]
async fn who_is_much_worse_than_others_is_told_as_such() {
    let mut rate = SuccessRate::default();
    rate.min_calls = 20;
    let ejection = Ejection::default().consecutive(0).success_rate(Some(rate));
    let (seen, balance) = Fixture::new("rates", |made| made.ejection(ejection));
    seen.insert(9, End { bad: true, ..End::default() });
    seen.has(0..9).await;
    calls(&balance, Outcome::Success, 1_000).await;
    sleep(TOLD_LATE).await;
    assert_eq!((seen.ejections("success_rate"), seen.standing("ejected")), (Some(1.0), Some(1.0)));
    assert_eq!(seen.ejections("consecutive"), None);
    let [successes, failures, ..] = seen.calls().map(Option::unwrap_or_default);
    assert_eq!(successes + failures, 1_000.0);
    assert!(failures >= 20.0, "{failures}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_and_calls_refused_are_told() {
    let limits = Limits::default();
    let (seen, balance) = Fixture::new("refused", |made| made.limits(limits));
    let ask = Ask(Outcome::Success, AT_ONCE);
    assert!(matches!(call(&balance, ask).await, Err(CallError::NotLoaded { .. })));
    sleep(TOLD_LATE).await;
    assert_eq!((seen.refused("not_loaded"), seen.refused("no_endpoints")), (Some(1.0), None));
    assert_eq!(seen.figure("waits_total", &[]), Some(1.0));
    assert_eq!(seen.figure("waited_milliseconds_total", &[]), Some(5_000.0));

    seen.has(0..0).await;
    assert!(matches!(call(&balance, ask).await, Err(CallError::NoEndpoints { .. })));
    seen.insert(0, End { attributes: Attributes::default().weight(0), ..End::default() });
    sleep(TOLD).await;
    assert!(matches!(call(&balance, ask).await, Err(CallError::Unavailable { .. })));
    let out = Attributes::default().availability(Availability::Out);
    seen.insert(0, End { attributes: out, ..End::default() });
    sleep(TOLD).await;
    assert!(matches!(call(&balance, ask).await, Err(CallError::Unavailable { .. })));
    sleep(TOLD_LATE).await;
    assert_eq!(seen.figure("waits_total", &[]), Some(1.0), "they did not wait");
    for reason in ["no_endpoints", "weightless", "out_of_service"] {
        assert_eq!(seen.refused(reason), Some(1.0), "{reason}");
    }

    seen.remove(0);
    seen.insert(1, end(Ready::Fails));
    sleep(TOLD).await;
    assert!(matches!(call(&balance, ask).await, Err(CallError::Unavailable { .. })));
    seen.remove(1);
    seen.insert(2, end(Ready::No));
    sleep(TOLD).await;
    assert!(matches!(call(&balance, ask).await, Err(CallError::Unavailable { .. })));
    // One that gives up after a second, and one that is served after two.
    assert!(timeout(Duration::from_secs(1), call(&balance, ask)).await.is_err());
    let (served, ()) = tokio::join!(call(&balance, ask), async {
        sleep(Duration::from_secs(2)).await;
        seen.insert(3, End::default());
    });
    served.unwrap();
    sleep(TOLD_LATE).await;
    assert_eq!((seen.refused("failed"), seen.refused("not_ready")), (Some(1.0), Some(1.0)));
    assert_eq!(seen.figure("waits_total", &[]), Some(5.0));
    let waited = seen.figure("waited_milliseconds_total", &[]).unwrap();
    // 5 s not loaded, 1 s all failed, 5 s not ready, 1 s given up, 2 s served.
    assert!((14_000.0..14_100.0).contains(&waited), "{waited}");
    assert_eq!(seen.calls()[0], Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn the_source_s_age_is_told_while_it_is_stale() {
    let (recorder, _here) = recorder();
    let mut publisher = Publisher::<usize, End>::new();
    let changes = publisher.subscribe();
    let balance =
        Builder::new(changes, make).status(publisher.status()).spawn::<Stub, Ask, Arc<End>>();
    // It has no name.
    let stale = || figure(&recorder, "stale_seconds", &[("service", "")]).unwrap();
    sleep(Duration::from_millis(5_500)).await;
    assert!((4.0..5.6).contains(&stale()), "{}", stale());
    publisher.replace([(1, End::default())], None);
    sleep(TOLD).await;
    assert_eq!(stale(), 0.0);
    publisher.trouble(SourceError::new("away"));
    sleep(Duration::from_secs(20)).await;
    assert!((18.5..20.1).contains(&stale()), "{}", stale());
    drop(balance);
    assert_eq!(stale(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn retries_are_told_with_the_service_of_the_one_that_failed() {
    let (recorder, _here) = recorder();
    let mut publisher = Publisher::<InstanceKey, Instance>::new();
    let instances =
        ["a", "b"].map(|id| Instance::parse("retried", id, "http://127.0.0.1:9").unwrap());
    publisher.replace(instances.map(|instance| (instance.key(), instance)), None);
    let make = |_: &InstanceKey, _: &Arc<Instance>| {
        tower::service_fn(|_: Request<Replay<Empty<Bytes>>>| async {
            let response = Response::builder().status(503).body(Empty::<Bytes>::new()).unwrap();
            Ok::<_, SourceError>(response)
        })
    };
    let balance = Builder::new(publisher.subscribe(), make)
        .protocol(Http::new())
        .named("other")
        .spawn::<_, Request<Replay<Empty<Bytes>>>, _>();
    let retrying = RetryLayer::new(1).layer(balance.clone());
    let send = async || retrying.clone().oneshot(Request::new(Empty::new())).await.unwrap();
    assert_eq!(send().await.status(), 503);
    let told = |decision| {
        figure(&recorder, "retries_total", &[("service", "retried"), ("decision", decision)])
    };
    assert_eq!((told("again"), told("refused")), (Some(1.0), None));
    let frugal = RetryLayer::new(1).budget(Duration::from_secs(1), 0, 0.0).layer(balance);
    frugal.oneshot(Request::new(Empty::new())).await.unwrap();
    assert_eq!((told("again"), told("refused")), (Some(1.0), Some(1.0)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_whose_body_breaks_off_is_one_failure() {
    let (recorder, _here) = recorder();
    let mut publisher = Publisher::<InstanceKey, Instance>::new();
    let instance = Instance::parse("broken", "a", "http://127.0.0.1:9").unwrap();
    publisher.replace([(instance.key(), instance)], None);
    let make = |_: &InstanceKey, _: &Arc<Instance>| {
        tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            let frames = [Err::<Frame<Bytes>, _>(SourceError::new("reset"))];
            let status = if request.uri().path() == "/bad" { 500 } else { 200 };
            let body = StreamBody::new(tokio_stream::iter(frames));
            Ok::<_, SourceError>(Response::builder().status(status).body(body).unwrap())
        })
    };
    let balance = Builder::new(publisher.subscribe(), make)
        .protocol(Http::new())
        .ejection(Ejection::never())
        .named("broken")
        .spawn::<_, Request<Empty<Bytes>>, _>();
    for path in ["/bad", "/good", "/bad"] {
        let request = Request::get(path).body(Empty::new()).unwrap();
        let response = balance.clone().oneshot(request).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
    sleep(TOLD_LATE).await;
    let told =
        |outcome| figure(&recorder, "calls_total", &[("service", "broken"), ("outcome", outcome)]);
    assert_eq!((told("failure"), told("success")), (Some(3.0), Some(0.0)));
}

/// Panics whatever it is told.
struct Faulty;

impl metrics::Recorder for Faulty {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("the recorder was told to panic")
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("the recorder was told to panic")
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        panic!("the recorder was told to panic")
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("the recorder was told to panic")
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_is_no_concern_of_the_balancer() {
    let _here = metrics::set_default_local_recorder(&Faulty);
    let (tell, changes) = unbounded_channel();
    let make = |_: &u32, _: &Arc<()>| tower::service_fn(|()| async { Ok::<_, SourceError>(()) });
    let balance = Builder::new(UnboundedReceiverStream::new(changes), make).named("faulty").spawn();
    for key in 0..3 {
        tell.send(Change::Insert(key, ())).unwrap();
        tell.send(Change::Synced).unwrap();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(balance.endpoints().len(), key as usize + 1);
        assert!(balance.clone().oneshot(()).await.is_ok());
    }
}
