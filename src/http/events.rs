//! What is said and counted of connections.
//!
//! Anybody can make connections fail, so what is said of that is bounded; what is not said is
//! counted and said later.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};
use tracing::{debug, warn};

use crate::exposition::{ConnectionError, Metrics};

/// The most lines of a kind in any [`WINDOW`].
const LINES: u32 = 100;

/// For how long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// Says and counts what happens to connections.
pub(crate) struct Events {
    metrics: Arc<Metrics>,
    refusals: Mutex<Lines>,
    handshakes: Mutex<Lines>,
}

/// How many lines of one kind there were lately.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    began: Option<Instant>,
    said: u32,
    unsaid: u64,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, refusals: Mutex::default(), handshakes: Mutex::default() }
    }

    /// A connection was closed at once: there are too many.
    pub(crate) fn refused(&self, peer: SocketAddr) {
        self.metrics.count_connection_error(ConnectionError::Limit);
        if let Some(unsaid) = may_say(&self.refusals) {
            warn!(%peer, unsaid, "connection refused: there are too many, see web.max_connections");
        }
    }

    /// No connection can be accepted now.
    pub(crate) fn not_accepted(&self, error: &io::Error) {
        self.metrics.count_connection_error(ConnectionError::Accept);
        // It is tried again after a pause, which bounds this.
        warn!(%error, "connections cannot be accepted");
    }

    /// A client did not get in.
    pub(crate) fn handshake_failed(&self, peer: SocketAddr, error: &io::Error) {
        self.metrics.count_connection_error(ConnectionError::Handshake);
        // Load balancers connect and go, to see whether somebody listens.
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            debug!(%peer, %error, "a client went away during the TLS handshake");
        } else if let Some(unsaid) = may_say(&self.handshakes) {
            warn!(%peer, error = cause(error), unsaid, "TLS handshake failed");
        }
    }

    /// A client did not get through the handshake in time.
    pub(crate) fn handshake_late(&self, peer: SocketAddr) {
        self.metrics.count_connection_error(ConnectionError::Timeout);
        if let Some(unsaid) = may_say(&self.handshakes) {
            warn!(%peer, error = "it took too long", unsaid, "TLS handshake failed");
        }
    }

    /// A connection did not get further in time.
    pub(crate) fn late(&self, peer: SocketAddr) {
        self.metrics.count_connection_error(ConnectionError::Timeout);
        debug!(%peer, "a connection was closed: it did not get further in time");
    }

    /// A connection broke, or what came over it was not HTTP.
    pub(crate) fn broke(&self, peer: SocketAddr, error: &hyper::Error) {
        let kind = if error.is_parse() {
            ConnectionError::Protocol
        } else if error.is_user() {
            // Only our own bodies fail.
            ConnectionError::Cut
        } else {
            ConnectionError::Aborted
        };
        self.metrics.count_connection_error(kind);
        debug!(%peer, %error, "a connection ended early");
    }
}

/// Why a handshake failed. What the TLS library has no telling words for is said in ours.
fn cause(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            "the certificate of the client names nobody in client_allowed_sans".to_owned()
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => "the client does not speak TLS".to_owned(),
        Some(Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)) => {
            "the client speaks only versions of TLS that are too old".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether a line may be written, and how many were not since the last one.
fn may_say(lines: &Mutex<Lines>) -> Option<u64> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now())
}

// === impl Lines ===

impl Lines {
    /// Whether a line may be written `now`, and how many were not since the last one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.said) = (Some(now), 0);
        }
        if self.said == LINES {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_in_a_while_and_the_rest_is_counted() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let said = |lines: &mut Lines, after: u64, tries: usize| -> Vec<u64> {
            (0..tries).filter_map(|_| lines.next(start + Duration::from_secs(after))).collect()
        };
        assert_eq!(said(&mut lines, 0, 100), [0; 100]);
        assert!(said(&mut lines, 9, 3).is_empty());
        assert_eq!(said(&mut lines, 10, 2), [3, 0]);
    }
}
