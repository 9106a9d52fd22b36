//! The figures that the library keeps of its watches, connections and balancers: a part of
//! `/metrics`.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// A process has one recorder.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Records from now on. It comes before the registry and the balancers, whose figures would be incomplete.
pub(super) fn record() {
    match PrometheusBuilder::new().install_recorder() {
        Ok(recorder) => {
            RECORDER.get_or_init(|| recorder);
        }
        Err(error) => tracing::warn!(%error, "no figures of the library"),
    }
}

/// What was recorded, if anything was.
pub(super) fn text() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}
