//! Calls of each kind, and what goes with them.

use discovery_test_support::eventually;
use discovery_test_support::orders::{GetRequest, ListRequest, Order};
use discovery_tower::balance::{LeastPending, Outcome};
use discovery_tower::grpc::Channel;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;

use super::raw::soon;
use super::server::{Server, addresses};
use super::{Client, SECOND, doing, get, order, orders, registry, served_by, up, view, watched};

fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

#[tokio::test]
async fn calls_of_each_kind_are_answered_and_tell_who_served() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    is_shared(&channel);
    let mut client = Client::new(channel.clone());

    let response = soon(client.get(get(7))).await.unwrap();
    assert_eq!(served_by(&response), "0");
    assert_eq!(response.into_inner(), Order { number: 7, item: "0".into() });

    let response = soon(client.place(stream::iter((0..100).map(order)))).await.unwrap();
    assert_eq!(served_by(&response), "0");
    assert_eq!(response.into_inner().count, 100);

    let response = soon(client.list(ListRequest { from: 3, count: 50 })).await.unwrap();
    assert_eq!(served_by(&response), "0");
    let listed: Vec<_> = soon(response.into_inner().try_collect::<Vec<_>>()).await.unwrap();
    assert!(listed.iter().map(|order| order.number).eq(3..53));

    let (say, said) = futures::channel::mpsc::unbounded();
    let response = soon(client.follow(said)).await.unwrap();
    assert_eq!(served_by(&response), "0");
    let mut answers = response.into_inner();
    for number in 0..20 {
        say.unbounded_send(order(number)).unwrap();
        assert_eq!(soon(answers.message()).await.unwrap().unwrap().number, number);
        assert_eq!(view(&channel, "0").pending, 1);
    }
    drop(say);
    assert_eq!(soon(answers.message()).await.unwrap(), None);

    assert_eq!(watching.take(), [Outcome::Success; 4]);
    assert_eq!(view(&channel, "0").pending, 0);
}

#[tokio::test]
async fn calls_go_to_all_instances_whatever_the_policy() {
    let servers = Server::several(3).await;
    let registry = registry(addresses(&servers));
    let two = [
        Channel::new(&registry, &orders()),
        Channel::builder(&registry, &orders()).policy(LeastPending::new()).build(),
    ];
    for channel in two {
        up(&channel, 3).await;
        let calls = stream::iter(0..120).map(|number| {
            let mut client = Client::new(channel.clone());
            async move { soon(client.get(get(number))).await.unwrap().into_inner().number }
        });
        let mut answered: Vec<_> = calls.buffer_unordered(12).collect().await;
        answered.sort_unstable();
        assert!(answered.into_iter().eq(0..120));
    }
    assert_eq!(servers.iter().map(|server| server.seen.asked()).sum::<usize>(), 240);
    assert!(servers.iter().all(|server| server.seen.asked() >= 24));
}

#[tokio::test]
async fn calls_may_be_made_by_tasks_on_other_threads() {
    let servers = Server::several(1).await;
    let client = Client::new(Channel::new(&registry(addresses(&servers)), &orders()));
    let calls = (0..10).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move { client.get(get(number)).await.unwrap().into_inner().number })
    });
    for (number, call) in (0..).zip(calls.collect::<Vec<_>>()) {
        assert_eq!(soon(call).await.unwrap(), number);
    }
}

#[tokio::test]
async fn metadata_goes_both_ways() {
    let servers = Server::several(1).await;
    let mut client = Client::new(Channel::new(&registry(addresses(&servers)), &orders()));
    let mut request = get(1);
    request.metadata_mut().insert("echo", "hello".parse().unwrap());
    let bytes = MetadataValue::from_bytes(&[0, 255, 7]);
    request.metadata_mut().insert_bin("echo-bin", bytes.clone());
    let response = soon(client.get(request)).await.unwrap();
    assert_eq!(response.metadata().get("echo").unwrap(), "hello");
    assert_eq!(response.metadata().get_bin("echo-bin").unwrap(), bytes);

    let status = soon(client.get(doing(GetRequest::default(), "status:9"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "so it is"));
    assert_eq!(status.metadata().get("at").unwrap(), "0");
}

#[tokio::test]
async fn messages_of_many_megabytes_pass() {
    const SIZE: usize = 20 << 20;
    let servers = Server::several(1).await;
    let channel = Channel::new(&registry(addresses(&servers)), &orders());
    let mut client = Client::new(channel).max_decoding_message_size(64 << 20);
    let big = doing(GetRequest { number: SIZE as u64 }, "big");
    assert_eq!(soon(client.get(big)).await.unwrap().into_inner().item.len(), SIZE);
    let big = Order { number: 0, item: "y".repeat(SIZE) };
    assert_eq!(soon(client.place(stream::iter([big]))).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn messages_are_compressed_if_the_client_says_so() {
    let servers = Server::several(1).await;
    let channel = Channel::new(&registry(addresses(&servers)), &orders());
    let mut client = Client::new(channel)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let response = soon(client.get(doing(GetRequest { number: 100_000 }, "big"))).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(response.into_inner().item.len(), 100_000);
    let orders = stream::iter((0..10).map(order));
    assert_eq!(soon(client.place(orders)).await.unwrap().into_inner().count, 10);
}

#[tokio::test]
async fn the_last_clone_takes_the_connections_with_it() {
    let servers = Server::several(1).await;
    let channel = Channel::new(&registry(addresses(&servers)), &orders());
    let mut client = Client::new(channel.clone());
    soon(client.get(get(1))).await.unwrap();
    let mut listed = soon(client.list(doing(ListRequest { from: 0, count: 1 }, "then-hang")))
        .await
        .unwrap()
        .into_inner();
    drop((channel, client));
    // What is under way goes on.
    assert_eq!(soon(listed.message()).await.unwrap().unwrap().number, 0);
    drop(listed);
    eventually(10 * SECOND, "the call is over", async || servers[0].seen.under_way() == 0).await;
}
