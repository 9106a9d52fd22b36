//! What `/metrics` tells.

use std::time::Duration;

use discovery_core::{ServiceName, Status};
use http::StatusCode;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::library;

const SERVICE: &str = "service";
/// The classes of status codes, as the first digit of each counts them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// In place of a name that the registry does not have: whoever asks for arbitrary ones must not make
/// us keep them. No service can be called so.
const UNKNOWN: &str = "(unknown)";
const STATES: [&str; 4] = ["loading", "fresh", "stale", "closed"];

/// The figures of the whole gateway.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    retries: IntCounterVec,
    refused: IntCounterVec,
    endpoints: IntGaugeVec,
    state: IntGaugeVec,
    stale_seconds: Gauge,
    revision: IntGauge,
    unknown: ServiceMetrics,
}

/// The figures of one service.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    requests: [IntCounter; CLASSES.len()],
    seconds: Histogram,
    retries: IntCounter,
    refused: IntCounter,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let requests =
            counters("gateway_requests_total", "Requests answered.", &[SERVICE, "status"])?;
        let retries = counters("gateway_retries_total", "Further instances tried.", &[SERVICE])?;
        let refused = counters(
            "gateway_retries_refused_total",
            "Further instances not tried because the retry budget was used up.",
            &[SERVICE],
        )?;
        let endpoints = gauges("gateway_endpoints", "Instances in the registry.", SERVICE)?;
        let state = gauges("gateway_source_state", "1 for the state the source is in.", "state")?;
        let seconds = HistogramOpts::new(
            "gateway_request_seconds",
            "Time from a request to the head of its answer, all attempts together.",
        );
        let seconds = HistogramVec::new(seconds, &[SERVICE])?;
        registry.register(Box::new(seconds.clone()))?;
        let stale_seconds = Gauge::new(
            "gateway_source_stale_seconds",
            "For how long the source has been stale; 0 when it is not.",
        )?;
        registry.register(Box::new(stale_seconds.clone()))?;
        let revision = IntGauge::new("gateway_source_revision", "The source's revision.")?;
        registry.register(Box::new(revision.clone()))?;
        let unknown = service(UNKNOWN, &requests, &seconds, &retries, &refused);
        Ok(Self {
            registry,
            requests,
            seconds,
            retries,
            refused,
            endpoints,
            state,
            stale_seconds,
            revision,
            unknown,
        })
    }

    /// The figures of a service, from now on among those that are told.
    pub(super) fn service(&self, name: &ServiceName) -> ServiceMetrics {
        service(name.as_str(), &self.requests, &self.seconds, &self.retries, &self.refused)
    }

    /// The figures of all requests for services that are not there.
    pub(super) fn unknown(&self) -> &ServiceMetrics {
        &self.unknown
    }

    /// Tells no longer of a service.
    pub(super) fn forget(&self, name: &ServiceName) {
        let name = name.as_str();
        for class in CLASSES {
            // What is not there need not be forgotten.
            let _ = self.requests.remove_label_values(&[name, class]);
        }
        let _ = self.seconds.remove_label_values(&[name]);
        let _ = self.retries.remove_label_values(&[name]);
        let _ = self.refused.remove_label_values(&[name]);
        let _ = self.endpoints.remove_label_values(&[name]);
    }

    /// How many instances a service has.
    pub(super) fn endpoints(&self, name: &ServiceName, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.endpoints.with_label_values(&[name.as_str()]).set(count);
    }

    /// All figures as text, with the source's as they are now, and behind them the library's.
    pub(super) fn text(&self, status: &Status) -> Result<Vec<u8>, prometheus::Error> {
        for state in STATES {
            let is = state == status.state.name();
            self.state.with_label_values(&[state]).set(i64::from(is));
        }
        let stale = if status.is_stale() { status.elapsed() } else { Duration::ZERO };
        self.stale_seconds.set(stale.as_secs_f64());
        let revision = status.revision.map_or(0, |revision| i64::try_from(revision).unwrap_or(0));
        self.revision.set(revision);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        text.extend(library::text().into_bytes());
        Ok(text)
    }
}

fn service(
    name: &str,
    requests: &IntCounterVec,
    seconds: &HistogramVec,
    retries: &IntCounterVec,
    refused: &IntCounterVec,
) -> ServiceMetrics {
    ServiceMetrics {
        requests: CLASSES.map(|class| requests.with_label_values(&[name, class])),
        seconds: seconds.with_label_values(&[name]),
        retries: retries.with_label_values(&[name]),
        refused: refused.with_label_values(&[name]),
    }
}

impl ServiceMetrics {
    /// A request has been answered.
    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.requests.get(class) {
            counter.inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    /// Another instance is tried.
    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    /// No other instance is tried, for the sake of the budget.
    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::{Publisher, SourceError};

    use super::*;

    #[test]
    fn figures_come_and_go_with_their_service() {
        let metrics = Metrics::new().unwrap();
        let mut source = Publisher::<u8, u8>::new();
        let status = source.status();
        let text = || String::from_utf8(metrics.text(&status.get()).unwrap()).unwrap();
        assert!(text().contains("gateway_source_state{state=\"loading\"} 1"));

        let orders: ServiceName = "orders".parse().unwrap();
        let own = metrics.service(&orders);
        own.answered(StatusCode::NOT_FOUND, Duration::from_millis(1));
        own.retried();
        metrics.endpoints(&orders, 3);
        source.replace([(1, 1)], Some(7));
        let now = text();
        for line in [
            "gateway_requests_total{service=\"orders\",status=\"4xx\"} 1",
            "gateway_request_seconds_count{service=\"orders\"} 1",
            "gateway_retries_total{service=\"orders\"} 1",
            "gateway_endpoints{service=\"orders\"} 3",
            "gateway_source_state{state=\"fresh\"} 1",
            "gateway_source_state{state=\"loading\"} 0",
            "gateway_source_stale_seconds 0",
            "gateway_source_revision 7",
        ] {
            assert!(now.lines().any(|other| other == line), "{line} is not in\n{now}");
        }
        source.trouble(SourceError::new("gone"));
        assert!(!text().contains("gateway_source_stale_seconds 0\n"));
        metrics.forget(&orders);
        assert!(!text().contains("orders"));
    }
}
