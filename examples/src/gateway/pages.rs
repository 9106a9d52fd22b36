//! The pages that the gateway makes itself.

use std::collections::BTreeMap;
use std::ops::Not;
use std::sync::Arc;

use discovery_core::{Address, Instance, InstanceId, InstanceStatus, ServiceName, Weight, Zone};
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use super::catalog::Catalog;
use super::metrics::Metrics;
use crate::reply::{self, Reply};

#[derive(Serialize)]
struct ServicesPage {
    source: SourceState,
    services: BTreeMap<ServiceName, Vec<Listed>>,
}

#[derive(Serialize)]
struct SourceState {
    state: &'static str,
    since: String,
    revision: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    id: InstanceId,
    address: Address,
    weight: Weight,
    zone: Option<Zone>,
    status: InstanceStatus,
    #[serde(skip_serializing_if = "Not::not")]
    suspect: bool,
}

impl From<Arc<Instance>> for Listed {
    fn from(instance: Arc<Instance>) -> Self {
        Self {
            id: instance.id.clone(),
            address: instance.address.clone(),
            weight: instance.weight,
            zone: instance.zone.clone(),
            status: instance.status,
            suspect: instance.suspect,
        }
    }
}

/// `/services`.
pub(super) fn services(catalog: &Catalog) -> Reply {
    let status = catalog.status();
    let source = SourceState {
        state: status.state.name(),
        // Years beyond those that can be written do not come from a clock.
        since: Timestamp::try_from(status.since).unwrap_or_default().to_string(),
        revision: status.revision,
        error: status.state.error().map(ToString::to_string),
    };
    let services = catalog.all().into_iter().map(|service| {
        let listed = service.instances().into_iter().map(Listed::from).collect();
        (service.name.clone(), listed)
    });
    reply::json(StatusCode::OK, &ServicesPage { source, services: services.collect() })
}

/// `/healthz`.
pub(super) fn health(catalog: &Catalog) -> Reply {
    if catalog.is_loaded() {
        let state = catalog.status().state.name();
        return reply::json(
            StatusCode::OK,
            &serde_json::json!({ "status": "ok", "source": state }),
        );
    }
    let error = super::catalog::NotLoaded(catalog.status().last_error);
    reply::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// `/metrics`.
pub(super) fn metrics(catalog: &Catalog, metrics: &Metrics) -> Reply {
    match metrics.text(&catalog.status()) {
        Ok(text) => reply::with_type(StatusCode::OK, "text/plain; version=0.0.4", text),
        Err(error) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What one call of `GET /send` came to.
#[derive(Serialize)]
pub(super) struct Called {
    pub(super) status: u16,
    pub(super) served_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}
