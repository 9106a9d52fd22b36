//! Certificates, read and examined by us: tonic takes a file of garbage in silence.

use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use crate::config::{ConfigError, EtcdConfig, file, shown};

/// Whether the files named can be used, as far as can be told without a connection.
pub(crate) fn check(config: &EtcdConfig) -> Result<(), ConfigError> {
    load(config).map(|_| ())
}

/// The TLS settings with the files as they are now.
pub(crate) fn load(config: &EtcdConfig) -> Result<ClientTlsConfig, ConfigError> {
    let mut tls = ClientTlsConfig::new();
    tls = match &config.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(authorities(path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        tls = tls.identity(identity(cert, key)?);
    }
    Ok(tls)
}

/// A bundle of authorities. One that cannot be used refuses it all: left out in silence, it would be
/// missed when a server shows what it has signed.
fn authorities(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = read("ca", path)?;
    for certificate in certificates("ca", path, &pem)? {
        anchor_from_trusted_cert(&certificate)
            .map_err(|_| file("ca", path, "holds a PEM block that is no certificate"))?;
    }
    Ok(pem)
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, ConfigError> {
    let pem = read("cert", cert)?;
    // The first is ours, the others lead from it to an authority.
    if let Some(ours) = certificates("cert", cert, &pem)?.first() {
        EndEntityCert::try_from(ours)
            .map_err(|_| file("cert", cert, "holds a PEM block that is no certificate"))?;
    }
    let identity = Identity::from_pem(pem, private_key(key)?);
    // Whether the two belong together is told by whoever has to sign with them.
    let alone = ClientTlsConfig::new().identity(identity.clone());
    if Endpoint::from_static("https://localhost").tls_config(alone).is_err() {
        let reason = format!("cannot be used with the certificate {}", shown(cert));
        return Err(file("key", key, reason));
    }
    Ok(identity)
}

fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    // The parser's own words could quote the file, and it may be a key's by mistake.
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| file(setting, path, "is broken: no proper PEM"))?;
    if found.is_empty() {
        return Err(file(setting, path, "holds no PEM certificate"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = read("key", path)?;
    // The parser's own words could quote the file; a key's content is never repeated.
    if PrivateKeyDer::from_pem_slice(&pem).is_err() {
        let text = String::from_utf8_lossy(&pem);
        let reason = if text.contains("ENCRYPTED") {
            "is encrypted; only a key without a passphrase can be used"
        } else {
            "holds no PEM private key"
        };
        return Err(file("key", path, reason));
    }
    Ok(pem)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let content = std::fs::read(path).map_err(|error| file(setting, path, error))?;
    if content.is_empty() {
        return Err(file(setting, path, "is empty"));
    }
    Ok(content)
}
