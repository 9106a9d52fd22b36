//! Under which address others reach a server: seldom the one that it is bound to.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use discovery_core::{Address, Invalid};

/// Which address is registered. By default it is the one that the server is bound to; if that is every
/// address of the machine (`0.0.0.0` or `::`), the one by which the machine reaches others.
///
/// Where a host is said without a port, it is the one that the server is bound to, and the scheme is the
/// server's. A whole address stays as it is: without a port, it has its scheme's usual one.
#[derive(Clone, Debug, Default)]
pub struct Advertise(How);

#[derive(Clone, Debug, Default)]
enum How {
    #[default]
    Bound,
    Address(Address),
    Host(String),
    Interface(String),
    Env(String),
}

impl Advertise {
    /// Exactly this address.
    pub fn address(address: Address) -> Self {
        Self(How::Address(address))
    }

    /// This host: a name, an IP address, or either with a port.
    pub fn host(host: impl Into<String>) -> Self {
        Self(How::Host(host.into()))
    }

    /// The address of this network interface, such as `eth0`.
    pub fn interface(name: impl Into<String>) -> Self {
        Self(How::Interface(name.into()))
    }

    /// What this environment variable says: a host, a host and a port, or a whole address such as
    /// `https://orders.internal:8443`.
    pub fn env(variable: impl Into<String>) -> Self {
        Self(How::Env(variable.into()))
    }

    /// The address to register of a server that is bound to `bound`, on this machine and now.
    ///
    /// # Errors
    /// [`Invalid`] names the thing that cannot be advertised, and its value.
    pub fn resolve(&self, scheme: &str, bound: SocketAddr) -> Result<Address, Invalid> {
        self.resolve_on(&Machine, scheme, bound)
    }

    fn resolve_on(
        &self,
        machine: &impl Network,
        scheme: &str,
        bound: SocketAddr,
    ) -> Result<Address, Invalid> {
        let at = |ip| Address::from_socket(scheme, SocketAddr::new(ip, bound.port()));
        match &self.0 {
            How::Bound if !bound.ip().is_unspecified() => at(bound.ip()),
            How::Bound => at(outward(machine, bound.ip())?),
            How::Address(address) => Ok(address.clone()),
            How::Host(host) => read(host, scheme, bound.port())
                .map_err(|error| Invalid::new("advertised host", host, error.reason().to_owned())),
            How::Interface(name) => at(of_interface(machine, name, bound.ip())?),
            How::Env(variable) => {
                let bad = |value: &str, reason: String| {
                    Invalid::new("environment variable", format!("{variable}{value}"), reason)
                };
                let value = machine.variable(variable).map_err(|reason| bad("", reason.into()))?;
                read(&value, scheme, bound.port())
                    .map_err(|error| bad(&format!("={value}"), error.reason().to_owned()))
            }
        }
    }
}

/// An address of a network interface.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    ip: IpAddr,
    up: bool,
}

/// What is asked of the machine.
trait Network {
    fn interfaces(&self) -> std::io::Result<Vec<Interface>>;
    /// The address from which the machine would send to `peer`.
    fn source(&self, peer: SocketAddr) -> std::io::Result<IpAddr>;
    fn variable(&self, name: &str) -> Result<String, &'static str>;
}

struct Machine;

impl Network for Machine {
    fn interfaces(&self) -> std::io::Result<Vec<Interface>> {
        let all = if_addrs::get_if_addrs()?;
        let interface = |found: if_addrs::Interface| Interface {
            ip: found.ip(),
            up: found.is_oper_up(),
            name: found.name,
        };
        Ok(all.into_iter().map(interface).collect())
    }

    fn source(&self, peer: SocketAddr) -> std::io::Result<IpAddr> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // To connect such a socket chooses a route and sends nothing.
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(peer)?;
        Ok(socket.local_addr()?.ip())
    }

    fn variable(&self, name: &str) -> Result<String, &'static str> {
        // Others than these are a panic of the standard library's, or nobody's name.
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err("is not a name that a variable can have");
        }
        match env::var(name) {
            Ok(value) => Ok(value),
            Err(env::VarError::NotPresent) => Err("is not set"),
            Err(env::VarError::NotUnicode(_)) => Err("is not text"),
        }
    }
}

/// Addresses that stand for all others (of the ranges kept for documentation, so that they are nobody's).
const ELSEWHERE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The address by which the machine reaches others, of a server that is bound to all of them.
fn outward(machine: &impl Network, bound: IpAddr) -> Result<IpAddr, Invalid> {
    let v4 = SocketAddr::new(ELSEWHERE.0.into(), 9);
    let v6 = SocketAddr::new(ELSEWHERE.1.into(), 9);
    // Who is bound to `::` is reached by IPv4 too where the system does not say otherwise.
    let peers = if bound.is_ipv4() { vec![v4] } else { vec![v6, v4] };
    let mut routed = peers.into_iter().filter_map(|peer| machine.source(peer).ok());
    if let Some(ip) = routed.find(|ip| reachable(*ip)) {
        return Ok(ip);
    }
    let interfaces = machine.interfaces().unwrap_or_default();
    let up = interfaces.iter().filter(|interface| interface.up).map(|interface| interface.ip);
    prefer(&up.filter(|ip| reachable(*ip)).collect::<Vec<_>>(), bound).ok_or_else(|| {
        Invalid::new(
            "bound address",
            bound.to_string(),
            "no other machine can connect to that, and this one has no address of its own; \
             say what to advertise",
        )
    })
}

fn of_interface(machine: &impl Network, name: &str, bound: IpAddr) -> Result<IpAddr, Invalid> {
    let bad = |reason: String| Invalid::new("network interface", name, reason);
    let all = machine
        .interfaces()
        .map_err(|error| bad(format!("the system does not tell its interfaces: {error}")))?;
    let named: Vec<_> = all.iter().filter(|interface| interface.name == name).collect();
    if named.is_empty() {
        let mut names: Vec<_> = all.iter().map(|interface| interface.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        return Err(bad(format!("there is none of that name, but {}", names.join(", "))));
    }
    // Named, it may be the loopback too.
    let ips = named.iter().map(|interface| interface.ip);
    prefer(&ips.filter(|ip| !is_link_local(*ip)).collect::<Vec<_>>(), bound)
        .ok_or_else(|| bad("it has no address that can be advertised".into()))
}

/// The first of the same family as the one that is bound. Who is bound to IPv4 is reached by that alone.
fn prefer(ips: &[IpAddr], bound: IpAddr) -> Option<IpAddr> {
    let dual = bound == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let same = ips.iter().find(|ip| ip.is_ipv4() == bound.is_ipv4());
    same.or_else(|| ips.first().filter(|_| dual)).copied()
}

/// Whether others can reach it there.
fn reachable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !is_link_local(ip)
}

/// Such an address means nothing without the interface, which an address cannot name.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Reads a host, a host and a port, or a whole address.
fn read(text: &str, scheme: &str, port: u16) -> Result<Address, Invalid> {
    if text.contains("://") || text.starts_with("unix:") {
        return Address::new(text);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Address::from_socket(scheme, SocketAddr::new(ip, port));
    }
    let has_port = match text.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => text.contains(':'),
    };
    let port = if has_port { String::new() } else { format!(":{port}") };
    Address::new(format!("{scheme}://{text}{port}"))
}

#[cfg(test)]
#[path = "advertise_tests.rs"]
mod tests;
