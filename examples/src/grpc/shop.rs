//! What the service does: nothing that has to do with discovery.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::orders::orders_server::Orders;
use super::orders::{GetRequest, ListRequest, Order, Placed};

/// Has an order of every number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shop;

type Answers = Pin<Box<dyn Stream<Item = Result<Order, Status>> + Send>>;

fn order(number: u64) -> Order {
    Order { number, item: format!("item {number}") }
}

#[tonic::async_trait]
impl Orders for Shop {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Order>, Status> {
        Ok(Response::new(order(request.get_ref().number)))
    }

    async fn place(&self, request: Request<Streaming<Order>>) -> Result<Response<Placed>, Status> {
        let orders = request.into_inner();
        let count = orders.try_fold(0, |count, _| async move { Ok(count + 1) }).await?;
        Ok(Response::new(Placed { count }))
    }

    type ListStream = Answers;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Answers>, Status> {
        let ListRequest { from, count } = *request.get_ref();
        let last = if count == 0 { u64::MAX } else { from.saturating_add(count) };
        Ok(Response::new(stream::iter(from..last).map(|number| Ok(order(number))).boxed()))
    }

    type FollowStream = Answers;

    async fn follow(
        &self,
        request: Request<Streaming<Order>>,
    ) -> Result<Response<Answers>, Status> {
        let orders = request.into_inner();
        Ok(Response::new(orders.map_ok(|asked| order(asked.number)).boxed()))
    }
}
