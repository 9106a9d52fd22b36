//! Which service a request is for: what its URI says.

use std::borrow::Cow;

use ::http::Uri;
use ::http::uri::Scheme;
use discovery_core::{Address, Instance, InstanceId, ServiceName};

use super::error::ClientError;

/// Where a request is to go, as its URI says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub(super) authority: &'a str,
    /// Whether it must not go there but over TLS.
    pub(super) secure: bool,
}

impl<'a> Route<'a> {
    /// Of a URI that can be served: `http`, or `https` where there is TLS, and somewhere to go.
    pub(super) fn of(uri: &'a Uri, tls: bool) -> Result<Self, ClientError> {
        let Some(authority) = uri.authority() else {
            return Err(ClientError::NoHost { uri: uri.to_string().into() });
        };
        let host = || authority.host().into();
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS && tls => true,
            Some(scheme) => {
                return Err(ClientError::Scheme { scheme: scheme.as_str().into(), host: host() });
            }
            None => return Err(ClientError::Scheme { scheme: "".into(), host: host() }),
        };
        if authority.as_str().contains('@') {
            // Nothing is done with what stands before the @, and it may be a secret.
            return Err(ClientError::UserInfo { host: host() });
        }
        Ok(Self { authority: authority.as_str(), secure })
    }

    /// By what its balancer is known: the authority, and that it is `https`. So the instances of a
    /// service that are reached over TLS are a service of their own for requests that need that.
    pub(super) fn key(&self) -> Cow<'a, str> {
        if self.secure {
            format!("{SECURE}{}", self.authority).into()
        } else {
            self.authority.into()
        }
    }

    /// The service.
    pub(super) fn service(&self) -> Result<ServiceName, ClientError> {
        // In an address of IPv6 there are colons, too.
        if let Some((host, port)) = self.authority.rsplit_once(':')
            && !port.ends_with(']')
        {
            return Err(ClientError::Port { host: host.into(), port: port.into() });
        }
        Ok(ServiceName::new(self.authority)?)
    }

    /// An ordinary host, as the one instance of a service.
    pub(super) fn host(&self) -> Result<Instance, ClientError> {
        let scheme = if self.secure { SECURE } else { "http://" };
        let address = Address::new(format!("{scheme}{}", self.authority))?;
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let name: String = address.host().chars().map(plain).collect();
        Ok(Instance::new(ServiceName::new(name)?, InstanceId::new(self.authority)?, address))
    }
}

const SECURE: &str = "https://";

/// The service of a balancer that is known by this.
pub(super) fn service_of(key: &str) -> Option<ServiceName> {
    ServiceName::new(key.strip_prefix(SECURE).unwrap_or(key)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(uri: &str) -> Result<String, String> {
        let uri: Uri = uri.parse().unwrap();
        let service = Route::of(&uri, false).and_then(|route| route.service());
        Ok(service.map_err(|error| error.to_string())?.to_string())
    }

    fn secure(uri: &str) -> String {
        let uri: Uri = uri.parse().unwrap();
        Route::of(&uri, true).unwrap().key().into_owned()
    }

    fn host(authority: &str) -> Result<Instance, ClientError> {
        Route { authority, secure: false }.host()
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
            ("https://orders/", "https:// needs TLS, which this client does not have, for orders"),
            ("ftp://orders/", "ftp:// is not supported, only http:// and https://, for orders"),
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
    fn what_needs_tls_is_kept_apart() {
        assert_eq!(secure("https://orders/v1"), "https://orders");
        assert_eq!(secure("http://orders/v1"), "orders");
        assert_eq!(service_of("https://orders"), service_of("orders"));
        let host = Route { authority: "[::1]:81", secure: true }.host().unwrap();
        assert_eq!(host.address.as_str(), "https://[::1]:81");
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
