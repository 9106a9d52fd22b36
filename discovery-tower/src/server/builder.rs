//! What is registered of a server, and how it goes.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use discovery_core::{
    Health, Instance, InstanceId, InstanceStatus, Invalid, Registrar, ServiceName, Weight, Zone,
};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower::{BoxError, Service};

use super::accept::Acceptor;
use super::advertise::Advertise;
use super::error::{ServerError, Stopped};
use super::http::HttpServer;
use super::lifecycle::Lifecycle;
use super::listener::Listener;
use super::member::Member;
use super::stage::Progress;

/// One instance of a service, to be served and registered: see [`server`](super).
#[derive(Debug)]
#[must_use = "it does nothing until it serves or registers"]
pub struct Server {
    service: ServiceName,
    id: Option<InstanceId>,
    scheme: String,
    advertise: Advertise,
    weight: Weight,
    zone: Option<Zone>,
    metadata: Vec<(String, String)>,
    health: Option<Health>,
    drain: Duration,
    http: HttpServer,
}

impl Server {
    /// An instance of `service`: with an id of its own, reached by `http` at the address that it is bound
    /// to, with weight 1.
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            id: None,
            scheme: "http".into(),
            advertise: Advertise::default(),
            weight: Weight::default(),
            zone: None,
            metadata: Vec::new(),
            health: None,
            drain: Duration::from_millis(500),
            http: HttpServer::new(),
        }
    }

    /// Its id within the service. By default a random one (a UUID), another at each start.
    pub fn id(mut self, id: InstanceId) -> Self {
        self.id = Some(id);
        self
    }

    /// By which scheme it is reached: `http` (the default), `https`, `grpc`, …. Whoever names a whole
    /// address in [`advertise`](Self::advertise) names its scheme there.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Under which address it is registered.
    pub fn advertise(mut self, advertise: Advertise) -> Self {
        self.advertise = advertise;
        self
    }

    /// Its share of the traffic.
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Where it runs.
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// Something else to say of it. The last value of a key counts.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Asks the application every 5 s whether it is well. As long as it says no, or nothing for so long, or
    /// panics, the instance is registered as out of service; until its first answer, as starting.
    pub fn health<F>(self, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.health_every(Health::EVERY, ask)
    }

    /// [`health`](Self::health) at another interval, at least 10 ms.
    pub fn health_every<F>(
        mut self,
        every: Duration,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.health = Some(Health::new(ask).every(every));
        self
    }

    /// How long it goes on serving between saying that it will go and deregistering: as long as its
    /// clients may take to hear of it. 500 ms by default.
    pub fn drain_for(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// How long it waits at the end for the requests that are under way: see
    /// [`HttpServer::finish_within`].
    pub fn finish_within(mut self, time: Duration) -> Self {
        self.http = self.http.finish_within(time);
        self
    }

    /// How long a peer may take for the head of a request: see [`HttpServer::head_within`].
    pub fn head_within(mut self, time: Duration) -> Self {
        self.http = self.http.head_within(time);
        self
    }

    /// Stops in a hurry when `enough` resolves after it began to stop, as for the second Ctrl-C: it no
    /// longer waits for clients to hear of it, nor for requests under way. It still deregisters.
    pub fn hurry_on(mut self, enough: impl Future<Output = ()> + Send + 'static) -> Self {
        self.http = self.http.hurry_on(enough);
        self
    }

    /// Serves the connections of `listener` with `service`, registers with `registry` as soon as it does,
    /// and goes in good order when `shutdown` resolves. The registry may be away: it serves, and
    /// registers when it can.
    ///
    /// `service` is cloned for each request: an `axum::Router`, tonic's `Routes`, a `tower::service_fn`,
    /// or any other service of HTTP requests. HTTP/1 and HTTP/2 without TLS are told apart by their
    /// first bytes. Connections that were upgraded to something else are their handler's to end.
    ///
    /// Not cancel safe: dropped, it cuts off every connection and takes the registration away without
    /// waiting and without certainty.
    ///
    /// # Errors
    /// [`ServerError`]: what it was told cannot be, and nothing was served or registered; or its
    /// registration ended by itself, and it has stopped in good order.
    pub async fn serve<L, S, B>(
        self,
        listener: L,
        registry: impl Registrar,
        service: S,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Stopped, ServerError>
    where
        L: Listener,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let bound = listener.local_addr().map_err(ServerError::Unbound)?;
        let instance = self.instance(bound)?;
        let key = instance.key();
        let Self { health, drain, http, .. } = self;
        let HttpServer { finish_within, head_within, mut patience } = http;
        let progress = Progress::new();
        let mut acceptor = Acceptor::new(listener, service, head_within, &progress);
        let living = async {
            let registration = registry.register(instance);
            let lifecycle = Lifecycle { registration, health, drain, progress };
            lifecycle.run(shutdown, &mut patience).await
        };
        let left = acceptor.accept_while(living).await;
        let cut_off = acceptor.close(finish_within, &mut patience).await;
        tracing::info!(%key, "stopped");
        Ok(Stopped { unconfirmed: left?, cut_off })
    }

    /// For a server that another stack runs: registers it, bound to `bound`, with `registry`. Call it
    /// when the listener is bound: who connects before it is served waits.
    ///
    /// ```no_run
    /// # async fn run(router: axum::Router, shutdown: impl Future<Output = ()> + Send + 'static)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// # let registry = discovery_core::MemoryRegistry::new();
    /// use discovery_tower::Server;
    ///
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    /// let member = Server::new("orders".parse()?).register(listener.local_addr()?, &registry)?;
    /// let router = router.layer(member.layer());
    /// let (leave, left) = member.leave_on(shutdown);
    /// axum::serve(listener, router).with_graceful_shutdown(leave).await?;
    /// left.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is about connections has no effect there: [`finish_within`](Self::finish_within) and
    /// [`head_within`](Self::head_within).
    ///
    /// # Errors
    /// [`Invalid`]: what it was told cannot be; nothing was registered.
    pub fn register(self, bound: SocketAddr, registry: impl Registrar) -> Result<Member, Invalid> {
        let registration = registry.register(self.instance(bound)?);
        let Self { health, drain, http, .. } = self;
        let lifecycle = Lifecycle { registration, health, drain, progress: Progress::new() };
        Ok(Member::new(lifecycle, http.patience))
    }

    /// What is registered at first.
    fn instance(&self, bound: SocketAddr) -> Result<Instance, Invalid> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => InstanceId::new(uuid::Uuid::new_v4().to_string())?,
        };
        let address = self.advertise.resolve(&self.scheme, bound)?;
        let mut instance = Instance::new(self.service.clone(), id, address);
        instance.weight = self.weight;
        instance.zone.clone_from(&self.zone);
        instance.metadata.extend(self.metadata.iter().cloned());
        if self.health.is_some() {
            instance.status = InstanceStatus::Starting;
        }
        Ok(instance)
    }
}
