//! The headers of what is forwarded, both ways.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Those that speak of one connection and not of the message (RFC 9110, section 7.6.1, and what
/// earlier ones had among them).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Drops what speaks of one connection, and what `connection` says does.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        named.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // It overrides a length that stands beside it.
        headers.remove(CONTENT_LENGTH);
    }
    // Whoever names these asks for a message that cannot be understood.
    named.retain(|name| *name != HOST && *name != CONTENT_LENGTH);
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Makes the headers of a request those of one that is forwarded for `client`, who asked `host`.
/// The `host` to be asked now is for the balancer to set.
pub(super) fn forward(headers: &mut HeaderMap, client: IpAddr, host: Option<&str>) {
    drop_hop_by_hop(headers);
    headers.remove(HOST);
    // We have met it by reading the body.
    headers.remove(EXPECT);
    let client = client.to_canonical();
    extend(headers, X_FORWARDED_FOR, &client.to_string());
    let host = host.filter(|host| !host.is_empty());
    extend(headers, FORWARDED, &forwarded(client, host));
    match host.map(HeaderValue::from_str) {
        Some(Ok(host)) => headers.insert(X_FORWARDED_HOST, host),
        // Not what a client says of itself.
        _ => headers.remove(X_FORWARDED_HOST),
    };
}

/// One element of `forwarded` (RFC 7239).
fn forwarded(client: IpAddr, host: Option<&str>) -> String {
    let mut element = match client {
        IpAddr::V4(client) => format!("for={client}"),
        IpAddr::V6(client) => format!("for=\"[{client}]\""),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]%".contains(c);
    if let Some(host) = host.filter(|host| host.chars().all(plain)) {
        element.push_str(";host=\"");
        element.push_str(host);
        element.push('"');
    }
    element.push_str(";proto=http");
    element
}

/// Adds an element to a header that is a list.
fn extend(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let mut list = Vec::new();
    if let Entry::Occupied(values) = headers.entry(&name) {
        for value in values.iter() {
            list.extend_from_slice(value.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(element.as_bytes());
    // Made of what were header values.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn what_speaks_of_the_connection_is_dropped() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "websocket"),
            ("x-kept", "1"),
        ]);
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-kept", "1")]));
        let mut headers = map(&[("connection", "content-length"), ("content-length", "5")]);
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "5")]));
    }

    #[test]
    fn the_client_and_its_host_are_told() {
        let mut headers = map(&[("host", "a.example:3000"), ("x-forwarded-host", "lie")]);
        forward(&mut headers, CLIENT, Some("a.example:3000"));
        let expected = map(&[
            ("x-forwarded-for", "192.0.2.7"),
            ("forwarded", "for=192.0.2.7;host=\"a.example:3000\";proto=http"),
            ("x-forwarded-host", "a.example:3000"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_others_told_before_is_extended() {
        let mut headers = map(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
        ]);
        forward(&mut headers, "2001:db8::1".parse().unwrap(), None);
        let expected = map(&[
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 2001:db8::1"),
            ("forwarded", "for=10.0.0.1, for=\"[2001:db8::1]\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_host_that_would_break_out_of_its_quotes_is_left_out() {
        assert_eq!(forwarded(CLIENT, Some("a\";for=b")), "for=192.0.2.7;proto=http");
    }
}
