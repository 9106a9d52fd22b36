//! Ports that stay ours.
//!
//! A port found free by binding it is taken by somebody else as soon as it is let go, and a test that
//! restarts etcd lets it go on purpose. So a port is claimed by a locked file that all test processes of
//! this machine respect, for as long as the [`Port`] lives; the kernel gives the lock up when its process
//! dies. Ports lie below the range from which the kernel picks the local end of a connection.

use std::{
    env, fs,
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 11_000;
const COUNT: u16 = 21_000;

/// A port on `127.0.0.1` that no other test takes while this lives, whether anyone listens on it or not.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Holds the lock. Never removed: a lock on a removed file would exclude nobody.
    _claim: File,
}

impl Port {
    /// Claims a port on which nobody listens.
    ///
    /// # Panics
    ///
    /// If there is none, or the directory of the claims cannot be used.
    pub fn claim() -> Self {
        let claims = claims_dir();
        let start = RandomState::new().hash_one(0) % u64::from(COUNT);
        let start = u16::try_from(start).expect("a remainder below a u16 is a u16");
        (0..COUNT)
            .map(|step| FIRST + (start + step) % COUNT)
            .find_map(|number| try_claim(&claims, number))
            .unwrap_or_else(|| panic!("no free port, see {}", claims.display()))
    }

    /// The number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The address on loopback.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// One directory for each user: files of another user could not be opened.
fn claims_dir() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    let dir = env::temp_dir().join(format!("discovery-test-ports-{user}"));
    fs::create_dir_all(&dir)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
    dir
}

fn try_claim(claims: &std::path::Path, number: u16) -> Option<Port> {
    let path = claims.join(number.to_string());
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let port = Port { number, _claim: file };
    // Programs that know nothing of the claims may listen all the same.
    is_free(port.addr()).ok().map(|()| port)
}

fn is_free(addr: SocketAddr) -> io::Result<()> {
    TcpListener::bind(addr).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_nobody_elses_until_it_is_given_back() {
        let port = Port::claim();
        let number = port.number();
        assert!(try_claim(&claims_dir(), number).is_none());
        drop(port);
        // Another test process may have been quicker: then it is claimed, which is just as well.
        if let Some(again) = try_claim(&claims_dir(), number) {
            assert_eq!(again.number(), number);
        }
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_given_out() {
        let port = Port::claim();
        let listener = TcpListener::bind(port.addr()).expect("a claimed port is free");
        let number = port.number();
        drop(port);
        assert!(try_claim(&claims_dir(), number).is_none());
        drop(listener);
    }

    #[test]
    fn ports_stay_below_those_of_outgoing_connections() {
        let ports: Vec<_> = (0..50).map(|_| Port::claim()).collect();
        assert!(ports.iter().all(|port| (FIRST..32_768).contains(&port.number())));
    }
}
