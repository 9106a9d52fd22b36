//! The complete programs for hyper, axum and reqwest: what they show is what happens.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::nodes::{ids, registered, server};
use crate::support::{AXUM_SERVER, Http, Program, SOON, request};
use discovery_test_support::{Etcd, eventually, eventually_eq, versions};

const HYPER_SERVER: &str = env!("CARGO_BIN_EXE_hyper_server");
const HTTP_CLIENT: &str = env!("CARGO_BIN_EXE_http_client");
const REQWEST_CLIENT: &str = env!("CARGO_BIN_EXE_reqwest_client");

struct Site {
    etcd: Etcd,
    http: Http,
}

impl Site {
    async fn start() -> Self {
        Self { etcd: Etcd::start(versions()[0]).await, http: Http::new() }
    }

    /// Runs a client to its end: who served it, and what it read.
    async fn client(&self, binary: &str) -> (BTreeSet<String>, Vec<String>) {
        let client = Program::start(binary, &[format!("--etcd={}", self.etcd.url())]);
        assert_eq!(client.ended().await, Some(0), "{}{}", client.stdout(), client.stderr());
        let text = client.stdout();
        let (by, read): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains(" by "));
        assert_eq!((by.len(), read.len()), (10, 10), "{text}");
        let by =
            by.into_iter().map(|line| line.strip_prefix("200 OK by orders/").unwrap().to_owned());
        (by.collect(), read.into_iter().map(ToOwned::to_owned).collect())
    }

    /// Runs both clients, and says by whom they were served.
    async fn clients(&self) -> BTreeSet<String> {
        let (mut by, read) = self.client(HTTP_CLIENT).await;
        let expected: Vec<_> = (1..=10).map(|number| format!("order {number}")).collect();
        assert_eq!(read, expected);
        let (more, read) = self.client(REQWEST_CLIENT).await;
        let echoed = (1..=10).map(|number| serde_json::json!({ "number": number, "of": "shoes" }));
        assert_eq!(read, echoed.map(|order| order.to_string()).collect::<Vec<_>>());
        by.extend(more);
        by
    }
}

#[tokio::test]
async fn servers_of_axum_and_hyper_are_found_by_both_clients_and_leave() {
    let site = Site::start().await;
    let (axum, axum_id, _) = server(&site.etcd, AXUM_SERVER).await;
    assert_eq!(site.clients().await, BTreeSet::from([axum_id.clone()]));
    let (hyper, hyper_id, _) = server(&site.etcd, HYPER_SERVER).await;
    let mut by = BTreeSet::new();
    eventually(SOON * 2, "both serve", async || {
        by.extend(site.clients().await);
        by == BTreeSet::from([axum_id.clone(), hyper_id.clone()])
    })
    .await;
    assert_eq!(axum.stop().await, Some(0), "{}", axum.stderr());
    assert_eq!(ids(&registered(&site.etcd).await), BTreeSet::from([hyper_id.clone()]));
    assert_eq!(site.clients().await, BTreeSet::from([hyper_id]));
    assert_eq!(hyper.stop().await, Some(0), "{}", hyper.stderr());
    assert!(registered(&site.etcd).await.is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_well_is_out_of_service_and_comes_back() {
    let site = Site::start().await;
    let (axum, _, address) = server(&site.etcd, AXUM_SERVER).await;
    for (open, status) in [("false", "out_of_service"), ("true", "up")] {
        let put = request(http::Method::PUT, &format!("{address}/open/{open}"), "");
        assert_eq!(site.http.send(put).await.status, 200);
        // It is asked every 5 s.
        eventually_eq(Duration::from_secs(15), "status", status.to_owned(), async || {
            let registered = registered(&site.etcd).await;
            registered[0]["status"].as_str().unwrap().to_owned()
        })
        .await;
    }
    assert_eq!(axum.stop().await, Some(0));
}
