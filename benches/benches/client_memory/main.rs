//! What a client by the names of services keeps for each of 500, beside the connection: bytes asked of
//! the allocator. The servers are in the same process, and have as many connections in both cases.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use discovery_benches::{Report, Row, bytes, is_measuring};
use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::http::HttpClient;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use peak_alloc::PeakAlloc;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::yield_now;
use tower::Service as _;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const GOAL: f64 = 20_000.0;

type Nothing = Empty<Bytes>;
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<ExitCode> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let count = if is_measuring() { 500 } else { 20 };
    let title = format!("Memory of a client of {count} services, bytes for each");
    let mut report = Report::new(title, "ours", "goal");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener));
        // What is made once, however many there are, is there before.
        by_hand(address, count).await?;
        by_name(address, count).await?;
        let connection = by_hand(address, count).await?;
        let service = by_name(address, count).await?;
        let beside = service - connection;
        report.add(Row::numbers("beside the connection", beside, GOAL, bytes, Some(1.0)));
        report.add(Row::numbers("with it / it alone, by hand", service, connection, bytes, None));
        Outcome::Ok(())
    })?;
    Ok(report.finish(true))
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
        });
        tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// What is kept for each of so many connections that are made by hand, after a request on each.
async fn by_hand(address: SocketAddr, count: usize) -> Outcome<f64> {
    let host: HeaderValue = address.to_string().parse()?;
    let before = HEAP.current_usage();
    let mut senders = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::new(Nothing::new());
        request.headers_mut().insert(HOST, host.clone());
        drop(sender.send_request(request).await?.into_body().collect().await?);
        senders.push(sender);
    }
    settled().await;
    let kept = HEAP.current_usage().saturating_sub(before);
    drop(senders);
    settled().await;
    Ok(each(kept, count))
}

/// What is kept for each of so many services of one client, after a request to each.
async fn by_name(address: SocketAddr, count: usize) -> Outcome<f64> {
    let registry = MemoryRegistry::new();
    for number in 0..count {
        let name = format!("service-{number}");
        registry.insert(Instance::parse(&name, "1", &format!("http://{address}"))?);
    }
    let mut ours: HttpClient<Nothing> = HttpClient::new(registry);
    let before = HEAP.current_usage();
    for number in 0..count {
        let mut request = Request::new(Nothing::new());
        *request.uri_mut() = format!("http://service-{number}/").parse::<Uri>()?;
        drop(ours.call(request).await?.into_body().collect().await?);
    }
    settled().await;
    let kept = HEAP.current_usage().saturating_sub(before);
    assert_eq!(ours.services().len(), count, "none has been dropped");
    drop(ours);
    settled().await;
    Ok(each(kept, count))
}

/// All tasks have run that had something to do, on both sides of all connections.
async fn settled() {
    for _ in 0..100_000 {
        yield_now().await;
    }
}

fn each(bytes: usize, count: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).expect("all here is below 4 GiB"));
    number(bytes) / number(count)
}
