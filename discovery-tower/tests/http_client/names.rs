//! Names that are those of no service.

use std::time::Duration;

use discovery_core::{InstanceChanges, ServiceName, Source};
use discovery_core::{Publisher, SourceError, StaticSource};
use discovery_tower::balance::CallError;
use discovery_tower::{ClientError, HttpClientBuilder, Limits};
use http::{Method, Request};

use crate::{Client, Counting, empty, get, send, served_by, server, text};

#[tokio::test]
async fn an_unknown_service_is_an_error_that_names_it_and_serves_once_it_is_known() {
    let server = server().await;
    let registry = Counting::default();
    let client = registry.client();
    for _ in 0..3 {
        let error = send(&client, get("http://orders/")).await.unwrap_err();
        assert!(matches!(error, ClientError::Call(CallError::NoEndpoints { .. })), "{error:?}");
        assert_eq!(error.to_string(), "no instances of orders");
        assert!(error.is_unsent() && error.endpoint().is_none());
    }
    assert_eq!(registry.watches(), 1);
    registry.insert("orders", "7", &server.address);
    let serves = async || send(&client, get("http://orders/")).await.is_ok();
    discovery_test_support::eventually(Duration::from_secs(10), "an answer", serves).await;
}

/// Never knows anything.
struct Silent(Publisher<discovery_core::InstanceKey, discovery_core::Instance>);

impl Source for Silent {
    fn watch(&self, _: &ServiceName) -> InstanceChanges {
        self.0.subscribe()
    }

    fn watch_all(&self) -> InstanceChanges {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn a_source_that_does_not_load_is_an_error_in_time() {
    let mut publisher = Publisher::new();
    publisher.trouble(SourceError::new("the registry is away"));
    let limits = Limits::default().load(Duration::from_millis(50));
    let client: Client = HttpClientBuilder::new(Silent(publisher)).limits(limits).build();
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    let ClientError::Call(CallError::NotLoaded { waited, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(*waited < Limits::default().load, "{waited:?}");
    let text = error.to_string();
    assert!(text.contains("orders") && text.contains("the registry is away"), "{text}");
}

#[tokio::test]
async fn a_uri_that_names_no_service_is_refused_before_the_source_is_asked() {
    let registry = Counting::default();
    registry.insert("orders", "7", "http://127.0.0.1:9");
    let client = registry.client();
    let refused = async |uri: &str| send(&client, get(uri)).await.unwrap_err();

    let error = refused("/v1/7").await;
    assert!(matches!(&error, ClientError::NoHost { uri } if &**uri == "/v1/7"), "{error:?}");
    let error = refused("http://orders:8080/").await;
    assert!(
        matches!(&error, ClientError::Port { host, port } if (&**host, &**port) == ("orders", "8080")),
        "{error:?}"
    );
    let error = refused("https://orders/").await;
    assert!(matches!(&error, ClientError::Scheme { scheme, .. } if &**scheme == "https"));
    let error = refused("http://me:secret@orders/").await;
    assert!(matches!(&error, ClientError::UserInfo { host } if &**host == "orders"));
    assert!(!format!("{error} {error:?}").contains("secret"));
    let error = refused("http://a!b/").await;
    let ClientError::Invalid(invalid) = &error else { panic!("{error:?}") };
    assert_eq!((invalid.field(), invalid.value()), ("service name", "a!b"));
    assert!(error.is_unsent() && error.endpoint().is_none());

    let connect = Request::builder().method(Method::CONNECT).uri("orders:80");
    let error = send(&client, connect.body(empty()).unwrap()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Scheme { scheme, .. } if scheme.is_empty()));
    assert_eq!((registry.watches(), client.services().len()), (0, 0));
}

#[tokio::test]
async fn names_are_those_of_the_registry_letter_for_letter() {
    let (lower, upper) = (server().await, server().await);
    let instance = |service, server: &crate::Server| {
        discovery_core::Instance::parse(service, "7", &server.address).unwrap()
    };
    let source = StaticSource::new([instance("orders", &lower), instance("Orders.v2_x", &upper)]);
    let client = Client::new(source);
    for (uri, key) in [("http://orders/", "orders/7"), ("http://Orders.v2_x/", "Orders.v2_x/7")] {
        let response = send(&client, get(uri)).await.unwrap();
        assert_eq!(served_by(&response), key);
        text(response).await;
    }
    let error = send(&client, get("http://ORDERS/")).await.unwrap_err();
    assert_eq!(error.to_string(), "no instances of ORDERS");
}
