//! Registrations with the in-memory registry.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{
    Address, Change, Desired, Instance, InstanceChanges, InstanceStatus, MemoryRegistry,
    RefusedUpdate, Registrar, Registration, RegistrationError, RegistrationState,
    RegistrationStatus, Source, SourceError, Update, Weight,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;

fn seven() -> Instance {
    Instance::parse("orders", "7", "10.0.0.7:80").unwrap()
}

fn at(address: &str) -> Instance {
    Instance::parse("orders", "7", address).unwrap()
}

fn registered(registry: &MemoryRegistry) -> Vec<Instance> {
    registry.instances().into_iter().map(|instance| (*instance).clone()).collect()
}

fn drain(changes: &mut InstanceChanges) -> Vec<Change<String, Instance>> {
    std::iter::from_fn(|| match changes.next().now_or_never()?? {
        Change::Insert(key, instance) => Some(Change::Insert(key.to_string(), (*instance).clone())),
        Change::Remove(key) => Some(Change::Remove(key.to_string())),
        _ => Some(Change::Synced),
    })
    .collect()
}

#[tokio::test]
async fn register_update_drain_deregister() {
    let registry = MemoryRegistry::new();
    let mut changes = registry.watch(&"orders".parse().unwrap());
    let registration = registry.register(seven());
    registration.registered().await.unwrap();
    assert_eq!(registration.status().applied, 1);
    assert_eq!(drain(&mut changes), [Change::Insert("orders/7".into(), seven()), Change::Synced]);

    registration.update(|instance| instance.weight = Weight::new(5)).unwrap();
    registration.registered().await.unwrap();
    assert_eq!(registration.status().applied, 2);
    assert_eq!(registered(&registry)[0].weight.get(), 5);
    // As it is already: no new version.
    registration.update(|instance| instance.weight = Weight::new(5)).unwrap();
    assert_eq!(registration.status().applied, 2);

    registration.drain();
    registration.registered().await.unwrap();
    assert_eq!(registration.instance().status, InstanceStatus::Draining);
    assert_eq!(registered(&registry)[0].status, InstanceStatus::Draining);
    drain(&mut changes);

    let mut status = registration.watch_status();
    registration.deregister().await.unwrap();
    assert!(matches!(status.borrow_and_update().state, RegistrationState::Deregistered));
    assert_eq!(drain(&mut changes), [Change::Remove("orders/7".into()), Change::Synced]);
    assert_eq!(registered(&registry), []);
}

#[tokio::test]
async fn an_update_that_changes_the_id_or_the_service_is_refused_and_changes_nothing() {
    let registry = MemoryRegistry::new();
    let registration = registry.register(seven());
    let error = registration
        .update(|instance| {
            instance.weight = Weight::new(9);
            instance.id = "8".parse().unwrap();
        })
        .unwrap_err();
    assert!(error.to_string().contains("orders/8"), "{error}");
    let error =
        registration.update(|instance| instance.service = "bills".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("bills/7"), "{error}");
    assert_eq!(*registration.instance(), seven());
    assert_eq!(registered(&registry), [seven()]);
    assert_eq!(registration.status().applied, 1);
}

#[tokio::test]
async fn a_conflict_is_told_and_ends_when_the_holder_goes() {
    let registry = MemoryRegistry::new();
    let mut changes = registry.watch_all();
    let holder = registry.register(at("10.0.0.1:80"));
    let second = registry.register(at("10.0.0.2:80"));
    let third = registry.register(at("10.0.0.3:80"));
    let RegistrationState::Conflict(conflict) = second.status().state else { panic!() };
    assert_eq!(conflict.to_string(), "orders/7 is held by http://10.0.0.1:80");
    assert!(conflict.waiting);
    assert!(second.registered().now_or_never().is_none(), "it waits");
    assert_eq!(registered(&registry), [at("10.0.0.1:80")]);
    drain(&mut changes);

    // The waiting one's updates show once it holds the key.
    second.update(|instance| instance.weight = Weight::new(3)).unwrap();
    assert_eq!(drain(&mut changes), []);
    holder.deregister().await.unwrap();
    second.registered().now_or_never().unwrap().unwrap();
    assert_eq!(second.status().applied, 2);
    let mut taken_over = at("10.0.0.2:80");
    taken_over.weight = Weight::new(3);
    let told = drain(&mut changes);
    assert_eq!(told, [Change::Insert("orders/7".into(), taken_over.clone()), Change::Synced]);

    // One that waits goes without a trace.
    third.deregister().await.unwrap();
    assert_eq!(registered(&registry), [taken_over]);
    drop(second);
    assert_eq!(registered(&registry), []);
}

#[tokio::test]
async fn lost_and_restored() {
    let registry = MemoryRegistry::new();
    let mut changes = registry.watch_all();
    let registration = registry.register(seven());
    let key = registration.key().clone();
    assert!(!registry.restore_registration(&key), "it is not lost");
    drain(&mut changes);
    assert!(registry.lose_registration(&key, SourceError::new("lease expired")));
    assert_eq!(drain(&mut changes), [Change::Remove("orders/7".into()), Change::Synced]);
    let RegistrationState::Registering(Some(error)) = registration.status().state else { panic!() };
    assert_eq!(error.to_string(), "lease expired");
    assert!(registration.registered().now_or_never().is_none());

    registration.update(|instance| instance.weight = Weight::new(2)).unwrap();
    assert_eq!(drain(&mut changes), [], "it is still lost");
    assert!(registry.restore_registration(&key));
    registration.registered().now_or_never().unwrap().unwrap();
    assert_eq!(registration.status().applied, 2);
    assert_eq!(registered(&registry)[0].weight.get(), 2);

    // Deregistered while lost, it does not come back.
    registry.lose_registration(&key, SourceError::new("lease expired"));
    registration.deregister().await.unwrap();
    assert!(!registry.restore_registration(&key));
    assert!(!registry.lose_registration(&key, SourceError::new("lease expired")));
    assert_eq!(registered(&registry), []);
}

#[tokio::test]
async fn dropping_the_handle_takes_the_instance_away() {
    let registry = MemoryRegistry::new();
    let registration = registry.register(seven());
    let status = registration.watch_status();
    drop(registration);
    assert_eq!(registered(&registry), []);
    assert!(matches!(status.borrow().state, RegistrationState::Deregistered));
    // A future that was never polled is no different from a handle.
    drop(registry.register(seven()).deregister());
    assert_eq!(registered(&registry), []);
}

#[tokio::test]
async fn stale_readers_of_a_registry_learn_later_of_registrations() {
    let registry = MemoryRegistry::new();
    let mut changes = registry.watch_all();
    registry.go_stale(SourceError::new("cut off"));
    let registration = registry.register(seven());
    registration.registered().await.unwrap();
    assert_eq!(drain(&mut changes), [Change::Synced]);
    registry.come_back();
    assert_eq!(drain(&mut changes), [Change::Insert("orders/7".into(), seven()), Change::Synced]);
}

/// When a status says so, it is so: for those on other threads, too.
#[test]
fn what_the_status_says_is_already_so() {
    let registry = MemoryRegistry::new();
    let mut seen = registry.watch_all();
    for _ in 0..300 {
        let registration = registry.register(seven());
        let mut status = registration.watch_status();
        drain(&mut seen);
        let watcher = std::thread::spawn({
            let mut readers = registry.watch_all();
            move || {
                drain(&mut readers);
                while !matches!(status.borrow_and_update().state, RegistrationState::Deregistered) {
                    std::hint::spin_loop();
                }
                drain(&mut readers)
            }
        });
        std::thread::yield_now();
        drop(registration);
        let told = watcher.join().unwrap();
        let inserts = told.iter().filter(|change| matches!(change, Change::Insert(..))).count();
        assert_eq!(inserts, 0, "{told:?}");
        let mut late = registry.watch_all();
        assert_eq!(drain(&mut late), [Change::Synced]);
    }
}

/// A backend that only notes what it is told.
#[derive(Clone)]
struct Noting {
    told: Arc<std::sync::Mutex<Vec<String>>>,
    status: watch::Sender<RegistrationStatus>,
}

impl Noting {
    fn new() -> Self {
        Self { told: Arc::default(), status: watch::Sender::new(RegistrationStatus::new()) }
    }

    fn set(&self, state: RegistrationState) {
        self.status.send_modify(|status| status.state = state);
    }
}

impl Registrar for Noting {
    fn register(&self, instance: Instance) -> Registration {
        let told = self.told.clone();
        Registration::new(Arc::new(instance), self.status.subscribe(), move |desired| {
            told.lock().unwrap().push(match desired {
                Desired::Present { version, .. } => format!("present {version}"),
                Desired::Absent { .. } => "absent".into(),
                _ => "abandoned".into(),
            });
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_answer_costs_the_deadline_and_no_more() {
    let backend = Noting::new();
    let registration = backend.register(seven());
    registration.drain();
    backend.status.send_modify(|status| {
        status.expires = Some(tokio::time::Instant::now() + Duration::from_secs(15));
    });
    let started = tokio::time::Instant::now();
    let error = registration.deregister().await.unwrap_err();
    assert!(started.elapsed() >= Registration::DEREGISTER_WITHIN);
    assert!(started.elapsed() < Registration::DEREGISTER_WITHIN + Duration::from_secs(1));
    assert!(error.gone_within.unwrap() <= Duration::from_secs(12), "{error}");
    assert!(error.to_string().contains("orders/7"), "{error}");
    assert_eq!(*backend.told.lock().unwrap(), ["present 2", "absent", "abandoned"]);
}

#[tokio::test(start_paused = true)]
async fn any_time_to_deregister_within_is_taken() {
    let backend = Noting::new();
    let registration = backend.register(seven());
    let mut deregister = Box::pin(registration.deregister_within(Duration::MAX));
    assert!(futures::poll!(&mut deregister).is_pending());
    backend.set(RegistrationState::Deregistered);
    deregister.await.unwrap();
}

#[tokio::test]
async fn registered_ends_when_it_never_will_be() {
    let backend = Noting::new();
    let registration = backend.register(seven());
    let ended = |error: &RegistrationError| matches!(error, RegistrationError::Ended(_));
    backend.set(RegistrationState::Deregistered);
    assert!(ended(&registration.registered().await.unwrap_err()));
    let conflict = discovery_core::Conflict::new(registration.key().clone(), None, false);
    backend.set(RegistrationState::Conflict(conflict));
    let error = registration.registered().await.unwrap_err();
    assert_eq!(error.to_string(), "orders/7 is held by a registration that cannot be read");
    backend.set(RegistrationState::Registering(None));
    assert!(registration.registered().now_or_never().is_none());
    drop(backend);
    assert!(ended(&registration.registered().await.unwrap_err()), "the backend is gone");
}

#[tokio::test]
async fn what_a_registry_cannot_hold_is_refused_for_good_and_leaves_at_once() {
    let backend = Noting::new();
    let registration = backend.register(seven());
    backend.set(RegistrationState::Refused(SourceError::new("no such ids here")));
    let error = registration.registered().await.unwrap_err();
    assert!(matches!(error, RegistrationError::Refused(_)));
    assert!(error.to_string().ends_with(": no such ids here"), "{error}");
    registration.deregister().now_or_never().unwrap().unwrap();
}

#[tokio::test]
async fn an_update_that_a_registry_cannot_hold_is_told_and_what_was_there_stays() {
    let backend = Noting::new();
    let registration = backend.register(seven());
    let applied = |version| {
        backend.status.send_modify(|status| {
            status.state = RegistrationState::Registered;
            status.applied = version;
        });
    };
    applied(1);
    registration.update(|instance| instance.weight = Weight::new(3)).unwrap();
    assert!(registration.registered().now_or_never().is_none());
    backend.status.send_modify(|status| {
        status.refused = Some(RefusedUpdate::new(2, SourceError::new("no weights here")));
    });
    let error = registration.registered().await.unwrap_err();
    assert!(matches!(error, RegistrationError::Refused(_)));
    assert!(error.to_string().ends_with(": no weights here"), "{error}");
    // The next one may be better.
    registration.update(|instance| instance.weight = Weight::new(1)).unwrap();
    assert!(registration.registered().now_or_never().is_none());
    applied(3);
    registration.registered().await.unwrap();
}

#[tokio::test]
async fn who_is_refused_an_update_goes_on_from_what_was_wanted_before_it() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = told.clone();
    let statuses = watch::Sender::new(RegistrationStatus::new()).subscribe();
    let note = move |desired| notes.lock().unwrap().push(desired);
    let registration = Registration::new(Arc::new(seven()), statuses, note)
        .holding(|instance| instance.weight.get() < 5);
    let last_told = || match told.lock().unwrap().last() {
        Some(Desired::Present { instance, version }) => (instance.clone(), *version),
        other => panic!("{other:?}"),
    };
    let before = registration.instance();
    registration.update(|instance| instance.weight = Weight::new(7)).unwrap();
    assert_eq!(registration.instance(), before);
    // Whether the backend has looked at it by then or not.
    registration.drain();
    let wanted = registration.instance();
    assert_eq!((wanted.status, wanted.weight), (InstanceStatus::Draining, before.weight));
    assert_eq!(last_told(), (wanted.clone(), 3));
    // To want the same again is news after a refusal, and only then.
    registration.update(|instance| instance.weight = Weight::new(7)).unwrap();
    assert_eq!(last_told().1, 4);
    registration.drain();
    registration.drain();
    assert_eq!(last_told(), (wanted, 5));
}

#[tokio::test]
async fn backends_are_chosen_when_the_program_runs() {
    let registry = MemoryRegistry::new();
    let source: Arc<dyn Source> = Arc::new(registry.clone());
    let registrar: Arc<dyn Registrar> = Arc::new(registry.clone());
    let boxed: Box<dyn Source> = Box::new(source.clone());
    let _registration = registrar.register(seven());
    let sources: [&dyn Source; 3] = [&source, &boxed, &&registry];
    for source in sources {
        let mut changes = source.watch(&"orders".parse().unwrap());
        assert_eq!(drain(&mut changes).len(), 2);
        assert_eq!(drain(&mut source.watch_all()).len(), 2);
        assert_eq!(drain(&mut source.watch(&"bills".parse().unwrap())), [Change::Synced]);
    }
    let registrar: Box<dyn Registrar> = Box::new(registrar);
    let _second = registrar.register(Instance::new(
        "bills".parse().unwrap(),
        "1".parse().unwrap(),
        Address::from_socket("http", "127.0.0.1:80".parse().unwrap()).unwrap(),
    ));
    assert_eq!(registered(&registry).len(), 2);
}

#[tokio::test]
async fn a_batch_is_whole_for_one_service_and_for_all_and_a_closed_registry_ends() {
    let registry = MemoryRegistry::new();
    let mut orders = registry.watch(&"orders".parse().unwrap());
    let mut all = registry.watch_all();
    let bill = Instance::parse("bills", "1", "10.0.0.1:80").unwrap();
    registry
        .apply([Update::Insert(bill.key(), bill.clone()), Update::Insert(seven().key(), seven())]);
    assert_eq!(drain(&mut orders).len(), 2);
    assert_eq!(drain(&mut all).len(), 3);
    registry.replace([bill.clone()]);
    registry.close();
    assert_eq!(drain(&mut orders), [Change::Remove("orders/7".into()), Change::Synced]);
    assert_eq!(orders.next().await, None);
    // Who comes late is told what there was, and ends.
    let mut late = registry.watch_all();
    assert_eq!(drain(&mut late), [Change::Insert("bills/1".into(), bill), Change::Synced]);
    assert_eq!(late.next().await, None);
}
