//! What is registered, and that it stays true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use discovery_core::{
    Address, Conflict, Instance, InstanceStatus, MemoryRegistry, RegistrationError,
    RegistrationState, SourceError,
};
use discovery_test_support::eventually;
use discovery_tower::server::{Advertise, Server, ServerError};
use tokio::net::TcpListener;

use crate::client::{self, asks_to_go, get};
use crate::registrar::Scripted;
use crate::support::{Running, SOON, only, server, shown};

#[tokio::test]
async fn what_was_said_of_it_is_registered_at_the_bound_address_while_it_serves() {
    let registry = Arc::new(MemoryRegistry::new());
    let server = server()
        .weight("7".parse().unwrap())
        .zone("a".parse().unwrap())
        .scheme("grpc")
        .metadata("version", "1.4");
    let running = Running::start(server, registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let instance = only(&registry).unwrap();
    let mut wanted =
        Instance::parse("orders", instance.id.as_str(), &format!("grpc://{}", running.address))
            .unwrap();
    wanted.weight = "7".parse().unwrap();
    wanted.zone = Some("a".parse().unwrap());
    wanted.metadata.insert("version".into(), "1.4".into());
    assert_eq!(*instance, wanted);

    // Another one of the service has another id, and one that is told its id has that.
    let _other = Running::start(self::server(), registry.clone()).await;
    let _told = Running::start(self::server().id("8".parse().unwrap()), registry.clone()).await;
    eventually(SOON, "three instances", async || registry.instances().len() == 3).await;
    assert!(registry.instances().iter().any(|instance| instance.id.as_str() == "8"));
}

#[tokio::test]
async fn what_cannot_be_is_said_before_anything_is_registered() {
    let registry = MemoryRegistry::new();
    let service = tower::service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(
            http::Response::new(http_body_util::Empty::<&[u8]>::new()),
        )
    });
    for (server, parts) in [
        (server().advertise(Advertise::interface("nix0")), ["network interface", "nix0"]),
        (server().advertise(Advertise::host("a/b")), ["advertised host", "a/b"]),
        (server().advertise(Advertise::env("NO_SUCH_VARIABLE")), ["NO_SUCH_VARIABLE", "not set"]),
        (server().scheme("1x"), ["scheme", "1x"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ended = server.serve(listener, &registry, service, std::future::pending()).await;
        let Err(error @ ServerError::Invalid(_)) = ended else { panic!("{ended:?}") };
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    assert!(registry.instances().is_empty());
}

#[tokio::test]
async fn its_status_follows_its_health_but_not_while_it_drains() {
    const WELL: u8 = 0;
    const SICK: u8 = 1;
    const SILENT: u8 = 2;
    const PANICS: u8 = 3;
    let mood = Arc::new(AtomicU8::new(SILENT));
    let asked = mood.clone();
    let registry = Arc::new(MemoryRegistry::new());
    let server = server().drain_for(Duration::from_millis(500)).health_every(
        Duration::from_millis(100),
        move || {
            let mood = asked.load(Ordering::SeqCst);
            async move {
                match mood {
                    WELL => true,
                    SICK => false,
                    SILENT => std::future::pending().await,
                    _ => panic!("a fault of the test"),
                }
            }
        },
    );
    let mut running = Running::start(server, registry.clone()).await;
    shown(&registry, InstanceStatus::Starting).await;
    for bad in [SILENT, SICK, PANICS] {
        mood.store(bad, Ordering::SeqCst);
        shown(&registry, InstanceStatus::OutOfService).await;
        mood.store(WELL, Ordering::SeqCst);
        shown(&registry, InstanceStatus::Up).await;
    }
    running.stop();
    shown(&registry, InstanceStatus::Draining).await;
    mood.store(SICK, Ordering::SeqCst);
    while let Some(instance) = only(&registry) {
        assert_eq!(instance.status, InstanceStatus::Draining);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.ended().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_away_is_no_error() {
    let away = RegistrationState::Registering(Some(SourceError::new("refused")));
    let registry = Scripted::new(away);
    let mut running = Running::start(server(), registry.clone()).await;
    let (mut sender, _ends) = client::http1(running.address).await.unwrap();
    sender.send_request(get(running.address, "/")).await.unwrap();
    registry.say(RegistrationState::Registered, 1);
    sender.ready().await.unwrap();
    sender.send_request(get(running.address, "/")).await.unwrap();
    running.stop();
    eventually(SOON, "draining", async || {
        registry.last().0.is_some_and(|i| i.status == InstanceStatus::Draining)
    })
    .await;
    registry.say(RegistrationState::Registered, 2);
    let stopped = running.ended().await.unwrap();
    assert!(stopped.unconfirmed.is_none() && registry.last().1);
}

#[tokio::test]
async fn who_was_never_registered_stops_without_draining() {
    let registry = Scripted::new(RegistrationState::Registering(None));
    let long = Duration::from_secs(3600);
    let mut running = Running::start(server().drain_for(long), registry.clone()).await;
    eventually(SOON, "wanted", async || registry.last().0.is_some()).await;
    running.stop();
    assert!(running.ended().await.unwrap().unconfirmed.is_none());
    assert!(registry.last().1);
}

#[tokio::test]
async fn a_conflict_and_a_refusal_end_it_in_good_order() {
    let instance = Instance::parse("orders", "7", "10.0.0.7:80").unwrap();
    let conflict = Conflict::new(instance.key(), Some(instance.address), false);
    for (state, part) in [
        (RegistrationState::Conflict(conflict), "is held by http://10.0.0.7:80"),
        (RegistrationState::Refused(SourceError::new("too long")), "too long"),
    ] {
        let registry = Scripted::new(RegistrationState::Registering(None));
        let running = Running::start(server(), registry.clone()).await;
        let (mut sender, _ends) = client::http1(running.address).await.unwrap();
        let address = running.address;
        let app = running.app.clone();
        let held =
            tokio::spawn(async move { sender.send_request(get(address, "/hold")).await.unwrap() });
        running.handlers(1).await;
        registry.say(state, 0);
        eventually(SOON, "leaving", async || registry.last().1).await;
        app.release();
        assert!(asks_to_go(&held.await.unwrap()));
        let error = running.ended().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        let ServerError::Registration(
            RegistrationError::Conflict(_) | RegistrationError::Refused(_),
        ) = error
        else {
            panic!("{error:?}")
        };
    }
}

#[tokio::test]
async fn a_conflict_that_the_registrar_waits_out_ends_nothing() {
    let registry = Arc::new(MemoryRegistry::new());
    let server = || self::server().id("7".parse().unwrap());
    let mut first = Running::start(server(), registry.clone()).await;
    shown(&registry, InstanceStatus::Up).await;
    let second = Running::start(server(), registry.clone()).await;
    let (mut sender, _ends) = client::http1(second.address).await.unwrap();
    sender.send_request(get(second.address, "/")).await.unwrap();
    first.stop();
    first.ended().await.unwrap();
    let address = Address::from_socket("http", second.address).unwrap();
    eventually(SOON, "the second", async || only(&registry).is_some_and(|i| i.address == address))
        .await;
}

#[tokio::test]
async fn it_can_be_spawned_with_a_borrowed_registry() {
    fn assert_send<T: Send>(_: &T) {}
    let registry = MemoryRegistry::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = tower::service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(
            http::Response::new(http_body_util::Empty::<&[u8]>::new()),
        )
    });
    let serving = Server::new("orders".parse().unwrap()).serve(
        listener,
        &registry,
        service,
        std::future::ready(()),
    );
    assert_send(&serving);
    serving.await.unwrap();
}
