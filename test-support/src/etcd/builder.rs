//! What an etcd can be told before it starts, and how it gets ports that it keeps.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Etcd, Jwt, Place, StartError, Tls};
use crate::Version;

/// Other programs may take a port between the look at it and etcd's bind.
const ATTEMPTS: usize = 10;

/// An [`Etcd`] that is yet to be started.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    pub(super) version: Version,
    pub(super) flags: Vec<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) tls: Option<Tls>,
    pub(super) jwt: Option<Jwt>,
}

impl Builder {
    pub(super) const fn new(version: Version) -> Self {
        Self { version, flags: Vec::new(), data_dir: None, tls: None, jwt: None }
    }

    /// Any flag of etcd's: `flag("auth-token-ttl", 3)`.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.push(format!("--{name}={}", value.to_string()));
        self
    }

    /// How many bytes the store may take before it refuses writes.
    pub fn quota(self, bytes: u64) -> Self {
        self.flag("quota-backend-bytes", bytes)
    }

    /// How often a leader says that it is there and how long it is missed before the others elect a new
    /// one, both in ms; etcd's own are 100 and 1000. The shortest lease is one and a half times the latter.
    pub fn timing(self, heartbeat: u64, election: u64) -> Self {
        self.flag("heartbeat-interval", heartbeat).flag("election-timeout", election)
    }

    /// Keeps the data in this directory instead of one of its own, and leaves it there in the end.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Serves clients over TLS on a second port, with this certificate and key in PEM files. With
    /// `client_ca` it wants a certificate from clients too. The first port stays without TLS.
    pub fn tls(mut self, cert: &Path, key: &Path, client_ca: Option<&Path>) -> Self {
        self.tls = Some(Tls {
            cert: cert.to_path_buf(),
            key: key.to_path_buf(),
            client_ca: client_ca.map(Path::to_path_buf),
        });
        self
    }

    /// Gives out JSON web tokens, signed with a key of its own by ES256, that are good for so long, in
    /// whole seconds. etcd takes a token for outdated after every change of users and roles.
    pub fn jwt(mut self, ttl: Duration) -> Self {
        self.jwt = Some(Jwt::new(ttl));
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    ///
    /// If it does not come to serve within 30 s by [`slack`](crate::slack), with the end of its log.
    pub async fn start(self) -> Etcd {
        self.start_members(1).await.pop().expect("one member was asked for")
    }

    pub(crate) const fn has_own_data(&self) -> bool {
        self.data_dir.is_none()
    }

    /// Starts so many members of one cluster and waits until all serve.
    pub(crate) async fn start_members(self, count: usize) -> Vec<Etcd> {
        let mut attempt = 1;
        'again: loop {
            let places: Vec<_> =
                (0..count).map(|number| Place::claim(number, self.tls.is_some())).collect();
            let peers = places.iter().map(Place::as_peer).collect::<Vec<_>>().join(",");
            let members: Vec<_> = places
                .into_iter()
                .map(|place| Etcd::at(place, self.clone(), peers.clone()))
                .collect();
            for member in &members {
                member.spawn();
            }
            for member in &members {
                match member.serving().await {
                    Ok(()) => {}
                    Err(StartError::PortTaken) if attempt < ATTEMPTS => {
                        attempt += 1;
                        continue 'again;
                    }
                    Err(error) => panic!("{member:?}: {error}"),
                }
            }
            return members;
        }
    }
}
