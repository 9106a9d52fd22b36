//! Instances that could not be connected to a moment ago.
//!
//! The balancer measures how fast an instance answers, and nothing refuses faster than a port that
//! nobody listens on. Until it weighs failures too, requests keep away from such an instance for a
//! second, so that a dead one that is still registered costs one failed attempt a second and not its
//! share of all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::InstanceKey;
use discovery_tower::Avoid;
use tokio::time::Instant;

const REST: Duration = Duration::from_secs(1);

/// The instances of one service that rest.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// Nearly always `false`, so that requests need no lock.
    any: AtomicBool,
    until: Mutex<Vec<(InstanceKey, Instant)>>,
}

impl Resting {
    /// The instance could not be connected to.
    pub(super) fn add(&self, key: &InstanceKey) {
        let mut until = self.lock();
        until.retain(|(other, _)| other != key);
        until.push((key.clone(), Instant::now() + REST));
        self.any.store(true, Ordering::Relaxed);
    }

    /// `tried` and those that rest now.
    pub(super) fn and(&self, tried: &Avoid) -> Avoid {
        let mut avoid = tried.clone();
        if self.any.load(Ordering::Relaxed) {
            let now = Instant::now();
            let mut until = self.lock();
            until.retain(|(_, until)| *until > now);
            self.any.store(!until.is_empty(), Ordering::Relaxed);
            for (key, _) in until.iter() {
                avoid.add(key.clone());
            }
        }
        avoid
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(InstanceKey, Instant)>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_rest_for_a_second_from_their_last_failure() {
        let key = |id: &str| InstanceKey::new("a".parse().unwrap(), id.parse().unwrap());
        let resting = Resting::default();
        assert!(resting.and(&Avoid::new()).is_empty());
        resting.add(&key("1"));
        tokio::time::advance(REST / 2).await;
        resting.add(&key("1"));
        resting.add(&key("2"));
        tokio::time::advance(REST / 2).await;
        let mut tried = Avoid::new();
        tried.add(key("2"));
        assert_eq!(resting.and(&tried).keys(), [key("2"), key("1")]);
        tokio::time::advance(REST / 2).await;
        assert!(resting.and(&Avoid::new()).is_empty());
        assert!(!resting.any.load(Ordering::Relaxed));
    }
}
