//! The web configuration: TLS, logins and headers of the server.

mod certificate;
mod clients;
mod config;
mod events;
mod follow;
mod load;
mod protocol;
#[cfg(test)]
pub(crate) mod sample;
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

/// A web configuration. The default is that without a file: plain HTTP, open to everybody.
#[derive(Debug, Default)]
pub struct Web {
    /// TLS settings; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Who may log in. If it is empty, no login is required.
    pub users: Users,
    /// Headers of every response. They replace those of the exporter.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

// === impl Web ===

impl Web {
    /// Whether it has TLS or logins.
    pub(crate) fn protects(&self) -> bool {
        self.tls.is_some() || !self.users.is_empty()
    }

    /// Whether clients must log in or show a certificate.
    pub fn authenticates(&self) -> bool {
        !self.users.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.verifies_clients)
    }
}
