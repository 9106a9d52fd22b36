//! The simulated endpoints: servers, queues, and a heap of exact events. It has no clock of its own and
//! no tasks; the loop that runs it says when to go on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::task::Waker;

use crate::load::Nanos;
use crate::scenario::{ODD, Odd, SERVERS, Scenario};

pub(crate) const SECOND: Nanos = 1_000_000_000;

/// The answer of an endpoint that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated endpoint fails")
    }
}

impl std::error::Error for Failed {}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// A server is done with a job, if the job has not been delayed since.
    Finish(usize),
    Pause,
    Resume,
    Recover,
}

#[derive(Debug, Default)]
struct Endpoint {
    free: u8,
    queue: VecDeque<usize>,
    serving: Vec<usize>,
    paused: bool,
    entered: u64,
}

/// A request at an endpoint.
#[derive(Debug, Default)]
struct Job {
    /// Where its server is, once it has one.
    endpoint: usize,
    work: Nanos,
    finish: Nanos,
    answer: Option<Result<(), Failed>>,
    waker: Option<Waker>,
    /// Nobody waits for its answer any more; it is worked on all the same.
    abandoned: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    now: Nanos,
    odd: Odd,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    /// Events so far: of two at the same time, the one that was made first is first.
    made: u64,
    endpoints: Vec<Endpoint>,
    /// Requests for whichever server is free first.
    central: VecDeque<usize>,
    jobs: Vec<Job>,
    unused: Vec<usize>,
    /// When requests begin to count.
    counted_from: Nanos,
    /// Requests that entered the odd endpoint, and any: of those that count, and in each second.
    counted: [u64; 2],
    seconds: Vec<[u32; 2]>,
}

impl World {
    /// All servers free. What happens in the middle of the run happens at `middle`.
    pub(crate) fn new(scenario: &Scenario, middle: Nanos, counted_from: Nanos) -> Self {
        let endpoint = || Endpoint { free: SERVERS, ..Endpoint::default() };
        let mut world = Self {
            now: 0,
            odd: scenario.odd,
            events: BinaryHeap::new(),
            made: 0,
            endpoints: std::iter::repeat_with(endpoint).take(scenario.endpoints.into()).collect(),
            central: VecDeque::new(),
            jobs: Vec::new(),
            unused: Vec::new(),
            counted_from,
            counted: [0; 2],
            seconds: Vec::new(),
        };
        match scenario.odd {
            Odd::SlowThenRecovers { .. } => world.push(middle, Event::Recover),
            Odd::Pauses { every, .. } => world.push(whole(every), Event::Pause),
            Odd::Nothing | Odd::Slow { .. } | Odd::Fails { .. } => (),
        }
        world
    }

    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    /// When something happens next.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// Time has come to this.
    pub(crate) fn set_now(&mut self, now: Nanos) {
        debug_assert!(self.now <= now && self.next_at().is_none_or(|next| now <= next));
        self.now = now;
    }

    /// A request comes: to this endpoint, or to any that has a free server.
    pub(crate) fn enter(&mut self, target: Option<usize>, work: Nanos) -> usize {
        let job = Job { work, ..Job::default() };
        let id = if let Some(id) = self.unused.pop() {
            self.jobs[id] = job;
            id
        } else {
            self.jobs.push(job);
            self.jobs.len() - 1
        };
        if let Some(endpoint) = target {
            self.count(endpoint);
            self.endpoints[endpoint].queue.push_back(id);
            self.serve(endpoint);
        } else {
            self.central.push_back(id);
            if let Some(endpoint) = self.any_free() {
                self.serve(endpoint);
            }
        }
        id
    }

    /// The answer to a request, once; before it is there, the waker is kept.
    pub(crate) fn poll(&mut self, id: usize, waker: &Waker) -> Option<Result<(), Failed>> {
        let job = &mut self.jobs[id];
        if let Some(answer) = job.answer.take() {
            self.unused.push(id);
            return Some(answer);
        }
        match &mut job.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        None
    }

    /// The answer to a request will not be asked for any more.
    pub(crate) fn abandon(&mut self, id: usize) {
        if self.jobs[id].answer.take().is_some() {
            self.unused.push(id);
        } else {
            self.jobs[id].abandoned = true;
            self.jobs[id].waker = None;
        }
    }

    /// The next event happens; says who is to be woken by it.
    pub(crate) fn step(&mut self) -> Option<Waker> {
        let Reverse((at, _, event)) = self.events.pop()?;
        self.now = at;
        match event {
            Event::Finish(id) => return self.finish(id),
            Event::Recover => self.odd = Odd::Nothing,
            Event::Pause => self.pause(),
            Event::Resume => {
                self.endpoints[ODD].paused = false;
                self.serve(ODD);
            }
        }
        None
    }

    /// The part of the requests that went to the odd endpoint.
    pub(crate) fn share(&self) -> f64 {
        self.counted[0] as f64 / self.counted[1] as f64
    }

    /// Seconds from `since` until the odd endpoint had half of its fair share, in a whole second.
    pub(crate) fn back(&self, since: Nanos) -> f64 {
        let first = usize::try_from(since.div_ceil(SECOND)).unwrap_or(usize::MAX);
        let fair = self.endpoints.len() as f64;
        let is_back = |[odd, all]: &[u32; 2]| f64::from(*odd) * 2.0 * fair >= f64::from(*all);
        let second = (first..).zip(self.seconds.iter().skip(first));
        let found = second.into_iter().find(|(_, counts)| is_back(counts));
        found.map_or(f64::INFINITY, |(second, _)| ((second + 1) as f64 * 1e9 - since as f64) / 1e9)
    }

    /// Requests that have entered; those that wait or are served; answers that nobody took.
    #[cfg(test)]
    pub(crate) fn census(&self) -> [u64; 3] {
        let inside = self.endpoints.iter().map(|one| one.queue.len() + one.serving.len());
        let untaken = self.jobs.iter().filter(|job| job.answer.is_some()).count();
        let entered = self.endpoints.iter().map(|one| one.entered).sum();
        [entered, (inside.sum::<usize>() + self.central.len()) as u64, untaken as u64]
    }

    fn push(&mut self, at: Nanos, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn count(&mut self, endpoint: usize) {
        self.endpoints[endpoint].entered += 1;
        let is_odd = endpoint == ODD;
        if self.now >= self.counted_from {
            self.counted[0] += u64::from(is_odd);
            self.counted[1] += 1;
        }
        let second = usize::try_from(self.now / SECOND).unwrap_or(usize::MAX);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, [0; 2]);
        }
        self.seconds[second][0] += u32::from(is_odd);
        self.seconds[second][1] += 1;
    }

    /// An endpoint with a free server; the odd one only if there is no other.
    fn any_free(&self) -> Option<usize> {
        let others = (0..self.endpoints.len()).filter(|endpoint| *endpoint != ODD);
        let is_free = |endpoint: &usize| {
            self.endpoints.get(*endpoint).is_some_and(|one| one.free > 0 && !one.paused)
        };
        others.chain([ODD]).find(is_free)
    }

    /// The endpoint's free servers take up what waits.
    fn serve(&mut self, endpoint: usize) {
        loop {
            let one = &mut self.endpoints[endpoint];
            if one.paused || one.free == 0 {
                return;
            }
            let id = if let Some(id) = one.queue.pop_front() {
                id
            } else if let Some(id) = self.central.pop_front() {
                self.count(endpoint);
                id
            } else {
                return;
            };
            let odd = if endpoint == ODD { self.odd } else { Odd::Nothing };
            let job = &mut self.jobs[id];
            let takes = match odd {
                Odd::Slow { times } | Odd::SlowThenRecovers { times } => {
                    job.work * u64::from(times)
                }
                Odd::Fails { after } => whole(after),
                Odd::Nothing | Odd::Pauses { .. } => job.work,
            };
            job.endpoint = endpoint;
            job.finish = self.now + takes;
            let finish = job.finish;
            let one = &mut self.endpoints[endpoint];
            one.free -= 1;
            one.serving.push(id);
            self.push(finish, Event::Finish(id));
        }
    }

    fn finish(&mut self, id: usize) -> Option<Waker> {
        let job = &mut self.jobs[id];
        if job.finish != self.now {
            // It was delayed: another event stands for it.
            return None;
        }
        let endpoint = job.endpoint;
        let fails = endpoint == ODD && matches!(self.odd, Odd::Fails { .. });
        let waker = job.waker.take();
        if job.abandoned {
            self.unused.push(id);
        } else {
            job.answer = Some(if fails { Err(Failed) } else { Ok(()) });
        }
        let one = &mut self.endpoints[endpoint];
        one.free += 1;
        one.serving.retain(|served| *served != id);
        self.serve(endpoint);
        waker
    }

    fn pause(&mut self) {
        let Odd::Pauses { length, every } = self.odd else { return };
        let (length, every) = (whole(length), whole(every));
        self.endpoints[ODD].paused = true;
        for id in self.endpoints[ODD].serving.clone() {
            self.jobs[id].finish += length;
            self.push(self.jobs[id].finish, Event::Finish(id));
        }
        self.push(self.now + length, Event::Resume);
        self.push(self.now + every, Event::Pause);
    }
}

fn whole(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn world(name: &str) -> World {
        let all = Scenario::all();
        let scenario = all.iter().find(|one| one.name == name).unwrap();
        World::new(scenario, 10 * MS, 0)
    }

    /// Goes on until the request is answered, and says when that was.
    fn answered(world: &mut World, id: usize) -> (Nanos, bool) {
        loop {
            if let Some(answer) = world.poll(id, Waker::noop()) {
                return (world.now, answer.is_ok());
            }
            world.step();
            assert!(world.now < 3600 * SECOND, "never answered");
        }
    }

    #[test]
    fn requests_that_find_all_servers_busy_are_served_in_turn() {
        let work = [10, 20, 30, 40, 5, 1];
        let expected = [10, 20, 30, 40, 15, 16];
        for (index, expected) in expected.into_iter().enumerate() {
            let mut world = world("uniform");
            let ids = work.map(|ms| world.enter(Some(0), ms * MS));
            assert_eq!(answered(&mut world, ids[index]).0, expected * MS, "{index}");
        }
    }

    #[test]
    fn the_odd_endpoint_is_slow_until_it_recovers() {
        let mut world = world("slow-recovers");
        let [odd, other] = [ODD, 0].map(|endpoint| world.enter(Some(endpoint), 5 * MS));
        assert_eq!(answered(&mut world, other), (5 * MS, true));
        assert_eq!(answered(&mut world, odd), (50 * MS, true));
        let odd = world.enter(Some(ODD), 5 * MS);
        assert_eq!(answered(&mut world, odd), (55 * MS, true));
    }

    #[test]
    fn the_odd_endpoint_fails_after_a_time_of_its_own() {
        let mut world = world("fails-fast");
        let odd = world.enter(Some(ODD), 5 * MS);
        assert_eq!(answered(&mut world, odd), (MS / 2, false));
    }

    #[test]
    fn a_pause_delays_what_is_in_service_and_what_comes() {
        let mut world = world("pauses");
        // In service from 4990 on.
        while world.next_at() != Some(5000 * MS) {
            world.step();
        }
        world.set_now(4990 * MS);
        let [before, other] = [ODD, 0].map(|endpoint| world.enter(Some(endpoint), 20 * MS));
        world.step();
        assert_eq!(world.now(), 5000 * MS);
        let during = world.enter(Some(ODD), 20 * MS);
        assert_eq!(answered(&mut world, other), (5010 * MS, true));
        assert_eq!(answered(&mut world, before), (5310 * MS, true));
        assert_eq!(answered(&mut world, during), (5320 * MS, true));
        assert_eq!(world.next_at(), Some(10_000 * MS), "the next pause");
    }

    #[test]
    fn a_central_queue_uses_each_free_server() {
        let mut world = world("uniform");
        let ids: Vec<usize> = (0..41).map(|_| world.enter(None, 10 * MS)).collect();
        assert!(world.endpoints.iter().all(|one| one.free == 0));
        assert_eq!(answered(&mut world, ids[40]).0, 20 * MS);
    }

    #[test]
    fn an_abandoned_request_is_worked_on_and_forgotten() {
        let mut world = world("uniform");
        let id = world.enter(Some(0), 10 * MS);
        world.abandon(id);
        assert_eq!(world.census(), [1, 1, 0]);
        world.step();
        assert_eq!((world.census(), world.unused.len()), ([1, 0, 0], 1));
    }

    #[test]
    fn the_share_is_back_in_the_first_whole_second_with_half_of_the_fair_one() {
        let mut world = world("uniform");
        world.seconds = vec![[50, 100], [4, 100], [4, 100], [5, 100]];
        assert!((world.back(SECOND / 2) - 3.5).abs() < 1e-9);
        world.seconds.pop();
        assert!(world.back(SECOND / 2).is_infinite());
    }
}
