//! Reading and awaiting the status beside a stream.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::combine::{failover_changes, merge_changes};
use discovery_core::{Changes, Publisher, SourceError, State, StatusReader, Update};
use futures::FutureExt as _;

fn publisher() -> Publisher<u16, u16> {
    Publisher::new()
}

fn error(text: &str) -> SourceError {
    SourceError::new(text)
}

fn text(status: &discovery_core::Status) -> String {
    let error = status.state.error().map(ToString::to_string).unwrap_or_default();
    format!("{} {error}", status.state.name()).trim().to_owned()
}

#[tokio::test(start_paused = true)]
async fn stale_since_when_and_why() {
    let mut source = publisher();
    let status = source.status();
    assert_eq!(text(&status.get()), "loading");
    assert!(status.get().last_error.is_none());
    source.trouble(error("refused"));
    assert_eq!(text(&status.get()), "loading refused");
    assert!(!status.get().loaded);

    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(status.get().elapsed(), Duration::from_secs(5));
    source.replace([(1, 1), (2, 2)], Some(10));
    let fresh = status.get();
    assert_eq!(text(&fresh), "fresh");
    assert_eq!((fresh.loaded, fresh.revision, fresh.endpoints), (true, Some(10), 2));
    assert_eq!(fresh.elapsed(), Duration::ZERO);
    assert_eq!(fresh.last_error.unwrap().to_string(), "refused");

    tokio::time::advance(Duration::from_secs(1)).await;
    source.trouble(error("cut off"));
    tokio::time::advance(Duration::from_secs(1)).await;
    source.trouble(error("still cut off"));
    tokio::time::advance(Duration::from_secs(1)).await;
    let stale = status.get();
    assert_eq!(text(&stale), "stale still cut off");
    assert!(stale.is_stale() && stale.loaded);
    assert_eq!(stale.elapsed(), Duration::from_secs(2), "since the first trouble");
    assert_eq!(stale.endpoints, 2);

    // Changes alone do not make it fresh.
    source.apply([Update::Insert(3, 3)], Some(11));
    assert!(status.get().is_stale());
    assert_eq!((status.get().revision, status.get().endpoints), (Some(11), 3));
    source.fresh();
    assert!(status.get().is_fresh());
    assert_eq!(status.get().revision, Some(11));
    source.close();
    assert_eq!(text(&status.get()), "closed");
    assert!(status.get().loaded);
}

#[tokio::test]
async fn changed_and_wait_for() {
    let mut source = publisher();
    let mut status = source.status();
    assert!(status.changed().now_or_never().is_none());
    assert!(status.loaded().now_or_never().is_none());
    source.replace([(1, 1)], None);
    assert_eq!(status.changed().now_or_never(), Some(true));
    assert!(status.changed().now_or_never().is_none(), "one source event is one change");
    source.fresh();
    assert!(status.changed().now_or_never().is_none(), "fresh again is no news");
    source.apply([Update::Insert(1, 1)], None);
    assert!(status.changed().now_or_never().is_none(), "nor is a change that changes nothing");
    assert!(status.loaded().now_or_never().unwrap().unwrap().is_fresh());

    let task = tokio::spawn({
        let mut status = source.status();
        async move { status.wait_for(|status| status.endpoints == 3).await }
    });
    source.apply([Update::Insert(2, 2)], None);
    tokio::task::yield_now().await;
    source.apply([Update::Insert(3, 3)], None);
    assert_eq!(task.await.unwrap().unwrap().endpoints, 3);
}

#[tokio::test]
async fn loaded_is_told_together_with_fresh() {
    let mut source = publisher();
    let mut waiting = source.status();
    let task =
        tokio::task::spawn_blocking(move || futures::executor::block_on(waiting.loaded()).unwrap());
    source.replace((0..1000).map(|key| (key, key)), Some(4));
    let status = task.await.unwrap();
    assert!(status.is_fresh(), "{status:?}");
    assert_eq!((status.endpoints, status.revision), (1000, Some(4)));
}

#[tokio::test]
async fn waiting_for_what_never_comes_ends_when_the_source_does() {
    let source = publisher();
    let mut status = source.status();
    let changes = source.subscribe();
    source.close();
    // A reader is still held.
    let gone = status.loaded().now_or_never().expect("it was closed").unwrap_err();
    assert!(matches!(gone.0.state, State::Closed));
    assert_eq!(gone.to_string(), "the source is gone; its last state was closed");
    drop(changes);
    assert_eq!(status.changed().now_or_never(), Some(false));

    let source = publisher();
    let mut status = source.status();
    let task = tokio::spawn(async move { status.loaded().await });
    tokio::task::yield_now().await;
    drop(source);
    let gone = task.await.unwrap().unwrap_err();
    assert_eq!(gone.0.state.name(), "loading");
    assert!(gone.0.last_error.is_some());

    // Who could make further readers keeps nobody waiting for a source that has ended for want of any.
    let source = publisher();
    let subscriber = source.subscriber();
    let mut status = source.subscribe().status();
    source.finish_if_unused().unwrap();
    let gone = status.loaded().now_or_never().expect("it has ended").unwrap_err();
    assert_eq!(gone.0.state.name(), "loading");
    assert!(subscriber.is_ended() && subscriber.subscribe().is_none());

    // What has come counts, also when the source is gone.
    let mut source = publisher();
    let mut status = source.status();
    source.replace([(1, 1)], None);
    source.close();
    assert!(status.loaded().now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_merged_status() {
    let (mut a, mut b) = (publisher(), publisher());
    let merged = merge_changes([a.subscribe(), b.subscribe()]);
    let mut status = merged.status();
    assert_eq!(text(&status.get()), "loading");
    a.trouble(error("a refused"));
    assert_eq!(text(&status.get()), "loading a refused");
    assert_eq!(status.changed().now_or_never(), Some(true));
    b.replace([(1, 1)], None);
    assert_eq!(text(&status.get()), "stale a refused", "loaded once one is");
    assert!(status.get().loaded);
    assert!(status.loaded().now_or_never().is_some());
    tokio::time::advance(Duration::from_secs(3)).await;
    a.fresh();
    assert_eq!(text(&status.get()), "fresh");
    assert_eq!(status.get().elapsed(), Duration::ZERO, "since the last one became so");
    tokio::time::advance(Duration::from_secs(1)).await;
    b.trouble(error("b cut off"));
    tokio::time::advance(Duration::from_secs(1)).await;
    a.trouble(error("a cut off"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(text(&status.get()), "stale b cut off");
    assert_eq!(status.get().elapsed(), Duration::from_secs(2), "since the first trouble");
    b.close();
    assert_eq!(text(&status.get()), "stale a cut off", "what is closed is in no trouble");
    a.close();
    assert_eq!(text(&status.get()), "closed");
}

#[tokio::test]
async fn a_merged_status_without_error_says_what_is_missing() {
    let (mut a, b) = (publisher(), publisher());
    let merged: Changes<u16, u16> = merge_changes([a.subscribe(), b.subscribe()]);
    a.fresh();
    assert_eq!(text(&merged.status().get()), "stale one of the merged sources has not loaded yet");
}

#[tokio::test]
async fn a_failover_status_is_that_of_the_one_in_use() {
    let (mut first, mut second) = (publisher(), publisher());
    let mut changes = failover_changes([first.subscribe(), second.subscribe()]);
    let mut status = changes.status();
    first.trouble(error("first refused"));
    assert_eq!(text(&status.get()), "loading first refused");
    second.replace([(1, 1)], Some(5));
    assert_eq!(text(&status.get()), "fresh");
    assert_eq!(status.get().revision, Some(5));
    assert_eq!(status.get().endpoints, 0, "as last polled");
    let _ = futures::poll!(futures::StreamExt::next(&mut changes));
    assert_eq!(status.get().endpoints, 1);
    second.trouble(error("second cut off"));
    assert_eq!(text(&status.get()), "stale second cut off");
    first.replace([(2, 2)], Some(6));
    assert_eq!(text(&status.get()), "fresh");
    assert_eq!(status.get().revision, Some(6));
    first.close();
    assert_eq!(text(&status.get()), "closed");
    assert!(status.wait_for(discovery_core::Status::is_fresh).now_or_never().unwrap().is_err());
}

#[tokio::test]
async fn a_derived_status_is_followed_by_those_who_await_it() {
    let mut source = publisher();
    let mapped = source.subscribe().map_endpoints(|_, endpoint| *endpoint);
    let mut status: StatusReader = mapped.status();
    let task = tokio::spawn(async move { status.loaded().await.map(|status| status.loaded) });
    tokio::task::yield_now().await;
    source.replace([(1, 1)], None);
    assert!(task.await.unwrap().unwrap(), "nobody polled the stream");
    drop(mapped);
}

#[test]
fn nothing_merged_is_closed_from_the_start() {
    for mut changes in [merge_changes::<u16, u16>([]), failover_changes([])] {
        let next = futures::executor::block_on(futures::StreamExt::next(&mut changes));
        assert_eq!(next, None);
        assert_eq!(text(&changes.status().get()), "closed");
    }
}

#[test]
fn an_error_keeps_its_cause_and_can_be_downcast() {
    let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
    let error = SourceError::new(io);
    let copy = error.clone();
    assert!(copy.get_ref().downcast_ref::<std::io::Error>().is_some());
    assert_eq!(copy.to_string(), "refused");
    let shared: Arc<dyn std::error::Error + Send + Sync> = Arc::new(copy);
    assert!(shared.source().is_none());
}
