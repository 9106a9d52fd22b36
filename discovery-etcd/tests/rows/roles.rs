//! Least privilege: the commands and the configuration in `docs/etcd-access.md` are those run here, and
//! give each user what the document says, and no more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{NOW, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Authority, Etcd, Permission, Truth, Version, eventually, on_each_version, slack,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// What the document writes for what is different in each place.
const ENDPOINT: &str = "https://10.0.0.1:2379";
const FILES: &str = "/etc/etcd";
const PASSWORDS: [(&str, &str); 4] = [
    ("ROOT_PASSWORD", "root's own"),
    ("GATEWAY_PASSWORD", "for gateways"),
    ("ORDERS_PASSWORD", "for orders"),
    ("OPERATOR_PASSWORD", "for operators"),
];

fn password(variable: &str) -> &'static str {
    PASSWORDS.iter().find(|(name, _)| *name == variable).unwrap().1
}

/// The document's block of code that begins with this line behind its fence.
fn block(info: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/etcd-access.md");
    let document = std::fs::read_to_string(path).unwrap();
    let start = format!("```{info}\n");
    let (_, rest) = document.split_once(&start).unwrap_or_else(|| panic!("no block {info:?}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// etcd with TLS and client certificates, and the users of the document.
struct Site {
    etcd: Etcd,
    root: Truth,
    dir: TempDir,
}

impl Site {
    async fn new(version: Version) -> Self {
        let dir = TempDir::new().unwrap();
        let file = |name| dir.path().join(name);
        let authority = Authority::new("test");
        authority.furnish(dir.path(), &["127.0.0.1"]);
        let etcd = Etcd::builder(version)
            .tls(&file("server.pem"), &file("server-key.pem"), Some(&file("ca.pem")))
            // Passwords are to be checked quickly: this is about roles.
            .flag("bcrypt-cost", 4)
            .start()
            .await;
        let root = etcd.truth().login("root", password("ROOT_PASSWORD"));
        let site = Self { etcd, root, dir };
        site.run(&["enable", "login", "reader", "registrar", "caller", "operator"]).await;
        site
    }

    fn url(&self) -> String {
        format!("https://{}", self.etcd.tls_addr())
    }

    /// Puts this place for the one in the document.
    fn here(&self, text: &str) -> String {
        assert!(text.contains(ENDPOINT) && text.contains(FILES), "{text}");
        text.replace(ENDPOINT, &self.url()).replace(FILES, self.dir.path().to_str().unwrap())
    }

    /// Runs these blocks: by etcdctl where there is one, else by hand.
    async fn run(&self, blocks: &[&str]) {
        let script: String = blocks.iter().map(|name| block(&format!("sh {name}"))).collect();
        let Some(etcdctl) = self.etcd.etcdctl() else { return self.by_hand(&script).await };
        let script = self.here(&block("sh connect")) + &script;
        let output = tokio::task::spawn_blocking(move || by_shell(etcdctl, &script));
        let output = output.await.unwrap();
        assert!(output.status.success(), "{blocks:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What etcdctl does with these commands, for an etcd without it. Knows no others.
    async fn by_hand(&self, script: &str) {
        let mut truth = self.etcd.truth().clone();
        let exported: HashMap<_, _> = script
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .collect();
        // A script that begins with a login is run when one is asked for already.
        if exported.contains_key("ETCDCTL_USER") && !script.contains("auth enable") {
            truth = self.root.clone();
        }
        for line in script.lines().filter(|line| line.starts_with("etcdctl ")) {
            let words: Vec<_> = line.split_whitespace().skip(1).collect();
            let auth = truth.auth();
            match *words {
                ["user", "add", user, password_is] => {
                    let variable = password_is.strip_prefix("--new-user-password=\"$").unwrap();
                    let password = password(variable.strip_suffix('"').unwrap());
                    auth.add_user(user, password).await.unwrap();
                }
                ["user", "grant-role", user, role] => auth.grant_role(user, role).await.unwrap(),
                ["user", "revoke-role", user, role] => auth.revoke_role(user, role).await.unwrap(),
                ["role", "add", role] => auth.add_role(role).await.unwrap(),
                ["role", "grant-permission", role, "--prefix=true", what, prefix] => {
                    let permission = match what {
                        "read" => Permission::Read,
                        "readwrite" => Permission::ReadWrite,
                        _ => panic!("{line}"),
                    };
                    auth.permit(role, permission, prefix).await.unwrap();
                }
                ["auth", "enable"] => {
                    auth.switch_on().await.unwrap();
                    truth = self.root.clone();
                }
                _ => panic!("no way to do this by hand: {line}"),
            }
        }
    }

    /// A registry as the document configures it, of this user.
    fn registry(&self, user: &str, variable: &str) -> EtcdRegistry {
        let text = self.here(&block("toml")).replace("\"orders\"", &format!("\"{user}\""));
        let config: EtcdConfig = toml::from_str(&text.replace('…', password(variable))).unwrap();
        let config = config.ttl(Duration::from_secs(2)).suspects_for(Duration::ZERO);
        EtcdRegistry::new(config).unwrap()
    }

    /// Waits until the source says this, and that it is not permitted.
    async fn is_denied(&self, view: &View, attempt: &str) {
        let expected = format!("{attempt} at {}: etcdserver: permission denied", self.url());
        eventually(NOW, format!("the source says {expected:?}"), async || {
            let said = view.status().state.error().map(ToString::to_string);
            if said.as_ref() == Some(&expected) { Ok(()) } else { Err(said) }
        })
        .await;
        assert!(!view.status().loaded);
    }

    /// Waits until the registration says this, and that it is not permitted.
    async fn may_not_register(&self, registration: &Registration, attempt: &str) {
        let expected = format!("{attempt} at {}: etcdserver: permission denied", self.url());
        eventually(NOW, format!("the registration says {expected:?}"), async || {
            let status = registration.status();
            match status.state {
                RegistrationState::Registering(Some(error)) if error.to_string() == expected => {
                    Ok(())
                }
                other => Err(other),
            }
        })
        .await;
        assert_eq!(registration.status().applied, 0);
    }
}

fn by_shell(etcdctl: PathBuf, script: &str) -> std::process::Output {
    let mut dirs = vec![etcdctl.parent().unwrap().to_path_buf()];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    Command::new("sh")
        .args(["-euc", script])
        .env("PATH", std::env::join_paths(dirs).unwrap())
        .envs(PASSWORDS)
        .output()
        .unwrap()
}

async fn applied(registration: &Registration) {
    let registered = tokio::time::timeout(slack(NOW), registration.registered()).await;
    registered
        .unwrap_or_else(|_| panic!("not within {NOW:?}: {:?}", registration.status()))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_watches_all_and_registers_nothing() {
    on_each_version(async |version| {
        let site = Site::new(version).await;
        site.root.put(key("orders", "1"), value(1)).await.unwrap();
        let registry = site.registry("gateway", "GATEWAY_PASSWORD");
        let all = View::new(registry.watch_all());
        let orders = View::new(registry.watch(&"orders".parse().unwrap()));
        all.until_true(&site.root, PREFIX, NOW).await;
        orders.until_true(&site.root, &key("orders", ""), NOW).await;

        let registration = registry.register(instance("orders", "2", 2));
        site.may_not_register(&registration, "put /services/orders/2").await;
        site.root.put(key("payments", "1"), value(3)).await.unwrap();
        all.until_true(&site.root, PREFIX, NOW).await;
        assert_eq!(all.set().len(), 2, "nothing was registered");
        // With nothing written there is nothing to be sure of.
        registration.deregister().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_keeps_its_service_and_writes_no_other() {
    on_each_version(async |version| {
        let site = Site::new(version).await;
        let registry = site.registry("orders", "ORDERS_PASSWORD");
        let registration = registry.register(instance("orders", "1", 1));
        applied(&registration).await;
        assert_eq!(site.root.count(PREFIX).await.unwrap(), 1);

        let first = registration.status().expires.unwrap();
        eventually(Duration::from_secs(3), "it is renewed twice", async || {
            registration.status().expires.unwrap() > first + Duration::from_secs(1)
        })
        .await;
        registration.update(|instance| instance.address = "127.0.0.1:2".parse().unwrap()).unwrap();
        applied(&registration).await;
        let kv = site.root.get(key("orders", "1")).await.unwrap().unwrap();
        assert!(String::from_utf8(kv.value).unwrap().contains("127.0.0.1:2"));

        // It may read this service, and the other one not even that; nor one with a longer name.
        let payments = registry.register(instance("payments", "1", 3));
        site.may_not_register(&payments, "put /services/payments/1").await;
        let stock = registry.register(instance("stock", "1", 4));
        site.may_not_register(&stock, "watch /services/stock/1").await;
        let other = registry.register(instance("orders-test", "1", 5));
        site.may_not_register(&other, "watch /services/orders-test/1").await;
        assert_eq!(site.root.count(PREFIX).await.unwrap(), 1);
        assert!(matches!(registration.status().state, RegistrationState::Registered));

        registration.deregister().await.unwrap();
        assert_eq!(site.root.count(PREFIX).await.unwrap(), 0);
    })
    .await;
}

/// One denied prefix disturbs no other.
#[tokio::test(flavor = "multi_thread")]
async fn row_38_who_may_watch_some_services_is_denied_all_while_those_go_on() {
    on_each_version(async |version| {
        let site = Site::new(version).await;
        site.root.put(key("payments", "1"), value(1)).await.unwrap();
        let registry = site.registry("orders", "ORDERS_PASSWORD");
        let payments = View::new(registry.watch(&"payments".parse().unwrap()));
        payments.until_true(&site.root, &key("payments", ""), NOW).await;
        let fresh = payments.status().since;
        let all = View::new(registry.watch_all());
        let stock = View::new(registry.watch(&"stock".parse().unwrap()));
        site.is_denied(&all, "watch /services/").await;
        site.is_denied(&stock, "watch /services/stock/").await;
        let orders = View::new(registry.watch(&"orders".parse().unwrap()));
        orders.until_fresh(NOW).await;

        for port in 2..5 {
            site.root.put(key("payments", "1"), value(port)).await.unwrap();
            site.root.put(key("orders", "1"), value(port)).await.unwrap();
            payments.until_true(&site.root, &key("payments", ""), NOW).await;
            orders.until_true(&site.root, &key("orders", ""), NOW).await;
        }
        assert_eq!(payments.status().since, fresh, "it was fresh all along");
        site.is_denied(&all, "watch /services/").await;
        site.is_denied(&stock, "watch /services/stock/").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_any_instance_and_no_user() {
    on_each_version(async |version| {
        let site = Site::new(version).await;
        let operator = site.etcd.truth().login("operator", password("OPERATOR_PASSWORD"));
        operator.put(key("orders", "1"), value(1)).await.unwrap();
        assert!(operator.delete(key("orders", "1")).await.unwrap());
        operator.put("/elsewhere", "x").await.unwrap_err();
        operator.auth().add_user("friend", "x").await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_is_missing_in_the_next_connection() {
    on_each_version(async |version| {
        let site = Site::new(version).await;
        let payments = "payments".parse().unwrap();
        let before = View::new(site.registry("orders", "ORDERS_PASSWORD").watch(&payments));
        before.until_fresh(NOW).await;
        site.run(&["login", "take-away"]).await;
        let after = View::new(site.registry("orders", "ORDERS_PASSWORD").watch(&payments));
        site.is_denied(&after, "watch /services/payments/").await;
        site.root.put(key("payments", "1"), value(1)).await.unwrap();
        before.until_true(&site.root, &key("payments", ""), NOW).await;
    })
    .await;
}

/// A running system gets users: first those who have one are not let in, then those who have none.
#[tokio::test(flavor = "multi_thread")]
async fn users_asked_for_under_running_programs_take_nothing_from_them() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).flag("bcrypt-cost", 4).start().await;
        let config = || {
            let config = EtcdConfig::new([etcd.url()]).ttl(Duration::from_secs(2));
            config.suspects_for(Duration::ZERO)
        };
        let running = EtcdRegistry::new(config()).unwrap();
        let view = View::new(running.watch_all());
        let registration = running.register(instance("orders", "1", 1));
        applied(&registration).await;
        view.until_true(etcd.truth(), PREFIX, NOW).await;
        let lease = etcd.truth().get(key("orders", "1")).await.unwrap().unwrap().lease;

        let with_user = EtcdRegistry::new(config().credentials("root", "root")).unwrap();
        let early = View::new(with_user.watch_all());
        let expected =
            format!("authenticate at {}: etcdserver: authentication is not enabled", etcd.url());
        eventually(NOW, format!("the source says {expected:?}"), async || {
            let said = early.status().state.error().map(ToString::to_string);
            if said.as_ref() == Some(&expected) { Ok(()) } else { Err(said) }
        })
        .await;

        let root = etcd.truth().auth().enable("root").await.unwrap();
        let without_user = EtcdRegistry::new(config()).unwrap();
        let late = View::new(without_user.watch_all());
        eventually(NOW, "who comes without a user is denied", async || {
            let said = late.status().state.error().map(ToString::to_string);
            if said.as_ref().is_some_and(|said| said.contains(" at http")) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
        // Long enough for the key to be read again, and for its lease to be over.
        let until = Instant::now() + Duration::from_secs(14);
        while Instant::now() < until {
            let kv = root.get(key("orders", "1")).await.unwrap();
            assert_eq!(kv.map(|kv| kv.lease), Some(lease), "{:?}", registration.status());
            assert!(matches!(registration.status().state, RegistrationState::Registered));
            assert_eq!(view.set().len(), 1);
            assert!(!view.was_emptied());
            sleep(Duration::from_millis(100)).await;
        }
        early.until_true(&root, PREFIX, NOW).await;
    })
    .await;
}
