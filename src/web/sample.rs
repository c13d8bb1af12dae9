//! Certificates for tests.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both as PEM text.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A folder with a web configuration and the files that it names.
pub(crate) struct Folder(TempDir);

/// A name in a certificate.
#[derive(Clone, Copy)]
pub(crate) enum Name {
    Dns(&'static str),
    Email(&'static str),
    Uri(&'static str),
    Address(&'static str),
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority between this one and those who trust it.
    pub(crate) fn issue_authority(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(Self::params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// One that is valid until long after these tests.
    pub(crate) fn issue(&self, names: &[Name]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// One that is expired.
    pub(crate) fn issue_expired(&self, names: &[Name]) -> Pair {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 2, 3);
        })
    }

    pub(crate) fn issue_with(&self, names: &[Name], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = names.iter().map(|name| name.as_san()).collect();
        params.not_after = date_time_ymd(2100, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

// === impl Name ===

impl Name {
    fn as_san(self) -> SanType {
        let text = |text: &str| Ia5String::try_from(text).unwrap();
        match self {
            Self::Dns(name) => SanType::DnsName(text(name)),
            Self::Email(name) => SanType::Rfc822Name(text(name)),
            Self::Uri(name) => SanType::URI(text(name)),
            Self::Address(name) => SanType::IpAddress(name.parse().unwrap()),
        }
    }
}

// === impl Folder ===

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with a server's certificate and key, and a configuration that names them and has these
    /// lines more under `tls_server_config`.
    pub(crate) fn of_server(server: &Pair, more: &str) -> Self {
        let folder = Self::new();
        folder.write("server.pem", &server.certificate);
        folder.write("server.key", &server.key);
        folder.configure(more);
        folder
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, more: &str) {
        let mut text = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n".to_owned();
        more.lines().for_each(|line| writeln!(text, "  {line}").unwrap());
        self.write("web.yaml", &text);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("web.yaml")
    }
}
