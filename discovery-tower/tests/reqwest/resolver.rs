//! Why the integration is not a resolver or connector inside reqwest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use discovery_core::Source as _;
use discovery_test_support::eventually_eq;
use discovery_tower::PooledMaker;
use discovery_tower::balance::{Builder, LeastPending, Standing};
use discovery_tower::http::Http;
use discovery_tower::reqwest::SendThrough as _;
use reqwest::Body;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::server::{Server, soon};
use crate::{echoing, registry, requests};

/// Names the instances in turn, one for each time that it is asked.
struct InTurn {
    addresses: Vec<SocketAddr>,
    asked: Arc<AtomicUsize>,
}

impl Resolve for InTurn {
    fn resolve(&self, _: Name) -> Resolving {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst) % self.addresses.len();
        let addresses: Addrs = Box::new(std::iter::once(self.addresses[turn]));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn socket(server: &Server) -> SocketAddr {
    server.address.strip_prefix("http://").unwrap().parse().unwrap()
}

fn asked(servers: &[Server]) -> Vec<usize> {
    servers.iter().map(Server::asked).collect()
}

#[tokio::test]
async fn each_request_is_balanced() {
    let servers = [echoing().await, echoing().await];
    let registry = registry(servers.iter().map(|server| server.address.as_str()));
    // Who is slow for a moment, as on a busy machine, gets no less by this policy.
    let orders =
        Builder::new(registry.watch(&"orders".parse().unwrap()), PooledMaker::<Body>::new())
            .protocol(Http::new())
            .policy(LeastPending::new())
            .spawn::<_, http::Request<Body>, _>();
    eventually_eq(Duration::from_secs(20), "instances that are up", 2, async || {
        orders.endpoints().iter().filter(|view| view.standing == Standing::Up).count()
    })
    .await;
    for _ in 0..100 {
        let request = requests().get("http://orders/").send_through(&orders);
        soon(soon(request).await.unwrap().bytes()).await.unwrap();
    }
    let asked = asked(&servers);
    assert!(asked.iter().all(|asked| *asked > 20), "{asked:?}");
}

/// The pool of reqwest keeps connections by the name in the URL: it knows nothing of instances.
#[tokio::test]
async fn with_a_resolver_inside_reqwest_all_requests_follow_one_connection() {
    let servers = [echoing().await, echoing().await];
    let names = Arc::new(AtomicUsize::new(0));
    let resolver = InTurn { addresses: servers.iter().map(socket).collect(), asked: names.clone() };
    let client = reqwest::Client::builder().dns_resolver(Arc::new(resolver)).build().unwrap();
    for _ in 0..100 {
        let response = soon(client.get("http://orders/").send()).await.unwrap();
        soon(response.bytes()).await.unwrap();
    }
    // A connection that is not back in its pool in time may have been made twice.
    let mut asked = asked(&servers);
    asked.sort_unstable();
    assert!(asked[0] < 20 && names.load(Ordering::SeqCst) < 20, "{asked:?}");
}
