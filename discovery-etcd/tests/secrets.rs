//! Passwords, tokens and private keys are shown in no log, not at the finest level and not by what we
//! stand on, and in no error, status or debug print. In a binary of its own: it listens to all there is.
#![cfg(feature = "tls")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use discovery_core::{Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Authority, Certificate, Etcd, Proxy, eventually, on_each_version};
use support::{NOW, NOW_AFTER_OUTAGE, PREFIX, View, instance};
use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;

const PASSWORD: &str = "correct-horse";
const WRONG: &str = "battery-staple";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().unwrap())).into_owned()
    }
}

/// All forms in which something secret could be shown.
fn secrets(client: &Certificate) -> Vec<String> {
    let mut secrets = vec![PASSWORD.to_owned(), WRONG.to_owned()];
    // How every JSON web token begins.
    secrets.push("eyJ".to_owned());
    secrets.extend(client.key.lines().filter(|line| !line.contains("--")).map(str::to_owned));
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(client.key.as_bytes());
    let der: rustls_pki_types::PrivateKeyDer<'_> = der.unwrap();
    for text in [PASSWORD.as_bytes(), WRONG.as_bytes(), &der.secret_der()[36..68]] {
        let list: Vec<_> = text.iter().map(u8::to_string).collect();
        secrets.push(list.join(", "));
        secrets.push(list.join(","));
        secrets.push(text.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")));
    }
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    on_each_version(async |version| {
        let dir = TempDir::new().unwrap();
        let file = |name| dir.path().join(name);
        let authority = Authority::new("test");
        let client = authority.furnish(dir.path(), &["127.0.0.1"]);
        let etcd = Etcd::builder(version)
            .jwt(Duration::from_secs(60))
            .tls(&file("server.pem"), &file("server-key.pem"), Some(&file("ca.pem")))
            .start()
            .await;
        let auth = etcd.truth().auth();
        auth.add_user("orders", PASSWORD).await.unwrap();
        auth.add_role("services").await.unwrap();
        auth.allow("services", PREFIX).await.unwrap();
        auth.grant_role("orders", "services").await.unwrap();
        let proxy = Proxy::start(etcd.tls_addr());
        let url = format!("https://{}", proxy.addr());
        let config = |password: &str| {
            EtcdConfig::new([url.clone()])
                .credentials("orders", password)
                .ca_file(file("ca.pem"))
                .client_certificate_files(file("client.pem"), file("client-key.pem"))
                .ttl(Duration::from_secs(5))
                .suspects_for(Duration::ZERO)
        };
        let mut shown = Vec::new();
        let root = auth.enable("root").await.unwrap();
        // What was logged so far is the test's own.
        log.take();

        let registry = EtcdRegistry::new(config(WRONG)).unwrap();
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        eventually(NOW_AFTER_OUTAGE, "both are denied", async || {
            let (view, registration) = (view.status(), registration.status());
            if view.state.error().is_some() && registration.last_error.is_some() {
                Ok(())
            } else {
                Err((view, registration))
            }
        })
        .await;
        let status = registration.status();
        let (error, cause) = (view.status().state.error().cloned(), status.last_error.clone());
        let (error, cause) = (error.unwrap(), cause.unwrap());
        shown.push(format!("{error} {cause} {error:?} {cause:?}"));
        shown.push(format!("{:?} {status:?} {registry:?}", view.status()));
        drop((view, registration, registry));

        let registry = EtcdRegistry::new(config(PASSWORD)).unwrap();
        let view = View::new(registry.watch_all());
        let registration = registry.register(instance("orders", "1", 1));
        view.until_fresh(NOW_AFTER_OUTAGE).await;
        registration.registered().await.unwrap();
        proxy.cut_once();
        view.until_stale(NOW).await;
        view.until_true(&root, PREFIX, NOW_AFTER_OUTAGE).await;
        registration.update(|instance| instance.address = "127.0.0.1:2".parse().unwrap()).unwrap();
        registration.registered().await.unwrap();
        // Denied by its role.
        root.auth().revoke_role("orders", "services").await.unwrap();
        proxy.cut_once();
        view.until_stale(NOW).await;
        eventually(NOW_AFTER_OUTAGE, "the role is missed", async || {
            view.status().state.error().is_some_and(|e| e.to_string().contains("permission denied"))
        })
        .await;
        shown.push(format!("{:?} {:?} {registry:?}", view.status(), registration.status()));
        let config = config(PASSWORD);
        shown.push(format!("{config:?} {}", serde_json::to_string(&config).unwrap()));
        drop((view, registration, registry));

        let (log, shown) = (log.take(), shown.join("\n"));
        assert!(
            log.contains("TRACE h2") && log.contains("rustls") && log.contains("etcd lost"),
            "all is listened to"
        );
        for secret in secrets(&client) {
            for (what, text) in [("log", &log), ("print", &shown)] {
                let line = text.lines().find(|line| line.contains(&secret));
                assert!(line.is_none(), "{secret:?} in a {what}: {}", line.unwrap_or_default());
            }
        }
    })
    .await;
}
