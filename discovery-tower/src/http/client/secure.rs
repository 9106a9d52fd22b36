//! Of a service, the instances that are reached over TLS: all that a request with `https` may go to.

use std::sync::{Arc, Mutex, PoisonError};

use discovery_core::{InstanceChanges, InstanceKey};

use super::error::ClientError;
use crate::balance::CallError;
use crate::http::pool::is_secure;

/// Tells whether there are instances that were left out.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut(Arc<Mutex<Option<Plain>>>);

/// An instance, and the scheme of its address.
type Plain = (InstanceKey, Arc<str>);

impl LeftOut {
    /// Those that are reached over TLS; of the others, the last that was told of is remembered, so that
    /// an error can name one.
    pub(super) fn only_secure(&self, changes: InstanceChanges) -> InstanceChanges {
        let last = self.0.clone();
        changes.filter_endpoints(move |key, instance| {
            let secure = is_secure(instance.address.scheme());
            if !secure {
                let plain = (key.clone(), instance.address.scheme().into());
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(plain);
            }
            secure
        })
    }

    /// That there is nobody, with the reason if it is that all are reached otherwise.
    pub(super) fn explain(&self, error: CallError<InstanceKey>) -> ClientError {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (error, last) {
            (CallError::NoEndpoints { .. }, Some((endpoint, scheme))) => {
                let service = endpoint.service.as_str().into();
                ClientError::Insecure { service, endpoint, scheme }
            }
            (error, _) => ClientError::Call(error),
        }
    }
}
