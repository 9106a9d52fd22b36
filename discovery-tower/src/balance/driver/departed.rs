//! What is held against endpoints that have left. One that comes and goes all the time must not come
//! back each time as if it had never failed.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

/// What is held against an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Until when it is left out.
    pub(crate) out_until: Option<Instant>,
    /// How often it was, as far as that is not forgotten.
    pub(crate) ejections: u32,
    /// Calls it has to serve yet on probation.
    pub(crate) to_pass: u32,
    /// How many calls have failed one after the other.
    pub(crate) failures_in_a_row: u32,
    /// What was logged of its failing to connect.
    pub(crate) said: Said,
}

/// What was logged of an endpoint that fails to connect. One that comes and goes is not to fill the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Said {
    #[default]
    Nothing,
    /// That it cannot be used.
    Down,
    /// That it comes and goes.
    Flaps,
}

/// The records of those that have left, for as long as they would count had they stayed.
#[derive(Debug)]
pub(crate) struct Departed<K>(HashMap<K, Record>);

impl<K> Default for Departed<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Departed<K> {
    /// It leaves.
    pub(crate) fn keep(&mut self, key: K, record: Record) {
        if record != Record::default() {
            self.0.insert(key, record);
        }
    }

    /// It is back.
    pub(crate) fn take(&mut self, key: &K) -> Option<Record> {
        self.0.remove(key)
    }

    /// Once an interval: as with those that are there, one past ejection is forgotten.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, record| {
            if record.out_until.is_some_and(|until| until > now) {
                return true;
            }
            record.ejections = record.ejections.saturating_sub(1);
            record.said = match record.said {
                Said::Flaps => Said::Down,
                Said::Down | Said::Nothing => Said::Nothing,
            };
            record.ejections > 0 || record.said != Said::Nothing
        });
        if self.0.is_empty() {
            self.0 = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_is_kept_while_it_counts() {
        let now = Instant::now();
        let until = now + Duration::from_secs(30);
        let out = Record { out_until: Some(until), ejections: 2, ..Record::default() };
        let failing = Record { failures_in_a_row: 4, ..Record::default() };
        let mut departed = Departed::default();
        departed.keep("good", Record::default());
        departed.keep("failing", failing);
        departed.keep("out", out);
        assert_eq!(departed.take(&"good"), None);
        assert_eq!(departed.take(&"failing"), Some(failing));
        assert_eq!(departed.take(&"failing"), None, "it has it itself now");
        departed.keep("failing", failing);
        departed.sweep(now);
        assert_eq!(departed.take(&"failing"), None);
        departed.sweep(until);
        assert_eq!(departed.take(&"out"), Some(Record { ejections: 1, ..out }));
        departed.keep("out", out);
        departed.keep("flaps", Record { said: Said::Flaps, ..Record::default() });
        departed.sweep(until);
        let down = Record { said: Said::Down, ..Record::default() };
        assert_eq!(departed.take(&"flaps"), Some(down));
        departed.keep("flaps", down);
        departed.sweep(until);
        assert!(departed.0.is_empty());
    }
}
