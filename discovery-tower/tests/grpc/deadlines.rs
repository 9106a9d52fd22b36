//! The time that a call has.

use std::time::Duration;

use discovery_core::Publisher;
use discovery_test_support::orders::{GetRequest, ListRequest};
use discovery_test_support::slack;
use discovery_tower::balance::Outcome;
use discovery_tower::grpc::{Channel, ChannelBuilder, ChannelError};
use discovery_tower::http::{Deadline, RetryLayer};
use discovery_tower::{CallError, HttpErrorKind};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::Instant;
use tonic::Code;

use super::raw::{data, reply, soon};
use super::server::{Server, addresses};
use super::{
    Client, SECOND, Silent, doing, endpoint, get, orders, raw, registry, served_by, told, view,
    watched,
};

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_call_that_waits_for_an_instance_ends_at_its_deadline() {
    let source = Silent(Publisher::new());
    let mut client = Client::new(Channel::new(&source, &orders()));
    let mut request = get(1);
    request.set_timeout(SHORT);
    let begun = Instant::now();
    let status = soon(client.get(request)).await.unwrap_err();
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < slack(2 * SECOND));
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let words = "the deadline has passed: the endpoints of orders are not known yet after ";
    assert!(status.message().starts_with(words), "{status:?}");
    assert_eq!(endpoint(&status), None);
    assert!(matches!(behind(&status), CallError::Deadline { .. }), "{status:?}");
}

#[tokio::test]
async fn an_instance_that_does_not_answer_in_time_has_failed() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let mut request = doing(GetRequest::default(), "hang");
    request.set_timeout(SHORT);
    let begun = Instant::now();
    let status = soon(client.get(request)).await.unwrap_err();
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < slack(2 * SECOND));
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
    let words = format!("orders/0 at {}: no response: not within ", servers[0].address);
    assert!(status.message().starts_with(&words), "{status:?}");
    assert_eq!(watching.take(), [Outcome::Failure]);
    assert_eq!((view(&channel, "0").pending, view(&channel, "0").failures), (0, 1));
}

#[tokio::test]
async fn the_deadline_is_for_a_stream_up_to_its_end() {
    let servers = Server::several(1).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| builder).await;
    let mut client = Client::new(channel.clone());
    let mut request = doing(ListRequest { from: 0, count: 2 }, "then-hang");
    request.set_timeout(slack(SECOND));
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    assert!(soon(listed.message()).await.unwrap().is_some());
    let status = soon(listed.message()).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
    assert_eq!(watching.take(), [Outcome::Failure]);
    assert_eq!(view(&channel, "0").pending, 0, "though the stream is still held");
}

#[tokio::test]
async fn who_always_has_more_to_say_is_cut_off_at_the_deadline() {
    // Bytes of one message without end.
    let server = raw::Server::start(discovery_tower::HttpVersion::Http2, |_| async {
        let first = data([&[0_u8][..], &u32::MAX.to_be_bytes()].concat());
        let pieces = std::iter::repeat_with(|| data(vec![0; 1000])).take(1_000_000);
        let body = StreamBody::new(stream::iter(std::iter::once(first).chain(pieces)));
        Some(reply(200, body.boxed_unsync()))
    })
    .await;
    let (channel, _) = watched(&[&server.address], |builder| builder.deadline(SHORT)).await;
    let mut client = Client::new(channel).max_decoding_message_size(usize::MAX);
    let status = soon(client.get(get(1))).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
}

#[tokio::test]
async fn the_instance_is_told_what_is_left_of_the_time() {
    let servers = Server::several(1).await;
    let registry = registry(addresses(&servers));
    // The first wait is for the connection.
    let channel = Channel::builder(&registry, &orders()).deadline(30 * SECOND).build();
    let mut client = Client::new(channel);
    let left = |text: Option<String>| -> Duration {
        let text = text.expect("a timeout");
        let number: u64 = text.strip_suffix('u').expect("microseconds").parse().unwrap();
        Duration::from_micros(number)
    };
    soon(client.get(get(1))).await.unwrap();
    let default = left(servers[0].seen.timeout());
    assert!(default < 30 * SECOND && default > 20 * SECOND, "{default:?}");
    let mut request = get(1);
    request.set_timeout(60 * SECOND);
    soon(client.get(request)).await.unwrap();
    let own = left(servers[0].seen.timeout());
    assert!(own < 60 * SECOND && own > 50 * SECOND, "that of the call goes before: {own:?}");
}

#[tokio::test]
async fn without_a_deadline_none_is_told_and_none_is_kept() {
    let servers = Server::several(1).await;
    let mut client = Client::new(Channel::new(&registry(addresses(&servers)), &orders()));
    soon(client.get(doing(GetRequest::default(), "slow:300"))).await.unwrap();
    assert_eq!(servers[0].seen.timeout(), None);
}

#[tokio::test]
async fn all_attempts_share_the_deadline() {
    let servers = Server::several(2).await;
    let (channel, watching) = watched(&addresses(&servers), |builder| {
        builder.retry(RetryLayer::new(3).repeating(|_| true))
    })
    .await;
    let mut client = Client::new(channel);
    // The first says that it is away, the second is silent.
    let mut request = doing(GetRequest::default(), "away-at:0");
    assert_eq!(served_by(&soon(client.get(request)).await.unwrap()), "1");
    told(&watching, &[Outcome::Failure, Outcome::Success]).await;
    let begun = Instant::now();
    request = doing(GetRequest::default(), "hang");
    request.set_timeout(2 * SHORT);
    let status = soon(client.get(request)).await.unwrap_err();
    assert!(begun.elapsed() >= 2 * SHORT && begun.elapsed() < slack(2 * SECOND));
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
    // What took too long is not tried again.
    assert_eq!(watching.take(), [Outcome::Failure]);
    assert_eq!(servers[1].seen.asked(), 1);
    assert_eq!(HttpErrorKind::of(&status), Some(HttpErrorKind::Timeout));
}

#[tokio::test]
async fn a_deadline_of_the_request_is_that_of_the_call() {
    let servers = Server::several(1).await;
    let long = |builder: ChannelBuilder<_>| builder.deadline(3600 * SECOND);
    let (channel, watching) = watched(&addresses(&servers), long).await;
    let mut client = Client::new(channel.clone());
    let mut request = doing(GetRequest::default(), "hang");
    request.extensions_mut().insert(Deadline::within(SHORT));
    let status = soon(client.get(request)).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
    let told = servers[0].seen.timeout().expect("a timeout");
    assert!(told.ends_with(['u', 'n']), "{told}: not that of the channel");

    // It is not over with the head of the answer.
    let mut request = doing(ListRequest { from: 0, count: 1 }, "then-hang");
    request.extensions_mut().insert(Deadline::within(slack(SECOND)));
    let mut listed = soon(client.list(request)).await.unwrap().into_inner();
    assert!(soon(listed.message()).await.unwrap().is_some());
    let status = soon(listed.message()).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::DeadlineExceeded, Some("0")));
    assert_eq!(watching.take(), [Outcome::Failure; 2]);

    let mut request = get(1);
    request.extensions_mut().insert(Deadline::at(Instant::now()));
    let status = soon(client.get(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!((watching.take(), servers[0].seen.asked()), (vec![Outcome::Ignore], 2));

    let source = Silent(Publisher::new());
    let mut request = get(1);
    request.extensions_mut().insert(Deadline::within(SHORT));
    let status = soon(Client::new(Channel::new(&source, &orders())).get(request)).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
}

fn behind(status: &tonic::Status) -> &CallError<discovery_core::InstanceKey> {
    match ChannelError::of(status) {
        Some(ChannelError::Call(error)) => error,
        other => panic!("{other:?}"),
    }
}
