//! From a client that was never used until the first byte of a body, beside a connection made by hand.

use std::time::Instant;

use discovery_benches::{Report, Row, Turns};
use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::http::HttpClient;
use http::header::HOST;
use http::{HeaderValue, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service as _;

use crate::requests::get;
use crate::server::{Servers, Speaking};
use crate::{Outcome, runtime};

const ROUNDS: usize = 1_000;

pub(crate) fn run() -> Outcome<Report> {
    let servers = Servers::start(1, Speaking::Http1)?;
    let address = servers.addresses[0];
    let registry = MemoryRegistry::new();
    registry.insert(Instance::parse("orders", "1", &format!("http://{address}"))?);
    let by_name: Uri = "http://orders/v1/7".parse()?;
    let path: Uri = "/v1/7".parse()?;
    let host: HeaderValue = address.to_string().parse()?;
    let runtime = runtime()?;

    let ours = async || {
        let start = Instant::now();
        let mut client = HttpClient::new(registry.clone());
        let response = client.call(get(by_name.clone())).await?;
        let byte = response.into_body().frame().await.transpose()?;
        let took = start.elapsed().as_secs_f64();
        assert!(byte.is_some(), "there is a body");
        Outcome::Ok(took)
    };
    let by_hand = async || {
        let start = Instant::now();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = get(path.clone());
        request.headers_mut().insert(HOST, host.clone());
        let response = sender.send_request(request).await?;
        let byte = response.into_body().frame().await.transpose()?;
        let took = start.elapsed().as_secs_f64();
        assert!(byte.is_some(), "there is a body");
        Outcome::Ok(took)
    };
    let turns = Turns::take(
        ROUNDS,
        [
            Box::new(|| runtime.block_on(ours()).expect("it is answered")),
            Box::new(|| runtime.block_on(by_hand()).expect("it is answered")),
        ],
    );
    let mut report = Report::new("First use of a service", "ours", "by hand");
    report.add(Row::times(
        "discover, connect, first byte / connect, first byte",
        &turns.pairs(0, 1),
        Some(2.0),
    ));
    Ok(report)
}
