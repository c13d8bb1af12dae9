//! Why a request failed: the [`Reason`] of an error, by the types of its sources.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use hyper_util::client::legacy::connect::HttpInfo;

use crate::resolve::ResolveError;
use crate::toggle::{Failure, Reason, Redactions, Text};

/// The failure of a request without a complete response.
pub(super) fn of(error: &reqwest::Error, hidden: &Redactions) -> Failure {
    Failure::new(reason_of(error)).with_detail(describe(error, hidden))
}

fn reason_of(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        Reason::Timeout
    } else if has::<ResolveError>(error) {
        Reason::Dns
    } else if has::<rustls::Error>(error) {
        Reason::Tls
    } else if error.is_connect() {
        connect_reason(error)
    } else {
        Reason::Aborted
    }
}

/// A connection that breaks during a handshake was established, so it is aborted. Any other error means that
/// it never was. The innermost IO error decides, because the outer ones wrap it.
fn connect_reason(error: &reqwest::Error) -> Reason {
    let kind = chain(error).filter_map(|e| e.downcast_ref::<io::Error>()).last().map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::TimedOut) => Reason::Timeout,
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Reason::Aborted
        }
        _ => Reason::Connect,
    }
}

/// The detail of a failure with status 407.
pub(super) const PROXY_WANTS_A_LOGIN: &str =
    "the proxy wants a login, or another one (HTTP 407): the proxy variable has user:password and an @ before the host";

/// The local address of the connection, if it was closed or reset before the head of a response was complete;
/// `None` for any other error.
pub(super) fn reset_connection(error: &reqwest::Error) -> Option<SocketAddr> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let io = || chain(error).filter_map(|e| e.downcast_ref::<io::Error>()).last();
    let closed =
        || chain(error).filter_map(|e| e.downcast_ref::<hyper::Error>()).any(hyper::Error::is_incomplete_message);
    let reset =
        || io().is_some_and(|io| matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof));
    if !error.is_request() || error.is_connect() || error.is_timeout() || !(closed() || reset()) {
        return None;
    }
    let failed = chain(error).find_map(|e| e.downcast_ref::<hyper_util::client::legacy::Error>())?;
    let mut of_connection = hyper::http::Extensions::new();
    failed.connect_info()?.get_extras(&mut of_connection);
    of_connection.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// The message of the innermost error. The outer ones repeat the URL or say "error sending request".
fn describe(error: &reqwest::Error, hidden: &Redactions) -> Text {
    if let Some(advice) = chain(error).filter_map(|e| e.downcast_ref::<rustls::Error>()).find_map(advice) {
        return Text::own(advice);
    }
    let mut innermost = chain(error).last().map_or_else(String::new, ToString::to_string);
    // Errors of a tunnel through a proxy have no public type.
    match innermost.as_str() {
        "tunnel error: proxy authorization required" => PROXY_WANTS_A_LOGIN.clone_into(&mut innermost),
        text if text.contains("CaUsedAsEndEntity") => {
            "the server's certificate is its own authority: name it in ca_file, if it is the right one"
                .clone_into(&mut innermost);
        }
        "tunnel error: unsuccessful" => "the proxy refuses to connect there".clone_into(&mut innermost),
        _ => {}
    }
    Text::clean(&innermost, hidden)
}

/// What to do about an error of TLS whose own words do not say it.
fn advice(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidMessage(_) => {
            Some("the server does not speak TLS there: check the port of base_url, and whether it is http or https")
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("the issuer of the server's certificate is unknown: name it in ca_file, if it is the right one")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Some("the server's certificate has expired, if the clock of this machine is right")
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            Some("the server's certificate is not valid yet, if the clock of this machine is right")
        }
        _ => None,
    }
}

fn has<E: Error + 'static>(error: &reqwest::Error) -> bool {
    chain(error).any(<dyn Error>::is::<E>)
}

/// The sources of an error, outermost first. `source` of an `io::Error` skips the error that it wraps, so that
/// is taken with `get_ref`.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| source(*error))
}

fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
