//! PostgreSQL, which several exporters share: where it is, and connections to it.
//!
//! The forms of a URL and the meaning of its parameters are those of libpq. Passwords exist only here: no error, no
//! `Debug` and no `Display` of this module contains one.

mod check;
mod connector;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use check::{DatabaseCheckError, DatabaseInfo, check};
pub use connector::{ConnectError, Connection, Connector};
pub use settings::{DatabaseSettings, UrlSource};
pub use tls::TlsStream;
pub use url::{DatabasePassword, DatabaseUrl, SslMode};

/// The schema of all tables, which the exporter makes itself.
pub const SCHEMA: &str = "cekura_exporter";

/// The variable that holds the URL of the database.
pub const URL_VARIABLE: &str = "CEKURA_DATABASE_URL";
