//! Certificates, read and examined: what connections are made with.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};

use super::config::{Pem, TlsConfig};
use super::error::TlsError;
use super::identity::Identity;
use crate::http::pool::HttpVersion;

/// What connections are made with.
pub(super) struct Loaded {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    pub(super) identity: Arc<Identity>,
}

/// The settings with their files as they were read.
pub(super) struct Contents {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Contents {
    /// Reads the files.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let read =
            |setting, pem: &Option<Pem>| pem.as_ref().map(|pem| read(setting, pem)).transpose();
        Ok(Self {
            ca: read("ca", &config.ca)?,
            cert: read("cert", &config.cert)?,
            key: read("key", &config.key)?,
        })
    }

    /// Tells one from another, so that none need be kept.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ca, &self.cert, &self.key).hash(&mut hasher);
        hasher.finish()
    }

    /// Examines it all.
    pub(super) fn load(&self, config: &TlsConfig) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = roots(config, self.ca.as_deref())?;
        let key = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(certified(config, cert, key, &provider)?),
            _ => None,
        };
        let identity = Arc::new(Identity::new(key));
        let mut http1 = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("ca", None, error))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(identity.clone());
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Loaded { http1: Arc::new(http1), http2: Arc::new(http2), identity })
    }
}

impl Loaded {
    /// That for a protocol, which it offers and nothing else.
    pub(super) fn config(&self, protocol: HttpVersion) -> Arc<ClientConfig> {
        match protocol {
            HttpVersion::Http1 => self.http1.clone(),
            HttpVersion::Http2 => self.http2.clone(),
        }
    }
}

fn read(setting: &'static str, pem: &Pem) -> Result<Vec<u8>, TlsError> {
    let refuse = |reason: &dyn fmt::Display| TlsError::new(setting, pem.path(), reason);
    let text = match pem {
        Pem::Text(text) => text.clone(),
        Pem::File(path) => std::fs::read(path).map_err(|error| refuse(&error))?,
    };
    if text.is_empty() {
        return Err(refuse(&"is empty"));
    }
    Ok(text)
}

/// Whom to trust. An authority that cannot be used refuses it all: left out in silence, it would be
/// missed when an instance shows what it has signed.
fn roots(config: &TlsConfig, ca: Option<&[u8]>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let (Some(pem), Some(text)) = (&config.ca, ca) {
        for certificate in certificates("ca", pem, text)? {
            roots.add(certificate).map_err(|_| {
                TlsError::new("ca", pem.path(), "holds a PEM block that is no certificate")
            })?;
        }
    }
    if config.system_ca {
        let system = rustls_native_certs::load_native_certs();
        // Among those of a machine there is always one that is too strange to be used.
        let (taken, _) = roots.add_parsable_certificates(system.certs);
        if taken == 0 {
            let why = system.errors.first().map_or_else(String::new, |error| format!(": {error}"));
            let reason = format!("this machine has no authorities{why}");
            return Err(TlsError::new("ca", None, reason));
        }
    }
    if roots.is_empty() {
        return Err(TlsError::new("ca", None, "nobody is trusted: authorities are missing"));
    }
    Ok(roots)
}

fn certified(
    config: &TlsConfig,
    cert: &[u8],
    key: &[u8],
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let (Some(cert_pem), Some(key_pem)) = (&config.cert, &config.key) else {
        return Err(TlsError::new("key", None, "a client certificate needs its key"));
    };
    let chain = certificates("cert", cert_pem, cert)?;
    for certificate in &chain {
        ParsedCertificate::try_from(certificate).map_err(|_| {
            TlsError::new("cert", cert_pem.path(), "holds a PEM block that is no certificate")
        })?;
    }
    let refuse = |reason: &str| TlsError::new("key", key_pem.path(), reason);
    // The parser's own words could quote the file; a key's content is never repeated.
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let encrypted = String::from_utf8_lossy(key).contains("ENCRYPTED");
        refuse(if encrypted {
            "is encrypted; only a key without a passphrase can be used"
        } else {
            "holds no PEM private key"
        })
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            refuse("is not the key of the client certificate")
        }
        _ => refuse("is of a kind that cannot be used"),
    })
}

fn certificates(
    setting: &'static str,
    pem: &Pem,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |reason: &str| TlsError::new(setting, pem.path(), reason);
    // The parser's own words could quote the file, and it may be a key's by mistake.
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|_| refuse("is broken: no proper PEM"))?;
    if found.is_empty() {
        return Err(refuse("holds no PEM certificate"));
    }
    Ok(found)
}
