//! From a failed request to its [`Reason`], by the types of the errors below it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use hyper_util::client::legacy::connect::HttpInfo;

use super::resolve::ResolveError;
use crate::toggle::{Failure, Hidden, Reason, Text};

/// Why a request brought no complete answer.
pub(super) fn failure_of(error: &reqwest::Error, hidden: &Hidden) -> Failure {
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

/// While connecting, a connection that was up and broke is a lost one; all else was never up. The
/// innermost IO error tells: outer ones only wrap it.
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

/// What a proxy's status 407 says.
pub(super) const PROXY_WANTS_A_LOGIN: &str =
    "the proxy wants a login, or another one (HTTP 407): the proxy variable has user:password and an @ before the host";

/// The end here of the connection that was closed or reset before the head of an answer was whole; `None` for
/// any other error.
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

/// What the innermost error says: the outer ones repeat the URL or say "error sending request".
fn describe(error: &reqwest::Error, hidden: &Hidden) -> Text {
    let mut innermost = chain(error).last().map_or_else(String::new, ToString::to_string);
    // What a tunnel through a proxy fails with has no public type.
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

fn has<E: Error + 'static>(error: &reqwest::Error) -> bool {
    chain(error).any(<dyn Error>::is::<E>)
}

/// The error and all below it. An `io::Error` that wraps another error hides it from `source`, so
/// the wrapped one is looked into here.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| below(*error))
}

fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
