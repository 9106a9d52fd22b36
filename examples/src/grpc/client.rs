//! Calls of each kind to whoever serves, and who that was.

use std::time::Duration;

use clap::Parser;
use discovery_core::ServiceName;
use discovery_tower::grpc::Channel;
use discovery_tower::http::{FromEndpoint, RetryLayer};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;

use super::orders::orders_client::OrdersClient;
use super::orders::{GetRequest, ListRequest, Order};
use crate::etcd::EtcdOptions;
use crate::fault::Fault;
use crate::output;
use crate::program::Program;

/// Calls the methods of proto/orders.proto at the instances of a service that are alive in etcd.
#[derive(Parser, Clone, Debug)]
#[command(name = "grpc_client", version)]
pub struct ClientOptions {
    /// The service
    #[arg(long, value_name = "NAME", default_value = "orders")]
    pub service: ServiceName,

    /// How many orders are asked for, one after the other
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub calls: u64,

    /// How many milliseconds there are from one call to the next
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub every_ms: u64,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

impl Program for ClientOptions {
    async fn run(self) -> Result<(), Fault> {
        let registry = self.etcd.registry(|config| config)?;
        let channel = Channel::builder(&registry.source(), &self.service)
            .deadline(Duration::from_secs(5))
            .retry(RetryLayer::new(2).repeating(|head| head.uri.path() == "/orders.Orders/Get"))
            .build();
        let mut client = OrdersClient::new(channel);
        self.gets(&mut client).await?;
        for line in [place(&mut client).await, list(&mut client).await, follow(&mut client).await] {
            print(&line.map_err(|status| fault(&status))?)?;
        }
        Ok(())
    }
}

impl ClientOptions {
    /// One answer to one message, many times.
    async fn gets(&self, client: &mut OrdersClient<Channel>) -> Result<(), Fault> {
        let mut failed = 0;
        let mut turn = interval(Duration::from_millis(self.every_ms));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..self.calls {
            turn.tick().await;
            match client.get(GetRequest { number }).await {
                Ok(order) => print(&format!("get number={number} served_by={}", id(&order)))?,
                Err(status) => {
                    failed += 1;
                    tracing::warn!(code = ?status.code(), by = id(&status), "{}", status.message());
                }
            }
        }
        print(&format!("get calls={} failed={failed}", self.calls))
    }
}

/// One answer to many messages.
async fn place(client: &mut OrdersClient<Channel>) -> Result<String, Status> {
    let orders = (0..100).map(|number| Order { number, item: "tea".into() });
    let placed = client.place(stream::iter(orders)).await?;
    Ok(format!("place served_by={} count={}", id(&placed), placed.get_ref().count))
}

/// Many answers to one message.
async fn list(client: &mut OrdersClient<Channel>) -> Result<String, Status> {
    let listed = client.list(ListRequest { from: 7, count: 100 }).await?;
    let by = id(&listed);
    let orders: Vec<Order> = listed.into_inner().try_collect().await?;
    Ok(format!("list served_by={by} count={}", orders.len()))
}

/// Each answer before the next message.
async fn follow(client: &mut OrdersClient<Channel>) -> Result<String, Status> {
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
    let followed = client.follow(said.boxed()).await?;
    let by = id(&followed);
    let mut answers = followed.into_inner();
    let mut count = 0;
    while count < 100 && say.send(Order { number: count, item: "tea".into() }).await.is_ok() {
        let Some(answer) = answers.message().await? else { break };
        count += u64::from(answer.number == count);
    }
    Ok(format!("follow served_by={by} count={count}"))
}

/// Who served, or failed.
fn id(answer: &impl FromEndpoint) -> String {
    answer.endpoint().map_or_else(String::new, |key| key.id.to_string())
}

fn fault(status: &Status) -> Fault {
    Fault::failed(format!("{:?}: {}", status.code(), status.message()))
}

fn print(line: &str) -> Result<(), Fault> {
    output::line(line).map_err(|error| Fault::failed(format!("stdout: {error}")))
}
