//! Calls that may be done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use discovery_test_support::eventually;
use discovery_test_support::orders::orders_client::OrdersClient;
use discovery_test_support::orders::{GetRequest, ListRequest};
use discovery_tower::HttpVersion;
use discovery_tower::balance::Outcome;
use discovery_tower::http::RetryLayer;
use futures::{StreamExt as _, stream};
use tonic::Code;
use tower::Layer as _;

use super::raw::{self, data, frames, gated, reply, soon, trailers};
use super::server::{Server, addresses};
use super::{Client, SECOND, doing, endpoint, get, order, served_by, told, watched};

const GET: &str = "/orders.Orders/Get";

/// `Get` may be repeated.
fn gets() -> RetryLayer {
    RetryLayer::new(2).repeating(|head| head.uri.path() == GET)
}

#[tokio::test]
async fn an_unavailable_instance_costs_a_repeatable_call_nothing_and_others_are_not_repeated() {
    let servers = Server::several(2).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder.retry(gets())).await;
    let mut client = Client::new(channel);
    let away = || doing(GetRequest { number: 3 }, "away-at:0");
    let response = soon(client.get(away())).await.unwrap();
    assert_eq!((served_by(&response), response.get_ref().number), ("1", 3));
    assert_eq!(watching.take(), [Outcome::Failure, Outcome::Success]);

    let placing = doing(stream::iter((0..3).map(order)), "away-at:0");
    let status = soon(client.place(placing)).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, Some("0")));
    assert_eq!(watching.take(), [Outcome::Failure]);
    assert_eq!((servers[0].seen.asked(), servers[1].seen.asked()), (2, 1));
}

#[tokio::test]
async fn other_statuses_are_not_tried_again_and_the_last_one_stands() {
    let servers = Server::several(2).await;
    let (channel, _) = watched(&addresses(&servers), |builder| builder.retry(gets())).await;
    let mut client = Client::new(channel);
    for code in [2, 4, 5, 8, 13] {
        let request = doing(GetRequest::default(), &format!("status:{code}"));
        let status = soon(client.get(request)).await.unwrap_err();
        assert_eq!((status.code(), endpoint(&status)), (Code::from(code), Some("0")));
    }
    assert_eq!(servers[1].seen.asked(), 0);
    // Nobody is left after the second.
    let status = soon(client.get(doing(GetRequest::default(), "status:14"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "so it is"));
    assert_eq!(endpoint(&status), Some("1"));
    assert_eq!(servers[1].seen.asked(), 1);
}

#[tokio::test]
async fn a_lost_connection_is_tried_again_and_so_is_an_answer_that_breaks_off() {
    // The beginning of a message, and then the end of the stream.
    let broken = raw::Server::start(HttpVersion::Http2, |request| async move {
        if request.uri().query().is_some() {
            return None;
        }
        let begun = data(vec![0, 0, 0, 0, 9, 1, 2]);
        let (gate, opened) = tokio::sync::oneshot::channel();
        gate.send(()).unwrap();
        let error = Err(std::io::Error::other("gone"));
        Some(reply(200, gated(begun, opened, [error])))
    })
    .await;
    let lost = raw::Server::start(HttpVersion::Http2, |_| async { None }).await;
    for first in [broken, lost] {
        let server = Server::start("1").await;
        let both = [first.address.as_str(), server.address.as_str()];
        let (channel, watching) = watched(&both, |builder| builder.retry(gets())).await;
        let mut client = Client::new(channel);
        let response = soon(client.get(get(5))).await.unwrap();
        assert_eq!((served_by(&response), response.get_ref().number), ("1", 5));
        assert_eq!(watching.take(), [Outcome::Failure, Outcome::Success]);
        assert_eq!(first.asked(), 1);
    }
}

#[tokio::test]
async fn unavailable_in_the_trailers_is_tried_again() {
    let first = raw::Server::start(HttpVersion::Http2, |_| async {
        Some(reply(200, frames([trailers(&[("grpc-status", "14")])])))
    })
    .await;
    let server = Server::start("1").await;
    let both = [first.address.as_str(), server.address.as_str()];
    let (channel, _) = watched(&both, |builder| builder.retry(gets())).await;
    assert_eq!(served_by(&soon(Client::new(channel).get(get(5))).await.unwrap()), "1");
}

#[tokio::test]
async fn retries_stay_within_the_budget() {
    let servers = Server::several(2).await;
    let few = gets().budget(10 * SECOND, 1, 0.0);
    let (channel, _) = watched(&addresses(&servers), |builder| builder.retry(few)).await;
    let mut client = Client::new(channel);
    let mut failed = 0;
    for _ in 0..100 {
        let away = doing(GetRequest::default(), "away-at:0");
        failed += usize::from(soon(client.get(away)).await.is_err());
    }
    assert!(failed >= 80, "only {failed} of 100 failed");
    assert!(servers[1].seen.asked() >= 1);
}

#[tokio::test]
async fn a_repeatable_stream_is_passed_on_as_it_comes() {
    let servers = Server::several(2).await;
    let (channel, _) = watched(&addresses(&servers), |builder| {
        builder.retry(RetryLayer::new(2).repeating(|_| true))
    })
    .await;
    let mut client = Client::new(channel);
    let request = doing(ListRequest { from: 0, count: 1 }, "then-hang");
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    // One where nobody speaks before the other.
    let (say, said) = futures::channel::mpsc::unbounded();
    let mut answers = soon(client.follow(said)).await.unwrap().into_inner();
    say.unbounded_send(order(4)).unwrap();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().number, 4);
    // One that fails after its first answers.
    let request = doing(ListRequest { from: 0, count: 2 }, "then-fail");
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert_eq!(soon(listed.message()).await.unwrap().unwrap().number, 0);
    assert_eq!(soon(listed.message()).await.unwrap().unwrap().number, 1);
    let status = soon(listed.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no more"));
    assert_eq!(endpoint(&status), Some("0"));
    // A long one.
    let request = ListRequest { from: 0, count: 20_000 };
    let listed = soon(client.list(request)).await.unwrap().into_inner();
    assert_eq!(listed.map(Result::unwrap).count().await, 20_000);
    assert_eq!(servers[1].seen.asked(), 0);
}

#[tokio::test]
async fn a_layer_around_the_channel_tries_again_too() {
    let observed = Arc::new(AtomicUsize::new(0));
    let count = observed.clone();
    let layer = gets().observed_by(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let lost = raw::Server::start(HttpVersion::Http2, |_| async { None }).await;
    let servers = [Server::start("1").await, Server::start("2").await];
    let all = [lost.address.as_str(), &servers[0].address, &servers[1].address];
    let (channel, _) = watched(&all, |builder| builder).await;
    let mut client = OrdersClient::new(layer.layer(channel));
    let away = doing(GetRequest { number: 8 }, "away-at:1");
    let response = soon(client.get(away)).await.unwrap();
    assert_eq!((served_by(&response), response.get_ref().number), ("2", 8));
    assert_eq!(observed.load(Ordering::SeqCst), 2);
    let status = soon(client.place(stream::iter([order(1)]))).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, Some("0")));
}

#[tokio::test]
async fn a_call_that_is_dropped_is_not_tried_again() {
    let servers = Server::several(2).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder.retry(gets())).await;
    let seen = servers[0].seen.clone();
    let call = tokio::spawn(async move {
        Client::new(channel).get(doing(GetRequest::default(), "hang")).await
    });
    eventually(10 * SECOND, "the call is there", async || seen.under_way() == 1).await;
    call.abort();
    told(&watching, &[Outcome::Cancelled]).await;
    assert_eq!(servers[1].seen.asked(), 0);
}
