//! Endpoints whose keys are of a type of their own are told, and avoided, as instances are.

use std::io;
use std::sync::Arc;

use discovery_core::Change;
use discovery_tower::balance::{Attributes, Builder, Protocol, Unavailable};
use discovery_tower::http::{Grpc, Http, Tracked};
use discovery_tower::{Avoid, CallError, ServedBy};
use futures::stream;
use http::{Request, Response};
use tower::ServiceExt as _;

use super::get;
use super::server::{Body, empty, soon};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Till(u8);

/// Of three tills, the last one answers nobody.
async fn told_and_avoided<C>(protocol: C)
where
    C: Protocol<
            Request<Body>,
            Response<Body>,
            io::Error,
            Till,
            Response = Response<Tracked<Body, Till>>,
        >,
{
    let tills = (0..3).map(|n| Change::Insert(Till(n), ()));
    let make = |till: &Till, _: &Arc<()>| {
        let fails = till.0 == 2;
        tower::service_fn(move |_: Request<Body>| async move {
            if fails { Err(io::Error::other("closed")) } else { Ok(Response::new(empty())) }
        })
    };
    let changes = stream::iter(tills.chain([Change::Synced]));
    let balance = Builder::described_by(changes, make, |_, ()| Attributes::default())
        .protocol(protocol)
        .spawn();
    let call = async |tills: &[u8]| {
        let mut avoid = Avoid::new();
        for till in tills {
            avoid.add(Till(*till));
        }
        let mut request = get("/");
        request.extensions_mut().insert(avoid);
        soon(balance.clone().oneshot(request)).await
    };
    for _ in 0..5 {
        for (avoided, by) in [([0, 2], Till(1)), ([1, 2], Till(0))] {
            let response = call(&avoided).await.unwrap();
            assert_eq!(response.extensions().get::<ServedBy<Till>>(), Some(&ServedBy(by)));
        }
    }
    assert_eq!(call(&[0, 1]).await.unwrap_err().endpoint(), Some(&Till(2)));
    let error = call(&[0, 1, 2]).await.unwrap_err();
    let CallError::Unavailable { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason, Unavailable::Avoided);
}

#[tokio::test]
async fn keys_of_any_type_are_told_and_avoided() {
    told_and_avoided(Http::new()).await;
    told_and_avoided(Grpc::new()).await;
}
