//! Connections to the database: to the first of its servers that takes writes.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode as Encryption, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Socket};

use super::settings::{Access, DatabaseSettings};
use super::tls::{HandshakeError, Handshakes, TlsStream};
use super::url::{ChannelBindingMode, DatabaseServer, Host, SessionTarget, SslMode};
use crate::resolve::SystemResolver;
use crate::threads::{BlockingTask, Thread};
use crate::toggle::{Redactions, Text};

/// A connection, which does something only while it is polled.
pub type Connection = tokio_postgres::Connection<Socket, TlsStream>;

/// Connects to the database. Clones are the same.
#[derive(Clone)]
pub struct Connector {
    settings: Arc<DatabaseSettings>,
    resolver: SystemResolver,
    files: Arc<Mutex<PendingRead>>,
}

/// The read of the files that is under way, at most one: on a volume that hangs, each would keep a thread.
type PendingRead = Option<BlockingTask<Result<Access, String>>>;

/// Why there is no connection: which server, or which file, and what is wrong with it. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError(String);

/// An attempt that failed.
struct Attempt {
    what: String,
    /// Whether something answered. Then other addresses of the same host are not tried.
    was_answered: bool,
}

/// The oldest version of PostgreSQL that is used.
const MIN_VERSION: u32 = 13;

/// When and how often a peer that says nothing is asked whether it is there. It is given up after eleven seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long what was sent may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

// === impl Connector ===

impl Connector {
    /// Connects as the configuration says.
    pub fn new(settings: DatabaseSettings) -> Self {
        Self { settings: Arc::new(settings), resolver: SystemResolver::default(), files: Arc::default() }
    }

    /// The settings.
    pub fn settings(&self) -> &DatabaseSettings {
        &self.settings
    }

    /// Reads the files of the configuration, and connects to the first server that is of use. Each address has five
    /// seconds, or `connect_timeout` of the URL, and so have the files.
    ///
    /// # Errors
    /// What is wrong with each server.
    pub async fn connect(&self) -> Result<(Client, Connection), ConnectError> {
        let access = self.read_files().await.map_err(ConnectError)?;
        let mut failures = Vec::new();
        for server in &access.url.servers {
            match self.connect_to(server, &access).await {
                Ok(connected) => return Ok(connected),
                Err(failed) => failures.push(format!("{server}: {}", failed.what)),
            }
        }
        Err(ConnectError(failures.join("; ")))
    }

    async fn read_files(&self) -> Result<Access, String> {
        let limit = Duration::from_secs(5);
        let read = async {
            let mut pending = self.files.lock().await;
            if let Some(earlier) = &mut *pending {
                // Its result is dropped, because the files may have changed since.
                let _ = earlier.await;
                *pending = None;
            }
            let thread =
                Thread::start("database-files").map_err(|error| format!("no thread could be started: {error}"))?;
            let settings = self.settings.clone();
            let read = pending.insert(thread.run(move || settings.read())).await;
            *pending = None;
            read.map_err(|panic| format!("reading its files failed: {panic}"))?
        };
        timeout(limit, read).await.unwrap_or_else(|_| Err(format!("reading its files took longer than {limit:?}")))
    }

    /// Connects to a server, at the first of its addresses that answers.
    async fn connect_to(&self, server: &DatabaseServer, access: &Access) -> Result<(Client, Connection), Attempt> {
        let mut last = None;
        for address in self.addresses(server, access.url.connect_timeout).await? {
            match access.connect(server, address).await {
                Err(failed) if !failed.was_answered => last = Some(failed),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| Attempt::unanswered("the host has no address")))
    }

    /// The addresses of a server; `None` as the one of a socket of this machine.
    async fn addresses(&self, server: &DatabaseServer, limit: Duration) -> Result<Vec<Option<IpAddr>>, Attempt> {
        let Host::Tcp(host) = &server.host else { return Ok(vec![None]) };
        if let Ok(address) = host.parse() {
            return Ok(vec![Some(address)]);
        }
        match timeout(limit, self.resolver.look_up(host)).await {
            Ok(Ok(found)) => Ok(found.iter().map(SocketAddr::ip).map(Some).collect()),
            Ok(Err(error)) => Err(Attempt::unanswered(&with_sources(&error))),
            Err(_) => Err(Attempt::unanswered(&format!("the host's name was not resolved within {limit:?}"))),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.settings).finish()
    }
}

// === impl Access ===

impl Access {
    /// Connects to a server at this address.
    async fn connect(&self, server: &DatabaseServer, address: Option<IpAddr>) -> Result<(Client, Connection), Attempt> {
        let encryption = match (&server.host, self.url.ssl_mode) {
            // Nobody else can read there, and servers do not encrypt it.
            (Host::Socket(_), _) | (_, SslMode::Disable) => Encryption::Disable,
            (_, SslMode::Prefer) => Encryption::Prefer,
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => Encryption::Require,
        };
        let limit = self.url.connect_timeout;
        let connecting = async {
            match self.attempt(server, address, encryption).await {
                Err(error) if encryption == Encryption::Prefer && may_work_unencrypted(&error) => {
                    self.attempt(server, address, Encryption::Disable).await
                }
                connected => connected,
            }
        };
        let (client, connection) = match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| self.failed(&error))?,
            Err(_) => return Err(Attempt::unanswered(&format!("it did not answer within {limit:?}"))),
        };
        match connection.parameter("server_version").and_then(major_version) {
            Some(version) if version < MIN_VERSION => Err(Attempt::answered(format!(
                "it is PostgreSQL {version}, which is too old: {MIN_VERSION} or later is needed"
            ))),
            _ => Ok((client, connection)),
        }
    }

    async fn attempt(
        &self,
        server: &DatabaseServer,
        address: Option<IpAddr>,
        encryption: Encryption,
    ) -> Result<(Client, Connection), tokio_postgres::Error> {
        let url = &self.url;
        let mut config = Config::new();
        match &server.host {
            Host::Tcp(host) => config.host(host),
            Host::Socket(folder) => config.host_path(folder),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        if let Some(database) = &url.database {
            config.dbname(database);
        }
        if let Some(options) = &url.options {
            config.options(options);
        }
        config
            .port(server.port)
            .user(&url.user)
            .application_name(&url.application_name)
            .ssl_mode(encryption)
            .target_session_attrs(match url.session {
                SessionTarget::Any => TargetSessionAttrs::Any,
                SessionTarget::ReadWrite => TargetSessionAttrs::ReadWrite,
            })
            .channel_binding(match url.channel_binding {
                ChannelBindingMode::Disable => ChannelBinding::Disable,
                ChannelBindingMode::Prefer => ChannelBinding::Prefer,
                ChannelBindingMode::Require => ChannelBinding::Require,
            })
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED);
        config.connect(Handshakes(self.tls.clone())).await
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Attempt {
        let source = error.source();
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        let what = if let Some(told) = error.as_db_error() {
            format!("{} (SQLSTATE {})", told.message(), told.code().code())
        } else if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none()) {
            "it takes no writes, as a standby".to_owned()
        } else if self.password.is_none() && source.is_some_and(|source| source.to_string() == "password missing") {
            "it wants a password, and none is configured: set password_file".to_owned()
        } else {
            source.map_or_else(|| error.to_string(), with_sources)
        };
        // A server could quote the password.
        let hidden = self.password.iter().fold(Redactions::default(), |hidden, password| hidden.key(password.expose()));
        let what = Text::clean(&what, &hidden).as_str().to_owned();
        Attempt { what, was_answered: io.is_none_or(|io| io.raw_os_error().is_none()) }
    }
}

/// Whether a server that was asked to encrypt may accept a connection that is not encrypted.
fn may_work_unencrypted(error: &tokio_postgres::Error) -> bool {
    let is_handshake = error.source().is_some_and(<dyn Error>::is::<HandshakeError>);
    // Its list of clients does not have this one with encryption.
    is_handshake || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// An error with its sources, as one text.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| (*error).source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The first number of a version such as `15.18 (Debian 15.18-0)`.
fn major_version(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

// === impl Attempt ===

impl Attempt {
    fn answered(what: String) -> Self {
        Self { what, was_answered: true }
    }

    fn unanswered(what: &str) -> Self {
        Self { what: what.to_owned(), was_answered: false }
    }
}

// === impl ConnectError ===

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConnectError {}
