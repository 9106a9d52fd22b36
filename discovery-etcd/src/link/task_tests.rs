//! Many users on one link to a scripted etcd.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::*;
use crate::fake::{Fake, FakeWire, Store};
use crate::wire::{Keys, Kind};

type User = Ticket<FakeWire>;

/// The way to an etcd that may be away.
#[derive(Clone)]
struct Way(Arc<Mutex<Attempts>>, Fake);

#[derive(Default)]
struct Attempts {
    at: Vec<Instant>,
    away: Option<Kind>,
    /// How long an attempt takes.
    takes: Duration,
}

impl Way {
    fn attempts<T>(&self, work: impl FnOnce(&mut Attempts) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connect for Way {
    type Wire = FakeWire;

    async fn connect(&self, endpoint: &str) -> Result<FakeWire> {
        let (away, takes) = self.attempts(|attempts| {
            attempts.at.push(Instant::now());
            (attempts.away, attempts.takes)
        });
        sleep(takes).await;
        match away {
            Some(kind) => Err(WireError::new(kind, "connect", endpoint, "it is away")),
            None => self.1.connect(endpoint).await,
        }
    }
}

struct Rig {
    etcd: Fake,
    way: Way,
    link: Link<FakeWire>,
}

impl Rig {
    fn new() -> Self {
        let etcd = Fake::new(1);
        let way = Way(Arc::default(), etcd.clone());
        let rotation = Rotation::new(&["a", "b", "c"].map(str::to_owned), 1);
        let (link, work) = Link::new(way.clone(), rotation, false, StdRng::seed_from_u64(1));
        tokio::spawn(work);
        Self { etcd, way, link }
    }

    /// From now on, nobody can connect; who is connected is cut off.
    fn leave(&self, why: Kind) {
        self.way.attempts(|attempts| attempts.away = Some(why));
        self.etcd.cut();
    }

    fn come_back(&self) {
        self.way.attempts(|attempts| attempts.away = None);
    }

    /// How many attempts there were so far.
    fn attempts(&self) -> usize {
        self.way.attempts(|attempts| attempts.at.len())
    }

    /// How many attempts there were in this time, counted from `from`.
    fn attempts_in(&self, from: Instant, span: std::ops::Range<u64>) -> usize {
        let span = from + s(span.start)..from + s(span.end);
        self.way.attempts(|attempts| attempts.at.iter().filter(|at| span.contains(at)).count())
    }

    async fn user(&self) -> User {
        let mut user = self.link.join();
        up(&mut user).await;
        user
    }

    /// A user with a watch.
    async fn watcher(&self, name: &str) -> User {
        let mut user = self.user().await;
        watch(&mut user, name).await;
        user
    }

    async fn watchers(&self, number: usize) -> Vec<User> {
        let mut users = Vec::new();
        for user in 0..number {
            users.push(self.watcher(&format!("{user}/")).await);
        }
        users
    }

    fn write(&self, key: &str) {
        self.etcd.with(|store| store.write(vec![(key.into(), Some((b"v".to_vec(), 0)))]));
    }

    async fn until_watched(&self, number: usize) {
        timeout(s(1), async {
            while self.etcd.with(|store| store.watched()) != number {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{} watches", self.etcd.with(|store| store.watched())));
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn prefix(name: &str) -> Keys {
    Keys::Prefix(name.into())
}

async fn next(user: &mut User) -> News<FakeWire> {
    timeout(s(30), user.next()).await.expect("some news").expect("the link lives")
}

async fn up(user: &mut User) -> FakeWire {
    match next(user).await {
        News::Up(wire) => wire,
        other => panic!("{}", text(&other)),
    }
}

async fn down(user: &mut User) -> WireError {
    match next(user).await {
        News::Down(error) => error,
        other => panic!("{}", text(&other)),
    }
}

async fn created(user: &mut User) {
    let news = next(user).await;
    assert!(matches!(news, News::Created { .. }), "{}", text(&news));
}

async fn watch(user: &mut User, name: &str) {
    user.open(prefix(name));
    created(user).await;
}

/// The keys of the events that are told next.
async fn changed(user: &mut User) -> Vec<String> {
    let key = |event: &Event| String::from_utf8_lossy(event.key()).into_owned();
    match next(user).await {
        News::Events(events) => events.iter().map(key).collect(),
        other => panic!("{}", text(&other)),
    }
}

/// What there is to be told now, after everything that is under way has come.
async fn told(user: &mut User) -> Vec<String> {
    sleep(Duration::from_millis(100)).await;
    let news =
        std::iter::from_fn(|| user.next().now_or_never().map(|news| news.map(|it| text(&it))));
    news.map(|text| text.expect("the link lives")).collect()
}

fn text(news: &News<FakeWire>) -> String {
    match news {
        News::Up(_) => "up".to_owned(),
        News::Down(error) => format!("down: {error}"),
        News::Doubt(_) => "doubt".to_owned(),
        News::Trust => "trust".to_owned(),
        News::Retry => "retry".to_owned(),
        News::Created { .. } => "created".to_owned(),
        News::Refused(error) => format!("refused: {error}"),
        News::Canceled(error) => format!("canceled: {error}"),
        News::Events(events) => format!("{} events", events.len()),
    }
}

const NOTHING: [&str; 0] = [];

#[tokio::test(start_paused = true)]
async fn many_users_share_one_connection_and_one_stream() {
    let rig = Rig::new();
    let mut users: Vec<_> = (0..200).map(|_| rig.link.join()).collect();
    for user in &mut users {
        up(user).await;
    }
    // All at once; the scripted etcd bears one at a time.
    for (number, user) in users.iter_mut().enumerate() {
        user.open(prefix(&format!("{number}/")));
    }
    for user in &mut users {
        created(user).await;
    }
    assert_eq!(rig.etcd.with(|store| store.watched()), 200);
    for (number, user) in users.iter_mut().enumerate().step_by(50) {
        rig.write(&format!("{number}/x"));
        assert_eq!(changed(user).await, [format!("{number}/x")]);
    }
    for user in &mut users {
        assert_eq!(told(user).await, NOTHING, "the news of others are theirs");
    }
    assert_eq!((rig.attempts(), rig.etcd.open(), rig.etcd.streams()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_denied_or_ended_disturbs_no_other() {
    let rig = Rig::new();
    let mut users = rig.watchers(3).await;
    let mut denied = rig.link.join();
    let wire = up(&mut denied).await;
    rig.etcd.with(|store| store.forbidden = Some(b"secret/".to_vec()));
    for _ in 0..3 {
        denied.open(prefix("secret/"));
        let News::Refused(error) = next(&mut denied).await else { panic!("it may not") };
        assert_eq!(error.kind, Kind::Denied);
        wire.refresh().await.unwrap();
    }
    // Nor is its next watch disturbed by that.
    watch(&mut denied, "x/").await;
    rig.write("x/1");
    assert_eq!(changed(&mut denied).await, ["x/1"]);
    for (number, user) in users.iter_mut().enumerate() {
        rig.write(&format!("{number}/x"));
        assert_eq!(told(user).await, ["1 events"]);
    }
    drop(denied);
    rig.until_watched(3).await;

    rig.etcd.with(Store::end_a_watch);
    let mut ended = 0;
    for user in &mut users {
        match told(user).await.as_slice() {
            [] => {}
            [one] if one.starts_with("canceled") => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ended, rig.attempts()), (1, 1));
    // Each denial may be the stream's token's: after a refresh the next attempt was on another stream.
    assert_eq!(rig.etcd.streams(), 1 + 3);
}

/// A stream keeps the token that it was opened with, so who was denied anything needs another one.
#[tokio::test(start_paused = true)]
async fn after_a_refresh_watches_are_created_on_one_other_stream() {
    let rig = Rig::new();
    let mut users = [rig.link.join(), rig.user().await, rig.user().await];
    let wire = up(&mut users[0]).await;
    watch(&mut users[0], "0/").await;
    watch(&mut users[1], "1/").await;
    assert_eq!(rig.etcd.streams(), 1);
    wire.refresh().await.unwrap();
    watch(&mut users[1], "1/").await;
    watch(&mut users[2], "2/").await;
    assert_eq!(rig.etcd.streams(), 2);
    for (number, user) in users.iter_mut().enumerate() {
        rig.write(&format!("{number}/x"));
        assert_eq!(changed(user).await, [format!("{number}/x")]);
    }
}

/// A user that does not read must not cost more than the set is worth.
#[tokio::test(start_paused = true)]
async fn who_is_too_far_behind_has_the_watch_ended_and_disturbs_no_other() {
    let rig = Rig::new();
    let (mut slow, mut other) = (rig.watcher("a/").await, rig.watcher("b/").await);
    let value = vec![0; MOST_BEHIND / 8];
    let write =
        || rig.etcd.with(|store| store.write(vec![("a/1".into(), Some((value.clone(), 0)))]));
    // Who reads can be told any amount.
    for _ in 0..20 {
        write();
        assert_eq!(told(&mut slow).await, ["1 events"]);
    }
    for _ in 0..20 {
        write();
        sleep(s(1)).await;
    }
    rig.until_watched(1).await;
    let news = told(&mut slow).await;
    let (ended, before) = news.split_last().unwrap();
    assert!(ended.starts_with("canceled") && ended.contains("64 MiB"), "{ended}");
    assert_eq!(before.len(), 8);
    // What was read is forgotten.
    watch(&mut slow, "a/").await;
    write();
    assert_eq!(told(&mut slow).await, ["1 events"]);
    rig.write("b/1");
    assert_eq!((told(&mut other).await, rig.attempts()), (vec!["1 events".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_the_watch_along_and_the_last_one_the_connection() {
    let rig = Rig::new();
    let mut users = rig.watchers(3).await;
    // One leaves before its watch stands, one while it is waiting for its turn.
    let early = [rig.user().await, rig.user().await];
    for mut user in early {
        user.open(prefix("early/"));
    }
    rig.until_watched(3).await;
    assert_eq!(told(&mut users[0]).await, NOTHING);
    rig.until_watched(3).await;
    drop(users.pop());
    rig.until_watched(2).await;
    assert_eq!(rig.etcd.open(), 1);
    users.clear();
    rig.until_watched(0).await;
    assert_eq!(rig.etcd.open(), 0);
    // Nobody uses it: nobody connects.
    sleep(s(60)).await;
    assert_eq!(rig.attempts(), 1);
    let mut user = rig.watcher("a/").await;
    rig.write("a/1");
    assert_eq!(changed(&mut user).await, ["a/1"]);
    assert_eq!((rig.attempts(), rig.etcd.open()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_is_told_at_once_how_it_stands() {
    let rig = Rig::new();
    let mut first = rig.user().await;
    let now = Instant::now();
    up(&mut rig.link.join()).await;
    assert_eq!(now.elapsed(), Duration::ZERO);
    assert_eq!(told(&mut first).await, NOTHING);

    rig.leave(Kind::Denied);
    while down(&mut first).await.kind != Kind::Denied {}
    let attempts = rig.attempts();
    let (now, mut late) = (Instant::now(), rig.link.join());
    assert!(down(&mut late).await.to_string().contains("it is away"));
    assert_eq!((now.elapsed(), rig.attempts()), (Duration::ZERO, attempts));
    rig.come_back();
    for user in [&mut first, &mut late] {
        up(user).await;
    }

    // After everybody left, what went wrong before is forgotten.
    rig.leave(Kind::Unreachable);
    down(&mut first).await;
    drop((first, late));
    sleep(s(1)).await;
    rig.come_back();
    up(&mut rig.link.join()).await;
}

#[tokio::test(start_paused = true)]
async fn news_of_a_former_watch_never_come() {
    let rig = Rig::new();
    let mut user = rig.watcher("a/").await;
    // It is on its way to the user already.
    rig.write("a/1");
    sleep(s(1)).await;
    user.close();
    assert_eq!(told(&mut user).await, NOTHING);
    rig.until_watched(0).await;

    watch(&mut user, "a/").await;
    rig.write("a/2");
    sleep(s(1)).await;
    user.open(prefix("b/"));
    created(&mut user).await;
    rig.write("a/3");
    rig.write("b/1");
    assert_eq!(changed(&mut user).await, ["b/1"]);
    rig.until_watched(1).await;

    // Only the last of several counts.
    user.open(prefix("c/"));
    user.open(prefix("d/"));
    assert_eq!(told(&mut user).await, ["created"]);
    rig.write("c/1");
    rig.write("d/1");
    assert_eq!(changed(&mut user).await, ["d/1"]);
    // Neither does a refusal of one that was given up.
    rig.etcd.with(|store| store.forbidden = Some(b"secret/".to_vec()));
    user.open(prefix("secret/"));
    user.open(prefix("e/"));
    assert_eq!(told(&mut user).await, ["created"]);
    rig.until_watched(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_former_connection_is_ignored() {
    let rig = Rig::new();
    let mut users = rig.watchers(2).await;
    let (mut slow, mut other) = (users.remove(0), users.remove(0));
    rig.etcd.cut();
    down(&mut other).await;
    up(&mut other).await;
    watch(&mut other, "x/").await;

    // It has not been told yet.
    let error = WireError::unreachable("ask", "b", "the connection is dead");
    slow.condemn(error.clone());
    slow.check(Instant::now() + s(4));
    slow.open(prefix("a/"));
    slow.close();
    slow.open(prefix("a/"));
    assert_eq!(told(&mut other).await, NOTHING);
    assert_eq!((rig.etcd.with(|store| store.watched()), rig.attempts()), (1, 2));
    down(&mut slow).await;
    up(&mut slow).await;
    assert_eq!(told(&mut slow).await, NOTHING);
    watch(&mut slow, "a/").await;

    // The same, of this connection.
    slow.condemn(error.clone());
    assert_eq!(down(&mut other).await, error);
    up(&mut other).await;
    assert_eq!(rig.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_all_condemn_is_given_up_once() {
    let rig = Rig::new();
    let mut users = rig.watchers(100).await;
    for user in &users {
        user.condemn(WireError::unreachable("list", "b", "gone"));
    }
    for user in &mut users {
        down(user).await;
        up(user).await;
        assert_eq!(user.next().now_or_never().map(|_| ()), None);
    }
    assert_eq!(rig.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hangs_condemns_the_connection() {
    let rig = Rig::new();
    let (mut user, mut other) = (rig.user().await, rig.user().await);
    rig.etcd.hang();
    let now = Instant::now();
    user.open(prefix("a/"));
    for user in [&mut user, &mut other] {
        assert_eq!(down(user).await.to_string(), "open a watch at b: no answer within 3 s");
    }
    assert_eq!(now.elapsed().as_secs(), 3);
    up(&mut other).await;
    up(&mut user).await;
    watch(&mut user, "a/").await;
    // Also one that nobody waits for any more: the next one cannot be created before it is answered.
    rig.etcd.hang();
    user.open(prefix("b/"));
    user.close();
    down(&mut user).await;
}

#[tokio::test(start_paused = true)]
async fn doubt_and_death_of_the_connection_reach_every_user_in_order() {
    let rig = Rig::new();
    let mut users = rig.watchers(20).await;
    // Long enough for the server to be known to answer probes.
    sleep(s(5)).await;
    rig.etcd.hang();
    let hung = Instant::now();
    for (number, user) in users.iter_mut().enumerate() {
        let news = next(user).await;
        assert_eq!(text(&news), "doubt", "{number}");
        assert!(hung.elapsed() <= s(5));
    }
    rig.write("0/x");
    rig.etcd.resume();
    for (number, user) in users.iter_mut().enumerate() {
        // The doubt is over before anything else is told.
        let all = if number == 0 { &["trust", "1 events"][..] } else { &["trust"] };
        assert_eq!(told(user).await, all, "{number}");
    }
    assert_eq!(rig.attempts(), 1);

    rig.etcd.hang();
    let hung = Instant::now();
    for user in &mut users {
        assert_eq!(text(&next(user).await), "doubt");
        let error = down(user).await;
        assert!(error.to_string().contains("no sign of life"), "{error}");
        assert!(hung.elapsed() <= s(6), "{:?}", hung.elapsed());
        up(user).await;
        assert_eq!(user.next().now_or_never().map(|_| ()), None);
    }
    assert_eq!((rig.attempts(), rig.etcd.streams()), (2, 2));
    for (number, user) in users.iter_mut().enumerate() {
        watch(user, &format!("{number}/")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_lives_on_with_and_without_watches_whether_or_not_probes_are_answered() {
    for answers_probes in [true, false] {
        let rig = Rig::new();
        rig.etcd.with(|store| store.answers_probes = answers_probes);
        let (mut watcher, mut user) = (rig.watcher("a/").await, rig.user().await);
        sleep(s(300)).await;
        assert_eq!(told(&mut watcher).await, NOTHING, "{answers_probes}");
        watcher.close();
        sleep(s(300)).await;
        assert_eq!(told(&mut watcher).await, NOTHING, "{answers_probes}");
        assert_eq!(told(&mut user).await, NOTHING, "{answers_probes}");
        // It is not blind for that.
        watch(&mut watcher, "a/").await;
        rig.etcd.hang();
        let hung = Instant::now();
        while !matches!(next(&mut user).await, News::Down(_)) {}
        assert!(hung.elapsed() <= s(6), "{answers_probes} {:?}", hung.elapsed());
        assert_eq!(rig.attempts(), 1);
    }
}

/// The attempts in a minute of an outage of `kind`.
async fn outage(kind: Kind, number: usize) -> usize {
    let rig = Rig::new();
    let mut users = rig.watchers(1).await;
    users.extend((1..number).map(|_| rig.link.join()));
    for user in &mut users[1..] {
        up(user).await;
    }
    rig.leave(kind);
    sleep(s(30)).await;
    // Nor do those who come meanwhile, or who are told of it and open their watches.
    let more: Vec<_> = (1..number).map(|_| rig.link.join()).collect();
    for user in &mut users {
        user.open(prefix("a/"));
    }
    sleep(s(30)).await;
    drop(more);
    rig.attempts() - 1
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_500_users_make_no_more_attempts_than_one() {
    for (kind, least, most) in [(Kind::Unreachable, 15, 60), (Kind::Denied, 5, 9)] {
        let alone = outage(kind, 1).await;
        assert!((least..=most).contains(&alone), "{kind:?} {alone}");
        assert_eq!(outage(kind, 500).await, alone, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_credentials_are_tried_at_once_and_every_user_is_told() {
    let rig = Rig::new();
    let mut users = rig.watchers(2).await;
    rig.leave(Kind::Denied);
    for user in &mut users {
        while down(user).await.kind != Kind::Denied {}
    }
    rig.come_back();
    let now = Instant::now();
    rig.link.retry();
    for user in &mut users {
        assert_eq!(text(&next(user).await), "retry");
        up(user).await;
    }
    assert!(now.elapsed() < s(1));
}

#[tokio::test(start_paused = true)]
async fn the_lease_that_is_lost_next_decides_and_not_one_that_is_lost_already() {
    let rig = Rig::new();
    let (lost, mut user, calm) = (rig.user().await, rig.user().await, rig.user().await);
    let from = Instant::now();
    lost.needed_by(Some(from + s(5)));
    user.needed_by(Some(from + s(30)));
    calm.needed_by(None);
    assert_eq!(told(&mut user).await, NOTHING);
    rig.leave(Kind::Denied);
    sleep(s(90)).await;
    // Without a lease to lose, there are five to eight in 60 s.
    assert!(rig.attempts_in(from, 0..5) > 2, "for the first");
    assert!(rig.attempts_in(from, 25..30) > 2, "for the second");
    assert!(rig.attempts_in(from, 31..90) < 9, "for none");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_cuts_short_no_connecting_that_others_need() {
    let rig = Rig::new();
    let (mut stays, leaves, follows) = (rig.user().await, rig.user().await, rig.user().await);
    follows.follow();
    // An endpoint that is far away, or checks passwords slowly.
    rig.way.attempts(|attempts| attempts.takes = s(2));
    rig.etcd.cut();
    down(&mut stays).await;
    leaves.hurry(Instant::now() + s(60));
    up(&mut stays).await;
    assert_eq!(rig.attempts(), 2);
    // Those who are left have all the time, and who is there for those who leave has none.
    let mut last = rig.user().await;
    drop(stays);
    last.hurry(Instant::now() + s(60));
    rig.etcd.cut();
    down(&mut last).await;
    let error = down(&mut last).await.to_string();
    assert!(error.ends_with("no answer within 1.0 s"), "{error}");
    let mut next = rig.link.join();
    while !matches!(self::next(&mut next).await, News::Up(_)) {}
    // Once they are gone, so is the haste.
    drop((leaves, last, follows));
    rig.etcd.cut();
    down(&mut next).await;
    up(&mut next).await;
}
