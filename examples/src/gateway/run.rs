//! The life of the gateway.

use std::sync::Arc;

use discovery_core::Source;
use discovery_tower::balance::Limits;
use discovery_tower::http::pool::PooledMaker;
use tokio::net::TcpListener;

use super::GatewayOptions;
use super::catalog::Catalog;
use super::demo::Demo;
use super::handler::Handler;
use super::library;
use super::metrics::Metrics;
use super::service::Reach;
use crate::fault::Fault;
use crate::last_good;
use crate::output;
use crate::program::Program;
use crate::server::{self, Server};
use crate::shutdown::Signals;

impl Program for GatewayOptions {
    fn workers(&self) -> Option<usize> {
        self.workers.map(usize::from)
    }

    async fn run(self) -> Result<(), Fault> {
        let mut signals = Signals::new()
            .map_err(|error| Fault::failed(format!("cannot wait for signals: {error}")))?;
        self.check()?;
        library::record();
        let etcd = if self.demo {
            None
        } else {
            let registry = self.etcd.registry(|config| config.suspects_for(self.suspect_s))?;
            Some(last_good::kept(registry.source(), self.last_good.as_deref(), &self.etcd)?)
        };
        let (listener, bound) = server::bind("--listen", &self.listen).await?;
        self.warn_of_what_has_no_effect();
        let demo = if self.demo { Some(Demo::start().await?) } else { None };
        let source: Option<Arc<dyn Source>> = etcd.or_else(|| demo.as_ref().map(Demo::source));
        let Some(source) = source else { return Err(Fault::failed("no source")) };

        let server = serve(&source, listener, &self)?;
        tracing::info!(address = %bound, policy = self.policy.name(), "listening");
        if demo.is_some() {
            Demo::hints(bound);
        }
        // A closed stdout is no reason not to serve.
        let _ = output::line(&format!("listening address=http://{bound}"));

        let signal = signals.next().await;
        tracing::info!(signal, "stopping: finishing what is in flight");
        signals.or_again(server.finish()).await;
        Ok(())
    }
}

/// Starts a gateway to the services of `source`, with those of `options` that are about requests.
///
/// # Errors
/// None that data can cause.
pub fn serve(
    source: &dyn Source,
    listener: TcpListener,
    options: &GatewayOptions,
) -> Result<Server, Fault> {
    let metrics = Metrics::new().map_err(|error| Fault::failed(error.to_string()))?;
    let metrics = Arc::new(metrics);
    let reach = Reach {
        maker: PooledMaker::new(),
        policy: options.policy,
        limits: Limits::default(),
        retries: options.retries,
    };
    let catalog = Catalog::follow(source.watch_all(), reach, metrics.clone());
    let handler = Arc::new(Handler { catalog, metrics, timeout: options.timeout() });
    Ok(Server::start(listener, move |request| {
        let handler = handler.clone();
        async move { handler.answer(request).await }
    }))
}
