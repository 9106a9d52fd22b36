//! All services, kept as one watch of the source tells.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use discovery_core::{
    Change, Instance, InstanceChanges, InstanceKey, ServiceName, SourceError, Status, StatusReader,
    Update,
};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

use super::metrics::Metrics;
use super::service::{Reach, Service};

/// For how long a service is known whose last instance has left.
const KEPT_EMPTY: Duration = Duration::from_secs(75);

/// How often those are looked for whose time is over.
const SWEEP: Duration = Duration::from_secs(5);

type Services = HashMap<ServiceName, Arc<Service>>;

/// See the module.
pub(super) struct Catalog {
    services: RwLock<Services>,
    status: StatusReader,
    /// Whether the first whole set has arrived here.
    loaded: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    reach: Reach,
}

/// The source has not loaded, so nothing is known of any service.
#[derive(Clone, Debug)]
pub(super) struct NotLoaded(pub(super) Option<SourceError>);

impl std::fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the registry has not been loaded yet")?;
        match &self.0 {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl Catalog {
    /// Starts to follow the changes, until their stream ends.
    pub(super) fn follow(
        changes: InstanceChanges,
        reach: Reach,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (loaded_sender, loaded) = watch::channel(false);
        let status = changes.status();
        let services = RwLock::new(HashMap::new());
        let catalog = Arc::new(Self { services, status, loaded, metrics, reach });
        tokio::spawn(run(catalog.clone(), changes, loaded_sender));
        catalog
    }

    /// The status of the source; not loaded before its set has arrived here.
    pub(super) fn status(&self) -> Status {
        let mut status = self.status.get();
        if !self.is_loaded() {
            status.loaded = false;
            status.state = discovery_core::State::Loading(status.last_error.clone());
        }
        status
    }

    /// Whether the source has loaded once.
    pub(super) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits until the source has loaded once, for at most `limit`. Cancel safe.
    pub(super) async fn loaded(&self, limit: Duration) -> Result<(), NotLoaded> {
        if self.is_loaded() {
            return Ok(());
        }
        let mut loaded = self.loaded.clone();
        match timeout(limit, loaded.wait_for(|loaded| *loaded)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotLoaded(self.status.get().last_error)),
        }
    }

    /// A service, if it is known.
    pub(super) fn get(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All services, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Service>> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = services.values().cloned().collect();
        drop(services);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn apply(&self, batch: Vec<Update<InstanceKey, Arc<Instance>>>) {
        let mut by_service: HashMap<ServiceName, Vec<_>> = HashMap::new();
        for update in batch {
            if let Update::Insert(key, _) | Update::Remove(key) = &update {
                by_service.entry(key.service.clone()).or_default().push(update);
            }
        }
        for (name, batch) in by_service {
            let service = self.get(&name).unwrap_or_else(|| self.add(&name));
            let count = service.apply(batch);
            self.metrics.endpoints(&name, count);
            tracing::debug!(service = %name, instances = count, "instances changed");
        }
    }

    fn add(&self, name: &ServiceName) -> Arc<Service> {
        let metrics = self.metrics.service(name);
        let service = Arc::new(Service::new(name.clone(), self.reach.clone(), metrics));
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.insert(name.clone(), service.clone());
        tracing::info!(service = %name, "service found");
        service
    }

    /// Drops the services that have been empty for long.
    fn sweep(&self, now: Instant) {
        let over = |service: &Service| {
            let since = service.empty_since();
            since.is_some_and(|since| now.saturating_duration_since(since) >= KEPT_EMPTY)
        };
        // Looked for before the write lock is taken: mostly there is none.
        let gone: Vec<_> = self.all().into_iter().filter(|service| over(service)).collect();
        for service in gone {
            let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
            services.remove(&service.name);
            drop(services);
            self.metrics.forget(&service.name);
            tracing::info!(service = %service.name, "service forgotten: it has no instances");
        }
    }
}

async fn run(catalog: Arc<Catalog>, mut changes: InstanceChanges, loaded: watch::Sender<bool>) {
    let mut sweep = interval(SWEEP);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Change::Insert(key, instance)) => batch.push(Update::Insert(key, instance)),
                Some(Change::Remove(key)) => batch.push(Update::Remove(key)),
                Some(Change::Synced) => {
                    catalog.apply(std::mem::take(&mut batch));
                    loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
                }
                Some(_) => {}
                None => return,
            },
            _ = sweep.tick() => catalog.sweep(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::{MemoryRegistry, Publisher, Source as _};
    use discovery_tower::balance::Limits;
    use discovery_tower::http::pool::PooledMaker;

    use super::super::Policy;
    use super::*;

    fn catalog(changes: InstanceChanges) -> Arc<Catalog> {
        let reach = Reach {
            maker: PooledMaker::new(),
            policy: Policy::P2c,
            limits: Limits::default(),
            retries: 2,
        };
        Catalog::follow(changes, reach, Arc::new(Metrics::new().unwrap()))
    }

    fn names(catalog: &Catalog) -> String {
        let names = catalog.all().into_iter().map(|service| service.name.to_string());
        names.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_stays_for_a_while_after_its_last_instance() {
        let registry = MemoryRegistry::new();
        let catalog = catalog(registry.watch_all());
        for (service, id) in [("b", "1"), ("a", "1"), ("a", "2")] {
            registry.insert(Instance::parse(service, id, "http://127.0.0.1:1").unwrap());
        }
        catalog.loaded(Duration::from_secs(1)).await.unwrap();
        assert_eq!(names(&catalog), "a b");
        let a = catalog.get(&"a".parse().unwrap()).unwrap();
        assert_eq!(a.instances().len(), 2);

        registry.replace([Instance::parse("b", "1", "http://127.0.0.1:1").unwrap()]);
        // Paused time goes on only when nobody has anything left to do.
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(a.instances().is_empty());
        assert_eq!(names(&catalog), "a b");
        tokio::time::sleep(KEPT_EMPTY).await;
        assert_eq!(names(&catalog), "b");
        let text = catalog.metrics.text(&catalog.status()).unwrap();
        assert!(!String::from_utf8(text).unwrap().contains("service=\"a\""));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_first_set_is_told_why_it_does_not_come() {
        let mut publisher = Publisher::new();
        let catalog = catalog(publisher.subscribe());
        publisher.trouble(SourceError::new("connection refused"));
        let before = Instant::now();
        let error = catalog.loaded(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(before.elapsed(), Duration::from_secs(5));
        assert!(error.to_string().contains("connection refused"));
        assert!(!catalog.is_loaded());

        let waits = catalog.clone();
        let waits = tokio::spawn(async move { waits.loaded(Duration::from_secs(5)).await });
        publisher.replace(Vec::<(InstanceKey, Instance)>::new(), None);
        waits.await.unwrap().unwrap();
        assert!(catalog.status().is_fresh());
    }
}
