//! How balancers are doing at the moment: gauges, added up over those of one name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::facade::set;
use super::figures::{ENDPOINTS, PANIC, PENDING, SERVICE, STALE};
use crate::balance::Standing;

/// How one balancer is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauges {
    /// Endpoints, by the place of their standing.
    pub(super) standings: [u32; Standing::ALL.len()],
    pub(super) pending: u64,
    pub(super) panic: bool,
    /// In seconds, if it is known of the source.
    pub(super) stale: Option<f64>,
}

/// The balancers of one name.
#[derive(Debug, Default)]
struct Service {
    balancers: BTreeMap<u64, Gauges>,
    /// Which gauges were ever told: what never happens is not worth a series.
    standings: [bool; Standing::ALL.len()],
    stale: bool,
}

static ALL: Mutex<BTreeMap<Arc<str>, Service>> = Mutex::new(BTreeMap::new());

/// One balancer among all of them.
#[derive(Debug)]
pub(super) struct Shown {
    service: Arc<str>,
    id: u64,
}

impl Shown {
    /// It is shown from now on.
    pub(super) fn new(service: Arc<str>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let shown = Self { service, id: IDS.fetch_add(1, Ordering::Relaxed) };
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let service = all.entry(shown.service.clone()).or_default();
        service.balancers.insert(shown.id, Gauges::default());
        drop(all);
        shown
    }

    /// It is doing so, unless it is shown no longer.
    pub(super) fn set(&self, gauges: Gauges) {
        self.change(|balancers| {
            if let Some(own) = balancers.get_mut(&self.id) {
                *own = gauges;
            }
        });
    }

    /// It is shown no longer.
    pub(super) fn leave(&self) {
        self.change(|balancers| {
            balancers.remove(&self.id);
        });
    }

    /// Tells what all balancers of this name come to after a change: under the lock, so that the last
    /// word is about the last change.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Gauges>)) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(service) = all.get_mut(&self.service) else { return };
        change(&mut service.balancers);
        service.tell(&self.service);
        if service.balancers.is_empty() {
            all.remove(&self.service);
        }
    }
}

impl Service {
    fn tell(&mut self, name: &str) {
        let service = (SERVICE, name);
        let all = || self.balancers.values();
        for (place, standing) in Standing::ALL.iter().enumerate() {
            let sum: u32 = all().filter_map(|gauges| gauges.standings.get(place)).sum();
            if let Some(told) = self.standings.get_mut(place)
                && (sum > 0 || *told)
            {
                *told = true;
                set(&ENDPOINTS, &[service, ("standing", standing.name())], sum.into());
            }
        }
        let all = || self.balancers.values();
        set(&PENDING, &[service], all().map(|gauges| gauges.pending).sum::<u64>() as f64);
        set(&PANIC, &[service], f64::from(u8::from(all().any(|gauges| gauges.panic))));
        let stale = all().filter_map(|gauges| gauges.stale).reduce(f64::max);
        if stale.is_some() || self.stale {
            self.stale = true;
            set(&STALE, &[service], stale.unwrap_or(0.0));
        }
    }
}
