//! Counting and logging connections that were refused or ended early.
//!
//! Anybody can make connections fail, so the log lines of that are limited.

use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};
use tracing::{debug, warn};

use crate::exposition::{ConnectionError, Metrics};
use crate::http::log_limiter::LogLimiter;

/// Why a connection was refused or ended early.
#[derive(Debug)]
pub(super) enum ConnectionFailure {
    /// The system gives no more connections.
    NotAccepted(io::Error),
    /// There are too many.
    Refused,
    Handshake(io::Error),
    HandshakeTimeout,
    /// The client was too slow.
    Timeout,
    /// It broke, or what came over it was not HTTP.
    Http(hyper::Error),
}

/// Counts and logs the failures of connections. The span of the connection names the client.
pub(super) struct FailureLog {
    metrics: Arc<Metrics>,
    refusals: LogLimiter,
    handshakes: LogLimiter,
}

// === impl ConnectionFailure ===

impl ConnectionFailure {
    fn reason(&self) -> ConnectionError {
        match self {
            Self::NotAccepted(_) => ConnectionError::Accept,
            Self::Refused => ConnectionError::Limit,
            Self::Handshake(_) => ConnectionError::Handshake,
            Self::HandshakeTimeout | Self::Timeout => ConnectionError::Timeout,
            Self::Http(error) if error.is_parse() => ConnectionError::Protocol,
            // Only bodies of the exporter fail that way.
            Self::Http(error) if error.is_user() => ConnectionError::Cut,
            Self::Http(_) => ConnectionError::Aborted,
        }
    }
}

// === impl FailureLog ===

impl FailureLog {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, refusals: LogLimiter::default(), handshakes: LogLimiter::default() }
    }

    pub(super) fn record(&self, failure: &ConnectionFailure) {
        self.metrics.count_connection_error(failure.reason());
        match failure {
            // Limited by the pause before the next attempt.
            ConnectionFailure::NotAccepted(error) => warn!(%error, "connections cannot be accepted"),
            ConnectionFailure::Refused => {
                if let Some(suppressed) = self.refusals.permit() {
                    warn!(
                        suppressed,
                        "connection refused: too many, see web.max_connections and web.max_connections_per_peer"
                    );
                }
            }
            // Load balancers connect and leave, to see whether somebody listens.
            ConnectionFailure::Handshake(error) if is_disconnect(error) => {
                debug!(%error, "a client disconnected during the TLS handshake");
            }
            ConnectionFailure::Handshake(error) => self.log_handshake(&cause(error)),
            ConnectionFailure::HandshakeTimeout => self.log_handshake("it took too long"),
            ConnectionFailure::Timeout => debug!("a connection was closed: the client was too slow"),
            ConnectionFailure::Http(error) => debug!(%error, "a connection ended early"),
        }
    }

    fn log_handshake(&self, error: &str) {
        if let Some(suppressed) = self.handshakes.permit() {
            warn!(error, suppressed, "TLS handshake failed");
        }
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Why a handshake failed, in our words where those of the TLS library are unclear.
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
