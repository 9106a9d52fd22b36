//! A server with TLS, whose certificate and terms can be changed while it runs.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use discovery_test_support::{Authority, Certificate};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// On what terms a server speaks TLS.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) certificate: Certificate,
    /// Whose clients alone are served.
    pub(crate) clients: Option<String>,
    pub(crate) alpn: &'static [&'static str],
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    /// Whether clients are told that they are welcome.
    pub(crate) tickets: bool,
}

impl Terms {
    pub(crate) fn new(certificate: Certificate) -> Self {
        let alpn = &["h2", "http/1.1"];
        Self { certificate, clients: None, alpn, versions: rustls::ALL_VERSIONS, tickets: true }
    }

    pub(crate) fn for_clients_of(self, authority: &Authority) -> Self {
        Self { clients: Some(authority.pem()), ..self }
    }

    fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.certificate.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        if !self.tickets {
            config.send_tls13_tickets = 0;
        }
        config
    }
}

/// Answers with version, URI and body.
pub(crate) struct Secure {
    pub(crate) address: String,
    config: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    handshakes: Arc<AtomicUsize>,
}

impl Secure {
    pub(crate) async fn start(terms: &Terms) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: format!("https://{}", listener.local_addr().unwrap()),
            config: Arc::new(Mutex::new(Some(Arc::new(terms.config())))),
            handshakes: Arc::default(),
        };
        let (config, handshakes) = (server.config.clone(), server.handshakes.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let config = config.lock().unwrap().clone();
                let handshakes = handshakes.clone();
                tokio::spawn(async move {
                    let answer = service_fn(answer);
                    let Some(config) = config else {
                        let _ = http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), answer)
                            .await;
                        return;
                    };
                    let Ok(stream) = TlsAcceptor::from(config).accept(socket).await else { return };
                    handshakes.fetch_add(1, Ordering::SeqCst);
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let io = TokioIo::new(stream);
                    if is_http2 {
                        let serve = http2::Builder::new(TokioExecutor::new());
                        let _ = serve.serve_connection(io, answer).await;
                    } else {
                        let serve = http1::Builder::new();
                        let _ = serve.serve_connection(io, answer).with_upgrades().await;
                    }
                });
            }
        });
        server
    }

    /// For connections from now on; `None` is without TLS.
    pub(crate) fn turn_to(&self, terms: Option<&Terms>) {
        *self.config.lock().unwrap() = terms.map(|terms| Arc::new(terms.config()));
    }

    /// How many connections came so far as to carry requests.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    pub(crate) fn authority(&self) -> &str {
        self.address.strip_prefix("https://").unwrap()
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(&mut io);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let switching = Response::builder().status(101).header("upgrade", "echo");
        return Ok(switching.header("connection", "upgrade").body(Full::default()).unwrap());
    }
    let (version, uri) = (request.version(), request.uri().clone());
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    let connection = Response::builder();
    let text = format!("{version:?} {uri} body={body}");
    Ok(connection.body(Full::from(text)).unwrap())
}
