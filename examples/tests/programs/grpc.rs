//! A client that tonic generated and its servers, as processes, at a real etcd.

use crate::support::{GRPC_CLIENT, GRPC_SERVER, Program, SOON};
use discovery_test_support::{Etcd, eventually, on_each_version, versions};

/// A server that is in etcd.
async fn server(etcd: &Etcd, id: &str) -> Program {
    let args = [format!("--etcd={}", etcd.url()), format!("--id={id}")];
    let server = Program::start(GRPC_SERVER, &args);
    let address = server.address().await;
    eventually(SOON, "it is in etcd", async || {
        let kv = etcd.truth().get(format!("/services/orders/{id}")).await.unwrap();
        kv.is_some_and(|kv| String::from_utf8_lossy(&kv.value).contains(&address))
    })
    .await;
    server
}

fn client(etcd: &Etcd, args: &[&str]) -> Program {
    let etcd = format!("--etcd={}", etcd.url());
    Program::start(GRPC_CLIENT, &[&[etcd.as_str()], args].concat())
}

#[tokio::test]
async fn calls_of_each_kind_are_served() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let servers = [server(&etcd, "a").await, server(&etcd, "b").await];
        let client = client(&etcd, &["--calls=40"]);
        client.line(&["get calls=40 failed=0"]).await;
        for id in ["a", "b"] {
            client.line(&["get number=", &format!("served_by={id}")]).await;
        }
        for method in ["place", "list", "follow"] {
            client.line(&[method, "served_by=", "count=100"]).await;
        }
        assert_eq!(client.ended().await, Some(0));
        for server in servers {
            assert_eq!(server.stop().await, Some(0));
            server.line(&["stopped"]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_call_that_may_be_repeated_fails_when_servers_are_killed_and_none_when_they_go() {
    let etcd = Etcd::start(versions()[0]).await;
    let mut servers = Vec::new();
    for id in ["a", "b", "c", "d"] {
        servers.push(server(&etcd, id).await);
    }
    let client = client(&etcd, &["--calls=2000", "--every-ms=2"]);
    let answered = async |number: u32| {
        let line = format!("get number={number} ");
        eventually(3 * SOON, &line, async || client.stdout().contains(&line)).await;
    };
    answered(300).await;
    servers[0].process.kill();
    answered(700).await;
    assert_eq!(servers[1].stop().await, Some(0));
    answered(1100).await;
    servers[2].process.kill();
    answered(1999).await;
    client.line(&["get calls=2000 failed=0"]).await;
    for id in ["a", "b", "c", "d"] {
        client.line(&["get number=", &format!("served_by={id}")]).await;
    }
}

#[tokio::test]
async fn a_service_that_nobody_serves_is_said_to_be_that() {
    let etcd = Etcd::start(versions()[0]).await;
    let client = client(&etcd, &["--service=nobody", "--calls=1"]);
    client.line(&["get calls=1 failed=1"]).await;
    assert_eq!(client.ended().await, Some(1));
    assert!(client.stderr().contains("error: Unavailable: no instances of nobody"));
}
