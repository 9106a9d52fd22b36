use rand::SeedableRng as _;

use super::*;
use crate::wire::Found;

const KEY: &[u8] = b"/services/a/1";
const TTL: Duration = Duration::from_secs(15);
const HERE: &str = "http://10.0.0.1:80";
const THERE: &str = "http://10.0.0.2:80";
const FOREIGN_LEASE: i64 = -7;

/// A machine, its clock, and what it said since last asked.
struct Rig {
    machine: Machine,
    now: Instant,
    asked: Option<Question>,
    reports: Vec<RegistrationStatus>,
    other_ttl: Option<Duration>,
    disconnects: usize,
    ended: bool,
}

fn plan() -> Plan {
    Plan {
        key: InstanceKey::new("a".parse().unwrap(), "1".parse().unwrap()),
        raw_key: KEY.to_vec(),
        ttl: TTL,
        on_conflict: OnConflict::Wait,
        replace_same_address: false,
        rotation: Rotation::new(&["a", "b", "c"].map(str::to_owned), 1),
        // In these tests a value is an address.
        address_of: |value| std::str::from_utf8(value).ok()?.parse().ok(),
    }
}

fn present(value: &str, version: u64) -> Wanted {
    Wanted::Present { value: value.into(), address: HERE.parse().unwrap(), version }
}

fn error(kind: Kind) -> WireError {
    WireError::new(kind, "try", "etcd", "no")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Rig {
    fn new() -> Self {
        Self::of(plan(), 1)
    }

    fn of(plan: Plan, seed: u64) -> Self {
        let now = Instant::now();
        let machine = Machine::new(plan, present(HERE, 1), StdRng::seed_from_u64(seed), now);
        let mut rig = Self {
            machine,
            now,
            asked: None,
            reports: Vec::new(),
            other_ttl: None,
            disconnects: 0,
            ended: false,
        };
        rig.collect();
        rig
    }

    fn collect(&mut self) {
        while let Some(action) = self.machine.next_action() {
            assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::Ask(question) => {
                    let puts = matches!(question, Question::Grant { .. } | Question::Put(_));
                    assert!(!(puts && self.machine.is_leaving()), "{question:?} while leaving");
                    self.asked = Some(question);
                }
                Action::Disconnect => {
                    self.asked = None;
                    self.disconnects += 1;
                }
                Action::Report(status) => self.reports.push(status),
                Action::OtherTtl { granted } => self.other_ttl = Some(granted),
                Action::End => self.ended = true,
            }
        }
    }

    fn hear(&mut self, input: Input) {
        let ticked = matches!(input, Input::Tick);
        self.machine.handle(input, self.now);
        self.collect();
        if !self.ended {
            let deadline = self.machine.deadline().expect("there is always a deadline");
            assert!(!ticked || deadline > self.now, "a busy loop: {:?}", self.machine);
        }
    }

    /// What is being asked; it is an error if nothing is.
    fn question(&self) -> Question {
        self.asked.clone().unwrap_or_else(|| panic!("nothing is asked: {:?}", self.machine))
    }

    fn answer(&mut self, answer: Answer) {
        assert!(self.asked.take().is_some(), "{answer:?} to no question");
        self.hear(Input::Answer(Ok(answer)));
    }

    fn fail(&mut self, kind: Kind) {
        assert!(self.asked.take().is_some(), "{kind:?} to no question");
        self.hear(Input::Answer(Err(error(kind))));
    }

    fn event(&mut self, event: Event) {
        self.hear(Input::Watch(Ok(WatchMessage::Events(vec![event]))));
    }

    fn want(&mut self, wanted: Wanted) {
        self.hear(Input::Wanted(wanted));
    }

    fn leave(&mut self) -> Instant {
        let deadline = self.now + Duration::from_secs(3);
        self.want(Wanted::Absent { deadline });
        deadline
    }

    /// Goes on to the deadline and says how long that took.
    fn tick(&mut self) -> Duration {
        let deadline = self.machine.deadline().expect("there is always a deadline");
        let passed = deadline.saturating_duration_since(self.now);
        self.now += passed;
        self.hear(Input::Tick);
        passed
    }

    /// Goes on until something is asked.
    fn until_asked(&mut self) -> Duration {
        let from = self.now;
        for _ in 0..100 {
            if self.asked.is_some() {
                return self.now - from;
            }
            self.tick();
        }
        panic!("nothing is ever asked: {:?}", self.machine);
    }

    fn connect(&mut self) -> usize {
        self.until_asked();
        let Question::Connect(endpoint) = self.question() else { panic!("{:?}", self.asked) };
        self.answer(Answer::Connected);
        endpoint
    }

    fn watching(&mut self) {
        assert_eq!(self.question(), Question::Watch(Keys::One(KEY.to_vec())));
        self.answer(Answer::Watching);
    }

    fn grant(&mut self) -> i64 {
        let Question::Grant { lease, ttl } = self.question() else { panic!("{:?}", self.asked) };
        assert_eq!(ttl, TTL);
        self.answer(Answer::Granted(TTL));
        lease
    }

    fn get(&mut self, entry: Option<KeyValue>, revision: i64) {
        assert_eq!(self.question(), Question::Get(KEY.to_vec()));
        self.answer(Answer::Found(Found { entry, revision }));
    }

    fn put(&mut self) -> GuardedPut {
        let Question::Put(put) = self.question() else { panic!("{:?}", self.asked) };
        put
    }

    fn done(&mut self, revision: i64) {
        self.put();
        self.answer(Answer::Put(PutReply::Done { revision }));
    }

    /// Registered, at revision 10; gives the lease.
    fn registered() -> (Self, i64) {
        Self::registered_with(plan(), 1)
    }

    fn registered_with(plan: Plan, seed: u64) -> (Self, i64) {
        let mut rig = Self::of(plan, seed);
        rig.connect();
        rig.watching();
        let lease = rig.grant();
        rig.get(None, 9);
        rig.done(10);
        assert!(rig.is_registered(1));
        assert_eq!(rig.asked, None);
        (rig, lease)
    }

    fn state(&self) -> &RegistrationState {
        &self.machine.status.state
    }

    fn is_registered(&self, version: u64) -> bool {
        matches!(self.state(), RegistrationState::Registered)
            && self.machine.status.applied == version
    }

    fn is_registering(&self) -> bool {
        matches!(self.state(), RegistrationState::Registering(_))
    }

    fn conflict(&self) -> Option<&Conflict> {
        match self.state() {
            RegistrationState::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    fn is_deregistered(&self) -> bool {
        self.ended && matches!(self.state(), RegistrationState::Deregistered)
    }
}

fn entry(value: &str, lease: i64, revision: i64) -> KeyValue {
    KeyValue { key: KEY.to_vec(), value: value.into(), revision, lease }
}

fn there(revision: i64) -> KeyValue {
    entry(THERE, FOREIGN_LEASE, revision)
}

fn deleted(revision: i64) -> Event {
    Event::Delete { key: KEY.to_vec(), revision }
}

#[test]
fn it_watches_its_key_and_reads_it_before_it_puts_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.question(), Question::Connect(1));
    rig.connect();
    rig.watching();
    let lease = rig.grant();
    assert!(lease > 0);
    rig.get(None, 9);
    let guard = Guard::Absent;
    assert_eq!(rig.put(), GuardedPut { key: KEY.to_vec(), value: HERE.into(), lease, guard });
    assert!(rig.is_registering());
    rig.done(10);
    assert!(rig.is_registered(1));
    assert!(rig.reports.iter().filter(|status| status.applied == 1).count() == 1);
}

#[test]
fn a_grant_whose_answer_was_lost_is_asked_again_by_the_same_id_and_renewed_at_once() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    let Question::Grant { lease, .. } = rig.question() else { panic!() };
    rig.fail(Kind::Unreachable);
    assert_eq!(rig.connect(), 2);
    rig.watching();
    assert_eq!(rig.question(), Question::Grant { lease, ttl: TTL });
    rig.fail(Kind::LeaseExists);
    assert_eq!(rig.question(), Question::GrantedTtl { lease });
    rig.answer(Answer::GrantedTtl(Some(ms(20_000))));
    assert_eq!(rig.other_ttl, Some(ms(20_000)));
    assert_eq!(rig.question(), Question::Renew { lease });
    let sent = rig.now;
    rig.answer(Answer::Renewed);
    assert_eq!(rig.machine.status.expires, Some(sent + ms(20_000)));
    rig.get(None, 9);
    assert_eq!(rig.put().lease, lease);
}

#[test]
fn a_lost_grant_that_is_over_by_now_is_followed_by_another_one() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    let Question::Grant { lease, .. } = rig.question() else { panic!() };
    rig.fail(Kind::LeaseExists);
    rig.answer(Answer::GrantedTtl(None));
    let Question::Grant { lease: another, .. } = rig.question() else { panic!() };
    assert_ne!(lease, another);
}

#[test]
fn the_lease_is_renewed_at_a_third_of_the_granted_time_counted_from_when_it_was_sent() {
    for seed in 0..50 {
        let mut rig = Rig::of(plan(), seed);
        rig.connect();
        rig.watching();
        let Question::Grant { lease, .. } = rig.question() else { panic!() };
        // Asked for 15 s, granted 30 s, and the answer took 2 s.
        let mut sent = rig.now;
        rig.now += ms(2_000);
        rig.answer(Answer::Granted(ms(30_000)));
        assert_eq!(rig.other_ttl, Some(ms(30_000)));
        rig.get(None, 9);
        rig.done(10);
        for _ in 0..5 {
            assert_eq!(rig.machine.status.expires, Some(sent + ms(30_000)), "seed {seed}");
            rig.until_asked();
            while rig.asked == Some(Question::Get(KEY.to_vec())) {
                rig.get(Some(entry(HERE, lease, 10)), 10);
                rig.until_asked();
            }
            assert_eq!(rig.question(), Question::Renew { lease });
            let after = rig.now - sent;
            assert!(after >= ms(9_000) && after <= ms(11_000), "seed {seed}: {after:?}");
            sent = rig.now;
            rig.now += ms(1_500);
            rig.answer(Answer::Renewed);
        }
        assert!(rig.is_registered(1));
    }
}

#[test]
fn a_granted_time_as_asked_for_is_nothing_to_report() {
    assert_eq!(Rig::registered().0.other_ttl, None);
}

#[test]
fn a_renewal_that_is_not_answered_moves_to_another_endpoint_with_the_same_lease() {
    let (mut rig, lease) = Rig::registered();
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    let waited = rig.tick();
    assert_eq!(waited, TTL / 6);
    assert_eq!(rig.disconnects, 1);
    assert!(rig.is_registered(1));
    assert_eq!(rig.connect(), 2);
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.answer(Answer::Renewed);
    rig.watching();
    rig.get(Some(entry(HERE, lease, 10)), 20);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
}

#[test]
fn a_lease_that_is_gone_is_followed_by_a_new_one_with_another_id_and_a_put() {
    for on_put in [false, true] {
        let (mut rig, lease) = Rig::registered();
        if on_put {
            rig.want(present("other", 2));
            rig.put();
        } else {
            rig.until_asked();
            assert_eq!(rig.question(), Question::Renew { lease });
        }
        rig.fail(Kind::LeaseNotFound);
        assert!(rig.is_registering());
        let another = rig.grant();
        assert_ne!(another, lease);
        rig.get(None, 20);
        let put = rig.put();
        assert_eq!((put.lease, put.guard), (another, Guard::Absent));
        rig.done(21);
        assert!(rig.is_registered(if on_put { 2 } else { 1 }));
        assert_eq!(rig.disconnects, 0);
    }
}

#[test]
fn a_key_that_was_deleted_is_put_again_at_once() {
    let (mut rig, lease) = Rig::registered();
    rig.event(deleted(11));
    assert!(rig.is_registering());
    let put = rig.put();
    assert_eq!((put.lease, put.guard), (lease, Guard::Absent));
    rig.done(12);
    assert!(rig.is_registered(1));
}

#[test]
fn the_key_is_read_from_time_to_time_even_if_the_watch_says_nothing() {
    let (mut rig, lease) = Rig::registered();
    let from = rig.now;
    let mut reads = 0;
    while rig.now - from < ms(60_000) {
        rig.until_asked();
        if let Question::Renew { .. } = rig.question() {
            rig.answer(Answer::Renewed);
        } else {
            reads += 1;
            rig.get(Some(entry(HERE, lease, 10)), 10);
        }
    }
    assert!((5..=6).contains(&reads), "{reads}");
    // What it reads counts.
    while rig.asked != Some(Question::Get(KEY.to_vec())) {
        if rig.asked.is_some() {
            rig.answer(Answer::Renewed);
        }
        rig.until_asked();
    }
    rig.get(None, 15);
    assert_eq!(rig.put().guard, Guard::Absent);
}

#[test]
fn a_foreign_holder_is_a_conflict_that_names_it_and_is_never_put_over() {
    // Found at first, or after having been registered.
    for first in [true, false] {
        let mut rig = if first {
            let mut rig = Rig::new();
            rig.connect();
            rig.watching();
            rig.grant();
            rig.get(Some(there(9)), 9);
            rig
        } else {
            let (mut rig, _) = Rig::registered();
            rig.event(Event::Put(there(11)));
            rig
        };
        let conflict = rig.conflict().expect("a conflict").clone();
        assert_eq!((conflict.address, conflict.waiting), (Some(THERE.parse().unwrap()), true));
        for revision in 20..30 {
            rig.until_asked();
            match rig.question() {
                Question::Renew { .. } => rig.answer(Answer::Renewed),
                _ => rig.get(Some(there(11)), revision),
            }
            assert!(rig.conflict().is_some());
        }
        // It takes over when the holder is gone.
        rig.event(deleted(40));
        rig.until_asked();
        assert_eq!(rig.put().guard, Guard::Absent);
    }
}

#[test]
fn somebody_who_was_quicker_is_a_conflict() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    rig.grant();
    rig.get(None, 9);
    rig.put();
    let found = Found { entry: Some(there(10)), revision: 10 };
    rig.answer(Answer::Put(PutReply::Refused(found)));
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
}

#[test]
fn a_holder_that_cannot_be_read_is_a_conflict_without_an_address() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    rig.grant();
    rig.get(Some(entry("{", 0, 9)), 9);
    assert_eq!(rig.conflict().expect("a conflict").address, None);
}

#[test]
fn a_predecessor_at_our_address_is_replaced_by_its_revision_and_only_at_first() {
    let plan = || Plan { replace_same_address: true, ..plan() };
    let mut rig = Rig::of(plan(), 1);
    rig.connect();
    rig.watching();
    let lease = rig.grant();
    rig.get(Some(entry(HERE, FOREIGN_LEASE, 5)), 9);
    assert!(rig.is_registering());
    let put = rig.put();
    assert_eq!((put.guard, put.lease), (Guard::Revision(5), lease));
    // It changed meanwhile: compared anew.
    let found = Found { entry: Some(entry(HERE, FOREIGN_LEASE, 10)), revision: 10 };
    rig.answer(Answer::Put(PutReply::Refused(found)));
    assert_eq!(rig.put().guard, Guard::Revision(10));
    rig.done(11);
    assert!(rig.is_registered(1));
    // Now that we were registered, whoever takes it is alive.
    rig.event(Event::Put(entry(HERE, FOREIGN_LEASE, 12)));
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
    // Another address is never replaced.
    let mut rig = Rig::of(plan(), 1);
    rig.connect();
    rig.watching();
    rig.grant();
    rig.get(Some(there(5)), 9);
    assert!(rig.conflict().is_some());
    assert_eq!(rig.asked, None);
    // And nobody unless that was asked for.
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    rig.grant();
    rig.get(Some(entry(HERE, FOREIGN_LEASE, 5)), 9);
    assert!(rig.conflict().is_some());
}

fn failing() -> Plan {
    Plan { on_conflict: OnConflict::Fail, ..plan() }
}

#[test]
fn who_fails_in_a_conflict_revokes_its_lease_and_ends() {
    let mut rig = Rig::of(failing(), 1);
    rig.connect();
    rig.watching();
    let lease = rig.grant();
    rig.get(Some(there(9)), 9);
    assert!(!rig.conflict().expect("a conflict").waiting);
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.answer(Answer::Revoked);
    assert!(rig.ended && rig.conflict().is_some());
}

#[test]
fn a_conflict_that_failed_is_final_whatever_becomes_of_the_holder() {
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    rig.event(Event::Put(there(11)));
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.event(deleted(12));
    assert!(rig.conflict().is_some());
    rig.fail(Kind::Unreachable);
    rig.connect();
    assert_eq!(rig.question(), Question::Revoke { lease });
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.ended && rig.conflict().is_some());
    // Also if the lease turns out to be gone by a renewal that was under way.
    let (mut rig, lease) = Rig::registered_with(failing(), 1);
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.event(Event::Put(there(11)));
    rig.fail(Kind::LeaseNotFound);
    assert!(rig.ended && rig.conflict().is_some());
}

#[test]
fn an_update_is_put_under_the_own_lease() {
    let (mut rig, lease) = Rig::registered();
    rig.want(present("new", 2));
    let put = rig.put();
    assert_eq!((put.value.as_slice(), put.guard), (b"new".as_slice(), Guard::Lease(lease)));
    assert!(rig.is_registered(1));
    // Another one while the first is under way.
    rig.want(present("newer", 3));
    rig.done(11);
    assert!(!rig.is_registered(3));
    assert_eq!(rig.put().value, b"newer");
    rig.done(12);
    assert!(rig.is_registered(3));
    assert_eq!(rig.asked, None);
    // Refused, because it was deleted meanwhile.
    rig.want(present("newest", 4));
    rig.put();
    rig.answer(Answer::Put(PutReply::Refused(Found { entry: None, revision: 13 })));
    assert_eq!(rig.put().guard, Guard::Absent);
}

#[test]
fn a_value_that_somebody_changed_under_our_lease_is_put_right() {
    let (mut rig, lease) = Rig::registered();
    rig.event(Event::Put(entry("vandal", lease, 11)));
    let put = rig.put();
    assert_eq!((put.value.as_slice(), put.guard), (HERE.as_bytes(), Guard::Lease(lease)));
    rig.done(12);
    assert!(rig.is_registered(1));
}

#[test]
fn a_put_whose_answer_was_lost_is_found_and_not_repeated() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    let lease = rig.grant();
    rig.get(None, 9);
    rig.put();
    rig.fail(Kind::Unreachable);
    rig.connect();
    rig.answer(Answer::Renewed);
    rig.watching();
    rig.get(Some(entry(HERE, lease, 10)), 11);
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
}

#[test]
fn answers_and_events_may_overtake_each_other() {
    // The watch tells of our own put and of its end before the answer to the put comes.
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    let lease = rig.grant();
    rig.get(None, 9);
    rig.put();
    rig.event(Event::Put(entry(HERE, lease, 10)));
    assert!(rig.is_registered(1));
    rig.event(deleted(11));
    assert!(rig.is_registering());
    rig.answer(Answer::Put(PutReply::Done { revision: 10 }));
    assert!(rig.is_registering());
    assert_eq!(rig.put().guard, Guard::Absent);
    rig.done(12);
    // And the other way round: old events come after newer answers.
    rig.event(Event::Put(entry(HERE, lease, 10)));
    rig.event(deleted(11));
    assert!(rig.is_registered(1));
    rig.event(Event::Put(entry(HERE, lease, 12)));
    assert!(rig.is_registered(1));
    assert_eq!(rig.asked, None);
    // An answer of the same revision as an event is as new as it.
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    rig.put();
    let found = Found { entry: Some(there(12)), revision: 12 };
    rig.event(Event::Put(there(12)));
    rig.answer(Answer::Put(PutReply::Refused(found)));
    assert!(rig.conflict().is_some());
}

#[test]
fn revisions_start_anew_with_each_connection() {
    let (mut rig, _) = Rig::registered();
    rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
    rig.connect();
    rig.fail(Kind::LeaseNotFound);
    rig.watching();
    rig.grant();
    // The store was wiped.
    rig.get(None, 1);
    rig.done(2);
    assert!(rig.is_registered(1));
    rig.event(deleted(3));
    assert!(rig.is_registering());
}

#[test]
fn late_news_of_a_watch_that_was_given_up_is_ignored() {
    let (mut rig, _) = Rig::registered();
    rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
    let due = rig.machine.deadline();
    rig.event(deleted(11));
    rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
    rig.hear(Input::Watch(Ok(WatchMessage::Canceled(error(Kind::Denied)))));
    assert!(rig.is_registered(1));
    assert_eq!((rig.disconnects, rig.machine.deadline()), (1, due));
    rig.connect();
    rig.event(deleted(12));
    rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
    assert!(rig.is_registered(1));
    assert!(matches!(rig.question(), Question::Renew { .. }));
}

/// Each phase of a registration; whether there is a lease that may be alive.
fn phases() -> Vec<(&'static str, Rig, bool)> {
    let mut phases = Vec::new();
    let upto = |steps: usize| {
        let mut rig = Rig::new();
        let moves: [fn(&mut Rig); 6] = [
            |rig| assert_eq!(rig.connect(), 1),
            Rig::watching,
            |rig| assert!(rig.grant() > 0),
            |rig| rig.get(None, 9),
            |rig| rig.done(10),
            |rig| assert!(rig.until_asked() > ms(4_000)),
        ];
        moves.into_iter().take(steps).for_each(|go| go(&mut rig));
        rig
    };
    for (steps, name) in
        ["connecting", "watching", "granting", "reading", "putting", "idle", "renewing"]
            .into_iter()
            .enumerate()
    {
        if steps != 2 {
            phases.push((name, upto(steps), steps >= 2));
        }
        let mut rig = upto(steps);
        if rig.asked.is_some() {
            rig.fail(Kind::Unreachable);
            phases.push((name, rig, steps >= 3));
        }
        let mut rig = upto(steps);
        if rig.asked.is_some() {
            rig.fail(Kind::Denied);
            phases.push((name, rig, steps >= 3));
        }
    }
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    phases.push(("putting again", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.event(Event::Put(there(11)));
    phases.push(("conflict", rig, true));
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    rig.fail(Kind::Busy);
    phases.push(("holding", rig, true));
    phases
}

#[test]
fn leaving_revokes_at_once_and_is_over_when_confirmed_or_never_begun() {
    for gone in [false, true] {
        for (phase, mut rig, leased) in phases() {
            let deadline = rig.leave();
            if !leased {
                assert!(rig.is_deregistered(), "{phase}");
                continue;
            }
            assert!(matches!(rig.state(), RegistrationState::Deregistering), "{phase}");
            // Without a connection one is made at once, whatever it was waiting for.
            if let Question::Connect(_) = rig.question() {
                rig.answer(Answer::Connected);
            }
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase} {:?}", rig.asked);
            assert!(!rig.ended);
            // News of the key changes nothing.
            rig.event(deleted(90));
            rig.event(Event::Put(there(91)));
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            // Not answered: elsewhere, in time.
            rig.tick();
            assert!(!rig.ended && rig.now + ms(1_900) < deadline, "{phase}");
            rig.connect();
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            // Who leaves does not come back.
            rig.want(present("again", 9));
            assert!(matches!(rig.question(), Question::Revoke { .. }), "{phase}");
            if gone {
                rig.fail(Kind::LeaseNotFound);
            } else {
                rig.answer(Answer::Revoked);
            }
            assert!(rig.is_deregistered(), "{phase}");
        }
    }
}

#[test]
fn an_answer_to_what_was_asked_before_leaving_is_ignored() {
    let (mut rig, _) = Rig::registered();
    rig.event(deleted(11));
    rig.put();
    rig.leave();
    rig.asked = None;
    rig.machine.asked = None;
    rig.hear(Input::Answer(Ok(Answer::Put(PutReply::Done { revision: 12 }))));
    assert!(!rig.ended);
    assert!(matches!(rig.question(), Question::Revoke { .. }));
}

#[test]
fn leaving_gives_up_at_the_deadline_and_says_how_long_the_key_may_stay() {
    let (mut rig, lease) = Rig::registered();
    rig.until_asked();
    assert_eq!(rig.question(), Question::Renew { lease });
    // It may have arrived, though the answer did not: etcd counts from then.
    rig.now += ms(1_000);
    rig.fail(Kind::Unreachable);
    let heard = rig.now;
    rig.connect();
    rig.answer(Answer::Renewed);
    rig.now += ms(2_000);
    rig.leave();
    let renewed = heard;
    let left = rig.now;
    while !rig.ended {
        if rig.asked.is_some() {
            rig.fail(Kind::Unreachable);
        } else {
            rig.tick();
        }
    }
    assert_eq!(rig.now, left + ms(3_000));
    let RegistrationState::Abandoned(unconfirmed) = rig.state() else { panic!() };
    let within = unconfirmed.gone_within.expect("the lease's time is known");
    let gone = rig.now + within;
    assert!(gone >= renewed + TTL && gone <= left + TTL + ms(500), "{within:?}");
    assert!(unconfirmed.cause.is_some());
}

#[test]
fn a_renewal_under_way_when_leaving_may_have_arrived() {
    let (mut rig, _) = Rig::registered();
    rig.until_asked();
    rig.now += ms(2_000);
    let left = rig.now;
    rig.leave();
    while !rig.ended {
        rig.tick();
    }
    let RegistrationState::Abandoned(unconfirmed) = rig.state() else { panic!() };
    assert_eq!(rig.now + unconfirmed.gone_within.unwrap(), left + TTL + ms(500));
}

/// A lease whose grant is not confirmed has no key: it is revoked if that is easy.
#[test]
fn leaving_while_granting_does_not_wait_for_a_lost_connection() {
    for answered in [true, false] {
        let mut rig = Rig::new();
        rig.connect();
        rig.watching();
        rig.leave();
        assert!(matches!(rig.question(), Question::Revoke { .. }));
        if answered {
            rig.answer(Answer::Revoked);
        } else {
            rig.tick();
        }
        assert!(rig.is_deregistered());
    }
}

#[test]
fn nothing_can_be_there_if_no_grant_was_confirmed() {
    let mut rig = Rig::new();
    rig.connect();
    rig.watching();
    rig.fail(Kind::Unreachable);
    rig.leave();
    assert!(rig.is_deregistered());
}

#[test]
fn a_dropped_handle_revokes_for_a_while_and_does_not_shorten_an_orderly_leave() {
    let (mut rig, lease) = Rig::registered();
    rig.want(Wanted::Abandoned);
    assert_eq!(rig.question(), Question::Revoke { lease });
    let from = rig.now;
    while !rig.ended {
        rig.tick();
    }
    assert_eq!(rig.now - from, ms(3_000));
    let (mut rig, _) = Rig::registered();
    let from = rig.now;
    rig.want(Wanted::Absent { deadline: rig.now + ms(20_000) });
    rig.want(Wanted::Abandoned);
    while !rig.ended {
        rig.tick();
    }
    assert_eq!(rig.now - from, ms(20_000));
}

#[test]
fn who_is_busy_or_refuses_waits_with_puts_and_grants_while_renewals_go_on() {
    for kind in [Kind::Busy, Kind::Rejected] {
        let (mut rig, lease) = Rig::registered();
        rig.want(present("new", 2));
        rig.put();
        rig.fail(kind);
        let (mut renewals, mut puts) = (0, 0);
        let from = rig.now;
        while rig.now - from < ms(30_000) {
            rig.until_asked();
            match rig.question() {
                Question::Renew { .. } => {
                    renewals += 1;
                    rig.answer(Answer::Renewed);
                }
                Question::Get(_) => rig.get(Some(entry(HERE, lease, 10)), 10),
                _ => {
                    puts += 1;
                    rig.put();
                    rig.fail(kind);
                }
            }
        }
        assert!((5..=7).contains(&renewals), "{kind:?} {renewals}");
        assert!((9..=31).contains(&puts), "{kind:?} {puts}");
        assert_eq!(rig.disconnects, 0, "{kind:?}");
        // A grant waits in the same way.
        let mut rig = Rig::new();
        rig.connect();
        rig.watching();
        let Question::Grant { lease, .. } = rig.question() else { panic!() };
        rig.fail(kind);
        assert!(matches!(rig.state(), RegistrationState::Registering(Some(_))), "{kind:?}");
        let waited = rig.until_asked();
        assert!(waited >= ms(1_000) && waited <= ms(3_000), "{kind:?} {waited:?}");
        assert_eq!(rig.question(), Question::Grant { lease, ttl: TTL });
        assert_eq!(rig.disconnects, 0);
    }
}

#[test]
fn the_end_of_the_leases_time_ends_being_registered() {
    let (mut rig, _) = Rig::registered();
    let expires = rig.machine.status.expires.unwrap();
    rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
    while rig.is_registered(1) {
        assert!(rig.now < expires);
        if rig.asked.is_some() {
            rig.fail(Kind::Unreachable);
        } else {
            rig.tick();
        }
    }
    assert_eq!(rig.now, expires);
    assert!(matches!(rig.state(), RegistrationState::Registering(Some(_))));
    // It may still be there.
    while !matches!(rig.asked, Some(Question::Renew { .. })) {
        match rig.asked {
            Some(_) => rig.answer(Answer::Connected),
            None => drop(rig.tick()),
        }
    }
}

#[test]
fn what_is_denied_is_tried_slowly_but_not_at_the_cost_of_the_lease() {
    for seed in 0..100 {
        let mut rig = Rig::of(plan(), seed);
        rig.connect();
        rig.fail(Kind::Denied);
        let waited = rig.until_asked();
        assert!(waited >= ms(8_000) && waited <= ms(12_000), "{waited:?}");
        let (mut rig, lease) = Rig::registered_with(plan(), 1);
        let expires = rig.machine.status.expires.unwrap();
        // Just before a renewal.
        rig.now += ms(4_400);
        rig.want(present("new", 2));
        rig.fail(Kind::Denied);
        rig.connect();
        assert!(rig.now + TTL / 2 < expires);
        assert_eq!(rig.question(), Question::Renew { lease });
    }
}

#[test]
fn waits_grow_and_start_anew_only_after_a_quiet_time() {
    let longest = |quiet: Duration| {
        (0..100)
            .map(|seed| {
                let mut rig = Rig::of(plan(), seed);
                for _ in 0..8 {
                    rig.until_asked();
                    rig.fail(Kind::Unreachable);
                }
                rig.connect();
                rig.now += quiet;
                rig.fail(Kind::Unreachable);
                rig.until_asked()
            })
            .max()
            .unwrap()
    };
    assert!(longest(ms(9_999)) > ms(4_000));
    assert!(longest(ms(10_000)) <= ms(50));
}

#[test]
fn every_question_has_a_deadline() {
    let within = |rig: &mut Rig| {
        let from = rig.now;
        rig.tick();
        assert_eq!(rig.disconnects, 1);
        rig.now - from
    };
    let mut rig = Rig::new();
    assert_eq!(within(&mut rig), CONNECT_WITHIN);
    for steps in 0..5 {
        let mut rig = Rig::new();
        rig.connect();
        let moves: [fn(&mut Rig); 4] = [
            Rig::watching,
            |rig| assert!(rig.grant() > 0),
            |rig| rig.get(None, 9),
            |rig| {
                rig.done(10);
                rig.want(present("new", 2));
            },
        ];
        moves.into_iter().take(steps).for_each(|go| go(&mut rig));
        // Once there is a lease to be renewed, nothing may take long.
        let limit = if steps < 2 { ANSWER_WITHIN } else { answer_within(TTL) };
        assert_eq!(within(&mut rig), limit, "{steps}");
    }
}

/// Random answers to random questions at random times: no step may leave a deadline in the past, and
/// nothing is asked that the state does not allow (the rig checks both).
#[test]
fn no_course_of_events_makes_it_spin() {
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let fails = seed % 3 == 0;
        let on_conflict = if fails { OnConflict::Fail } else { OnConflict::Wait };
        let replace_same_address = seed % 2 == 0;
        let mut rig = Rig::of(Plan { on_conflict, replace_same_address, ..plan() }, seed);
        let (mut revision, mut version) = (1, 1);
        for _ in 0..200 {
            if rig.ended {
                break;
            }
            revision += rng.random_range(0..3);
            let lease = rig.machine.lease.as_ref().map_or(1, |lease| lease.id);
            let entry = match rng.random_range(0..4) {
                0 => None,
                1 => Some(there(revision)),
                2 => Some(entry(HERE, FOREIGN_LEASE, revision)),
                _ => Some(entry(HERE, lease, revision)),
            };
            let found = Found { entry: entry.clone(), revision };
            match rng.random_range(0..100) {
                0..15 => drop(rig.tick()),
                15..25 => rig.now += ms(rng.random_range(0..4_000)),
                25..35 => rig.event(entry.map_or(deleted(revision), Event::Put)),
                35..38 => rig.hear(Input::Watch(Err(error(Kind::Unreachable)))),
                38..42 => {
                    version += 1;
                    rig.want(present("new", version));
                }
                42 => drop(rig.leave()),
                _ if rig.asked.is_none() => drop(rig.tick()),
                43..55 => {
                    let kinds = [
                        Kind::Unreachable,
                        Kind::Denied,
                        Kind::Busy,
                        Kind::Rejected,
                        Kind::LeaseNotFound,
                    ];
                    rig.fail(kinds[rng.random_range(0..kinds.len())]);
                }
                _ => {
                    let answer = match rig.question() {
                        Question::Connect(_) => Answer::Connected,
                        Question::Watch(_) => Answer::Watching,
                        Question::Grant { .. } if rng.random_bool(0.3) => {
                            rig.fail(Kind::LeaseExists);
                            continue;
                        }
                        Question::Grant { .. } => Answer::Granted(TTL),
                        Question::GrantedTtl { .. } => {
                            Answer::GrantedTtl(rng.random_bool(0.7).then_some(TTL))
                        }
                        Question::Renew { .. } => Answer::Renewed,
                        Question::Get(_) => Answer::Found(found),
                        Question::Put(_) if rng.random_bool(0.3) => {
                            Answer::Put(PutReply::Refused(found))
                        }
                        Question::Put(_) => Answer::Put(PutReply::Done { revision }),
                        Question::Revoke { .. } => Answer::Revoked,
                    };
                    rig.answer(answer);
                }
            }
        }
        // Wherever it is, it can be ended in time.
        let deadline = if rig.ended { rig.now } else { rig.leave() };
        while !rig.ended {
            rig.tick();
        }
        assert!(rig.now <= deadline, "seed {seed}");
    }
}

/// The less is left of the lease's time, the shorter the waits: an outage that ends within it costs
/// nothing.
#[test]
fn a_lease_is_not_lost_to_a_long_wait() {
    for seed in 0..300 {
        for away in [3_000, 7_000, 9_000] {
            let (mut rig, lease) = Rig::registered_with(plan(), seed);
            let back = rig.now + ms(away);
            rig.hear(Input::Watch(Err(error(Kind::Unreachable))));
            loop {
                while !matches!(rig.asked, Some(Question::Connect(_))) {
                    rig.tick();
                }
                if rig.now >= back {
                    break;
                }
                rig.fail(Kind::Unreachable);
            }
            rig.answer(Answer::Connected);
            assert_eq!(rig.question(), Question::Renew { lease }, "seed {seed}");
            let expires = rig.machine.lease.as_ref().and_then(Lease::expires).unwrap();
            assert!(rig.now < expires, "seed {seed}: {away} ms away, lease of {TTL:?} lost");
        }
    }
}

/// An update that etcd refuses is seen in the status.
#[test]
fn trouble_while_registered_is_reported() {
    let (mut rig, _) = Rig::registered();
    rig.want(present("new", 2));
    rig.fail(Kind::Rejected);
    assert!(rig.is_registered(1));
    assert!(rig.machine.status.last_error.is_some());
    assert!(rig.reports.last().is_some_and(|report| report.last_error.is_some()));
}

/// After the lease's time seemed to be over, a renewal that succeeds has the key read at once.
#[test]
fn a_lease_that_lives_on_after_all_is_registered_again_at_once() {
    let (mut rig, lease) = Rig::registered();
    // All the process stood still, and etcd did too.
    rig.now += TTL + ms(1_000);
    rig.hear(Input::Tick);
    assert!(rig.is_registering());
    assert_eq!(rig.question(), Question::Renew { lease });
    rig.answer(Answer::Renewed);
    assert!(matches!(rig.question(), Question::Get(_)), "{:?}", rig.asked);
}
