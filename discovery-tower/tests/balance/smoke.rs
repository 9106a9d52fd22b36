use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery_core::Change;
use discovery_tower::balance::{Builder, CallError, LeastPending};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{Service, ServiceExt as _};

#[derive(Clone)]
struct Echo(usize);

impl Service<u32> for Echo {
    type Response = (usize, u32);
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok((self.0, request)))
    }
}

#[tokio::test]
async fn calls_are_spread_and_tell_who_served() {
    let (tell, changes) = tokio::sync::mpsc::unbounded_channel();
    let changes = UnboundedReceiverStream::new(changes);
    let balance = Builder::new(changes, |key: &usize, _: &Arc<()>| Echo(*key))
        .policy(LeastPending::new())
        .spawn::<Echo, u32, ()>();
    for key in 0..10_usize {
        tell.send(Change::Insert(key, ())).unwrap();
    }
    tell.send(Change::Synced).unwrap();
    let mut seen = [0_u32; 10];
    for request in 0..1_000 {
        let served = balance.clone().oneshot(request).await.unwrap();
        assert_eq!(*served.endpoint(), served.get_ref().0);
        assert_eq!(served.get_ref().1, request);
        seen[*served.endpoint()] += 1;
    }
    assert!(seen.iter().all(|&n| (50..200).contains(&n)), "{seen:?}");
    for key in 0..10 {
        tell.send(Change::Remove(key)).unwrap();
    }
    loop {
        let changed = balance.changed();
        match balance.clone().oneshot(1).await {
            Err(CallError::NoEndpoints { .. }) => break,
            Err(other) => panic!("{other}"),
            Ok(_) => changed.await,
        }
    }
}
