//! Instances that are reached over TLS.

#[path = "../http_client/tls/peer.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod peer;

use discovery_test_support::orders::ListRequest;
use discovery_test_support::{Authority, Validity};
use discovery_tower::Limits;
use discovery_tower::grpc::Channel;
use discovery_tower::http::tls::{Tls, TlsConfig};
use tonic::Code;

use super::raw::soon;
use super::{Client, SECOND, endpoint, get, orders, registry, served_by};

#[tokio::test]
async fn addresses_of_grpcs_are_reached_if_the_channel_has_tls() {
    let authority = Authority::new("ours");
    let certificate = authority.issue(&["127.0.0.1"], Validity::Now);
    let server = peer::Secure::start(&peer::Terms::new(certificate)).await;
    let registry = registry([server.address.replace("https", "grpcs").as_str()]);
    let builder = || {
        let limits = Limits::default().failed(SECOND / 10);
        Channel::builder(&registry, &orders()).limits(limits)
    };
    let tls = Tls::new(TlsConfig::new().ca(authority.pem())).unwrap();
    // It answers, though what it says is not gRPC.
    let mut client = Client::new(builder().tls(tls).build());
    let response = soon(client.list(ListRequest::default())).await.unwrap();
    assert_eq!(served_by(&response), "0");
    assert_eq!(server.handshakes(), 1);

    let status = soon(Client::new(builder().build()).get(get(1))).await.unwrap_err();
    assert_eq!((status.code(), endpoint(&status)), (Code::Unavailable, None));
    assert!(status.message().contains("grpcs://"), "{status:?}");
}
