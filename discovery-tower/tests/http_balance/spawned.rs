//! What people write: a call that is awaited in a task that is spawned. That it compiles is the test.

use std::sync::Arc;

use bytes::Bytes;
use discovery_core::{MemoryRegistry, Source as _};
use discovery_tower::balance::Builder;
use discovery_tower::http::{PooledMaker, RetryLayer, balance};
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, Service as _, ServiceExt as _};

#[tokio::test]
async fn calls_are_awaited_in_tasks() {
    let registry = MemoryRegistry::new();
    let watch = || registry.watch(&"orders".parse().unwrap());
    let mut plain = balance(watch(), PooledMaker::<Full<Bytes>>::new());
    let mut again = RetryLayer::new(1).layer(balance(watch(), PooledMaker::new()));
    let plain = tokio::spawn(async move { plain.call(Request::default()).await.is_ok() });
    let again =
        tokio::spawn(
            async move { again.call(Request::new(Full::new(Bytes::new()))).await.is_ok() },
        );
    assert!(!plain.await.unwrap() && !again.await.unwrap(), "there is nobody");
}

type Boxed = BoxCloneSyncService<u32, u32, BoxError>;

/// Types that hold a `dyn Error` need a box around the balancer, for the compiler's sake
/// (rust-lang/rust#110338).
#[tokio::test]
async fn with_boxed_errors_the_balancer_is_boxed() {
    let registry = MemoryRegistry::new();
    let orders = balance(registry.watch(&"orders".parse().unwrap()), PooledMaker::new());
    let mut orders = BoxCloneSyncService::new(orders.map_response(|response| response.status()));
    let body: BoxBody<Bytes, BoxError> = Empty::new().map_err(|never| match never {}).boxed();
    let orders = tokio::spawn(async move { orders.call(Request::new(body)).await.is_ok() });

    let make = |_: &String, _: &Arc<()>| -> Boxed {
        Boxed::new(tower::service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }))
    };
    let changes = futures::stream::empty::<discovery_core::Change<String, ()>>();
    let mut boxed = BoxCloneSyncService::new(Builder::new(changes, make).spawn::<_, u32, _>());
    let boxed = tokio::spawn(async move { boxed.call(1).await.is_ok() });
    assert!(!orders.await.unwrap() && !boxed.await.unwrap(), "there is nobody");
}
