//! Calls that an instance did not act on go to another one, though their messages were on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use discovery_tower::balance::Outcome;
use discovery_tower::grpc::Channel;
use futures::{StreamExt as _, stream};
use tokio::net::TcpListener;

use super::raw::soon;
use super::server::{Server, addresses};
use super::sockets::refused;
use super::{Client, get, order, orders, registry, served_by, watched};

/// One that reads all of a request and says then that it does not act on it; how many it has had.
async fn refusing() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let count = count.clone();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while let Some(Ok(piece)) = body.data().await {
                            let _ = body.flow_control().release_capacity(piece.len());
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    });
                }
            });
        }
    });
    (address, refused)
}

#[tokio::test]
async fn a_call_that_is_refused_when_all_of_it_was_sent_goes_to_another_instance() {
    let (refusing, refused) = refusing().await;
    let server = Server::start("1").await;
    let (channel, watching) = watched(&[&refusing, &server.address], |builder| builder).await;
    let mut client = Client::new(channel);
    for number in 0..20 {
        let response = soon(client.get(get(number))).await.unwrap();
        assert_eq!(served_by(&response), "1");
        assert_eq!(response.into_inner().number, number);
        let orders = stream::iter((0..10).map(order));
        assert_eq!(soon(client.place(orders)).await.unwrap().into_inner().count, 10);
    }
    assert_eq!((refused.load(Ordering::SeqCst), server.seen.asked()), (40, 40));
    let outcomes = watching.take();
    assert_eq!(outcomes.iter().filter(|told| **told == Outcome::Success).count(), 40);
    assert!(!outcomes.contains(&Outcome::Failure), "it is not held against anybody");
}

#[tokio::test]
async fn a_dead_instance_among_live_ones_costs_no_call() {
    let servers = [Server::start("0").await, Server::start("1").await];
    let dead = refused();
    let mut all = addresses(&servers);
    all.push(&dead);
    let channel = Channel::new(&registry(all), &orders());
    let calls = stream::iter(0..300).map(|number| {
        let mut client = Client::new(channel.clone());
        async move {
            let orders = stream::iter((0..3).map(order)).then(async |order| {
                tokio::task::yield_now().await;
                order
            });
            if number % 2 == 0 {
                assert_ne!(served_by(&soon(client.get(get(number))).await.unwrap()), "2");
            } else {
                assert_eq!(soon(client.place(orders.boxed())).await.unwrap().into_inner().count, 3);
            }
        }
    });
    calls.buffer_unordered(10).collect::<Vec<_>>().await;
    assert_eq!(servers[0].seen.asked() + servers[1].seen.asked(), 300);
}
