//! Certificates in files: what is wrong with them is said at once, and new ones are used.

use std::path::Path;

use discovery_test_support::replace_file;
use discovery_tower::http::tls::TlsError;

use super::*;

#[track_caller]
fn refused(config: TlsConfig) -> TlsError {
    let error = Tls::new(config).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("BEGIN") && !text.contains("MII"), "{text}");
    assert!(!error.to_string().contains('\n'), "{text}");
    error
}

#[test]
fn what_cannot_be_used_is_refused_and_named() {
    let authority = Authority::new("ours");
    let Certificate { cert, key } = authority.issue(&[], Validity::Now);
    let other = authority.issue(&[], Validity::Now);
    let with = |cert: &str, key: &str| trusting(&authority).client_certificate(cert, key);
    let garbage = "-----BEGIN CERTIFICATE-----\nbm8gY2VydA==\n-----END CERTIFICATE-----\n";
    let torn = &authority.pem()[..100];
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nbm8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (config, expected) in [
        (TlsConfig::new(), "ca: nobody is trusted: authorities are missing"),
        (TlsConfig::new().ca(""), "ca: is empty"),
        (TlsConfig::new().ca("hello"), "ca: holds no PEM certificate"),
        (TlsConfig::new().ca(torn), "ca: is broken: no proper PEM"),
        (TlsConfig::new().ca(garbage), "ca: holds a PEM block that is no certificate"),
        (TlsConfig::new().ca(key.clone()), "ca: holds no PEM certificate"),
        (with(&key, &cert), "cert: holds no PEM certificate"),
        (with(garbage, &key), "cert: holds a PEM block that is no certificate"),
        (with(&cert, &cert), "key: holds no PEM private key"),
        (with(&cert, ""), "key: is empty"),
        (with(&cert, encrypted), "key: is encrypted; only a key without a passphrase can be used"),
        (with(&cert, &other.key), "key: is not the key of the client certificate"),
        (
            trusting(&authority).server_name("a b"),
            r#"server name: "a b" is neither the name of a host nor an IP address"#,
        ),
    ] {
        assert_eq!(refused(config).to_string(), expected);
    }
}

#[test]
fn of_a_file_the_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let error = refused(TlsConfig::new().ca_file(&path));
    assert_eq!((error.setting(), error.path()), ("ca", Some(&*path)));
    assert!(error.reason().contains("No such file"), "{error}");
    replace_file(&path, "hello");
    let error = refused(TlsConfig::new().ca_file(&path));
    assert_eq!(error.to_string(), format!("ca {}: holds no PEM certificate", path.display()));
    let error = refused(TlsConfig::new().ca_file("/a\nb"));
    assert!(error.to_string().starts_with(r"ca /a\nb: "), "{error}");
}

#[test]
fn secrets_are_never_shown() {
    let authority = Authority::new("ours");
    let Certificate { cert, key } = authority.issue(&[], Validity::Now);
    let config = trusting(&authority).client_certificate(cert, key);
    let tls = Tls::new(config.clone()).unwrap();
    let builder = HttpClientBuilder::new(MemoryRegistry::new()).tls(tls.clone());
    for shown in [format!("{config:?}"), format!("{tls:#?}"), format!("{builder:?}")] {
        assert!(shown.contains("PEM") && !shown.contains("BEGIN"), "{shown}");
        assert!(!shown.contains("45, 45, 45"), "{shown}");
    }
}

#[test]
fn the_authorities_of_the_machine_can_be_trusted_beside_others() {
    let authority = Authority::new("ours");
    Tls::new(trusting(&authority).system_ca()).map(drop).or_else(without_any).unwrap();
    Tls::new(TlsConfig::new().system_ca()).map(drop).or_else(without_any).unwrap();
}

/// A machine may have none.
fn without_any(error: TlsError) -> Result<(), TlsError> {
    if error.to_string().starts_with("ca: this machine has no authorities") {
        Ok(())
    } else {
        Err(error)
    }
}

fn files(dir: &Path) -> TlsConfig {
    TlsConfig::new()
        .ca_file(dir.join("ca.pem"))
        .client_certificate_files(dir.join("client.pem"), dir.join("client-key.pem"))
}

fn terms(authority: &Authority) -> Terms {
    Terms::new(local(authority)).for_clients_of(authority)
}

#[tokio::test]
async fn files_that_have_changed_are_used_for_new_connections() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    old.furnish(dir.path(), &[]);
    for version in VERSIONS {
        old.furnish(dir.path(), &[]);
        let server = Secure::start(&terms(&old)).await;
        // Connections are not kept for long.
        let pool = PoolConfig::default().protocol(version).idle_timeout(Duration::ZERO);
        let client: Client = builder(&one(&server), version, files(dir.path())).pool(pool).build();
        text(serves(&client).await).await;

        server.turn_to(Some(&terms(&new)));
        let fails = async || send(&client, get("http://orders/")).await.err();
        let error = eventually(Duration::from_secs(10), "an error", fails).await;
        assert!(error.to_string().contains("an authority that is not trusted"), "{error}");

        new.furnish(dir.path(), &[]);
        text(serves(&client).await).await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_former_ones_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    authority.furnish(dir.path(), &[]);
    let server = Secure::start(&terms(&authority)).await;
    // A connection of its own for each request.
    let pool = PoolConfig::default().max_idle(0);
    let client: Client =
        builder(&one(&server), HttpVersion::Http1, files(dir.path())).pool(pool).build();
    let steps: [&dyn Fn(); 4] = [
        &|| {},
        // A certificate whose key has yet to come.
        &|| replace_file(&dir.path().join("client.pem"), &authority.issue(&[], Validity::Now).cert),
        &|| replace_file(&dir.path().join("ca.pem"), "torn"),
        &|| std::fs::remove_file(dir.path().join("ca.pem")).unwrap(),
    ];
    for step in steps {
        step();
        for _ in 0..3 {
            let before = server.handshakes();
            text(send(&client, get("https://orders/")).await.unwrap()).await;
            assert!(server.handshakes() > before, "the connection is a new one");
        }
    }
}
