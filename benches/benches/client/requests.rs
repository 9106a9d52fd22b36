//! Requests by the name of a service beside hyper-util's client and one fixed address.

use bytes::Bytes;
use discovery_benches::{Report, Row, Side, Turns, is_measuring};
use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::http::HttpClient;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;
use tower::Service;

use crate::calls::of_tasks;
use crate::server::{Servers, Speaking};
use crate::{Outcome, runtime};

const ROUNDS: usize = 100;

pub(crate) type Nothing = Empty<Bytes>;

pub(crate) fn run() -> Outcome<Report> {
    let servers = Servers::start(1, Speaking::Http1)?;
    let address = servers.addresses[0];
    let registry = MemoryRegistry::new();
    registry.insert(Instance::parse("orders", "1", &format!("http://{address}"))?);
    let ours = HttpClient::new(registry);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let peer = Client::builder(TokioExecutor::new()).build(connector);
    let by_name: Uri = "http://orders/v1/7".parse()?;
    let by_address: Uri = format!("http://{address}/v1/7").parse()?;

    let mut report = Report::new("HTTP/1.1, a request", "ours", "hyper-util");
    let runtime = runtime()?;
    for (tasks, requests) in [(1, 100), (64, 640)] {
        let requests = if is_measuring() { requests } else { tasks };
        let turns = Turns::take(
            ROUNDS,
            [
                side(&runtime, tasks, requests, ours.clone(), by_name.clone()),
                side(&runtime, tasks, requests, peer.clone(), by_address.clone()),
            ],
        );
        let what = format!("{tasks:>2} tasks: by name / by address");
        report.add(Row::times(what, &turns.pairs(0, 1), Some(1.15)));
    }
    Ok(report)
}

fn side<S, B>(runtime: &Runtime, tasks: u32, requests: u32, client: S, uri: Uri) -> Side<'_>
where
    S: Service<Request<Nothing>, Response = Response<B>, Error: std::error::Error + 'static>,
    S: Clone + Send + 'static,
    B: hyper::body::Body<Error: std::error::Error + 'static> + Unpin,
{
    Box::new(move || {
        let caller = || (client.clone(), uri.clone());
        let call = async |(client, uri): &mut (S, Uri)| request(client, uri).await;
        let took = runtime.block_on(of_tasks(tasks, requests, caller, call));
        took.expect("all are answered")
    })
}

async fn request<S, B>(client: &mut S, uri: &Uri) -> Outcome<()>
where
    S: Service<Request<Nothing>, Response = Response<B>, Error: std::error::Error + 'static>,
    B: hyper::body::Body<Error: std::error::Error + 'static> + Unpin,
{
    std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
    let response = client.call(get(uri.clone())).await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// A request for this.
pub(crate) fn get(uri: Uri) -> Request<Nothing> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    request
}
