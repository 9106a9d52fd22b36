//! Endpoints for the instances of a registry.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use discovery_core::{Instance, InstanceKey};

use super::config::PoolConfig;
use super::endpoint::PooledEndpoint;
use crate::maker::{MakeEndpoint, same_address};

/// Makes a [`PooledEndpoint`] for an instance. Each has connections of its own. `B` is the body of
/// requests.
///
/// As a [maker](MakeEndpoint), it keeps an endpoint while the address of its instance stays.
pub struct PooledMaker<B> {
    config: PoolConfig,
    body: PhantomData<fn(B)>,
}

impl<B> PooledMaker<B> {
    /// Endpoints with the default [`PoolConfig`].
    pub fn new() -> Self {
        Self::with(PoolConfig::default())
    }

    /// Endpoints as `config` says.
    pub fn with(config: PoolConfig) -> Self {
        Self { config, body: PhantomData }
    }

    /// A new endpoint for this instance. Nothing is connected yet.
    pub fn endpoint(&self, instance: &Instance) -> PooledEndpoint<B> {
        PooledEndpoint::new(instance.key(), instance.address.clone(), self.config.clone())
    }
}

impl<B> MakeEndpoint<InstanceKey, Instance> for PooledMaker<B> {
    type Service = PooledEndpoint<B>;

    fn make(&mut self, key: &InstanceKey, endpoint: &Arc<Instance>) -> PooledEndpoint<B> {
        PooledEndpoint::new(key.clone(), endpoint.address.clone(), self.config.clone())
    }

    fn still_serves(
        &mut self,
        key: &InstanceKey,
        old: &Arc<Instance>,
        new: &Arc<Instance>,
    ) -> bool {
        same_address(key, old, new)
    }
}

impl<B> Default for PooledMaker<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Clone for PooledMaker<B> {
    fn clone(&self) -> Self {
        Self::with(self.config.clone())
    }
}

impl<B> fmt::Debug for PooledMaker<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledMaker").field("config", &self.config).finish_non_exhaustive()
    }
}
