//! A source that says what the test says, and a maker of services for its endpoints.

use std::sync::Arc;

use discovery_core::Change;
use discovery_tower::KeepIf;
use discovery_tower::balance::{
    Attributes, Availability, Builder, Describe, PeakEwma, Policy, Seeded, Standing,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{Bal, ReadsAll, Request, Scripted, Use, World, until};

/// What an endpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) address: u32,
    pub(crate) weight: u32,
    pub(crate) availability: Availability,
    pub(crate) suspect: bool,
    /// Something that does not concern the balancer.
    pub(crate) zone: &'static str,
}

pub(crate) fn spec(address: u32) -> Spec {
    Spec { address, weight: 1, availability: Availability::Up, suspect: false, zone: "a" }
}

impl Spec {
    pub(crate) fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn availability(self, availability: Availability) -> Self {
        Self { availability, ..self }
    }

    pub(crate) fn suspect(self) -> Self {
        Self { suspect: true, ..self }
    }
}

impl Describe for Spec {
    fn attributes(&self) -> Attributes {
        Attributes::default()
            .weight(self.weight)
            .availability(self.availability)
            .suspect(self.suspect)
    }
}

pub(crate) type Said = UnboundedReceiverStream<Change<u32, Spec>>;
pub(crate) type Maker =
    KeepIf<Box<dyn FnMut(&u32, &Arc<Spec>) -> Scripted + Send>, fn(&u32, &Spec, &Spec) -> bool>;
pub(crate) type Plain<P = PeakEwma> = Builder<Said, Maker, u32, Spec, P, ReadsAll>;

/// A source, and the hosts that its endpoints stand for.
pub(crate) struct Rig {
    pub(crate) world: World,
    tell: Option<mpsc::UnboundedSender<Change<u32, Spec>>>,
}

impl Rig {
    /// A rig, and a balancer over its source that picks the same at each run.
    pub(crate) fn new() -> (Self, Plain) {
        let (tell, said) = mpsc::unbounded_channel();
        let world = World::new();
        let hosts = world.clone();
        let maker: Maker = KeepIf::new(
            Box::new(move |_: &u32, spec: &Arc<Spec>| hosts.connect(spec.address)),
            |_, old, new| old.address == new.address,
        );
        let builder = Builder::new(UnboundedReceiverStream::new(said), maker)
            .protocol(ReadsAll::default())
            .entropy(Seeded::new(5));
        (Self { world, tell: Some(tell) }, builder)
    }

    /// A rig with so many endpoints that are ready, whose keys are their addresses.
    pub(crate) async fn serving(count: u32) -> (Self, Bal<PeakEwma>) {
        Self::serving_as(count, |builder| builder).await
    }

    /// The same with a balancer that was told more.
    pub(crate) async fn serving_as<P: Policy<Request, u32, Spec>>(
        count: u32,
        set: impl FnOnce(Plain) -> Plain<P>,
    ) -> (Self, Bal<P>) {
        let (rig, builder) = Self::new();
        let balance = set(builder).spawn();
        rig.begin((0..count).map(|key| (key, spec(key))));
        all_up(&balance, count as usize).await;
        (rig, balance)
    }

    pub(crate) fn tell(&self, change: Change<u32, Spec>) {
        self.tell.as_ref().expect("a source that has not ended").send(change).expect("a driver");
    }

    pub(crate) fn insert(&self, key: u32, spec: Spec) {
        self.tell(Change::Insert(key, spec));
        self.tell(Change::Synced);
    }

    pub(crate) fn remove(&self, key: u32) {
        self.tell(Change::Remove(key));
        self.tell(Change::Synced);
    }

    /// The first set, or more of it, at once.
    pub(crate) fn begin(&self, set: impl IntoIterator<Item = (u32, Spec)>) {
        for (key, spec) in set {
            self.tell(Change::Insert(key, spec));
        }
        self.tell(Change::Synced);
    }

    /// The stream ends.
    pub(crate) fn end(&mut self) {
        self.tell = None;
    }

    /// Whether someone still reads what it says.
    pub(crate) fn is_read(&self) -> bool {
        self.tell.as_ref().is_some_and(|tell| !tell.is_closed())
    }
}

/// Waits until there are so many endpoints, all up.
pub(crate) async fn all_up(balance: &impl Use, count: usize) {
    until("all are up", || {
        let all = balance.all();
        all.len() == count && all.iter().all(|view| view.standing == Standing::Up)
    })
    .await;
}
