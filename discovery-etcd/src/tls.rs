//! Certificates, read and examined by us: tonic takes a file of garbage in silence.

use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::{ConfigError, EtcdConfig, file};

/// Whether the files named can be used, as far as can be told without a connection.
pub(crate) fn check(config: &EtcdConfig) -> Result<(), ConfigError> {
    load(config).map(|_| ())
}

/// The TLS settings with the files as they are now.
pub(crate) fn load(config: &EtcdConfig) -> Result<ClientTlsConfig, ConfigError> {
    let mut tls = ClientTlsConfig::new();
    tls = match &config.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(certificates("ca", path)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        let cert = certificates("cert", cert)?;
        tls = tls.identity(Identity::from_pem(cert, private_key(key)?));
    }
    Ok(tls)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = read(setting, path)?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| file(setting, path, error))?;
        // A certificate is a DER sequence; anything else would only be found out when connecting.
        if certificate.first() != Some(&0x30) || certificate.len() < 64 {
            return Err(file(setting, path, "holds a PEM block that is no certificate"));
        }
        found += 1;
    }
    if found == 0 {
        return Err(file(setting, path, "holds no PEM certificate"));
    }
    Ok(pem)
}

fn private_key(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = read("key", path)?;
    // The parser's own words could quote the file; a key's content is never repeated.
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| file("key", path, "holds no PEM private key"))?;
    Ok(pem)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| file(setting, path, error))
}
