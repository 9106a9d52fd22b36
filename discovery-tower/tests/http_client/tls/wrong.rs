//! What can be wrong between the client and an instance: each is a failure to connect that says what it
//! is, and over when it is put right.

use super::*;

/// Offers this first and `good` then.
async fn wrong_then_right(
    wrong: impl Fn(&Terms, &Authority) -> Option<Terms>,
    expected: impl Fn(HttpVersion) -> &'static str,
) {
    for version in VERSIONS {
        let (authority, server) = secure().await;
        let good = Terms::new(local(&authority));
        server.turn_to(wrong(&good, &authority).as_ref());
        let client = client(&one(&server), version, trusting(&authority));
        assert_eq!(cause(&client).await, expected(version), "{version:?}");
        server.turn_to(Some(&good));
        text(serves(&client).await).await;
    }
}

#[tokio::test]
async fn an_authority_that_is_not_trusted() {
    let stranger = Authority::new("a stranger");
    let wrong = |_: &Terms, _: &Authority| Some(Terms::new(local(&stranger)));
    wrong_then_right(wrong, |_| "the certificate is signed by an authority that is not trusted")
        .await;
}

#[tokio::test]
async fn a_name_that_is_another() {
    let wrong = |_: &Terms, authority: &Authority| {
        Some(Terms::new(authority.issue(&["a.example", "b.example"], Validity::Now)))
    };
    wrong_then_right(
        wrong,
        |_| "certificate not valid for name 127.0.0.1, only for a.example, b.example",
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_is_not_valid_yet() {
    for (validity, cause) in [
        (Validity::Expired, "the certificate has expired"),
        (Validity::Later, "the certificate is not valid yet"),
    ] {
        let wrong = |_: &Terms, authority: &Authority| {
            Some(Terms::new(authority.issue(&["127.0.0.1"], validity)))
        };
        wrong_then_right(wrong, |_| cause).await;
    }
}

#[tokio::test]
async fn no_tls_at_all() {
    wrong_then_right(|_, _| None, |_| "the instance does not speak TLS").await;
}

#[tokio::test]
async fn nothing_but_the_other_protocol() {
    for (alpn, version, cause) in [
        (&["h2"], HttpVersion::Http1, "the instance does not speak HTTP/1.1 over TLS"),
        (&["http/1.1"], HttpVersion::Http2, "the instance does not speak HTTP/2 over TLS"),
    ] {
        let (authority, server) = secure().await;
        let good = Terms::new(local(&authority));
        server.turn_to(Some(&Terms { alpn, ..good.clone() }));
        let client = client(&one(&server), version, trusting(&authority));
        assert_eq!(super::cause(&client).await, cause);
        server.turn_to(Some(&good));
        text(serves(&client).await).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_say_what_it_speaks_is_taken_at_its_word() {
    let (authority, server) = secure().await;
    let silent = Terms { alpn: &[], ..Terms::new(local(&authority)) };
    server.turn_to(Some(&silent));
    let client_of = |version| client(&one(&server), version, trusting(&authority));
    let seen = text(send(&client_of(HttpVersion::Http1), get("http://orders/")).await.unwrap());
    assert_eq!(seen.await, "HTTP/1.1 / body=");
    // It speaks HTTP/1.1 then.
    let cause = cause(&client_of(HttpVersion::Http2)).await;
    assert_eq!(cause, "the connection was closed, or is not HTTP/2");
}

#[tokio::test]
async fn a_server_that_closes_in_place_of_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // Read, so that it is no reset.
            let mut hello = [0; 4096];
            let _ = socket.read(&mut hello).await;
        }
    });
    let registry = MemoryRegistry::new();
    insert(&registry, "orders", "7", &address);
    let authority = Authority::new("ours");
    let client = client(&registry, HttpVersion::Http1, trusting(&authority));
    let cause = cause(&client).await;
    assert!(cause.starts_with("the connection was closed at the beginning of TLS"), "{cause}");
}

#[tokio::test]
async fn without_a_client_certificate_where_one_is_asked_for() {
    static OLD: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    static NEW: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    for versions in [&OLD, &NEW] {
        for version in VERSIONS {
            let (authority, server) = secure().await;
            let open = Terms::new(local(&authority));
            let terms = Terms { versions, ..open.clone().for_clients_of(&authority) };
            server.turn_to(Some(&terms));
            let without = client(&one(&server), version, trusting(&authority));
            assert_eq!(
                cause(&without).await,
                "the instance asks for a client certificate, and there is none",
                "{version:?}"
            );

            let Certificate { cert, key } = authority.issue(&[], Validity::Now);
            let config = trusting(&authority).client_certificate(cert, key);
            let with = client(&one(&server), version, config);
            text(send(&with, get("https://orders/")).await.unwrap()).await;

            server.turn_to(Some(&open));
            text(serves(&without).await).await;
        }
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_instance_does_not_take() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger"));
    for version in VERSIONS {
        let terms = Terms::new(local(&authority)).for_clients_of(&authority);
        let server = Secure::start(&terms).await;
        for (issuer, validity, expected) in [
            (
                &stranger,
                Validity::Now,
                "the instance does not trust who signed the client certificate",
            ),
            (
                &authority,
                Validity::Expired,
                "the instance says that the client certificate has expired",
            ),
        ] {
            let Certificate { cert, key } = issuer.issue(&[], validity);
            let config = trusting(&authority).client_certificate(cert, key);
            let client = client(&one(&server), version, config);
            assert_eq!(cause(&client).await, expected, "{version:?}");
        }
        assert_eq!(server.handshakes(), 0);
    }
}

#[tokio::test]
async fn a_server_that_gives_no_tickets_serves_those_who_have_a_certificate() {
    let authority = Authority::new("ours");
    let terms = Terms::new(local(&authority)).for_clients_of(&authority);
    let server = Secure::start(&Terms { tickets: false, ..terms }).await;
    let Certificate { cert, key } = authority.issue(&[], Validity::Now);
    let config = trusting(&authority).client_certificate(cert, key);
    let client = client(&one(&server), HttpVersion::Http1, config);
    text(send(&client, get("https://orders/")).await.unwrap()).await;
}
