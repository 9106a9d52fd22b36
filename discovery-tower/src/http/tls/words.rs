//! What goes wrong between us and an instance, in plain words.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::http::pool::HttpVersion;

/// Says why there is no TLS. `without` is whether a client certificate was asked for, and there is none.
pub(super) fn words(error: &io::Error, protocol: HttpVersion, without: bool) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(bad)) => certificate(bad),
        Some(Error::AlertReceived(alert)) => refused(*alert, protocol, without),
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => "the instance does not speak TLS".to_owned(),
        Some(Error::PeerIncompatible(_)) => {
            "the instance speaks no version of TLS that is safe".to_owned()
        }
        Some(other) => format!("TLS: {other}"),
        None if is_end(error) && without => WITHOUT.to_owned(),
        None if is_end(error) => {
            "the connection was closed at the beginning of TLS, which the instance may not speak"
                .to_owned()
        }
        None => error.kind().to_string(),
    }
}

const WITHOUT: &str = "the instance asks for a client certificate, and there is none";

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn certificate(bad: &CertificateError) -> String {
    match bad {
        CertificateError::UnknownIssuer => {
            "the certificate is signed by an authority that is not trusted".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut text = format!("certificate not valid for name {}", shown(expected));
            for (i, name) in presented.iter().take(3).enumerate() {
                text.push_str(if i == 0 { ", only for " } else { ", " });
                text.push_str(&plain(name));
            }
            text
        }
        CertificateError::NotValidForName => "certificate not valid for this name".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        other => format!("the certificate: {other}"),
    }
}

fn shown(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

/// Out of `DnsName("a")` or `IpAddress(127.0.0.1)`, the name. It comes from the instance.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let name = inner.unwrap_or(name).trim_matches('"');
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

/// What the instance says against us.
fn refused(alert: AlertDescription, protocol: HttpVersion, without: bool) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => {
            let name = match protocol {
                HttpVersion::Http1 => "HTTP/1.1",
                HttpVersion::Http2 => "HTTP/2",
            };
            format!("the instance does not speak {name} over TLS")
        }
        Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate if without => {
            WITHOUT.to_owned()
        }
        Alert::CertificateRequired => "the instance asks for a client certificate".to_owned(),
        Alert::UnknownCA => {
            "the instance does not trust who signed the client certificate".to_owned()
        }
        Alert::CertificateExpired => {
            "the instance says that the client certificate has expired".to_owned()
        }
        Alert::CertificateRevoked => {
            "the instance says that the client certificate is revoked".to_owned()
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => {
            format!("the instance does not accept the client certificate: {alert:?}")
        }
        Alert::UnrecognisedName => "the instance is not known by this name".to_owned(),
        Alert::ProtocolVersion => "the instance speaks another version of TLS".to_owned(),
        _ => format!("the instance refuses TLS: {alert:?}"),
    }
}
