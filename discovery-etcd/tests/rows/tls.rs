//! Row 37: certificates, good and bad. The error names what was attempted, where, and the cause in
//! plain words; and what is mended on disk is found without a restart.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{NOW_AFTER_OUTAGE, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Authority, Certificate, Etcd, Proxy, Validity, Version, eventually, on_each_version,
    replace_file, slack,
};
use tempfile::TempDir;

const LOCAL: [&str; 2] = ["127.0.0.1", "localhost"];
/// For the first attempts to be made and their errors to be told.
const SAID: Duration = Duration::from_secs(6);

/// etcd with TLS, and the files of the server and of a client.
struct Site {
    authority: Authority,
    dir: TempDir,
    etcd: Etcd,
}

impl Site {
    /// All is well. With `mutual`, etcd wants a certificate from clients, signed by the same authority.
    async fn new(version: Version, mutual: bool) -> Self {
        let authority = Authority::new("good");
        let dir = TempDir::new().unwrap();
        let file = |name| dir.path().join(name);
        authority.furnish(dir.path(), &LOCAL);
        let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
        let etcd = Etcd::builder(version).tls(&cert, &key, mutual.then_some(&*ca)).start().await;
        etcd.truth().put(key_of_one(), value(1)).await.unwrap();
        let site = Self { authority, dir, etcd };
        // A server that begins to serve TLS while its certificate is being replaced never does.
        let config = if mutual { site.config_with_certificate() } else { site.config() };
        let registry = EtcdRegistry::new(config).unwrap();
        View::new(registry.watch_all()).until_fresh(NOW_AFTER_OUTAGE).await;
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://{}", self.etcd.tls_addr())
    }

    fn server_has(&self, certificate: &Certificate) {
        certificate.save(&self.file("server.pem"), &self.file("server-key.pem"));
    }

    fn client_has(&self, certificate: &Certificate) {
        certificate.save(&self.file("client.pem"), &self.file("client-key.pem"));
    }

    fn config(&self) -> EtcdConfig {
        config(self.url()).ca_file(self.file("ca.pem"))
    }

    fn config_with_certificate(&self) -> EtcdConfig {
        self.config().client_certificate_files(self.file("client.pem"), self.file("client-key.pem"))
    }
}

fn config(url: String) -> EtcdConfig {
    EtcdConfig::new([url]).ttl(Duration::from_secs(5)).suspects_for(Duration::ZERO)
}

fn key_of_one() -> String {
    key("orders", "1")
}

/// A source and a registration in one registry.
struct Client {
    view: View,
    registration: Registration,
}

impl Client {
    fn new(config: EtcdConfig) -> Self {
        let registry = EtcdRegistry::new(config).unwrap();
        let view = View::new(registry.watch_all());
        Self { view, registration: registry.register(instance("orders", "2", 2)) }
    }

    /// Waits until both say that they cannot reach `url`, and why in these words.
    async fn says(&self, url: &str, words: &[&str]) {
        for (who, error) in [
            (
                "source",
                &(|| self.view.status().state.error().map(ToString::to_string)) as Error<'_>,
            ),
            ("registration", &|| match self.registration.status().state {
                RegistrationState::Registering(error) => error.map(|error| error.to_string()),
                _ => None,
            }),
        ] {
            let said = eventually(SAID, format!("the {who} says {words:?}"), async || {
                let error = error().unwrap_or_default();
                if words.iter().all(|word| error.contains(word)) { Ok(error) } else { Err(error) }
            })
            .await;
            let (attempt, cause) = said.split_once(" at ").unwrap();
            assert!(!attempt.is_empty() && cause.starts_with(&format!("{url}: ")), "{said}");
            assert!(!said.contains("transport error"), "{said}");
        }
    }

    /// Waits until both do what they are for.
    async fn works(&self, site: &Site) {
        let registered = tokio::time::timeout(slack(NOW_AFTER_OUTAGE), async {
            self.registration.registered().await
        });
        registered.await.expect("registered in time").unwrap();
        self.view.until_true(site.etcd.truth(), PREFIX, NOW_AFTER_OUTAGE).await;
        assert_eq!(self.view.set().len(), 2);
    }
}

type Error<'a> = &'a dyn Fn() -> Option<String>;

#[tokio::test(flavor = "multi_thread")]
async fn row_37_good_certificates_are_taken() {
    on_each_version(async |version| {
        let site = Site::new(version, false).await;
        Client::new(site.config()).works(&site).await;
        let by_name = format!("https://localhost:{}", site.etcd.tls_addr().port());
        Client::new(config(by_name).ca_file(site.file("ca.pem"))).works(&site).await;
        let (ours, other) = (site.authority.pem(), Authority::new("other").pem());
        for bundle in [format!("{ours}{other}"), format!("# two\n{other}\n\n{ours}")] {
            replace_file(&site.file("ca.pem"), &bundle);
            Client::new(site.config()).works(&site).await;
        }
        let site = Site::new(version, true).await;
        Client::new(site.config_with_certificate()).works(&site).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_37_an_authority_nobody_trusts_is_said_and_trusted_once_its_file_is_there() {
    on_each_version(async |version| {
        let site = Site::new(version, false).await;
        let untrusted = "signed by no authority that is trusted here";
        // Without a CA file the system's are asked, who do not know ours either.
        Client::new(config(site.url())).says(&site.url(), &[untrusted, "UnknownIssuer"]).await;

        // Authorities are known by name, so that one of the same name is another case.
        for (other, words) in [("other", "UnknownIssuer"), ("good", "BadSignature")] {
            replace_file(&site.file("ca.pem"), &Authority::new(other).pem());
            let client = Client::new(site.config());
            client.says(&site.url(), &[untrusted, words]).await;
            replace_file(&site.file("ca.pem"), &site.authority.pem());
            client.works(&site).await;
            client.registration.deregister().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_37_a_bad_server_certificate_is_said_and_its_renewal_is_found() {
    on_each_version(async |version| {
        for (names, validity, words) in [
            (LOCAL.as_slice(), Validity::Expired, "certificate expired"),
            (LOCAL.as_slice(), Validity::Later, "certificate not valid yet"),
            (
                ["etcd.example.org"].as_slice(),
                Validity::Now,
                "certificate not valid for name \"127.0.0.1\"",
            ),
        ] {
            let site = Site::new(version, false).await;
            site.server_has(&site.authority.issue(names, validity));
            let client = Client::new(site.config());
            client.says(&site.url(), &[words]).await;
            site.server_has(&site.authority.issue(&LOCAL, Validity::Now));
            client.works(&site).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_37_a_refused_client_certificate_is_said_and_another_one_is_found() {
    on_each_version(async |version| {
        let site = Site::new(version, true).await;
        let refused = ["client certificate"];
        Client::new(site.config()).says(&site.url(), &refused).await;
        Client::new(site.config().credentials("u", "p")).says(&site.url(), &refused).await;
        for bad in [
            Authority::new("other").issue(&[], Validity::Now),
            Authority::new("good").issue(&[], Validity::Now), // the same name, another key
            site.authority.issue(&[], Validity::Expired),
        ] {
            site.client_has(&bad);
            let client = Client::new(site.config_with_certificate());
            client.says(&site.url(), &refused).await;
            site.client_has(&site.authority.issue(&[], Validity::Now));
            client.works(&site).await;
            client.registration.deregister().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_37_tls_and_plain_text_mixed_up_are_said() {
    on_each_version(async |version| {
        let site = Site::new(version, false).await;
        let url = format!("https://{}", site.etcd.client_addr());
        let secure = Client::new(config(url.clone()).ca_file(site.file("ca.pem")));
        secure.says(&url, &["not speak TLS at this port"]).await;
        let url = format!("http://{}", site.etcd.tls_addr());
        let plain = Client::new(config(url.clone()));
        plain.says(&url, &["if etcd serves TLS at this port, the endpoint must be https"]).await;
    })
    .await;
}

/// All files change under a client that is connected. It goes on, and takes them with the next
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn row_37_all_is_renewed_under_a_running_client() {
    on_each_version(async |version| {
        let site = Site::new(version, true).await;
        let proxy = Proxy::start(site.etcd.tls_addr());
        let url = format!("https://{}", proxy.addr());
        let config = config(url.clone())
            .ca_file(site.file("ca.pem"))
            .client_certificate_files(site.file("client.pem"), site.file("client-key.pem"));
        let client = Client::new(config);
        client.works(&site).await;

        let next = Authority::new("next");
        site.server_has(&next.issue(&LOCAL, Validity::Now));
        replace_file(&site.file("ca.pem"), &next.pem());
        site.client_has(&site.authority.issue(&[], Validity::Now));
        proxy.cut_once();
        client.view.until_stale(NOW_AFTER_OUTAGE).await;
        client.works(&site).await;

        // Its new files are those in use: the old certificate was good, this one is not.
        site.client_has(&site.authority.issue(&[], Validity::Expired));
        proxy.cut_once();
        eventually(SAID, "the expired certificate is refused", async || {
            let error = client.view.status().state.error().map(ToString::to_string);
            let error = error.unwrap_or_default();
            if error.contains("client certificate") { Ok(()) } else { Err(error) }
        })
        .await;
        // Half of a renewal: the certificate is there and its key is not yet.
        let renewed = site.authority.issue(&[], Validity::Now);
        replace_file(&site.file("client.pem"), &renewed.cert);
        eventually(SAID, "the half is said", async || {
            let error = client.view.status().state.error().map(ToString::to_string);
            let error = error.unwrap_or_default();
            let half = "client-key.pem: cannot be used with the certificate";
            if error.contains(half) { Ok(()) } else { Err(error) }
        })
        .await;
        site.client_has(&renewed);
        client.works(&site).await;
    })
    .await;
}

/// What can be told without a connection is told at once: the setting, the file and the reason.
#[tokio::test]
async fn row_37_files_that_cannot_be_used_are_refused_when_the_registry_is_made() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new("a");
    let (ours, other) = (authority.issue(&[], Validity::Now), authority.issue(&[], Validity::Now));
    let (good_ca, cut_off) = (authority.pem(), authority.pem().lines().take(4).collect::<String>());
    let mislabelled = ours.key.replace("PRIVATE KEY", "CERTIFICATE");
    let mixed = format!("{good_ca}{mislabelled}");
    let mislabelled_cert = ours.cert.replace("CERTIFICATE", "PRIVATE KEY");
    let encrypted = ours.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let no_certificate = "holds a PEM block that is no certificate";
    let no_pair = "cannot be used with the certificate";
    for (setting, content, reason) in [
        ("ca", None, "No such file"),
        ("ca", Some(""), "is empty"),
        ("ca", Some("garbage"), "holds no PEM certificate"),
        ("ca", Some(&*cut_off), "is broken"),
        ("ca", Some(&*mislabelled), no_certificate),
        ("ca", Some(&*mixed), no_certificate),
        ("ca", Some(&*ours.key), "holds no PEM certificate"),
        ("cert", None, "No such file"),
        ("cert", Some(""), "is empty"),
        ("cert", Some("garbage"), "holds no PEM certificate"),
        ("cert", Some(&*mislabelled), no_certificate),
        ("cert", Some(&*ours.key), "holds no PEM certificate"),
        ("key", None, "No such file"),
        ("key", Some(""), "is empty"),
        ("key", Some("garbage"), "holds no PEM private key"),
        ("key", Some(&*ours.cert), "holds no PEM private key"),
        ("key", Some(&*encrypted), "without a passphrase"),
        ("key", Some(&*mislabelled_cert), no_pair),
        ("key", Some(&*other.key), no_pair),
    ] {
        let file = |name: &str| dir.path().join(name);
        replace_file(&file("ca"), &good_ca);
        ours.save(&file("cert"), &file("key"));
        match content {
            Some(content) => replace_file(&file(setting), content),
            None => std::fs::remove_file(file(setting)).unwrap(),
        }
        let config = EtcdConfig::new(["localhost:2379"])
            .ca_file(file("ca"))
            .client_certificate_files(file("cert"), file("key"));
        let refused = EtcdRegistry::new(config).expect_err(&format!("{setting} {content:?}"));
        let text = refused.to_string();
        let start = format!("{setting} {}: ", file(setting).display());
        assert!(text.starts_with(&start) && text.contains(reason), "{content:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let secret = ours.key.lines().chain(other.key.lines()).filter(|line| !line.contains("--"));
        for line in secret {
            assert!(!text.contains(line) && !format!("{refused:?}").contains(line), "{text}");
        }
    }
}
