//! A server of tonic's that does what the metadata `do` says.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use discovery_test_support::orders::orders_server::{Orders, OrdersServer};
use discovery_test_support::orders::{GetRequest, ListRequest, Order, Placed};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

type Messages = Pin<Box<dyn Stream<Item = Result<Order, Status>> + Send>>;

/// What a server has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    asked: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    timeout: Arc<Mutex<Option<String>>>,
}

impl Seen {
    /// How many calls have come.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many are not over.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// How long the last one had.
    pub(crate) fn timeout(&self) -> Option<String> {
        self.timeout.lock().unwrap().clone()
    }

    fn enter(&self, metadata: &MetadataMap) -> UnderWay {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let timeout = metadata.get("grpc-timeout");
        *self.timeout.lock().unwrap() = timeout.map(|time| time.to_str().unwrap().to_owned());
        UnderWay(self.under_way.clone())
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What it does by default: orders have the name of the server as their item.
#[derive(Clone)]
pub(crate) struct Shop {
    name: String,
    seen: Seen,
}

impl Shop {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), seen: Seen::default() }
    }

    fn order(&self, number: u64) -> Order {
        Order { number, item: self.name.clone() }
    }

    /// Does what is to be done before anything else: fails with `status:CODE`, waits with `slow:MS`,
    /// and never comes back from `hang`.
    async fn obey(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let what = metadata.get("do").map_or("", |what| what.to_str().unwrap());
        if what == "hang" || what == format!("hang-at:{}", self.name) {
            std::future::pending::<()>().await;
        }
        if let Some(code) = what.strip_prefix("status:") {
            let mut status = Status::new(Code::from(code.parse::<i32>().unwrap()), "so it is");
            status.metadata_mut().insert("at", self.name.parse().unwrap());
            return Err(status);
        }
        if what == format!("away-at:{}", self.name) {
            return Err(Status::unavailable("away"));
        }
        if let Some(time) = what.strip_prefix("slow:") {
            tokio::time::sleep(Duration::from_millis(time.parse().unwrap())).await;
        }
        Ok(())
    }
}

fn with_metadata<T>(message: T, given: &MetadataMap) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(value) = given.get("echo") {
        response.metadata_mut().insert("echo", value.clone());
    }
    if let Some(value) = given.get_bin("echo-bin") {
        response.metadata_mut().insert_bin("echo-bin", value.clone());
    }
    response
}

#[tonic::async_trait]
impl Orders for Shop {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Order>, Status> {
        let _under_way = self.seen.enter(request.metadata());
        self.obey(request.metadata()).await?;
        let mut order = self.order(request.get_ref().number);
        if request.metadata().get("do").is_some_and(|what| what == "big") {
            order.item = "x".repeat(usize::try_from(order.number).unwrap());
        }
        Ok(with_metadata(order, request.metadata()))
    }

    async fn place(&self, request: Request<Streaming<Order>>) -> Result<Response<Placed>, Status> {
        let _under_way = self.seen.enter(request.metadata());
        self.obey(request.metadata()).await?;
        let metadata = request.metadata().clone();
        let orders = request.into_inner();
        let count = orders.try_fold(0, |sum, _| async move { Ok(sum + 1) }).await?;
        Ok(with_metadata(Placed { count }, &metadata))
    }

    type ListStream = Messages;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Messages>, Status> {
        let under_way = self.seen.enter(request.metadata());
        self.obey(request.metadata()).await?;
        let metadata = request.metadata().clone();
        let what = metadata.get("do").map_or("", |what| what.to_str().unwrap()).to_owned();
        let ListRequest { from, count } = request.into_inner();
        let shop = self.clone();
        let orders = stream::iter(from..from + count).map(move |number| Ok(shop.order(number)));
        let end: Messages = match &*what {
            "then-hang" => stream::pending().boxed(),
            "then-fail" => stream::iter([Err(Status::not_found("no more"))]).boxed(),
            _ => stream::empty().boxed(),
        };
        let held = move |order| {
            let _ = &under_way;
            order
        };
        Ok(with_metadata(orders.chain(end).map(held).boxed(), &metadata))
    }

    type FollowStream = Messages;

    async fn follow(
        &self,
        request: Request<Streaming<Order>>,
    ) -> Result<Response<Messages>, Status> {
        let under_way = self.seen.enter(request.metadata());
        self.obey(request.metadata()).await?;
        let metadata = request.metadata().clone();
        let (shop, mut orders) = (self.clone(), request.into_inner());
        let (tell, answers) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let _under_way = under_way;
            loop {
                let answer = match orders.message().await {
                    Ok(Some(order)) => Ok(shop.order(order.number)),
                    Ok(None) | Err(_) => return,
                };
                if tell.send(answer).await.is_err() {
                    return;
                }
            }
        });
        let answers = tokio_stream::wrappers::ReceiverStream::new(answers);
        Ok(with_metadata(answers.boxed(), &metadata))
    }
}

/// A server, until it is dropped: then it is gone at once, with its connections.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) seen: Seen,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    /// Of its own, so that it can die.
    runtime: Option<Runtime>,
}

impl Server {
    /// One whose name is `0`, `1` or whatever its instance will be.
    pub(crate) async fn start(name: &str) -> Self {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let shop = Shop::new(name);
        let seen = shop.seen.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, address) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("grpc://{}", listener.local_addr().unwrap())).unwrap();
            let stopped = async {
                stopped.await.unwrap();
            };
            serve(listener, shop, stopped).await;
            end.send(()).unwrap();
        });
        let address = address.await.unwrap();
        Self { address, seen, stop: Some(stop), ended, runtime: Some(runtime) }
    }

    pub(crate) async fn several(count: usize) -> Vec<Self> {
        let mut servers = Vec::new();
        for number in 0..count {
            servers.push(Self::start(&number.to_string()).await);
        }
        servers
    }

    /// Ends it in good order: what is under way is finished.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.ended).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves until `stopped`.
pub(crate) async fn serve(listener: TcpListener, shop: Shop, stopped: impl Future<Output = ()>) {
    let service = OrdersServer::new(shop)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20)
        .max_encoding_message_size(64 << 20);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
        .await
        .unwrap();
}

pub(crate) fn addresses(servers: &[Server]) -> Vec<&str> {
    servers.iter().map(|server| server.address.as_str()).collect()
}
