//! An instance as requests need it: what to write in their heads.

use ::http::header::{HOST, HeaderValue};
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{Method, Request, Uri, Version};
use discovery_core::{Address, InstanceKey};

use super::error::HttpErrorKind;

/// Which instance a response came from: an extension of the response.
///
/// Of endpoints whose keys are of another type, it is such a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServedBy<K = InstanceKey>(pub K);

/// Asks a response which instance it came from, as the other kinds of responses and the errors of a
/// balancer are asked.
///
/// ```
/// use discovery_tower::http::{FromEndpoint as _, ServedBy};
///
/// let mut response = http::Response::new(());
/// assert_eq!(response.endpoint(), None);
/// let key = discovery_core::Instance::parse("orders", "7", "http://10.0.0.7:80")?.key();
/// response.extensions_mut().insert(ServedBy(key.clone()));
/// assert_eq!(response.endpoint(), Some(&key));
/// # Ok::<(), discovery_core::Invalid>(())
/// ```
pub trait FromEndpoint {
    /// The instance, if the response tells.
    fn endpoint(&self) -> Option<&InstanceKey>;
}

impl<B> FromEndpoint for ::http::Response<B> {
    fn endpoint(&self) -> Option<&InstanceKey> {
        self.extensions().get::<ServedBy>().map(|ServedBy(key)| key)
    }
}

/// Who is to read the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// hyper-util's client, which finds out of the URI where to connect.
    Client,
    /// A server of HTTP/1.1, at the other end of a connection.
    Http1,
    /// A server of HTTP/2.
    Http2,
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) key: InstanceKey,
    pub(super) address: Address,
    place: Result<Place, String>,
}

#[derive(Debug)]
struct Place {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
}

impl Target {
    pub(super) fn new(key: InstanceKey, address: Address) -> Self {
        let place = Place::of(&address);
        Self { key, address, place }
    }

    /// What to say of an address with a scheme that is not served.
    pub(super) fn unsupported(&self) -> String {
        format!("addresses with {}:// are not supported here", self.address.scheme())
    }

    /// Turns a request to a path, wherever it was addressed to, into one to this instance.
    pub(super) fn direct<B>(
        &self,
        request: &mut Request<B>,
        form: Form,
    ) -> Result<(), (HttpErrorKind, String)> {
        if request.method() == Method::CONNECT {
            let cause = "CONNECT asks for no path of an instance";
            return Err((HttpErrorKind::Request, cause.to_owned()));
        }
        let unsupported = |cause: &String| (HttpErrorKind::Unsupported, cause.clone());
        let place = self.place.as_ref().map_err(unsupported)?;
        let path = request.uri().path_and_query().cloned();
        let mut uri = ::http::uri::Parts::default();
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if form != Form::Http1 {
            uri.scheme = Some(place.scheme.clone());
            uri.authority = Some(place.authority.clone());
        }
        *request.uri_mut() =
            Uri::from_parts(uri).map_err(|e| (HttpErrorKind::Request, format!("the URI: {e}")))?;
        if form == Form::Http2 {
            // The authority says it, and must not be contradicted.
            request.headers_mut().remove(HOST);
            *request.version_mut() = Version::HTTP_2;
        } else {
            request.headers_mut().insert(HOST, place.host.clone());
            *request.version_mut() = Version::HTTP_11;
        }
        Ok(())
    }
}

impl Place {
    fn of(address: &Address) -> Result<Self, String> {
        let scheme = if address.scheme().ends_with('s') { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(address.authority()).map_err(|e| e.to_string())?;
        let host = HeaderValue::from_str(address.authority()).map_err(|e| e.to_string())?;
        Ok(Self { scheme, authority, host })
    }
}
