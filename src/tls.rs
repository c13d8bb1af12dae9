//! How servers are verified: by the root certificates of the machine and those that the user adds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{input_file, pem};

/// Extra root certificates, read from a PEM file.
#[derive(Clone, PartialEq, Eq)]
pub struct CaBundle {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

// === impl CaBundle ===

impl CaBundle {
    /// The maximum size of the file, in bytes. The bundle of a Linux distribution has a quarter of a MiB.
    const MAX_BYTES: u64 = 16 * 1024 * 1024;

    /// Reads the certificates. Blocks.
    ///
    /// # Errors
    /// What is wrong with the file, as a sentence for the user.
    pub fn read(path: &Path) -> Result<Self, String> {
        let pem = input_file::read(path, Self::MAX_BYTES).map_err(|error| error.to_string())?;
        let certificates = pem::certificates(&pem)?;
        pem::authorities(&certificates)?;
        Ok(Self { path: path.to_owned(), certificates })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaBundle({}, {} certificates)", self.path.display(), self.certificates.len())
    }
}

/// Verifies servers by authorities, and also accepts a certificate that the user added itself.
///
/// A certificate made by `openssl req -x509` is its own authority. The verifier refuses an authority as a
/// server, although the user named exactly this certificate.
#[derive(Debug)]
struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

/// TLS settings of a client that trusts the root certificates of the machine and `extra`.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(crate) fn client_config(extra: Option<&CaBundle>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut roots = system_roots().clone();
    let Some(extra) = extra else { return Ok(builder.with_root_certificates(roots).with_no_client_auth()) };
    roots.add_parsable_certificates(extra.certificates.iter().cloned());
    let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let by_authority = by_authority.map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = Arc::new(Verifier { by_authority, named: extra.certificates.clone() });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

// === impl Verifier ===

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.by_authority.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verified {
            // Its validity was verified before this error. Its purpose does not matter, because the key of an
            // authority can issue any certificate.
            Err(error) if is_used_as_end_entity(&error) && self.named.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Whether a certificate is refused only because it is that of an authority.
fn is_used_as_end_entity(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The root certificates of the machine, read once. Without any, polls fail with `tls`.
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
        assert!(CaBundle::read(&path).unwrap_err().contains("cannot be used as an authority"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!!!!\n").unwrap();
        assert!(CaBundle::read(&path).unwrap_err().contains("damaged"));
    }
}
