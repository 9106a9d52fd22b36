//! Which address is advertised, on machines of the test's own.

use std::collections::HashMap;
use std::io;

use super::*;

/// A machine with these routes, interfaces and variables.
#[derive(Default)]
struct Fake {
    v4: Option<&'static str>,
    v6: Option<&'static str>,
    interfaces: Vec<(&'static str, &'static str, bool)>,
    variables: HashMap<&'static str, &'static str>,
}

impl Network for Fake {
    fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let interface = |(name, ip, up): &(&str, &str, bool)| Interface {
            name: (*name).into(),
            ip: ip.parse().unwrap(),
            up: *up,
        };
        Ok(self.interfaces.iter().map(interface).collect())
    }

    fn source(&self, peer: SocketAddr) -> io::Result<IpAddr> {
        let route = if peer.is_ipv4() { self.v4 } else { self.v6 };
        route.map(|ip| ip.parse().unwrap()).ok_or(io::ErrorKind::NetworkUnreachable.into())
    }

    fn variable(&self, name: &str) -> Result<String, &'static str> {
        self.variables.get(name).map(|value| (*value).into()).ok_or("is not set")
    }
}

fn machine() -> Fake {
    Fake {
        v4: Some("10.0.0.7"),
        v6: Some("2001:db8::7"),
        interfaces: vec![
            ("lo", "127.0.0.1", true),
            ("eth0", "10.0.0.7", true),
            ("lo", "::1", true),
            ("eth0", "fe80::7", true),
            ("eth0", "2001:db8::7", true),
            ("eth1", "fe80::8", true),
            ("eth2", "10.0.2.7", false),
        ],
        variables: HashMap::from([
            ("NAME", "orders-7.internal"),
            ("IP", "10.0.0.9"),
            ("IP6", "2001:db8::9"),
            ("WITH_PORT", "orders-7:81"),
            ("WITH_PORT6", "[2001:db8::9]:81"),
            ("URL", "https://orders-7.internal"),
            ("EMPTY", ""),
            ("BAD", "a b"),
        ]),
    }
}

fn at(machine: &Fake, advertise: &Advertise, bound: &str) -> Result<String, String> {
    let address = advertise.resolve_on(machine, "grpc", bound.parse().unwrap());
    address.map(|address| address.to_string()).map_err(|error| error.to_string())
}

#[test]
fn by_default_it_is_the_bound_address_or_the_one_that_leads_outside() {
    let machine = machine();
    for (bound, wanted) in [
        ("127.0.0.1:80", "grpc://127.0.0.1:80"),
        ("10.0.2.7:80", "grpc://10.0.2.7:80"),
        ("[2001:db8::7]:80", "grpc://[2001:db8::7]:80"),
        ("0.0.0.0:80", "grpc://10.0.0.7:80"),
        ("[::]:80", "grpc://[2001:db8::7]:80"),
    ] {
        assert_eq!(at(&machine, &Advertise::default(), bound).as_deref(), Ok(wanted), "{bound}");
    }
}

#[test]
fn without_a_route_outside_it_is_the_first_address_that_others_can_reach() {
    let all = machine().interfaces;
    let default = Advertise::default();
    for (v4, v6, interfaces, bound, wanted) in [
        (None, None, all.clone(), "0.0.0.0:80", "grpc://10.0.0.7:80"),
        (None, None, all.clone(), "[::]:80", "grpc://[2001:db8::7]:80"),
        // A route that leads to ourselves or to nobody is none.
        (Some("127.0.0.1"), None, all.clone(), "0.0.0.0:80", "grpc://10.0.0.7:80"),
        (Some("0.0.0.0"), None, all, "0.0.0.0:80", "grpc://10.0.0.7:80"),
        // Who is bound to both families is reached by the one that there is.
        (Some("10.0.0.7"), None, vec![], "[::]:80", "grpc://10.0.0.7:80"),
        (None, None, vec![("eth0", "10.0.0.8", true)], "[::]:80", "grpc://10.0.0.8:80"),
    ] {
        let machine = Fake { v4, v6, interfaces, ..Fake::default() };
        assert_eq!(at(&machine, &default, bound).as_deref(), Ok(wanted), "{bound}");
    }
    for interfaces in [
        vec![],
        vec![("lo", "127.0.0.1", true)],
        vec![("eth0", "169.254.0.7", true)],
        vec![("eth0", "10.0.0.7", false)],
        vec![("eth0", "2001:db8::7", true)],
    ] {
        let machine = Fake { interfaces, v6: Some("2001:db8::7"), ..Fake::default() };
        let error = at(&machine, &default, "0.0.0.0:80").unwrap_err();
        assert!(error.contains("0.0.0.0") && error.contains("what to advertise"), "{error}");
    }
}

#[test]
fn what_is_said_is_completed_with_the_scheme_and_the_bound_port() {
    let machine = machine();
    let address = |text: &str| Advertise::address(text.parse().unwrap());
    for (advertise, wanted) in [
        (address("https://a.b"), "https://a.b"),
        (address("a.b:81"), "http://a.b:81"),
        (Advertise::host("orders-7.internal"), "grpc://orders-7.internal:80"),
        (Advertise::host("orders-7:81"), "grpc://orders-7:81"),
        (Advertise::host("10.0.0.9"), "grpc://10.0.0.9:80"),
        (Advertise::host("2001:db8::9"), "grpc://[2001:db8::9]:80"),
        (Advertise::host("[2001:db8::9]"), "grpc://[2001:db8::9]:80"),
        (Advertise::interface("eth0"), "grpc://10.0.0.7:80"),
        (Advertise::interface("lo"), "grpc://127.0.0.1:80"),
        (Advertise::interface("eth2"), "grpc://10.0.2.7:80"),
        (Advertise::env("NAME"), "grpc://orders-7.internal:80"),
        (Advertise::env("IP"), "grpc://10.0.0.9:80"),
        (Advertise::env("IP6"), "grpc://[2001:db8::9]:80"),
        (Advertise::env("WITH_PORT"), "grpc://orders-7:81"),
        (Advertise::env("WITH_PORT6"), "grpc://[2001:db8::9]:81"),
        (Advertise::env("URL"), "https://orders-7.internal"),
    ] {
        assert_eq!(at(&machine, &advertise, "0.0.0.0:80").as_deref(), Ok(wanted));
    }
    let eth0 = Advertise::interface("eth0");
    assert_eq!(at(&machine, &eth0, "[::]:80").as_deref(), Ok("grpc://[2001:db8::7]:80"));
}

#[test]
fn what_cannot_be_advertised_is_named() {
    let machine = machine();
    for (advertise, parts) in [
        (Advertise::host(""), ["advertised host \"\"", "host is missing"]),
        (Advertise::host("a/b"), ["advertised host \"a/b\"", "path"]),
        (Advertise::host("a:0"), ["advertised host \"a:0\"", "1 to 65535"]),
        (Advertise::host("10.0.0.256"), ["advertised host \"10.0.0.256\"", "IPv4"]),
        (Advertise::interface("eth9"), ["network interface \"eth9\"", "but eth0, eth1, eth2, lo"]),
        (Advertise::interface("eth1"), ["network interface \"eth1\"", "no address"]),
        (Advertise::env("NONE"), ["environment variable \"NONE\"", "is not set"]),
        (Advertise::env("EMPTY"), ["environment variable \"EMPTY=\"", "host is missing"]),
        (Advertise::env("BAD"), ["environment variable \"BAD=a b\"", "white space"]),
    ] {
        let error = at(&machine, &advertise, "0.0.0.0:80").unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn this_machine_answers() {
    let names: Vec<_> = Machine.interfaces().unwrap().into_iter().map(|i| (i.ip, i.up)).collect();
    assert!(names.contains(&(Ipv4Addr::LOCALHOST.into(), true)), "{names:?}");
    let source = Machine.source("127.0.0.1:9".parse().unwrap()).unwrap();
    assert_eq!(source, Ipv4Addr::LOCALHOST);
    for bad in ["", "A=B", "A\0B", "DISCOVERY_TEST_NO_SUCH_VARIABLE"] {
        assert!(Machine.variable(bad).is_err(), "{bad:?}");
    }
    assert!(Machine.variable("PATH").is_ok());
}
