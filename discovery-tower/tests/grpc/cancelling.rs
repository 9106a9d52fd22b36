//! Callers that do not wait for the end.

use discovery_test_support::eventually;
use discovery_test_support::orders::{GetRequest, ListRequest, Order};
use discovery_tower::balance::Outcome;
use futures::{StreamExt as _, stream};
use tonic::{Code, Request};

use super::raw::soon;
use super::server::{Server, addresses};
use super::{Client, SECOND, doing, order, told, view, watched};

/// Waits until the server has so many calls under way.
async fn under_way(server: &Server, count: usize) {
    eventually(10 * SECOND, format!("{count} calls under way"), async || {
        let now = server.seen.under_way();
        if now == count { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_answer_ends_at_the_instance() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    for streaming in [false, true] {
        let mut client = Client::new(channel.clone());
        let call = tokio::spawn(async move {
            if streaming {
                let orders = stream::iter([order(1)]).chain(stream::pending());
                client.follow(doing(orders, "hang")).await.map(drop)
            } else {
                client.get(doing(GetRequest::default(), "hang")).await.map(drop)
            }
        });
        under_way(&servers[0], 1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        under_way(&servers[0], 0).await;
        told(&watching, &[Outcome::Cancelled]).await;
        assert_eq!(view(&channel, "0").pending, 0);
    }
}

#[tokio::test]
async fn a_stream_of_answers_that_is_dropped_ends_at_the_instance() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let request = doing(ListRequest { from: 0, count: 3 }, "then-hang");
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    assert_eq!((servers[0].seen.under_way(), view(&channel, "0").pending), (1, 1));
    drop(listed);
    assert_eq!(view(&channel, "0").pending, 0);
    assert_eq!(watching.take(), [Outcome::Cancelled]);
    under_way(&servers[0], 0).await;
}

/// A stream that says when it is dropped.
fn held(gone: tokio::sync::oneshot::Sender<()>) -> impl futures::Stream<Item = Order> + Send {
    stream::iter([order(1)]).chain(stream::once(async move {
        let _gone = gone;
        std::future::pending().await
    }))
}

#[tokio::test]
async fn when_the_answers_are_dropped_no_more_requests_are_sent_and_the_instance_knows() {
    let servers = Server::several(1).await;
    let (channel, _) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    let mut answers = soon(client.follow(held(gone))).await.unwrap().into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().number, 1);
    drop(answers);
    assert_eq!(view(&channel, "0").pending, 0);
    soon(is_gone).await.unwrap_err();
    under_way(&servers[0], 0).await;
}

#[tokio::test]
async fn when_the_answers_end_no_more_requests_are_sent() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel);
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    let status = soon(client.follow(doing(held(gone), "status:7"))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    soon(is_gone).await.unwrap_err();
    assert_eq!(watching.take(), [Outcome::Success]);
}

#[tokio::test]
async fn one_that_cancels_by_its_handle_does_not_blame_the_instance() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let mut request = Request::new(stream::iter([order(1)]).chain(stream::pending()));
    let handle = request.cancellation_handle();
    let mut answers = soon(client.follow(request)).await.unwrap().into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().number, 1);
    handle.cancel();
    let status = soon(answers.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "client cancelled"));
    told(&watching, &[Outcome::Ignore]).await;
    assert_eq!(view(&channel, "0").failures, 0);
    under_way(&servers[0], 0).await;
}
