//! Row 19: tokens that are over or outdated are replaced when something needs one, at once, and not
//! after the wait that a denial of permission deserves.

use std::time::Duration;

use crate::support::{NOW, PREFIX, View, instance, key, value};
use discovery_core::{Registrar as _, Registration, RegistrationState, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{
    Builder, Etcd, Proxy, Truth, Version, eventually, on_each_version, slack,
};
use tokio::time::sleep;

/// The shortest that etcd keeps tokens of its simple kind exactly, and long enough to begin with.
const TOKEN: Duration = Duration::from_secs(3);
/// By then, a token that nobody has used is over: those of the simple kind are looked through each
/// second.
const OVER: Duration = Duration::from_secs(5);

/// What etcd gives out as tokens.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Lives on by being used.
    Simple,
    /// Is over after its time, and outdated by any change of users and roles.
    Jwt,
}

impl Kind {
    fn etcd(self, version: Version, ttl: Duration) -> Builder {
        match self {
            Self::Simple => Etcd::builder(version).flag("auth-token-ttl", ttl.as_secs()),
            Self::Jwt => Etcd::builder(version).jwt(ttl),
        }
    }
}

/// etcd with users behind a proxy, and a registry of one that may do all with the services.
struct Site {
    _etcd: Etcd,
    truth: Truth,
    proxy: Proxy,
    registry: EtcdRegistry,
    users: u32,
}

impl Site {
    async fn new(version: Version, kind: Kind, ttl: Duration) -> Self {
        // Passwords are to be checked quickly: this is about tokens.
        let etcd = kind.etcd(version, ttl).flag("bcrypt-cost", 4).start().await;
        let auth = etcd.truth().auth();
        auth.add_user("orders", "secret").await.unwrap();
        auth.add_role("services").await.unwrap();
        auth.allow("services", PREFIX).await.unwrap();
        auth.grant_role("orders", "services").await.unwrap();
        let truth = auth.enable("root").await.unwrap();
        let proxy = Proxy::start(etcd.client_addr());
        let registry = registry(&proxy);
        Self { _etcd: etcd, truth, proxy, registry, users: 0 }
    }

    /// Another registry, with connections and tokens of its own.
    fn registry(&self) -> EtcdRegistry {
        registry(&self.proxy)
    }

    /// Changes users, which outdates every web token there is.
    async fn change_users(&mut self) {
        self.users += 1;
        self.truth.auth().add_user(&format!("user-{}", self.users), "x").await.unwrap();
    }
}

fn registry(proxy: &Proxy) -> EtcdRegistry {
    let config = EtcdConfig::new([proxy.url()]).credentials("orders", "secret");
    let config = config.ttl(Duration::from_secs(5)).suspects_for(Duration::ZERO);
    EtcdRegistry::new(config).unwrap()
}

/// Waits until etcd says what the handle wants.
async fn applied(registration: &Registration) {
    let registered = tokio::time::timeout(slack(NOW), registration.registered()).await;
    registered
        .unwrap_or_else(|_| panic!("not within {NOW:?}: {:?}", registration.status()))
        .unwrap();
}

async fn moves(registration: &Registration, port: u16) {
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    registration.update(|instance| instance.address = address).unwrap();
    applied(registration).await;
}

/// The token dies while only a watch stands; then the connection is cut.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_a_token_that_died_under_an_idle_watch_is_replaced_after_a_cut() {
    on_each_version(async |version| {
        for kind in [Kind::Simple, Kind::Jwt] {
            let site = Site::new(version, kind, TOKEN).await;
            site.truth.put(key("orders", "1"), value(1)).await.unwrap();
            let view = View::new(site.registry.watch_all());
            view.until_true(&site.truth, PREFIX, NOW).await;
            let fresh = view.status().since;
            sleep(OVER).await;
            // What stands is not touched by a token's end.
            site.truth.put(key("orders", "2"), value(2)).await.unwrap();
            view.until_true(&site.truth, PREFIX, NOW).await;
            assert_eq!(view.status().since, fresh, "{kind:?}");

            site.proxy.cut_once();
            view.until_stale(NOW).await;
            site.truth.put(key("orders", "3"), value(3)).await.unwrap();
            view.until_true(&site.truth, PREFIX, NOW).await;
        }
    })
    .await;
}

/// The token dies while only a watch stands; then another service is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_a_new_watch_beside_an_idle_one_gets_a_new_token() {
    on_each_version(async |version| {
        for kind in [Kind::Simple, Kind::Jwt] {
            let site = Site::new(version, kind, TOKEN).await;
            site.truth.put(key("orders", "1"), value(1)).await.unwrap();
            site.truth.put(key("payments", "1"), value(2)).await.unwrap();
            let orders = View::new(site.registry.watch(&"orders".parse().unwrap()));
            orders.until_true(&site.truth, &key("orders", ""), NOW).await;
            let fresh = orders.status().since;
            sleep(OVER).await;
            let payments = View::new(site.registry.watch(&"payments".parse().unwrap()));
            payments.until_true(&site.truth, &key("payments", ""), NOW).await;
            let all = View::new(site.registry.watch_all());
            all.until_true(&site.truth, PREFIX, NOW).await;
            assert_eq!(orders.status().since, fresh, "{kind:?}: the first one is not disturbed");
        }
    })
    .await;
}

/// Tokens that are good for two seconds are no trouble to a registration and its updates.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_tokens_that_die_all_the_time_are_never_noticed() {
    on_each_version(async |version| {
        let site = Site::new(version, Kind::Jwt, Duration::from_secs(2)).await;
        let view = View::new(site.registry.watch_all());
        let registration = site.registry.register(instance("orders", "1", 1));
        applied(&registration).await;
        view.until_true(&site.truth, PREFIX, NOW).await;
        let fresh = view.status().since;
        let mut statuses = registration.watch_status();
        let lost = tokio::spawn(async move {
            let is_lost = |state: &_| !matches!(state, RegistrationState::Registered);
            statuses.wait_for(|status| is_lost(&status.state)).await.unwrap().clone()
        });
        for port in 2..6 {
            sleep(Duration::from_secs(3)).await; // the token is over
            moves(&registration, port).await;
            view.until_true(&site.truth, PREFIX, NOW).await;
        }
        assert_eq!(view.status().since, fresh);
        assert!(!lost.is_finished(), "{:?}", lost.await);
        tokio::time::timeout(slack(NOW), registration.deregister()).await.unwrap().unwrap();
        view.until_true(&site.truth, PREFIX, NOW).await;
    })
    .await;
}

/// A change of users outdates all web tokens: whatever is done next is done with a new one.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_a_registration_goes_on_at_once_when_its_token_is_outdated() {
    on_each_version(async |version| {
        let mut site = Site::new(version, Kind::Jwt, Duration::from_secs(300)).await;
        let view = View::new(site.registry.watch_all());
        let registration = site.registry.register(instance("orders", "1", 1));
        applied(&registration).await;
        for port in 2..7 {
            site.change_users().await;
            moves(&registration, port).await;
            view.until_true(&site.truth, PREFIX, NOW).await;
        }

        // Its lease is lost, and the token outdated.
        site.change_users().await;
        let lease = site.truth.get(key("orders", "1")).await.unwrap().unwrap().lease;
        site.truth.revoke(lease).await.unwrap();
        eventually(NOW, "the key is there again", async || {
            site.truth.get(key("orders", "1")).await.unwrap()
        })
        .await;

        site.change_users().await;
        registration.deregister().await.unwrap();
        assert_eq!(site.truth.count(PREFIX).await.unwrap(), 0);
        view.until_true(&site.truth, PREFIX, NOW).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_19_a_source_goes_on_at_once_when_its_token_is_outdated() {
    on_each_version(async |version| {
        let mut site = Site::new(version, Kind::Jwt, Duration::from_secs(300)).await;
        let all = View::new(site.registry.watch_all());
        all.until_fresh(NOW).await;
        let mut others = Vec::new();
        for port in 1..6 {
            let service = format!("service-{port}");
            site.truth.put(key(&service, "1"), value(port)).await.unwrap();
            site.change_users().await;
            let view = View::new(site.registry.watch(&service.parse().unwrap()));
            view.until_true(&site.truth, &key(&service, ""), NOW).await;
            others.push(view);
        }
        all.until_true(&site.truth, PREFIX, NOW).await;

        // Outdated while the connection is being made anew: before the watch stands, or after.
        drop(others);
        for port in 11..21 {
            let view = View::new(site.registry().watch_all());
            view.until_true(&site.truth, PREFIX, NOW).await;
            site.proxy.cut_once();
            site.change_users().await;
            site.truth.put(key("orders", "1"), value(port)).await.unwrap();
            view.until_true(&site.truth, PREFIX, NOW).await;
        }
    })
    .await;
}
