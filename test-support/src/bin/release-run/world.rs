//! Where the run takes place: etcd, and the programs around it, each with a network of its own.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use discovery_core::{InstanceChanges, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Cluster, Etcd, Proxy, Truth, TruthError, Version, slack};
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};

use crate::{
    history::Recorder,
    journal::Journal,
    plan::{Client, Cut, SERVICES, SUSPECTS, TTL},
};

/// One question to one member.
const QUESTION: Duration = Duration::from_secs(2);
/// All members together, through any fault there is.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// A program that uses the library.
pub(crate) struct Party {
    /// Every way to etcd that it knows.
    pub(crate) ways: Vec<Proxy>,
    pub(crate) registry: EtcdRegistry,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    parties: Vec<Party>,
    pub(crate) recorder: Recorder,
    pub(crate) journal: std::sync::Arc<Journal>,
    /// Held by all who ask etcd; taken for itself by who wipes it.
    wipe: RwLock<()>,
    /// The member that answered last.
    good: AtomicUsize,
    numbers: AtomicU64,
}

impl Party {
    /// One with so many ways to each member, which fail as `prepare` says before it starts.
    pub(crate) fn new(
        members: &[Etcd],
        ways: usize,
        guarded: bool,
        prepare: impl Fn(&Proxy),
    ) -> Self {
        let members = members.iter().flat_map(|member| std::iter::repeat_n(member, ways));
        let ways: Vec<_> = members.map(|member| Proxy::start(member.client_addr())).collect();
        ways.iter().for_each(prepare);
        let suspects = if guarded { SUSPECTS } else { Duration::ZERO };
        let config = EtcdConfig::new(ways.iter().map(Proxy::url)).ttl(TTL).suspects_for(suspects);
        let registry = EtcdRegistry::new(config).expect("the configuration is good");
        Self { ways, registry }
    }

    /// A stream of one service or of all.
    pub(crate) fn watch(&self, service: Option<usize>) -> InstanceChanges {
        match service {
            Some(service) => {
                let name = SERVICES[service].parse().expect("it is a name");
                self.registry.watch(&name)
            }
            None => self.registry.watch_all(),
        }
    }

    /// Breaks its network, all of it or the first way.
    pub(crate) fn fail(&self, all: bool, cut: Cut) {
        for way in if all { &self.ways[..] } else { &self.ways[..1] } {
            fail(way, cut);
        }
    }

    pub(crate) fn pass(&self) {
        self.ways.iter().for_each(Proxy::pass);
    }
}

fn fail(way: &Proxy, cut: Cut) {
    use discovery_test_support::Direction::{ToClient, ToServer};
    match cut {
        Cut::Close => way.cut(),
        Cut::Reset => way.reset(),
        Cut::Refuse => way.refuse(),
        Cut::BlackHole => way.black_hole(),
        Cut::Deaf => way.black_hole_one_way(ToClient),
        Cut::Mute => way.black_hole_one_way(ToServer),
        Cut::Hold => way.hold(ToClient),
        Cut::Delay(time) => way.delay(ToClient, time),
        Cut::Throttle(bytes) => way.throttle(ToClient, bytes),
    }
}

impl World {
    pub(crate) async fn start(version: Version, members: usize) -> Self {
        let cluster = Cluster::start(version, members).await;
        let start = Instant::now();
        let addresses = cluster.members().iter().map(Etcd::client_addr).collect();
        let recorder = Recorder::new(addresses, start);
        recorder.start_epoch();
        let party = |client: &Client| {
            let spare = members == 1 && matches!(client, Client::Spare | Client::Right);
            let guarded = *client == Client::Guarded;
            Party::new(cluster.members(), if spare { 2 } else { 1 }, guarded, |_| ())
        };
        let parties = Client::ALL.iter().map(party).collect();
        Self {
            cluster,
            parties,
            recorder,
            journal: Journal::new(start).into(),
            wipe: RwLock::new(()),
            good: AtomicUsize::new(0),
            numbers: AtomicU64::new(1_000_000),
        }
    }

    pub(crate) fn party(&self, client: Client) -> &Party {
        &self.parties[client as usize]
    }

    pub(crate) fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// A number that nobody has had.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Asks one member after the other until one answers. A write may be carried out more than once.
    ///
    /// # Panics
    ///
    /// If none does for very long: no fault lasts so long.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFn(&Truth) -> Result<T, TruthError>,
    ) -> T {
        let _kept = self.wipe.read().await;
        self.ask_now(question).await
    }

    async fn ask_now<T>(&self, question: impl AsyncFn(&Truth) -> Result<T, TruthError>) -> T {
        let deadline = Instant::now() + slack(PATIENCE);
        loop {
            let number = self.good.load(Relaxed);
            let truth = self.cluster.member(number).truth().deadline(slack(QUESTION));
            let error = match question(&truth).await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            let next = (number + 1) % self.cluster.members().len();
            // Somebody else may have found a good one meanwhile.
            self.good.compare_exchange(number, next, Relaxed, Relaxed).ok();
            assert!(Instant::now() < deadline, "etcd does not answer: {error}");
            sleep(PAUSE).await;
        }
    }

    /// The place in the history that has been reached: an epoch and a revision of it.
    pub(crate) async fn place(&self) -> (usize, i64) {
        let _kept = self.wipe.read().await;
        let revision = self.ask_now(async |truth| truth.revision().await).await;
        (self.recorder.place().0, revision)
    }

    /// Forgets all before `revision`, once it is recorded.
    pub(crate) async fn compact(&self, revision: i64) {
        let _kept = self.wipe.read().await;
        self.recorder.until(revision).await;
        self.ask_now(async |truth| match truth.compact(revision, true).await {
            // Somebody else has compacted more, or the first try did it.
            Err(TruthError::Refused { .. }) => Ok(()),
            outcome => outcome,
        })
        .await;
    }

    /// Deletes all data of the only member. Nobody sees the end of the old store unrecorded.
    pub(crate) async fn wipe(&self) {
        let _alone = self.wipe.write().await;
        for party in &self.parties {
            party.fail(true, Cut::Refuse);
        }
        self.prove().await;
        self.recorder.stop();
        self.cluster.member(0).wipe().await;
        self.recorder.start_epoch();
        self.parties.iter().for_each(Party::pass);
    }

    /// Holds the recording against what each member has.
    async fn prove(&self) {
        let snapshot = self.ask_now(async |truth| truth.snapshot("").await).await;
        self.recorder.prove(&snapshot).await;
    }

    /// The same at a quiet point, where every member answers.
    pub(crate) async fn prove_all(&self) {
        let _kept = self.wipe.read().await;
        for member in self.cluster.members() {
            if let Ok(snapshot) = member.truth().snapshot("").await {
                self.recorder.prove(&snapshot).await;
            }
        }
    }
}
