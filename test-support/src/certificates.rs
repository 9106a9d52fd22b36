//! Certificates of a test's own: good ones, and all the ways in which one can be bad.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Now, and for longer than any test runs.
    Now,
    /// Not any more.
    Expired,
    /// Not yet.
    Later,
}

/// A certificate and its private key, both as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one, with a key of its own.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[], name, Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, new_key()).expect("the parameters are complete"))
    }

    /// Its own certificate as PEM: what those who trust it are given.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these DNS names and IP addresses, which may be none for a client.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Certificate {
        let key = new_key();
        let cert = params(names, "test", validity).signed_by(&key, &self.0);
        Certificate {
            cert: cert.expect("the parameters are complete").pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes what an etcd with TLS and its clients need into `dir`: `ca.pem`, `server.pem` and
    /// `server-key.pem` for these names, `client.pem` and `client-key.pem`. Returns the client's.
    pub fn furnish(&self, dir: &Path, names: &[&str]) -> Certificate {
        replace_file(&dir.join("ca.pem"), &self.pem());
        let server = self.issue(names, Validity::Now);
        server.save(&dir.join("server.pem"), &dir.join("server-key.pem"));
        let client = self.issue(&[], Validity::Now);
        client.save(&dir.join("client.pem"), &dir.join("client-key.pem"));
        client
    }
}

impl Certificate {
    /// Writes both, each in one step: who reads finds the old file or the new one, never a part.
    pub fn save(&self, cert: &Path, key: &Path) {
        replace_file(cert, &self.cert);
        replace_file(key, &self.key);
    }
}

/// Puts `text` where `path` is in one step.
///
/// # Panics
///
/// If it cannot be written.
pub fn replace_file(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate().expect("there is chance enough")
}

fn params(names: &[&str], common_name: &str, validity: Validity) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("the names are ASCII");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let (from, to) = match validity {
        Validity::Now => (2020, 2120),
        Validity::Expired => (2020, 2021),
        Validity::Later => (2119, 2120),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}
