//! Instances that are reached over TLS, all that can be wrong with that, and that it is right again when
//! it has been put right.

mod files;
mod peer;
mod wrong;

use std::time::Duration;

use discovery_core::{Instance, MemoryRegistry};
use discovery_test_support::{Authority, Certificate, Validity, eventually};
use discovery_tower::balance::CallError;
use discovery_tower::http::tls::{Tls, TlsConfig};
use discovery_tower::http::{ClientBody, ClientError};
use discovery_tower::{
    HttpClientBuilder, HttpError, HttpErrorKind, HttpVersion, Limits, PoolConfig,
};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::peer::{Secure, Terms};
use crate::{Body, Client, empty, get, send, served_by, server, streaming, text};

const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

/// Somebody who signs for a test, and a server with a certificate for `127.0.0.1`.
async fn secure() -> (Authority, Secure) {
    let authority = Authority::new("ours");
    let server = Secure::start(&Terms::new(local(&authority))).await;
    (authority, server)
}

fn local(authority: &Authority) -> Certificate {
    authority.issue(&["127.0.0.1"], Validity::Now)
}

fn trusting(authority: &Authority) -> TlsConfig {
    TlsConfig::new().ca(authority.pem())
}

fn client(registry: &MemoryRegistry, version: HttpVersion, config: TlsConfig) -> Client {
    builder(registry, version, config).build()
}

fn builder(
    registry: &MemoryRegistry,
    version: HttpVersion,
    config: TlsConfig,
) -> HttpClientBuilder {
    HttpClientBuilder::new(registry.clone())
        .tls(Tls::new(config).unwrap())
        .pool(PoolConfig::default().protocol(version))
        .limits(Limits::default().failed(Duration::from_millis(50)))
}

fn insert(registry: &MemoryRegistry, service: &str, id: &str, address: &str) {
    registry.insert(Instance::parse(service, id, address).unwrap());
}

fn one(server: &Secure) -> MemoryRegistry {
    let registry = MemoryRegistry::new();
    insert(&registry, "orders", "7", &server.address);
    registry
}

/// Why the one instance could not be connected to.
async fn cause(client: &Client) -> String {
    let error = send(client, get("http://orders/")).await.unwrap_err();
    let ClientError::Call(CallError::Unavailable { causes, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(error.is_unsent(), "{error}");
    let cause = causes[0].error.downcast_ref::<HttpError<Body>>().unwrap();
    assert_eq!(cause.kind(), HttpErrorKind::Connect, "{cause}");
    assert!(!cause.to_string().contains("transport"), "{cause}");
    cause.cause().to_owned()
}

async fn serves(client: &Client) -> Response<ClientBody> {
    let serves = async || send(client, get("http://orders/")).await;
    eventually(Duration::from_secs(20), "an answer", serves).await
}

#[tokio::test]
async fn instances_are_reached_over_tls_by_both_schemes_and_protocols() {
    let (authority, server) = secure().await;
    for version in VERSIONS {
        let client = client(&one(&server), version, trusting(&authority));
        for uri in ["http://orders/a?b=c", "https://orders/a?b=c"] {
            for _ in 0..3 {
                let request = Request::post(uri).body(streaming(3)).unwrap();
                let response = send(&client, request).await.unwrap();
                assert_eq!(served_by(&response), "orders/7");
                let seen = text(response).await;
                let expected = match version {
                    HttpVersion::Http1 => "HTTP/1.1 /a?b=c body=abc".to_owned(),
                    _ => format!("HTTP/2.0 {}/a?b=c body=abc", server.address),
                };
                assert_eq!(seen, expected);
            }
        }
        // By each of the schemes it is a service of its own.
        let named: Vec<_> = client.services().into_iter().map(|(name, _)| name).collect();
        assert_eq!(named, ["orders".parse().unwrap(), "orders".parse().unwrap()]);
    }
    assert_eq!(server.handshakes(), 4, "connections are kept");
}

#[tokio::test]
async fn grpcs_is_http2_over_tls() {
    let (authority, server) = secure().await;
    let registry = MemoryRegistry::new();
    insert(&registry, "orders", "7", &server.address.replace("https", "grpcs"));
    let client = client(&registry, HttpVersion::Http1, trusting(&authority));
    for uri in ["http://orders/", "https://orders/"] {
        let seen = text(send(&client, get(uri)).await.unwrap()).await;
        assert!(seen.starts_with("HTTP/2.0 https://127.0.0.1"), "{seen}");
    }
}

#[tokio::test]
async fn what_asks_for_https_never_goes_to_a_plain_instance() {
    let (authority, secure) = secure().await;
    let plain = server().await;
    let registry = one(&secure);
    insert(&registry, "orders", "plain", &plain.address);
    insert(&registry, "users", "1", &plain.address);
    let client = client(&registry, HttpVersion::Http1, trusting(&authority));
    for _ in 0..30 {
        let response = send(&client, get("https://orders/")).await.unwrap();
        assert_eq!(served_by(&response), "orders/7");
        text(response).await;
    }
    let error = send(&client, get("https://users/")).await.unwrap_err();
    let ClientError::Insecure { service, endpoint, scheme } = &error else { panic!("{error:?}") };
    assert_eq!((&**service, &**scheme), ("users", "http"));
    assert_eq!(endpoint.to_string(), "users/1");
    assert_eq!(error.to_string(), "no instance of users is reached over TLS: users/1 is http://");
    assert!(error.is_unsent());

    // One that is no longer reached over TLS gets no more of it.
    insert(&registry, "orders", "7", &plain.address);
    let refused = async || {
        let sent = send(&client, get("https://orders/")).await;
        matches!(sent, Err(ClientError::Insecure { .. }))
    };
    eventually(Duration::from_secs(10), "it is refused", refused).await;
    assert_eq!(plain.accepted(), 0);
    // Nobody there at all is told as ever.
    let error = send(&client, get("https://unknown/")).await.unwrap_err();
    assert_eq!(error.to_string(), "no instances of unknown");
    // And what does not ask for it goes there.
    let response = send(&client, get("http://users/")).await.unwrap();
    assert_eq!(served_by(&response), "users/1");
}

#[tokio::test]
async fn without_tls_https_is_refused_by_the_client_and_an_instance_of_it_cannot_be_used() {
    let (_, server) = secure().await;
    let limits = Limits::default().failed(Duration::from_millis(50));
    let client: Client = HttpClientBuilder::new(one(&server)).limits(limits).build();
    let error = send(&client, get("https://orders/")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "https:// needs TLS, which this client does not have, for orders"
    );
    let error = send(&client, get("http://orders/")).await.unwrap_err();
    assert!(error.to_string().contains("https:// are not supported here"), "{error}");
    assert_eq!(server.handshakes(), 0);
}

#[tokio::test]
async fn a_host_that_is_passed_through_is_reached_over_tls_if_its_uri_says_so() {
    let (authority, server) = secure().await;
    let client: Client = builder(&MemoryRegistry::new(), HttpVersion::Http1, trusting(&authority))
        .pass_through(|uri| uri.host() == Some("127.0.0.1"))
        .build();
    let uri = format!("https://{}/a", server.authority());
    let response = send(&client, get(&uri)).await.unwrap();
    assert_eq!(served_by(&response), format!("127.0.0.1/{}", server.authority()));
    assert_eq!(text(response).await, "HTTP/1.1 /a body=");
    assert_eq!(server.handshakes(), 1);
    // Without the s it is without TLS, which this server does not speak.
    let error = send(&client, get(&format!("http://{}/a", server.authority()))).await;
    assert!(matches!(error, Err(ClientError::Call(CallError::Failed { .. }))), "{error:?}");
}

#[tokio::test]
async fn another_name_than_that_of_the_address_can_be_expected() {
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["orders.internal"], Validity::Now);
    let server = Secure::start(&Terms::new(certificate)).await;
    let config = trusting(&authority).server_name("orders.internal");
    let named = client(&one(&server), HttpVersion::Http1, config);
    text(send(&named, get("https://orders/")).await.unwrap()).await;
    let cause = cause(&client(&one(&server), HttpVersion::Http1, trusting(&authority))).await;
    assert_eq!(cause, "certificate not valid for name 127.0.0.1, only for orders.internal");
}

#[tokio::test]
async fn a_request_goes_on_from_an_instance_that_is_not_trusted_streaming_body_and_all() {
    let (authority, good) = secure().await;
    let (_, stranger) = secure().await;
    for version in VERSIONS {
        let registry = one(&good);
        insert(&registry, "orders", "stranger", &stranger.address);
        let client = client(&registry, version, trusting(&authority));
        for _ in 0..10 {
            let request = Request::post("https://orders/").body(streaming(3)).unwrap();
            let response = send(&client, request).await.unwrap();
            assert_eq!(served_by(&response), "orders/7");
            assert!(text(response).await.ends_with("body=abc"));
        }
    }
    assert_eq!(stranger.handshakes(), 0);
}

#[tokio::test]
async fn a_connection_of_tls_can_be_upgraded() {
    let (authority, server) = secure().await;
    let client = client(&one(&server), HttpVersion::Http1, trusting(&authority));
    let request = Request::get("https://orders/")
        .header("upgrade", "echo")
        .header("connection", "upgrade")
        .body(empty())
        .unwrap();
    let mut response = send(&client, request).await.unwrap();
    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    let mut io = hyper_util::rt::TokioIo::new(upgraded);
    io.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}
