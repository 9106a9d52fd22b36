//! The simplest source: a list that never changes.

use std::collections::HashMap;

use crate::{Instance, InstanceChanges, InstanceKey, Publisher, ServiceName, Source};

/// A source whose instances are given once and stay: for configuration files, tests, and as the last
/// resort behind [`failover`](crate::combine::failover).
///
/// ```
/// use discovery_core::{Instance, Source as _, StaticSource};
/// # fn main() -> Result<(), discovery_core::Invalid> {
/// let source = StaticSource::new([Instance::parse("orders", "1", "http://127.0.0.1:8080")?]);
/// assert!(source.watch(&"orders".parse()?).status().get().is_fresh());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct StaticSource {
    instances: HashMap<InstanceKey, Instance>,
}

impl StaticSource {
    /// A source of these instances. Of two with the same service and id the later one counts.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let instances = instances.into_iter().map(|instance| (instance.key(), instance)).collect();
        Self { instances }
    }

    fn watch_if(&self, wanted: impl Fn(&Instance) -> bool) -> InstanceChanges {
        let mut publisher = Publisher::new();
        let changes = publisher.subscribe();
        let set = self.instances.iter().filter(|(_, instance)| wanted(instance));
        publisher.replace(set.map(|(key, instance)| (key.clone(), instance.clone())), None);
        publisher.freeze();
        changes
    }
}

impl FromIterator<Instance> for StaticSource {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        Self::new(instances)
    }
}

impl Source for StaticSource {
    fn watch(&self, service: &ServiceName) -> InstanceChanges {
        self.watch_if(|instance| instance.service == *service)
    }

    fn watch_all(&self) -> InstanceChanges {
        self.watch_if(|_| true)
    }
}
