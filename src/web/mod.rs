//! Who may ask, and over what: the web configuration in force.

mod users;

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};

pub use users::{PasswordHash, Users};

use crate::toggle::Timestamp;

/// The web configuration in force. The default is that of no web configuration file: plain HTTP,
/// open to everybody.
#[derive(Debug, Default)]
pub struct Web {
    /// How connections are encrypted; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Who may log in; empty for everybody without a login.
    pub users: Users,
    /// Headers that every answer carries. They replace those of the exporter.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// How connections are encrypted.
#[derive(Debug)]
pub struct Tls {
    /// For handshakes.
    pub server: Arc<rustls::ServerConfig>,
    /// When the first of the certificates that are shown expires.
    pub expiry: Timestamp,
    /// Whether only clients with a certificate of the configured authorities get in.
    pub verifies_clients: bool,
}

// === impl Web ===

impl Web {
    /// Whether only those get in who prove who they are.
    pub fn authenticates(&self) -> bool {
        !self.users.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.verifies_clients)
    }
}
