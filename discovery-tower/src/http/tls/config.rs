//! What TLS is told: whom to trust, who we are, and which name to expect.

use std::fmt;
use std::path::{Path, PathBuf};

/// Whom to trust, who we are, and which name to expect. [`Tls`](super::Tls) is made of it.
///
/// Somebody has to be trusted: give [`ca`](Self::ca), [`ca_file`](Self::ca_file) or
/// [`system_ca`](Self::system_ca). Certificates and keys are PEM.
#[derive(Clone, Default)]
pub struct TlsConfig {
    pub(super) ca: Option<Pem>,
    pub(super) system_ca: bool,
    pub(super) cert: Option<Pem>,
    pub(super) key: Option<Pem>,
    pub(super) server_name: Option<String>,
}

/// Where a PEM text is.
#[derive(Clone)]
pub(super) enum Pem {
    Text(Vec<u8>),
    File(PathBuf),
}

impl TlsConfig {
    /// Nobody is trusted yet, and there is no client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these authorities: one certificate or several.
    #[must_use]
    pub fn ca(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { ca: Some(Pem::Text(pem.into())), ..self }
    }

    /// Trusts the authorities in this file. It is read again for new connections when it has changed.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca: Some(Pem::File(path.into())), ..self }
    }

    /// Trusts the authorities that this machine does, beside the others: for ordinary hosts.
    #[must_use]
    pub fn system_ca(self) -> Self {
        Self { system_ca: true, ..self }
    }

    /// Shows this certificate, with those that lead from it to an authority, to instances that ask for
    /// one.
    #[must_use]
    pub fn client_certificate(self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (cert, key) = (Some(Pem::Text(cert.into())), Some(Pem::Text(key.into())));
        Self { cert, key, ..self }
    }

    /// The same out of files. They are read again for new connections when they have changed.
    #[must_use]
    pub fn client_certificate_files(
        self,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let (cert, key) = (Some(Pem::File(cert.into())), Some(Pem::File(key.into())));
        Self { cert, key, ..self }
    }

    /// Expects the certificates of all instances to be for this name, in place of the host of each
    /// address: where addresses are IPs, and certificates are for what stands behind them.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    /// Whether any of it is in a file.
    pub(super) fn has_files(&self) -> bool {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().any(|pem| pem.path().is_some())
    }
}

impl Pem {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("ca", &self.ca)
            .field("system_ca", &self.system_ca)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// The path, or that there is a text: never the text.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("PEM"),
            Self::File(path) => path.fmt(f),
        }
    }
}
