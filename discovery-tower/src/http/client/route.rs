//! Which service a request is for: what its URI says.

use ::http::Uri;
use ::http::uri::Scheme;
use discovery_core::{Address, Instance, InstanceId, ServiceName};

use super::error::ClientError;

/// The authority of a URI that can be served: `http`, and somewhere to go.
pub(super) fn authority(uri: &Uri) -> Result<&str, ClientError> {
    let Some(authority) = uri.authority() else {
        return Err(ClientError::NoHost { uri: uri.to_string().into() });
    };
    let host = || authority.host().into();
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => {}
        Some(scheme) => {
            return Err(ClientError::Scheme { scheme: scheme.as_str().into(), host: host() });
        }
        None => return Err(ClientError::Scheme { scheme: "".into(), host: host() }),
    }
    if authority.as_str().contains('@') {
        // Nothing is done with what stands before the @, and it may be a secret.
        return Err(ClientError::UserInfo { host: host() });
    }
    Ok(authority.as_str())
}

/// The service of that name.
pub(super) fn service(authority: &str) -> Result<ServiceName, ClientError> {
    // In an address of IPv6 there are colons, too.
    if let Some((host, port)) = authority.rsplit_once(':')
        && !port.ends_with(']')
    {
        return Err(ClientError::Port { host: host.into(), port: port.into() });
    }
    Ok(ServiceName::new(authority)?)
}

/// An ordinary host, as the one instance of a service.
pub(super) fn host(authority: &str) -> Result<Instance, ClientError> {
    let address = Address::new(format!("http://{authority}"))?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let name: String = address.host().chars().map(plain).collect();
    Ok(Instance::new(ServiceName::new(name)?, InstanceId::new(authority)?, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(uri: &str) -> Result<String, String> {
        let uri: Uri = uri.parse().unwrap();
        let service = authority(&uri).and_then(service).map_err(|error| error.to_string())?;
        Ok(service.to_string())
    }

    #[test]
    fn the_host_is_the_name_of_the_service_as_it_is_written() {
        assert_eq!(route("http://orders/v1/7?a=b").unwrap(), "orders");
        assert_eq!(route("http://orders").unwrap(), "orders");
        assert_eq!(route("HTTP://Orders.v1-a_b/").unwrap(), "Orders.v1-a_b");
    }

    #[test]
    fn what_is_no_name_is_refused_and_named() {
        for (uri, error) in [
            ("/v1/7", "no service is named: the URI /v1/7 has no host"),
            ("*", "no service is named: the URI * has no host"),
            ("https://orders/", "https:// is not supported, only http://, for orders"),
            ("ftp://orders/", "ftp:// is not supported, only http://, for orders"),
            ("orders:80", "without http:// before it, orders names no service"),
            ("http://orders:8080/", "a service has no port: 8080 after orders"),
            ("http://orders:/", "a service has no port: after orders"),
            ("http://[::1]:80/", "a service has no port: 80 after [::1]"),
            ("http://me:secret@orders/", "no user or password is sent to orders"),
        ] {
            assert_eq!(route(uri).unwrap_err(), error, "{uri}");
        }
        let error = route("http://a!b/").unwrap_err();
        assert!(error.starts_with(r#"service name "a!b": only letters"#), "{error}");
        let error = route("http://[::1]/").unwrap_err();
        assert!(error.starts_with(r#"service name "[::1]": only letters"#), "{error}");
        let long = format!("http://{}/", "x".repeat(254));
        assert!(route(&long).unwrap_err().ends_with("longer than 253 bytes"));
    }

    #[test]
    fn a_host_is_a_service_of_one_instance() {
        let key = |authority| host(authority).unwrap().key().to_string();
        assert_eq!(key("example.com"), "example.com/example.com");
        assert_eq!(key("127.0.0.1:80"), "127.0.0.1/127.0.0.1:80");
        assert_eq!(key("[::1]:80"), "__1/[::1]:80");
        assert_eq!(host("[::1]:81").unwrap().address.as_str(), "http://[::1]:81");
        for bad in ["a:0", "a:x", ":80", "a:99999"] {
            assert!(matches!(host(bad), Err(ClientError::Invalid(_))), "{bad}");
        }
    }
}
