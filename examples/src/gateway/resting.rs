//! Instances that failed a moment ago.
//!
//! The balancer measures how fast an instance answers, and nothing refuses faster than a port that
//! nobody listens on. Until it weighs failures too, requests keep away from an instance that could not
//! be connected to for a second, so that a dead one that is still registered costs one failed attempt
//! a second and not its share of all. Of a suspect, which the registry lost already, one failure is
//! enough, be it a lost connection, a 500, 502, 503 or 504, or no answer within `--timeout-ms`: it
//! rests for as long as it is a suspect.

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
    resting: Mutex<Vec<(InstanceKey, Until)>>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Time(Instant),
    NoSuspect,
}

impl Resting {
    /// The instance could not be connected to.
    pub(super) fn add(&self, key: &InstanceKey) {
        self.rest(key, Until::Time(Instant::now() + REST));
    }

    /// The instance is a suspect, and failed.
    pub(super) fn add_suspect(&self, key: &InstanceKey) {
        self.rest(key, Until::NoSuspect);
    }

    fn rest(&self, key: &InstanceKey, until: Until) {
        let mut resting = self.lock();
        resting.retain(|(other, _)| other != key);
        resting.push((key.clone(), until));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Of those that rest as suspects, keeps only those that still are.
    pub(super) fn only_suspects(&self, is_suspect: impl Fn(&InstanceKey) -> bool) {
        if self.any.load(Ordering::Relaxed) {
            drop(self.retain(|key, until| matches!(until, Until::Time(_)) || is_suspect(key)));
        }
    }

    /// `tried` and those that rest now.
    pub(super) fn and(&self, tried: &Avoid) -> Avoid {
        let mut avoid = tried.clone();
        if self.any.load(Ordering::Relaxed) {
            let now = Instant::now();
            let resting = self.retain(|_, until| match until {
                Until::Time(time) => time > now,
                Until::NoSuspect => true,
            });
            for (key, _) in resting.iter() {
                avoid.add(key.clone());
            }
        }
        avoid
    }

    fn retain(
        &self,
        keep: impl Fn(&InstanceKey, Until) -> bool,
    ) -> MutexGuard<'_, Vec<(InstanceKey, Until)>> {
        let mut resting = self.lock();
        resting.retain(|(key, until)| keep(key, *until));
        self.any.store(!resting.is_empty(), Ordering::Relaxed);
        resting
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(InstanceKey, Until)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> InstanceKey {
        InstanceKey::new("a".parse().unwrap(), id.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn they_rest_for_a_second_from_their_last_failure() {
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

    #[tokio::test(start_paused = true)]
    async fn suspects_rest_as_long_as_they_are_suspects() {
        let resting = Resting::default();
        for id in ["1", "2", "3"] {
            resting.add(&key(id));
        }
        resting.add_suspect(&key("1"));
        resting.add_suspect(&key("2"));
        resting.only_suspects(|suspect| *suspect == key("1"));
        assert_eq!(resting.and(&Avoid::new()).keys(), [key("3"), key("1")]);
        tokio::time::advance(REST * 100).await;
        assert_eq!(resting.and(&Avoid::new()).keys(), [key("1")]);
        resting.only_suspects(|_| false);
        assert!(resting.and(&Avoid::new()).is_empty());
        assert!(!resting.any.load(Ordering::Relaxed));
    }
}
