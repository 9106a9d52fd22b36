//! Calls of gRPC through a channel by the name of a service, beside tonic's own channel.

use bytes::{Buf as _, BufMut as _, Bytes};
use discovery_benches::{Report, Row, Side, Turns, is_measuring};
use discovery_core::{Instance, MemoryRegistry};
use discovery_tower::grpc;
use http::uri::PathAndQuery;
use tokio::runtime::Runtime;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::calls::of_tasks;
use crate::server::{Servers, Speaking};
use crate::{Outcome, runtime};

const ROUNDS: usize = 60;
const SERVERS: usize = 4;

pub(crate) fn run() -> Outcome<Report> {
    let servers = Servers::start(SERVERS, Speaking::Grpc)?;
    let registry = MemoryRegistry::new();
    let mut endpoints = Vec::new();
    for (number, address) in servers.addresses.iter().enumerate() {
        let instance =
            |service| Instance::parse(service, &number.to_string(), &format!("grpc://{address}"));
        registry.insert(instance("all")?);
        if number == 0 {
            registry.insert(instance("one")?);
        }
        endpoints.push(Endpoint::from_shared(format!("http://{address}"))?);
    }
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let ours = |service: &str| {
        Ok::<_, discovery_core::Invalid>(grpc::Channel::new(&registry, &service.parse()?))
    };
    let (to_one, to_all) = (ours("one")?, ours("all")?);
    let one = endpoints[0].connect_lazy();
    let all = Channel::balance_list(endpoints.into_iter());

    let mut report = Report::new("gRPC, a call", "ours", "tonic");
    for (tasks, calls) in [(1, 100), (64, 640)] {
        let calls = if is_measuring() { calls } else { tasks };
        let turns = Turns::take(
            ROUNDS,
            [
                side(&runtime, tasks, calls, to_one.clone()),
                side(&runtime, tasks, calls, one.clone()),
                side(&runtime, tasks, calls, to_all.clone()),
                side(&runtime, tasks, calls, all.clone()),
            ],
        );
        let mut row = |what, ours, against, goal| {
            let what = format!("{tasks:>2} tasks: {what}");
            report.add(Row::times(what, &turns.pairs(ours, against), Some(goal)));
        };
        row("one server / Channel", 0, 1, 1.1);
        // So many in the same time.
        row("4 servers / Channel::balance_list", 2, 3, 1.0 / 0.95);
    }
    Ok(report)
}

fn side<S>(runtime: &Runtime, tasks: u32, calls: u32, channel: S) -> Side<'_>
where
    S: GrpcService<tonic::body::Body> + Clone + Send + 'static,
    S::ResponseBody: hyper::body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Error: std::error::Error,
{
    Box::new(move || {
        let caller = || Grpc::new(channel.clone());
        let call = async |client: &mut Grpc<S>| {
            client.ready().await.map_err(|error| error.to_string())?;
            let path = PathAndQuery::from_static("/orders.Orders/Get");
            let message = Bytes::from_static(b"a request of some thirty bytes");
            let answer = client.unary(Request::new(message.clone()), path, Plain).await?;
            assert_eq!(answer.into_inner(), message);
            Ok(())
        };
        runtime.block_on(of_tasks(tasks, calls, caller, call)).expect("all are answered")
    })
}

/// Messages are bytes.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
