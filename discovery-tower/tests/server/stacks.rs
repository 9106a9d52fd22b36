//! Other people's stacks: their services in our server, and our life in their servers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use discovery_core::{Conflict, Instance, InstanceStatus, MemoryRegistry, RegistrationState};
use discovery_test_support::slack;
use discovery_tower::server::ServerError;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::client::{self, asks_to_go, get};
use crate::registrar::Scripted;
use crate::support::{SOON, server, shown};

fn router() -> Router {
    Router::new().route("/", on_get(async || "axum"))
}

#[tokio::test]
async fn a_router_of_axum_is_served() {
    let registry = Arc::new(MemoryRegistry::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(server().serve(listener, registry.clone(), router(), shutdown));
    let (mut one, _one) = client::http1(address).await.unwrap();
    let (mut two, _two) = client::http2(address).await.unwrap();
    let answer = one.send_request(get(address, "/")).await.unwrap();
    assert!(!asks_to_go(&answer));
    assert_eq!(client::text(answer).await, "axum");
    let answer = two.send_request(get(address, "/")).await.unwrap();
    assert_eq!(client::text(answer).await, "axum");
    stop.send(()).unwrap();
    shown(&registry, InstanceStatus::Draining).await;
    one.ready().await.unwrap();
    assert!(asks_to_go(&one.send_request(get(address, "/")).await.unwrap()));
    serving.await.unwrap().unwrap();
    assert!(registry.instances().is_empty());
}

#[tokio::test]
async fn axums_own_server_drains_and_deregisters_before_it_stops() {
    let registry = Arc::new(MemoryRegistry::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let member = server().register(address, &registry).unwrap();
    let router = router().layer(member.layer());
    let (stop, stopped) = oneshot::channel::<()>();
    let (leave, left) = member.leave_on(async { drop(stopped.await) });
    let serving =
        tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(leave).await },
        );
    shown(&registry, InstanceStatus::Up).await;
    let (mut one, one_ends) = client::http1(address).await.unwrap();
    let answer = one.send_request(get(address, "/")).await.unwrap();
    assert!(!asks_to_go(&answer));
    assert_eq!(client::text(answer).await, "axum");
    stop.send(()).unwrap();
    shown(&registry, InstanceStatus::Draining).await;
    one.ready().await.unwrap();
    let answer = one.send_request(get(address, "/")).await.unwrap();
    assert!(asks_to_go(&answer));
    assert_eq!(client::text(answer).await, "axum");
    one_ends.await.unwrap();
    timeout(slack(SOON), serving).await.unwrap().unwrap().unwrap();
    let stopped = left.await.unwrap();
    assert!(stopped.unconfirmed.is_none() && stopped.cut_off == 0);
    assert!(registry.instances().is_empty());
}

#[tokio::test]
async fn routes_of_tonic_are_served() {
    let registry = Arc::new(MemoryRegistry::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = server().serve(listener, registry.clone(), Routes::default(), shutdown);
    let serving = tokio::spawn(serving);
    let (mut two, two_ends) = client::http2(address).await.unwrap();
    let answer = two.send_request(get(address, "/orders.Orders/Get")).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12", "unimplemented");
    stop.send(()).unwrap();
    two_ends.await.unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn tonics_own_server_drains_and_deregisters_before_it_stops() {
    let registry = Arc::new(MemoryRegistry::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let member = server().scheme("grpc").register(address, &registry).unwrap();
    assert_eq!(member.instance().address.scheme(), "grpc");
    let layer = member.layer();
    let (stop, stopped) = oneshot::channel::<()>();
    let (leave, left) = member.leave_on(async { drop(stopped.await) });
    let serving = tokio::spawn(async move {
        let mut server = tonic::transport::Server::builder().layer(layer);
        let routes = server.add_routes(Routes::default());
        routes.serve_with_incoming_shutdown(TcpIncoming::from(listener), leave).await
    });
    shown(&registry, InstanceStatus::Up).await;
    let (mut two, two_ends) = client::http2(address).await.unwrap();
    let call = || get(address, "/orders.Orders/Get");
    assert_eq!(two.send_request(call()).await.unwrap().headers()["grpc-status"], "12");
    stop.send(()).unwrap();
    shown(&registry, InstanceStatus::Draining).await;
    assert_eq!(two.send_request(call()).await.unwrap().headers()["grpc-status"], "12");
    two_ends.await.unwrap();
    assert!(registry.instances().is_empty());
    timeout(slack(SOON), serving).await.unwrap().unwrap().unwrap();
    assert!(left.await.unwrap().unconfirmed.is_none());
}

#[tokio::test]
async fn a_conflict_ends_another_stacks_server_too() {
    let instance = Instance::parse("orders", "7", "10.0.0.7:80").unwrap();
    let conflict = Conflict::new(instance.key(), Some(instance.address), false);
    let registry = Scripted::new(RegistrationState::Conflict(conflict));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = server().register(listener.local_addr().unwrap(), &registry).unwrap();
    let (leave, left) = member.leave_on(std::future::pending());
    let serving = axum::serve(listener, router()).with_graceful_shutdown(leave);
    timeout(slack(SOON), async { serving.await }).await.unwrap().unwrap();
    let error = left.await.unwrap_err();
    assert!(matches!(error, ServerError::Registration(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_ended_by_itself_is_registered_no_longer() {
    let registry = MemoryRegistry::new();
    let member = server().register("127.0.0.1:9".parse().unwrap(), &registry).unwrap();
    assert_eq!(registry.instances()[0], member.instance());
    let (leave, left) = member.leave_on(std::future::pending());
    assert!(timeout(Duration::ZERO, leave).await.is_err());
    assert!(registry.instances().is_empty());
    assert!(matches!(left.await, Err(ServerError::Registration(_))));
}
