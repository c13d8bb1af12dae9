//! Trust: the machine's root certificates and those that the user adds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::input_file;

/// Extra root certificates, read from a PEM file.
#[derive(Clone, PartialEq, Eq)]
pub struct CaBundle {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

// === impl CaBundle ===

impl CaBundle {
    /// The most that is read of the file, in bytes. All authorities of a Linux distribution are a quarter
    /// of a MiB.
    const MAX_BYTES: u64 = 16 * 1024 * 1024;

    /// Reads the certificates. Blocks.
    ///
    /// # Errors
    /// What is wrong with the file, as a sentence for the user.
    pub fn read(path: &Path) -> Result<Self, String> {
        let pem = input_file::read(path, Self::MAX_BYTES).map_err(|error| error.to_string())?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| "is not a PEM file: a section of it is damaged".to_owned())?;
        if certificates.is_empty() {
            return Err("has no certificate: PEM sections `BEGIN CERTIFICATE` are needed".into());
        }
        let mut store = RootCertStore::empty();
        for (i, certificate) in certificates.iter().enumerate() {
            store
                .add(certificate.clone())
                .map_err(|_| format!("has a certificate that cannot be used as a root (number {})", i + 1))?;
        }
        Ok(Self { path: path.to_owned(), certificates })
    }

    /// Where the certificates were read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaBundle({}, {} certificates)", self.path.display(), self.certificates.len())
    }
}

/// How a client verifies servers: the machine's roots and `extra`.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(super) fn client_config(extra: Option<&CaBundle>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = system_roots().clone();
    roots.add_parsable_certificates(extra.into_iter().flat_map(|bundle| bundle.certificates.iter().cloned()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The machine's root certificates, read once. Without any, every server is unknown and polls say
/// so with `tls`.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!("no root certificates found on this machine");
        }
        roots
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_usable_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(CaBundle::read(&path).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "no pem at all").unwrap();
        assert!(CaBundle::read(&path).unwrap_err().contains("has no certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(CaBundle::read(&path).unwrap_err().contains("cannot be used as a root"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!!\n").unwrap();
        assert!(CaBundle::read(&path).unwrap_err().contains("damaged"));
    }
}
