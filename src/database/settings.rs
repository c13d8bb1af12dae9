//! What the configuration says of the database, and the files that it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::url::{ClientCertificateFiles, DatabasePassword, DatabaseUrl, SslMode};
use crate::tls::{CaBundle, ServerTrust, client_config_trusting};
use crate::{input_file, pem};

/// The block `database` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Where its URL is.
    pub url: UrlSource,
    /// The file of the password; `None` if it is in the URL, or if none is needed.
    pub password_file: Option<PathBuf>,
    /// The file of the authorities that vouch for the server.
    pub ca_file: Option<PathBuf>,
    /// How long an exporter that went silent keeps its share.
    pub lease: Duration,
}

/// Where the URL of the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlSource {
    /// In the configuration or the environment.
    Given(DatabaseUrl),
    /// In a file, which may change at any time.
    File(PathBuf),
}

/// Everything that a connection needs, as it is in the files now.
pub(super) struct Access {
    pub(super) url: DatabaseUrl,
    pub(super) password: Option<DatabasePassword>,
    pub(super) tls: Arc<ClientConfig>,
}

/// The largest file of a password, a URL, a certificate or a key, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

// === impl DatabaseSettings ===

impl DatabaseSettings {
    /// How long an exporter that went silent keeps its share if nothing is configured.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);

    /// The shortest lease. It is renewed at a third of its length, and a slow answer must not look like a dead replica.
    pub const MIN_LEASE: Duration = Duration::from_secs(3);

    /// The longest lease: toggles of a replica that died are not polled for as long.
    pub const MAX_LEASE: Duration = Duration::from_mins(10);

    /// The defaults, with the URL from here.
    pub fn new(url: UrlSource) -> Self {
        Self { url, password_file: None, ca_file: None, lease: Self::DEFAULT_LEASE }
    }

    /// What is wrong with these settings for this URL: the key of the configuration, and a sentence for the user.
    pub fn contradiction(&self, url: &DatabaseUrl) -> Option<(&'static str, String)> {
        let mode = url.ssl_mode;
        let verifies = matches!(mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull);
        if url.has_password() && self.password_file.is_some() {
            Some(("password_file", "is set beside a password in the URL: keep one of them".to_owned()))
        } else if self.ca_file.is_some() && !verifies {
            let what = format!("is not used with sslmode={}: sslmode=verify-full is recommended", mode.as_str());
            Some(("ca_file", what))
        } else if self.ca_file.is_none() && mode == SslMode::VerifyCa {
            let what = "is missing: sslmode=verify-ca needs it, because authorities of the public certify anyone";
            Some(("ca_file", what.to_owned()))
        } else {
            None
        }
    }

    /// The weakness of connections as they are configured now, and why the files cannot be used now. Blocks.
    pub fn warnings(&self) -> Vec<String> {
        let weakness = self.url.read().ok().and_then(|url| url.weakness(self.ca_file.is_some()));
        let unreadable =
            self.read().err().map(|what| format!("{what}; until that is mended, the database is not reached"));
        weakness.into_iter().chain(unreadable).collect()
    }

    /// Reads all files. Blocks.
    ///
    /// # Errors
    /// The file and what is wrong with it, as a sentence for the user that does not quote it.
    pub(super) fn read(&self) -> Result<Access, String> {
        let url = self.url.read()?;
        if let Some((key, what)) = self.contradiction(&url) {
            return Err(format!("{key} {what}"));
        }
        let of_file = self.password_file.as_deref().map(read_password).transpose()?;
        let bundle = self.ca_file.as_deref().map(authorities).transpose()?;
        let tls = client_config(&url, bundle.as_ref())?;
        Ok(Access { password: of_file.or_else(|| url.password.clone()), tls: Arc::new(tls), url })
    }
}

// === impl UrlSource ===

impl UrlSource {
    /// The URL, as it is now. Blocks.
    ///
    /// # Errors
    /// The file and what is wrong with it, as a sentence for the user that does not quote it.
    pub fn read(&self) -> Result<DatabaseUrl, String> {
        match self {
            Self::Given(url) => Ok(url.clone()),
            Self::File(path) => {
                let text = read_text(path, DatabaseUrl::parse);
                text.map_err(|what| format!("{} {what}", path.display()))
            }
        }
    }
}

/// Reads the password in a file, which may have a line break at its end. Blocks.
///
/// # Errors
/// The file and what is wrong with it, as a sentence for the user that does not quote it.
pub(super) fn read_password(path: &Path) -> Result<DatabasePassword, String> {
    let password = read_text(path, |text| {
        let line = text.strip_suffix('\n').unwrap_or(text);
        match line.strip_suffix('\r').unwrap_or(line) {
            "" => Err("is empty: a password is needed".to_owned()),
            line if line.contains(['\n', '\0']) => {
                Err("has more than one line: only the password belongs there".to_owned())
            }
            password => Ok(DatabasePassword::of(password)),
        }
    });
    password.map_err(|what| format!("{} {what}", path.display()))
}

fn read_text<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    let content = input_file::read(path, MAX_BYTES).map_err(|error| error.to_string())?;
    parse(str::from_utf8(&content).map_err(|_| "is not UTF-8 text")?)
}

fn authorities(path: &Path) -> Result<CaBundle, String> {
    CaBundle::read(path).map_err(|what| format!("{} {what}", path.display()))
}

/// TLS settings as the URL wants them.
fn client_config(url: &DatabaseUrl, bundle: Option<&CaBundle>) -> Result<ClientConfig, String> {
    let trust = match (url.ssl_mode, bundle) {
        (SslMode::VerifyFull, bundle) => ServerTrust::Name(bundle),
        (SslMode::VerifyCa | SslMode::Require, Some(bundle)) => ServerTrust::Authorities(bundle),
        _ => ServerTrust::Anyone,
    };
    let builder = client_config_trusting(trust).map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(match &url.client_certificate {
        Some(files) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own_certificate(files)?))),
        None => builder.with_no_client_auth(),
    })
}

/// The certificate that is shown to the server.
fn own_certificate(files: &ClientCertificateFiles) -> Result<CertifiedKey, String> {
    let ClientCertificateFiles { certificate, key } = files;
    let read = |path: &Path| input_file::read(path, MAX_BYTES).map_err(|error| error.to_string());
    let of = |path: &Path, what: String| format!("{} {what}", path.display());
    let chain = read(certificate).and_then(|pem| pem::certificates(&pem)).map_err(|what| of(certificate, what))?;
    let signing = read(key).and_then(|pem| pem::key(&pem)).map_err(|what| of(key, what))?;
    let own = CertifiedKey::new(chain, signing);
    // What cannot be compared is compared by the server.
    match own.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(of(key, format!("is not the key of {}", certificate.display())))
        }
        _ => Ok(own),
    }
}
