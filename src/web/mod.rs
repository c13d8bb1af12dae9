//! Who may ask, and over what: the web configuration in force.

mod certificate;
mod clients;
mod config;
mod events;
mod follow;
mod load;
mod protocol;
#[cfg(test)]
mod sample;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls;
mod users;

use hyper::header::{HeaderName, HeaderValue};

pub use events::configuration_warning;
pub use follow::{WebChecks, WebFollower};
pub use load::WebFile;
pub use tls::Tls;
pub use users::{PasswordHash, Users};

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

// === impl Web ===

impl Web {
    /// Whether it encrypts, or asks who somebody is.
    pub(crate) fn protects(&self) -> bool {
        self.tls.is_some() || !self.users.is_empty()
    }

    /// Whether only those get in who prove who they are.
    pub fn authenticates(&self) -> bool {
        !self.users.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.verifies_clients)
    }
}
