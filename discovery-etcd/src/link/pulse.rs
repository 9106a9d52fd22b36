//! Whether a connection is alive: a server that hangs says nothing, and neither does a quiet one.
//!
//! After a while of silence the server is *probed* on the stream of the watches, which also proves
//! that the stream moves; any message is a sign of life. A server need not know probes (etcd's gRPC
//! proxy answers none), so a linearizable *count* of keys on the same connection goes with the first
//! probe and tells such a server from a dead one; for it the count takes the probe's place from then
//! on. One that has answered probes and stops is in doubt at once and dead a moment later: even if a
//! count were answered, the stream does not move.

use std::time::Duration;

use tokio::time::Instant;

/// How long the stream may be silent before the server is asked.
const SILENT: Duration = Duration::from_secs(3);
/// How long the answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long one that is in doubt has: it is given up after 6 s in all.
const DOUBT_FOR: Duration = Duration::from_secs(1);

/// Told of a time so much later, we were kept from running ourselves.
pub(super) const LATE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// A probe, of a server that is known to answer them.
    Probe,
    /// A probe and a count, of one that is not known to; whether the count was answered.
    Both {
        counted: bool,
    },
    /// A count, of a server that is known not to answer probes.
    Count,
    /// Nothing more, of one that did not answer a probe.
    Doubt,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    /// Ask for a sign of life on the stream.
    Probe,
    /// Count the keys.
    Count,
    /// Both of these.
    Both,
    /// It is in doubt from now on.
    Doubt,
    /// It is in doubt no more.
    Trust,
    /// Give it up.
    Dead,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pulse {
    /// When there was a sign of life, or when the present question was asked.
    since: Instant,
    asked: Asked,
    answers_probes: Option<bool>,
}

impl Pulse {
    /// Of a stream that was alive just now.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, asked: Asked::Nothing, answers_probes: None }
    }

    /// When to [`tick`](Self::tick).
    pub(super) fn deadline(&self) -> Instant {
        self.since
            + match self.asked {
                Asked::Nothing => SILENT,
                Asked::Doubt => DOUBT_FOR,
                _ => ANSWER_WITHIN,
            }
    }

    /// The stream said something; `progress`: in answer to a probe.
    pub(super) fn heard(&mut self, progress: bool, now: Instant) -> Beat {
        if progress {
            self.answers_probes = Some(true);
        }
        let doubted = self.asked == Asked::Doubt;
        self.asked = Asked::Nothing;
        self.since = now;
        if doubted { Beat::Trust } else { Beat::Nothing }
    }

    /// The count was answered.
    pub(super) fn counted(&mut self, now: Instant) {
        match &mut self.asked {
            Asked::Both { counted } => *counted = true,
            Asked::Count => {
                self.asked = Asked::Nothing;
                self.since = now;
            }
            Asked::Doubt | Asked::Nothing | Asked::Probe => {}
        }
    }

    /// Something on the connection took too long: the server is asked now, if it is not already.
    pub(super) fn check(&mut self, now: Instant) -> Beat {
        match self.asked {
            Asked::Nothing => self.ask(now),
            _ => Beat::Nothing,
        }
    }

    fn ask(&mut self, now: Instant) -> Beat {
        self.since = now;
        let (asked, beat) = match self.answers_probes {
            Some(true) => (Asked::Probe, Beat::Probe),
            Some(false) => (Asked::Count, Beat::Count),
            None => (Asked::Both { counted: false }, Beat::Both),
        };
        self.asked = asked;
        beat
    }

    /// The time has come.
    pub(super) fn tick(&mut self, now: Instant) -> Beat {
        let late = now.saturating_duration_since(self.deadline());
        if now < self.deadline() {
            return Beat::Nothing;
        }
        if late > LATE && self.asked != Asked::Nothing {
            // It was us who did not run: the answer may be there and not be read yet.
            self.since = now;
            return Beat::Nothing;
        }
        let (asked, beat) = match self.asked {
            Asked::Nothing => return self.ask(now),
            Asked::Probe => (Asked::Doubt, Beat::Doubt),
            Asked::Both { counted: true } => {
                self.answers_probes = Some(false);
                (Asked::Nothing, Beat::Nothing)
            }
            Asked::Both { counted: false } | Asked::Count | Asked::Doubt => {
                (Asked::Nothing, Beat::Dead)
            }
        };
        self.since = now;
        self.asked = asked;
        beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A pulse whose server answers probes, or does not, at its first sign of life after that.
    fn known(answers: bool) -> (Pulse, Instant) {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.tick(start + s(3) - Duration::from_millis(1)), Beat::Nothing);
        assert_eq!(pulse.tick(start + s(3)), Beat::Both);
        pulse.counted(start + s(3));
        if answers {
            assert_eq!(pulse.heard(true, start + s(4)), Beat::Nothing);
            return (pulse, start + s(4));
        }
        assert_eq!(pulse.deadline(), start + s(5));
        assert_eq!(pulse.tick(start + s(5)), Beat::Nothing);
        (pulse, start + s(5))
    }

    #[test]
    fn a_server_that_answers_is_probed_whenever_it_is_silent() {
        let (mut pulse, mut now) = known(true);
        for _ in 0..3 {
            now += s(3);
            assert_eq!((pulse.deadline(), pulse.tick(now)), (now, Beat::Probe));
            assert_eq!(pulse.heard(true, now), Beat::Nothing);
        }
        // Any message will do.
        pulse.heard(false, now + s(2));
        assert_eq!(pulse.deadline(), now + s(5));
    }

    #[test]
    fn one_that_stops_answering_is_in_doubt_after_5_s_and_dead_after_6() {
        let (mut pulse, now) = known(true);
        assert_eq!(pulse.tick(now + s(3)), Beat::Probe);
        assert_eq!(pulse.tick(now + s(5)), Beat::Doubt);
        assert_eq!((pulse.deadline(), pulse.tick(now + s(6))), (now + s(6), Beat::Dead));

        let (mut pulse, now) = known(true);
        pulse.tick(now + s(3));
        pulse.tick(now + s(5));
        assert_eq!(pulse.heard(false, now + s(5)), Beat::Trust);
        assert_eq!(pulse.deadline(), now + s(8));

        let (mut pulse, now) = known(true);
        pulse.tick(now + s(3));
        pulse.tick(now + s(5));
        pulse.counted(now + s(5)); // of before
        assert_eq!(pulse.tick(now + s(6)), Beat::Dead, "the stream stands still");
    }

    #[test]
    fn one_that_knows_no_probes_is_counted_instead() {
        let (mut pulse, mut now) = known(false);
        for _ in 0..3 {
            now += s(3);
            assert_eq!(pulse.tick(now), Beat::Count);
            now += s(1);
            pulse.counted(now);
        }
        assert_eq!(pulse.tick(now + s(3)), Beat::Count);
        assert_eq!(pulse.tick(now + s(5)), Beat::Dead);
    }

    #[test]
    fn one_that_never_answered_anything_is_dead_after_5_s() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.tick(start + s(3)), Beat::Both);
        assert_eq!(pulse.tick(start + s(5)), Beat::Dead);
    }

    #[test]
    fn what_takes_too_long_has_it_asked_at_once_and_only_once() {
        let (mut pulse, now) = known(true);
        assert_eq!(pulse.check(now + s(1)), Beat::Probe);
        assert_eq!(pulse.check(now + s(2)), Beat::Nothing);
        assert_eq!(pulse.tick(now + s(3)), Beat::Doubt);
        assert_eq!(pulse.check(now + s(3)), Beat::Nothing);
        assert_eq!(pulse.tick(now + s(4)), Beat::Dead);
    }

    #[test]
    fn who_was_kept_from_running_gives_the_answer_its_time_again() {
        let (mut pulse, now) = known(true);
        assert_eq!(pulse.tick(now + s(3)), Beat::Probe);
        assert_eq!(pulse.tick(now + s(9)), Beat::Nothing, "4 s late");
        assert_eq!(pulse.tick(now + s(11)), Beat::Doubt);
        assert_eq!(pulse.tick(now + s(12)), Beat::Dead);
    }
}
