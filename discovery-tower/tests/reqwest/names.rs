//! Which names of services the URLs of reqwest can hold.

use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::reqwest::SendError;
use discovery_tower::{ClientError, HttpClient};
use reqwest::Url;

use crate::{Client, echoing, refused, requests, send};

/// What becomes of a name in a URL.
fn host(name: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{name}/")).ok()?;
    Some(url.host_str().unwrap().to_owned())
}

#[test]
fn names_in_lower_case_stay_as_they_are() {
    for name in ["orders", "orders.v1", "my_orders", "_orders-", "a--b", "orders-2", "v1.2a", "a_1"]
    {
        assert_eq!(host(name).as_deref(), Some(name));
    }
    let long = "x".repeat(253);
    assert_eq!(host(&long), Some(long));
}

#[test]
fn upper_case_becomes_lower_case_and_a_number_at_the_end_an_address() {
    assert_eq!(host("Orders").as_deref(), Some("orders"));
    for (number, address) in [("7", "0.0.0.7"), ("1.2", "1.0.0.2"), ("0xff", "0.0.0.255")] {
        assert_eq!(host(number).as_deref(), Some(address));
    }
    for name in ["orders.7", "orders.0x1", "orders.7.", "300.300", "xn--a", "xn--"] {
        assert_eq!(host(name), None, "{name}");
    }
}

#[tokio::test]
async fn what_a_url_cannot_hold_is_an_error_that_is_not_sent() {
    let server = echoing().await;
    let registry = MemoryRegistry::new();
    registry.insert(Instance::parse("Orders", "7", &server.address).unwrap());
    registry.insert(Instance::parse("orders.7", "7", &server.address).unwrap());
    let client: Client = HttpClient::new(registry);
    let error = refused(&client, requests().get("http://Orders/")).await;
    assert_eq!(error.to_string(), "no instances of orders");
    let error = send(&client, requests().get("http://orders.7/")).await.unwrap_err();
    assert!(matches!(error, SendError::Request(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the request could not be made: builder error: invalid IPv4 address"
    );
    assert_eq!(server.asked(), 0);

    // With the body and the response of reqwest, and a URI that holds any name.
    for name in ["Orders", "orders.7"] {
        let request = http::Request::get(format!("http://{name}/")).body("".into()).unwrap();
        let response = tower::Service::call(&mut client.clone(), request).await.unwrap();
        let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
        assert_eq!(response.text().await.unwrap(), "");
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn what_names_no_service_is_refused() {
    let client: Client = HttpClient::new(MemoryRegistry::new());
    let refused = async |url| refused(&client, requests().get(url)).await;
    assert!(matches!(refused("https://orders/").await, ClientError::Scheme { .. }));
    assert!(matches!(refused("http://orders:8080/").await, ClientError::Port { .. }));
    // A URL does not tell whether the usual port was written.
    assert_eq!(refused("http://orders:80/").await.to_string(), "no instances of orders");
    assert!(matches!(refused("http://[::1]/").await, ClientError::Invalid(_)));

    let error = send(&client, requests().get("orders")).await.unwrap_err();
    assert!(matches!(error, SendError::Request(_)), "{error:?}");
    let request = requests().get("http://orders/").header("bad name", "1");
    let error = send(&client, request).await.unwrap_err();
    assert!(error.to_string().contains("invalid HTTP header name"), "{error}");
}
