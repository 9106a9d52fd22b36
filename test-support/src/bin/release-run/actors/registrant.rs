//! A program that is registered, or not, as it is told.

use std::sync::{Arc, Mutex, PoisonError};

use discovery_core::{Instance, Registrar as _, Registration, Weight};

use crate::{
    check::Left,
    meaning::{Key, PREFIX, Seen, TAG},
    plan::{Client, SERVICES, SlotOp},
    world::World,
};

#[derive(Default)]
struct State {
    registration: Option<(Registration, u64)>,
    /// Counts the ids it had.
    ids: u64,
    /// The last id may still be in etcd.
    in_doubt: bool,
}

pub(crate) struct Registrant {
    slot: usize,
    /// Operations wait for each other, in the order in which they came.
    state: tokio::sync::Mutex<State>,
    left: Mutex<Vec<Left>>,
}

impl Registrant {
    pub(crate) fn new(slot: usize) -> Self {
        Self { slot, state: tokio::sync::Mutex::default(), left: Mutex::default() }
    }

    fn service(&self) -> &'static str {
        SERVICES[self.slot % SERVICES.len()]
    }

    /// Does as told, as far as it makes sense.
    pub(crate) async fn obey(&self, world: &World, op: SlotOp) {
        let state = &mut *self.state.lock().await;
        match op {
            SlotOp::Register { fresh } => self.register(world, state, fresh),
            SlotOp::Update { weight } => {
                if let Some((registration, _)) = &state.registration {
                    let update = |instance: &mut Instance| instance.weight = Weight::new(weight);
                    registration.update(update).expect("the id stays");
                }
            }
            SlotOp::Drain => {
                if let Some((registration, _)) = &state.registration {
                    registration.drain();
                }
            }
            SlotOp::Leave => self.leave(world, state).await,
            SlotOp::Drop => {
                if let Some((registration, tag)) = state.registration.take() {
                    state.in_doubt = true;
                    world.journal.note(format!("{} ({tag}) is dropped", registration.key()));
                }
            }
        }
    }

    fn register(&self, world: &World, state: &mut State, fresh: bool) {
        if state.registration.is_some() {
            return;
        }
        // Whoever takes an id that may still be there waits for it in a conflict, which is right, but
        // takes as long as the lease.
        state.ids += u64::from(fresh || state.in_doubt);
        state.in_doubt = false;
        let id = format!("r{}-{}", self.slot, state.ids);
        let tag = world.number();
        let address = format!("http://127.0.0.1:{}", 1 + tag % 65_000);
        let mut instance =
            Instance::parse(self.service(), &id, &address).expect("it is an instance");
        instance.metadata.insert(TAG.to_owned(), tag.to_string());
        let registration = world.party(Client::of_slot(self.slot)).registry.register(instance);
        world.journal.note(format!("{} ({tag}) is to be registered", registration.key()));
        state.registration = Some((registration, tag));
    }

    async fn leave(&self, world: &World, state: &mut State) {
        let Some((registration, tag)) = state.registration.take() else { return };
        let key: Key = registration.key().to_string().into();
        world.journal.note(format!("{key} ({tag}) leaves"));
        match registration.deregister().await {
            Ok(()) => {
                world.journal.note(format!("{key} ({tag}) has left"));
                let (epoch, revision) = world.place().await;
                let left = Left { key, tag, epoch, revision };
                self.left.lock().unwrap_or_else(PoisonError::into_inner).push(left);
            }
            Err(error) => {
                state.in_doubt = true;
                world.journal.note(format!("{key} ({tag}): {error}"));
            }
        }
    }

    /// What should be in etcd, if anything.
    pub(crate) async fn wanted(&self) -> Option<(Key, Arc<Seen>)> {
        let state = self.state.lock().await;
        let (registration, _) = state.registration.as_ref()?;
        let key = registration.key().to_string().into();
        Some((key, Arc::new(Seen::told(&registration.instance()))))
    }

    /// What the library says of it.
    pub(crate) async fn status(&self) -> String {
        match &self.state.lock().await.registration {
            Some((registration, _)) => format!("{:?}", registration.status()),
            None => "not registered".to_owned(),
        }
    }

    /// Where its key is in etcd.
    pub(crate) async fn raw_key(&self) -> Option<String> {
        let state = self.state.lock().await;
        state.registration.as_ref().map(|(it, _)| format!("{PREFIX}{}", it.key()))
    }

    /// Everything that it left for good.
    pub(crate) fn left(&self) -> Vec<Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
