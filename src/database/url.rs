//! The URL of the database, in the forms that libpq knows.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::document::nearest;

/// Where the database is, how to log in, and how the connection is protected.
///
/// `Display` and `Debug` write the URL with `<secret>` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// At least one, in the order in which they are tried.
    pub(super) servers: Vec<DatabaseServer>,
    pub(super) user: String,
    pub(super) password: Option<DatabasePassword>,
    /// `None` for the database that has the name of the user.
    pub(super) database: Option<String>,
    pub(super) ssl_mode: SslMode,
    pub(super) client_certificate: Option<ClientCertificateFiles>,
    pub(super) session: SessionTarget,
    pub(super) channel_binding: ChannelBindingMode,
    /// Settings that the server is started with for each connection.
    pub(super) options: Option<String>,
    pub(super) application_name: String,
    /// Bounds one attempt at one address, from connecting until the server is ready.
    pub(super) connect_timeout: Duration,
}

/// One of the servers that a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DatabaseServer {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// At a host name or an address.
    Tcp(String),
    /// At a socket in this folder of this machine.
    Socket(PathBuf),
}

/// How a connection is protected, as `sslmode` of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// It is not encrypted.
    Disable,
    /// It is encrypted where the server can do that.
    Prefer,
    /// It is encrypted; with authorities, as [`SslMode::VerifyCa`].
    Require,
    /// The server also has a certificate of an authority.
    VerifyCa,
    /// That certificate is also for the name of the server.
    VerifyFull,
}

/// Which servers are of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionTarget {
    /// Each that answers.
    Any,
    /// Those that take writes.
    ReadWrite,
}

/// Whether a login by SCRAM is bound to the certificate of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelBindingMode {
    Disable,
    Prefer,
    Require,
}

/// The PEM files of the certificate that the exporter shows to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientCertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// A password, which is never printed and is wiped from memory. `Debug` and `Display` show `<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabasePassword(Arc<Zeroizing<Box<str>>>);

/// The parameters that a URL may have.
const PARAMETERS: [&str; 13] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "channel_binding",
    "connect_timeout",
    "application_name",
    "options",
];

/// The longest timeout of an attempt, in seconds.
const MAX_CONNECT_SECONDS: u64 = 300;

/// Written in a URL as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// As [`PLAIN`], and what paths and options have.
const PLAIN_IN_QUERY: &AsciiSet = &PLAIN.remove(b'/').remove(b':').remove(b',');

/// Said of a text that is no URL of PostgreSQL.
const FORM: &str = "write it like postgresql://USER@HOST:5432/DATABASE?sslmode=verify-full";

/// The parameters of a query, in the order in which they are written.
struct Parameters(Vec<(&'static str, Zeroizing<String>)>);

/// What stands before the query.
#[derive(Default)]
struct Authority {
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    servers: Option<Vec<DatabaseServer>>,
    database: Option<String>,
}

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// The port of a server whose port is not given.
    const DEFAULT_PORT: u16 = 5432;

    /// The timeout of an attempt if none is given.
    const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// The name by which the server knows the connections if none is given.
    const DEFAULT_APPLICATION_NAME: &str = "cekura-exporter";

    /// Parses a URL. White space around it is ignored.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the user that quotes nothing but names of parameters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("is empty: {FORM}"));
        }
        let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let rest = rest.ok_or_else(|| format!("is not a URL of PostgreSQL: {FORM}"))?;
        let (login, rest) = split_login(rest)?;
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut authority = Authority::parse(login, before)?;
        let mut parameters = Parameters::parse(query)?;
        let mut take = |name| parameters.take(name);
        let [hosts, ports] = ["host", "port"].map(&mut take);
        let [user, password, database] = ["user", "password", "dbname"].map(&mut take);
        let servers = match (authority.servers.take(), hosts) {
            (Some(_), Some(_)) => return Err(given_twice("host")),
            (Some(_), None) if ports.is_some() => return Err(given_twice("port")),
            (Some(servers), None) => servers,
            (None, Some(hosts)) => servers(&hosts, ports.as_deref().map(String::as_str))?,
            (None, None) => return Err(format!("names no host: {FORM}")),
        };
        let user = only("user", authority.user.take(), user.map(|user| user.to_string()))?;
        let password = only("password", authority.password.take(), password)?.filter(|password| !password.is_empty());
        let database = only("dbname", authority.database.take(), database.map(|name| name.to_string()))?;
        Ok(Self {
            servers,
            user: user.filter(|user| !user.is_empty()).ok_or_else(|| format!("names no user: {FORM}"))?,
            password: password.map(|password| DatabasePassword::of(&password)),
            database: database.filter(|name| !name.is_empty()),
            ssl_mode: parameters.one_of("sslmode", &SslMode::ALL)?.unwrap_or(SslMode::Prefer),
            client_certificate: parameters.client_certificate()?,
            session: parameters
                .one_of("target_session_attrs", &SessionTarget::ALL)?
                .unwrap_or(SessionTarget::ReadWrite),
            channel_binding: parameters
                .one_of("channel_binding", &ChannelBindingMode::ALL)?
                .unwrap_or(ChannelBindingMode::Prefer),
            options: parameters.text("options"),
            application_name: parameters
                .text("application_name")
                .unwrap_or_else(|| Self::DEFAULT_APPLICATION_NAME.to_owned()),
            connect_timeout: parameters.connect_timeout()?.unwrap_or(Self::DEFAULT_CONNECT_TIMEOUT),
        })
    }

    /// Whether the URL has a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// How a connection is protected.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// What somebody on the network could do to a connection, as a sentence for the user; `None` if that is nothing,
    /// or if all servers are on this machine. `has_authorities` says whether a file of authorities is configured.
    pub fn weakness(&self, has_authorities: bool) -> Option<String> {
        if self.servers.iter().all(|server| server.host.is_local()) {
            return None;
        }
        let what = match self.ssl_mode {
            SslMode::VerifyFull => return None,
            SslMode::Disable => "does not encrypt connections",
            SslMode::Prefer => "encrypts connections only if nobody on the network prevents it",
            SslMode::Require if !has_authorities => "does not verify who the server is",
            SslMode::Require | SslMode::VerifyCa => "does not verify the name of the server",
        };
        let mode = self.ssl_mode.as_str();
        Some(format!("sslmode={mode} {what}: sslmode=verify-full is recommended"))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}", encoded(&self.user))?;
        if let Some(password) = &self.password {
            write!(f, ":{password}")?;
        }
        for (separator, server) in std::iter::once('@').chain(std::iter::repeat(',')).zip(&self.servers) {
            match &server.host {
                Host::Tcp(host) if host.contains(':') => write!(f, "{separator}[{host}]:{}", server.port)?,
                Host::Tcp(host) => write!(f, "{separator}{}:{}", encoded(host), server.port)?,
                Host::Socket(folder) => {
                    write!(f, "{separator}{}:{}", encoded(&folder.to_string_lossy()), server.port)?;
                }
            }
        }
        if let Some(database) = &self.database {
            write!(f, "/{}", encoded(database))?;
        }
        write!(f, "?sslmode={}", self.ssl_mode.as_str())?;
        if let Some(ClientCertificateFiles { certificate, key }) = &self.client_certificate {
            let [certificate, key] = [certificate, key].map(|path| path.to_string_lossy());
            write!(f, "&sslcert={}&sslkey={}", in_query(&certificate), in_query(&key))?;
        }
        if self.session != SessionTarget::ReadWrite {
            write!(f, "&target_session_attrs={}", self.session.as_str())?;
        }
        if self.channel_binding != ChannelBindingMode::Prefer {
            write!(f, "&channel_binding={}", self.channel_binding.as_str())?;
        }
        if self.connect_timeout != Self::DEFAULT_CONNECT_TIMEOUT {
            write!(f, "&connect_timeout={}", self.connect_timeout.as_secs())?;
        }
        if self.application_name != Self::DEFAULT_APPLICATION_NAME {
            write!(f, "&application_name={}", in_query(&self.application_name))?;
        }
        match &self.options {
            Some(options) => write!(f, "&options={}", in_query(options)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Text as a URL has it before its query.
fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, PLAIN)
}

/// Text as the query of a URL has it.
fn in_query(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, PLAIN_IN_QUERY)
}

/// The user and the password, still encoded, and what follows them.
fn split_login(rest: &str) -> Result<(Option<&str>, &str), String> {
    // A character of the password that is not encoded could make a part of it look like a host, a database or a
    // parameter, which are shown.
    let Some((login, rest)) = rest.split_once('@') else { return Ok((None, rest)) };
    if login.contains('/') || rest.contains('@') {
        return Err(
            "has an `@` or a `/` that must be encoded: in a user, a password or a parameter, write %40 for `@` \
                    and %2F for `/`"
                .to_owned(),
        );
    }
    Ok((Some(login), rest))
}

/// The value that was given in one of two places.
fn only<T>(name: &str, one: Option<T>, other: Option<T>) -> Result<Option<T>, String> {
    match (one, other) {
        (Some(_), Some(_)) => Err(given_twice(name)),
        (one, other) => Ok(one.or(other)),
    }
}

fn given_twice(name: &str) -> String {
    format!("gives `{name}` twice: keep one of them")
}

/// The servers of the parameters `host` and `port`.
fn servers(hosts: &str, ports: Option<&str>) -> Result<Vec<DatabaseServer>, String> {
    let hosts: Vec<_> = hosts.split(',').collect();
    let ports: Vec<_> = ports.unwrap_or_default().split(',').map(port).collect::<Result<_, _>>()?;
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err("has another number of ports than of hosts: give one for all, or one for each".to_owned());
    }
    let ports = ports.iter().copied().cycle();
    hosts.into_iter().zip(ports).map(|(host, port)| Ok(DatabaseServer { host: Host::parse(host)?, port })).collect()
}

/// A port; empty text is the port of PostgreSQL.
fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(DatabaseUrl::DEFAULT_PORT);
    }
    let port = text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
    port.ok_or_else(|| "has a port that is not a number from 1 to 65535".to_owned())
}

/// Undoes percent encoding.
fn decoded(text: &str) -> Result<Zeroizing<String>, String> {
    let mut parts = text.split('%');
    // What is before the first sign is not encoded.
    parts.next();
    let is_encoded = |part: &str| part.len() > 1 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !parts.all(is_encoded) {
        return Err("has a `%` without two hexadecimal digits: write %25 for `%` itself".to_owned());
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 text once it is decoded")?;
    if text.contains('\0') {
        return Err("has a zero byte in it".to_owned());
    }
    Ok(Zeroizing::new(text.into_owned()))
}

// === impl Authority ===

impl Authority {
    /// Parses the user and the password, and the hosts and the database that follow them.
    fn parse(login: Option<&str>, text: &str) -> Result<Self, String> {
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(decoded(user)?.to_string()), Some(decoded(password)?)),
            None => (None, None),
        };
        let (hosts, database) = text.split_once('/').unwrap_or((text, ""));
        if database.contains('/') {
            return Err(
                "has a second `/` behind the hosts: write %2F where it belongs to the name of the database".to_owned()
            );
        }
        let servers = hosts.split(',').map(DatabaseServer::parse).collect::<Result<_, _>>();
        Ok(Self {
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            servers: (!hosts.is_empty()).then_some(servers).transpose()?,
            database: Some(decoded(database)?.to_string()).filter(|name| !name.is_empty()),
        })
    }
}

// === impl DatabaseServer ===

impl DatabaseServer {
    /// Parses a host with or without a port.
    fn parse(text: &str) -> Result<Self, String> {
        let (host, after) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("has a `[` without a `]`")?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port_text = match after {
            "" => "",
            after => after.strip_prefix(':').ok_or("has something other than a port behind a host")?,
        };
        Ok(Self { host: Host::parse(&decoded(host)?)?, port: port(port_text)? })
    }
}

impl fmt::Display for DatabaseServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Host::Tcp(host) => write!(f, "{host}:{}", self.port),
            Host::Socket(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
        }
    }
}

// === impl Host ===

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(format!("names no host: {FORM}"));
        }
        if text.contains(|c: char| c.is_control()) {
            return Err("has a control character in a host".to_owned());
        }
        if text.starts_with('/') {
            return Ok(Self::Socket(PathBuf::from(text)));
        }
        if text.contains(|c: char| c.is_whitespace() || "/?#@%[]\\".contains(c)) {
            return Err("has a host that is neither a name, an address nor the folder of a socket".to_owned());
        }
        if text.contains(':') && text.parse::<IpAddr>().is_err() {
            return Err("has a host with a colon that is not an IPv6 address".to_owned());
        }
        Ok(Self::Tcp(text.to_owned()))
    }

    /// Whether connections to it stay on this machine.
    fn is_local(&self) -> bool {
        match self {
            Self::Tcp(host) if host.eq_ignore_ascii_case("localhost") => true,
            Self::Tcp(host) => host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback()),
            Self::Socket(_) => true,
        }
    }
}

// === impl Parameters ===

impl Parameters {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("has a parameter without `=`")?;
            let name = known_parameter(name)?;
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(given_twice(name));
            }
            parameters.push((name, decoded(value)?));
        }
        Ok(Self(parameters))
    }

    fn take(&mut self, name: &str) -> Option<Zeroizing<String>> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|text| text.to_string())
    }

    /// One of some values, each with its name.
    fn one_of<T: Copy + Named>(&mut self, name: &str, values: &[T]) -> Result<Option<T>, String> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let known = values.iter().find(|value| value.as_str() == *text);
        let names: Vec<_> = values.iter().map(Named::as_str).collect();
        known.map(|value| Some(*value)).ok_or_else(|| format!("has a `{name}` that is none of {}", names.join(", ")))
    }

    fn connect_timeout(&mut self) -> Result<Option<Duration>, String> {
        let Some(text) = self.take("connect_timeout") else { return Ok(None) };
        let seconds = text.parse().ok().filter(|seconds| (1..=MAX_CONNECT_SECONDS).contains(seconds));
        let wrong =
            || format!("has a `connect_timeout` that is not a whole number of seconds from 1 to {MAX_CONNECT_SECONDS}");
        seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(wrong)
    }

    fn client_certificate(&mut self) -> Result<Option<ClientCertificateFiles>, String> {
        let mut path = |name| match self.text(name) {
            Some(path) if !path.starts_with('/') => {
                Err(format!("has a relative path in `{name}`: write the whole path"))
            }
            path => Ok(path.map(PathBuf::from)),
        };
        match (path("sslcert")?, path("sslkey")?) {
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificateFiles { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err("has `sslcert` without `sslkey`: both are needed".to_owned()),
            (None, Some(_)) => Err("has `sslkey` without `sslcert`: both are needed".to_owned()),
        }
    }
}

/// The parameter of this name, as it is written in the URL.
fn known_parameter(name: &str) -> Result<&'static str, String> {
    if let Some(known) = PARAMETERS.iter().find(|known| **known == name) {
        return Ok(known);
    }
    match name {
        "sslrootcert" => {
            return Err("has `sslrootcert`, which is the key `ca_file` of the configuration here".to_owned());
        }
        "passfile" => {
            return Err("has `passfile`, which is the key `password_file` of the configuration here".to_owned());
        }
        _ => {}
    }
    // Text that is not like a name may have got there by mistake, and may be secret.
    let is_like_a_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let said = if is_like_a_name { format!("`{name}`") } else { "something".to_owned() };
    let known_here = PARAMETERS.join(", ");
    Err(match nearest(name, &PARAMETERS) {
        Some(meant) => {
            format!("has {said}, which is not a known parameter: did you mean `{meant}`? Known here are {known_here}")
        }
        None => format!("has {said}, which is not a known parameter; known here are {known_here}"),
    })
}

/// Values that have names in a URL.
trait Named {
    fn as_str(&self) -> &'static str;
}

// === impl SslMode ===

impl SslMode {
    const ALL: [Self; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// Its name in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl Named for SslMode {
    fn as_str(&self) -> &'static str {
        Self::as_str(*self)
    }
}

// === impl SessionTarget ===

impl SessionTarget {
    const ALL: [Self; 2] = [Self::ReadWrite, Self::Any];
}

impl Named for SessionTarget {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
        }
    }
}

// === impl ChannelBindingMode ===

impl ChannelBindingMode {
    const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];
}

impl Named for ChannelBindingMode {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

// === impl DatabasePassword ===

impl DatabasePassword {
    pub(super) fn of(text: &str) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The password itself, for the login and to remove it from texts.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabasePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for DatabasePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
