//! The status of each thing that can go wrong, and what it says of the instance.

use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Instance, MemoryRegistry, Publisher, SourceError, Weight};
use discovery_test_support::orders::{GetRequest, ListRequest, Order};
use discovery_test_support::{eventually, eventually_eq, slack};
use discovery_tower::balance::{Ejection, Outcome, Standing};
use discovery_tower::grpc::{Channel, ChannelError};
use discovery_tower::http::RetryLayer;
use discovery_tower::{CallError, HttpVersion, Limits};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::raw::{self, data, empty, frames, reply, soon, trailers};
use super::server::{Server, addresses};
use super::sockets::{Shut, refused, shutting};
use super::{
    Client, SECOND, Silent, doing, endpoint, get, order, orders, registry, up, view, watched,
};

const FEW: Duration = Duration::from_millis(100);

fn behind(status: &Status) -> &ChannelError {
    ChannelError::of(status).unwrap_or_else(|| panic!("no error of ours behind {status:?}"))
}

fn call_error(status: &Status) -> &CallError<discovery_core::InstanceKey> {
    match behind(status) {
        ChannelError::Call(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_to_send_to_is_unavailable_and_says_why() {
    let none = Channel::new(&MemoryRegistry::new(), &orders());
    let status = soon(Client::new(none).get(get(1))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no instances of orders"));
    assert!(matches!(call_error(&status), CallError::NoEndpoints { .. }));
    assert_eq!(endpoint(&status), None);

    let out = MemoryRegistry::new();
    let server = Server::start("0").await;
    let mut instance = Instance::parse("orders", "0", &server.address).unwrap();
    instance.weight = Weight::new(0);
    out.insert(instance);
    let channel = Channel::new(&out, &orders());
    eventually_eq(10 * SECOND, "standing", vec![Standing::Out], async || {
        channel.endpoints().iter().map(|view| view.standing).collect::<Vec<_>>()
    })
    .await;
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let words = "none of 1 endpoints of orders can be used (all have a weight of 0)";
    assert!(status.message().starts_with(words), "{status:?}");
}

#[tokio::test]
async fn a_source_that_does_not_load_is_unavailable_and_says_why() {
    let mut publisher = Publisher::new();
    publisher.trouble(SourceError::new("the registry is away"));
    let limits = Limits::default().load(FEW);
    let source = Silent(publisher);
    let channel = Channel::builder(&source, &orders()).limits(limits).build();
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("the endpoints of orders are not known yet"));
    assert!(status.message().ends_with("the registry is away"), "{status:?}");
    assert!(matches!(call_error(&status), CallError::NotLoaded { .. }));
}

#[tokio::test]
async fn no_more_calls_wait_than_may_and_one_more_is_unavailable() {
    let source = Silent(Publisher::new());
    let limits = Limits::default().load(3600 * SECOND).waiting(1);
    for layer in [RetryLayer::new(0), RetryLayer::new(2).repeating(|_| true)] {
        let builder = Channel::builder(&source, &orders()).limits(limits).retry(layer);
        let mut client = Client::new(builder.build());
        let waiting = {
            let mut client = client.clone();
            tokio::spawn(async move { client.get(get(1)).await })
        };
        // It is polled first.
        tokio::task::yield_now().await;
        let status = soon(client.get(get(2))).await.unwrap_err();
        let words = "1 calls wait for the endpoints of orders, and no more may";
        assert_eq!((status.code(), status.message()), (Code::Unavailable, words));
        assert!(matches!(call_error(&status), CallError::TooManyWaiting { limit: 1, .. }));
        waiting.abort();
    }
}

#[tokio::test]
async fn refused_connections_are_unavailable_and_say_who_refused() {
    let dead = [refused(), refused()];
    let registry = registry(dead.iter().map(String::as_str));
    let limits = Limits::default().failed(FEW);
    let channel = Channel::builder(&registry, &orders()).limits(limits).build();
    let begun = Instant::now();
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert!(begun.elapsed() < slack(2 * SECOND));
    assert_eq!(status.code(), Code::Unavailable);
    let words = status.message();
    assert!(words.starts_with("none of 2 endpoints of orders can be used (all have failed)"));
    let told = format!("orders/1 at {}: cannot connect: connection refused", dead[1]);
    assert!(words.contains(&told), "{words}");
    assert!(matches!(call_error(&status), CallError::Unavailable { .. }));
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_unavailable() {
    let registry = registry(["unix:///nowhere"]);
    let limits = Limits::default().failed(FEW);
    let channel = Channel::builder(&registry, &orders()).limits(limits).build();
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("not supported"), "{status:?}");
}

#[tokio::test]
async fn what_an_instance_says_is_told_as_it_is_and_by_whom() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel);
    for code in 1..=16 {
        let request = doing(GetRequest::default(), &format!("status:{code}"));
        let status = soon(client.get(request)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::from(code), "so it is"));
        assert_eq!(status.metadata().get("at").unwrap(), "0");
        assert_eq!(endpoint(&status), Some("0"));
        assert!(matches!(behind(&status), ChannelError::Answered { .. }));
        let outcome = match code {
            2 | 4 | 13 | 14 | 15 => Outcome::Failure,
            8 => Outcome::Ignore,
            _ => Outcome::Success,
        };
        assert_eq!(watching.take(), [outcome], "{code}");
    }
    // After messages, in the trailers.
    let request = doing(ListRequest { from: 0, count: 2 }, "then-fail");
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    assert!(soon(listed.message()).await.unwrap().is_some());
    let status = soon(listed.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no more"));
    assert_eq!(endpoint(&status), Some("0"));
    assert_eq!(watching.take(), [Outcome::Success]);
}

#[tokio::test]
async fn an_instance_that_dies_in_the_middle_of_a_stream_is_unavailable() {
    let mut servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let request = doing(ListRequest { from: 0, count: 1 }, "then-hang");
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    drop(servers.pop());
    let status = soon(listed.message()).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, Some("0")));
    assert!(status.message().starts_with("orders/0 at grpc://"), "{status:?}");
    assert_eq!(watching.take(), [Outcome::Failure]);
    assert_eq!(view(&channel, "0").pending, 0);
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_answer_is_unavailable() {
    let mut servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let call = tokio::spawn(async move {
        Client::new(channel).get(doing(GetRequest::default(), "hang")).await
    });
    let seen = servers[0].seen.clone();
    eventually(10 * SECOND, "the call is there", async || seen.under_way() == 1).await;
    drop(servers.pop());
    let status = soon(call).await.unwrap().unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, Some("0")));
    assert!(status.message().contains("no response"), "{status:?}");
    assert_eq!(watching.take(), [Outcome::Failure]);
}

#[tokio::test]
async fn a_stream_that_is_reset_before_the_answer_is_unavailable() {
    let server = raw::Server::start(HttpVersion::Http2, |_| async { None }).await;
    let (channel, watching) = watched(&[&server.address], |builder| builder).await;
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, Some("0")));
    assert!(status.message().contains("reset the stream"), "{status:?}");
    assert_eq!(watching.take(), [Outcome::Failure]);
}

#[tokio::test]
async fn who_does_not_speak_http2_cannot_be_connected_to() {
    let server = shutting(Shut::Nonsense).await;
    let registry = registry([server.as_str()]);
    let limits = Limits::default().failed(FEW).ready(FEW);
    let channel =
        Channel::builder(&registry, &orders()).limits(limits).deadline(5 * SECOND).build();
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert!([Code::Unavailable, Code::Internal].contains(&status.code()), "{status:?}");
    assert!(status.message().contains("orders/0 at http://"), "{status:?}");
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_is_no_fault_of_the_instance() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone()).max_encoding_message_size(100);
    let big = || Order { number: 1, item: "x".repeat(200) };
    let status = soon(client.place(stream::iter([order(1), big()]))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("the limit is: 100 bytes"), "{status:?}");
    assert_eq!(endpoint(&status), Some("0"));
    assert_eq!(watching.take(), [Outcome::Ignore]);

    // After the head of the answer.
    let (say, said) = futures::channel::mpsc::unbounded();
    let mut answers = soon(client.follow(said)).await.unwrap().into_inner();
    say.unbounded_send(order(1)).unwrap();
    assert!(soon(answers.message()).await.unwrap().is_some());
    say.unbounded_send(big()).unwrap();
    let status = soon(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(watching.take(), [Outcome::Ignore]);
    assert_eq!((view(&channel, "0").failures, view(&channel, "0").pending), (0, 0));
}

/// One that answers with what the path of the call is replaced by: the HTTP status, the frames.
async fn answering(
    answer: impl Fn() -> http::Response<raw::Body> + Send + Sync + 'static,
) -> raw::Server {
    raw::Server::start(HttpVersion::Http2, move |_| {
        let answer = answer();
        async move { Some(answer) }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_is_not_grpc_is_what_its_http_status_says() {
    for (code, expected) in [
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (429, Code::Unavailable),
        (500, Code::Unknown),
        (503, Code::Unavailable),
    ] {
        let server = answering(move || reply(code, raw::full("<html>"))).await;
        let (channel, _) = watched(&[&server.address], |builder| builder).await;
        let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
        assert_eq!((status.code(), endpoint(&status)), (expected, Some("0")));
        assert!(
            status.message().starts_with(&format!("orders/0 answered with HTTP status {code}"))
        );
        assert!(matches!(behind(&status), ChannelError::NoStatus { .. }));
    }
}

/// A message that is an order without anything in it.
fn message() -> raw::Frames {
    data(Bytes::from_static(&[0, 0, 0, 0, 0]))
}

#[tokio::test]
async fn an_answer_that_ends_without_a_status_is_unknown_and_a_failure() {
    for said in [0, 1] {
        let server = answering(move || reply(200, frames((0..said).map(|_| message())))).await;
        let (channel, watching) = watched(&[&server.address], |builder| builder).await;
        let mut client = Client::new(channel);
        let mut listed = soon(client.list(ListRequest::default())).await.unwrap().into_inner();
        for _ in 0..said {
            assert!(soon(listed.message()).await.unwrap().is_some());
        }
        let status = soon(listed.message()).await.unwrap_err();
        assert_eq!((status.code(), endpoint(&status)), (Code::Unknown, Some("0")));
        assert_eq!(status.message(), "the answer of orders/0 ended without a status");
        assert_eq!(watching.take(), [Outcome::Failure]);
    }
}

#[tokio::test]
async fn instances_that_answer_without_a_status_are_left_out() {
    let bad = answering(|| reply(200, empty())).await;
    let good = Server::several(3).await;
    let all: Vec<_> = addresses(&good).into_iter().chain([bad.address.as_str()]).collect();
    let channel = Channel::builder(&registry(all), &orders())
        .ejection(Ejection::default())
        .policy(discovery_tower::balance::LeastPending::new())
        .build();
    up(&channel, 4).await;
    eventually(20 * SECOND, "left out", async || {
        let _ = Client::new(channel.clone()).get(get(1)).await;
        view(&channel, "3").standing == Standing::Ejected
    })
    .await;
}

#[tokio::test]
async fn details_that_cannot_be_read_harm_nobody() {
    for in_head in [true, false] {
        let server = answering(move || {
            let bad = [("grpc-status", "5"), ("grpc-status-details-bin", "!!!"), ("kept", "yes")];
            let told = trailers(&bad);
            if in_head {
                let mut response = reply(200, empty());
                response.headers_mut().extend(told.unwrap().into_trailers().unwrap());
                response
            } else {
                reply(200, frames([told]))
            }
        })
        .await;
        let (channel, _) = watched(&[&server.address], |builder| builder).await;
        let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
        assert_eq!((status.code(), status.details()), (Code::NotFound, &[][..]));
        assert_eq!(status.metadata().get("kept").unwrap(), "yes");
    }
    let server = answering(|| {
        let fine = trailers(&[("grpc-status", "0"), ("grpc-status-details-bin", "!!!")]);
        reply(200, frames([message(), fine]))
    })
    .await;
    let (channel, watching) = watched(&[&server.address], |builder| builder).await;
    assert_eq!(
        soon(Client::new(channel).get(get(1))).await.unwrap().into_inner(),
        Order::default()
    );
    assert_eq!(watching.take(), [Outcome::Success]);
}

#[tokio::test]
async fn readable_details_are_told() {
    let server = answering(|| {
        reply(200, frames([trailers(&[("grpc-status", "5"), ("grpc-status-details-bin", "aGk")])]))
    })
    .await;
    let (channel, _) = watched(&[&server.address], |builder| builder).await;
    let status = soon(Client::new(channel).get(get(1))).await.unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::NotFound, &b"hi"[..]));
}

#[tokio::test]
async fn a_status_alone_in_the_head_ends_the_call() {
    let server = answering(|| {
        let mut response = reply(200, empty());
        response.headers_mut().insert("grpc-status", "0".parse().unwrap());
        response
    })
    .await;
    let (channel, watching) = watched(&[&server.address], |builder| builder).await;
    let listed = soon(Client::new(channel).list(ListRequest::default())).await.unwrap();
    assert_eq!(watching.take(), [Outcome::Success]);
    assert_eq!(listed.into_inner().map(Result::unwrap).count().await, 0);
}
