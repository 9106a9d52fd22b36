//! Which request asks for what.

use std::str::FromStr as _;

use discovery_core::{Invalid, ServiceName};
use http::Uri;
use http::uri::PathAndQuery;

/// What a path asks for.
#[derive(Debug)]
pub(super) enum Route {
    /// `/send/SERVICE/REST`: to be forwarded as this.
    Forward(ServiceName, PathAndQuery),
    /// `/send/…` with a name that no service can have.
    BadService(Invalid),
    /// `/send`.
    SendAll,
    /// `/services`.
    Services,
    /// `/healthz`.
    Health,
    /// `/metrics`.
    Metrics,
    /// Anything else.
    Unknown,
}

impl Route {
    pub(super) fn of(uri: &Uri) -> Self {
        match uri.path() {
            "/send" => Self::SendAll,
            "/services" => Self::Services,
            "/healthz" => Self::Health,
            "/metrics" => Self::Metrics,
            path => match path.strip_prefix("/send/") {
                Some(target) if !target.is_empty() => Self::forward(target, uri.query()),
                _ => Self::Unknown,
            },
        }
    }

    fn forward(target: &str, query: Option<&str>) -> Self {
        let (service, rest) = match target.split_once('/') {
            Some((service, rest)) => (service, rest),
            None => (target, ""),
        };
        let service = match ServiceName::new(service) {
            Ok(service) => service,
            Err(error) => return Self::BadService(error),
        };
        let path = match query {
            Some(query) => format!("/{rest}?{query}"),
            None => format!("/{rest}"),
        };
        // A part of a valid path and a valid query are valid.
        PathAndQuery::from_str(&path).map_or(Self::Unknown, |path| Self::Forward(service, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(uri: &str) -> Option<(String, String)> {
        match Route::of(&uri.parse().unwrap()) {
            Route::Forward(service, path) => Some((service.to_string(), path.to_string())),
            _ => None,
        }
    }

    #[test]
    fn the_rest_of_the_path_and_the_query_are_kept_as_they_are() {
        for (uri, path) in [
            ("/send/orders", "/"),
            ("/send/orders/", "/"),
            ("/send/orders?a=1", "/?a=1"),
            ("/send/orders/a/b%2Fc/?x=%20&y", "/a/b%2Fc/?x=%20&y"),
            ("/send/orders//a", "//a"),
            ("/send/orders/?", "/?"),
            ("http://gateway:3000/send/orders/a", "/a"),
        ] {
            assert_eq!(forwarded(uri), Some(("orders".into(), path.into())), "{uri}");
        }
    }

    #[test]
    fn the_other_routes() {
        let route = |uri: &str| Route::of(&uri.parse().unwrap());
        assert!(matches!(route("/send"), Route::SendAll));
        assert!(matches!(route("/send?x"), Route::SendAll));
        assert!(matches!(route("/services"), Route::Services));
        assert!(matches!(route("/healthz"), Route::Health));
        assert!(matches!(route("/metrics"), Route::Metrics));
        for uri in ["/", "/send/", "/sendx", "/services/x", "*"] {
            assert!(matches!(route(uri), Route::Unknown), "{uri}");
        }
        for uri in ["/send/a%20b", "/send/a:b/c", "/send//x"] {
            assert!(matches!(route(uri), Route::BadService(_)), "{uri}");
        }
    }
}
