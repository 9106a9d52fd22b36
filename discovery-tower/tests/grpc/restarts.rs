//! Servers that go and come under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use discovery_core::{Instance, InstanceStatus, MemoryRegistry};
use discovery_test_support::{Process, eventually, slack};
use discovery_tower::grpc::Channel;
use discovery_tower::http::RetryLayer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::server::{Server, Shop, serve};
use super::{Client, SECOND, get, orders, up};

/// Callers of `Get`, until they are told to stop.
struct Load {
    callers: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// So many callers, each 50 times a second.
    fn start(channel: &Channel, callers: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (stop, answered) = (stop.clone(), answered.clone());
            let mut client = Client::new(channel.clone());
            tasks.spawn(async move {
                let mut turn = tokio::time::interval(Duration::from_millis(20));
                let mut failures = Vec::new();
                for number in 0.. {
                    turn.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match client.get(get(number)).await {
                        Ok(order) => assert_eq!(order.into_inner().number, number),
                        Err(status) => failures.push(format!("{status:?}")),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        Self { callers: tasks, stop, answered }
    }

    /// Waits until this many more are answered.
    async fn goes_on(&self, more: usize) {
        let target = self.answered.load(Ordering::Relaxed) + more;
        eventually(60 * SECOND, format!("{more} more calls"), async || {
            self.answered.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// None of at least so many failed.
    async fn none_failed(mut self, of: usize) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(ended) = self.callers.join_next().await {
            failures.extend(ended.unwrap());
        }
        let all = self.answered.load(Ordering::Relaxed);
        let (failed, first) = (failures.len(), failures.iter().take(3).collect::<Vec<_>>());
        assert!(failed == 0, "{failed} of {all} failed: {first:#?}");
        assert!(all >= of, "only {all} were answered");
    }
}

fn instance(id: usize, address: &str) -> Instance {
    Instance::parse("orders", &id.to_string(), address).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_fails_while_each_of_five_servers_is_replaced() {
    let registry = MemoryRegistry::new();
    let mut servers = Server::several(5).await;
    for (id, server) in servers.iter().enumerate() {
        registry.insert(instance(id, &server.address));
    }
    let channel = Channel::new(&registry, &orders());
    up(&channel, 5).await;
    let load = Load::start(&channel, 10);
    load.goes_on(200).await;
    for (id, old) in std::mem::take(&mut servers).into_iter().enumerate() {
        let mut leaving = instance(id, &old.address);
        leaving.status = InstanceStatus::Draining;
        registry.insert(leaving);
        load.goes_on(20).await;
        registry.remove(&instance(id, &old.address).key());
        old.stop().await;
        let new = Server::start("new").await;
        registry.insert(instance(id + 5, &new.address));
        servers.push(new);
        load.goes_on(100).await;
    }
    load.none_failed(800).await;
    assert!(servers.iter().any(|server| server.seen.asked() > 0));
}

/// One of our own, which registers and leaves by itself.
#[cfg(feature = "server")]
async fn registered(
    registry: &MemoryRegistry,
) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    use discovery_test_support::orders::orders_server::OrdersServer;
    use tonic::service::Routes;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let registry = registry.clone();
    let serving = tokio::spawn(async move {
        let routes = Routes::new(OrdersServer::new(Shop::new("own")));
        let server = discovery_tower::Server::new(orders()).scheme("grpc");
        let shutdown = async { drop(stopped.await) };
        let ended = server.serve(listener, &registry, routes, shutdown).await.unwrap();
        assert_eq!(ended.cut_off, 0);
    });
    (stop, serving)
}

#[cfg(feature = "server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_fails_while_servers_that_register_themselves_are_replaced() {
    let registry = MemoryRegistry::new();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(registered(&registry).await);
    }
    let channel = Channel::new(&registry, &orders());
    up(&channel, 3).await;
    let load = Load::start(&channel, 10);
    for (stop, serving) in servers {
        load.goes_on(100).await;
        let new = registered(&registry).await;
        up(&channel, 4).await;
        stop.send(()).unwrap();
        serving.await.unwrap();
        up(&channel, 3).await;
        // Those that stay are there until the test ends.
        drop(tokio::spawn(async move {
            let _kept = new.0;
            new.1.await.unwrap();
        }));
    }
    load.none_failed(300).await;
}

/// What the test below runs in processes of their own. It serves where the variable says, if it is there.
#[tokio::test]
async fn a_server_in_a_process_of_its_own() {
    let Ok(file) = std::env::var("GRPC_TEST_ADDRESS_FILE") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    let (file, new) = (Path::new(&file), Path::new(&file).with_extension("new"));
    std::fs::write(&new, address).unwrap();
    std::fs::rename(new, file).unwrap();
    serve(listener, Shop::new("process"), std::future::pending()).await;
}

/// Such a process, and its address.
async fn process(dir: &Path, number: usize) -> (Process, String) {
    let file = dir.join(format!("address-{number}"));
    let test = std::env::current_exe().unwrap();
    let process = Process::spawn(&test, &dir.join(format!("log-{number}")), |command| {
        command.args(["--exact", "restarts::a_server_in_a_process_of_its_own", "--nocapture"]);
        command.env("GRPC_TEST_ADDRESS_FILE", &file);
    });
    let address =
        eventually(20 * SECOND, "the server listens", async || std::fs::read_to_string(&file).ok());
    (process.unwrap(), address.await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_that_may_be_repeated_fails_when_servers_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let registry = MemoryRegistry::new();
    let mut processes = Vec::new();
    for number in 0..5 {
        let (process, address) = process(dir.path(), number).await;
        registry.insert(instance(number, &address));
        processes.push(process);
    }
    let layer = RetryLayer::new(2).repeating(|head| head.uri.path().ends_with("/Get"));
    let channel =
        Channel::builder(&registry, &orders()).retry(layer).deadline(slack(20 * SECOND)).build();
    up(&channel, 5).await;
    let load = Load::start(&channel, 10);
    load.goes_on(200).await;
    // The registry does not know.
    for process in &processes[..3] {
        process.kill();
        load.goes_on(100).await;
    }
    load.none_failed(500).await;
}
