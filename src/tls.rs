//! How servers are verified: by the root certificates of the machine and those that the user adds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

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

/// What a client wants to know of a server before it trusts it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerTrust<'a> {
    /// Nothing. The connection is encrypted, but anyone may be at the other end.
    Anyone,
    /// It has a certificate of one of these authorities, for whatever name.
    Authorities(&'a CaBundle),
    /// It has a certificate for its name by one of these authorities; `None` for those of the machine.
    Name(Option<&'a CaBundle>),
}

/// The authorities that a server was verified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityKind {
    /// The root certificates of the machine.
    Machine,
    /// The extra root certificates.
    CaFile,
}

/// Verifies servers.
pub(crate) type ServerVerifier = Arc<dyn ServerCertVerifier>;

/// Verifies servers by authorities, and also accepts a certificate that the user added itself.
///
/// A certificate made by `openssl req -x509` is its own authority. The verifier refuses an authority as a
/// server, although the user named exactly this certificate.
#[derive(Debug)]
struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
    /// Whether the certificate must be for the name of the server.
    checks_name: bool,
}

/// Accepts every certificate whose key the server has.
#[derive(Debug)]
struct UnverifiedServer(Arc<CryptoProvider>);

/// TLS settings of a client that trusts the root certificates of the machine and `extra`.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(crate) fn client_config(extra: Option<&CaBundle>) -> Result<ClientConfig, rustls::Error> {
    let (builder, provider) = client_builder()?;
    let mut roots = system_roots().clone();
    let Some(extra) = extra else { return Ok(builder.with_root_certificates(roots).with_no_client_auth()) };
    roots.add_parsable_certificates(extra.certificates.iter().cloned());
    let verifier = Verifier::new(roots, &extra.certificates, provider)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Verifies servers as [`client_config`] does; `None` if there are no root certificates, so that every server is refused.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(crate) fn server_verifier(extra: Option<&CaBundle>) -> Result<Option<ServerVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = system_roots().clone();
    let added = extra.map_or(&[][..], |extra| &extra.certificates);
    roots.add_parsable_certificates(added.iter().cloned());
    if roots.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Verifier::new(roots, added, provider)?)))
}

/// TLS settings of a client that verifies servers by this, and has no certificate.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(crate) fn client_config_verifying(verifier: ServerVerifier) -> Result<ClientConfig, rustls::Error> {
    let (builder, _) = client_builder()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// TLS settings of a client that trusts servers as it is told, but for its own certificate.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(crate) fn client_config_trusting(
    trust: ServerTrust<'_>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let (builder, provider) = client_builder()?;
    let by = |bundle: &CaBundle| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(bundle.certificates.iter().cloned());
        Verifier::new(roots, &bundle.certificates, provider.clone())
    };
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        ServerTrust::Anyone => Arc::new(UnverifiedServer(provider)),
        ServerTrust::Authorities(bundle) => Arc::new(Verifier { checks_name: false, ..by(bundle)? }),
        ServerTrust::Name(Some(bundle)) => Arc::new(by(bundle)?),
        ServerTrust::Name(None) => return Ok(builder.with_root_certificates(system_roots().clone())),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn client_builder() -> Result<(ConfigBuilder<ClientConfig, WantsVerifier>, Arc<CryptoProvider>), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok((builder, provider))
}

// === impl Verifier ===

impl Verifier {
    /// By these authorities, of which the user added some certificates.
    fn new(
        roots: RootCertStore,
        added: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let by_authority = by_authority.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { by_authority, named: added.to_vec(), checks_name: true })
    }
}

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
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            // The name is verified last, when everything else is known to be right.
            Err(error) if !self.checks_name && is_for_another_name(&error) => Ok(ServerCertVerified::assertion()),
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

/// Whether a certificate is refused only because it is for another name.
fn is_for_another_name(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

// === impl UnverifiedServer ===

impl ServerCertVerifier for UnverifiedServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
