//! Certificates and keys as PEM text.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

/// The certificates in a PEM text, at least one.
///
/// # Errors
/// What is wrong with the text, as a sentence for the user that does not quote it.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(damaged)?;
    if certificates.is_empty() {
        return Err("has no certificate: PEM sections `BEGIN CERTIFICATE` are needed".to_owned());
    }
    Ok(certificates)
}

/// The certificates as authorities.
///
/// # Errors
/// If one of them cannot be an authority, as a sentence for the user.
pub(crate) fn authorities(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for (i, certificate) in certificates.iter().enumerate() {
        let unusable = |_| format!("has a certificate that cannot be used as an authority (number {})", i + 1);
        authorities.add(certificate.clone()).map_err(unusable)?;
    }
    Ok(authorities)
}

/// The first private key in a PEM text.
///
/// # Errors
/// What is wrong with the text, as a sentence for the user that does not quote it.
pub(crate) fn key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map(Zeroizing::new).map_err(|error| match error {
        _ if is_encrypted(pem) => {
            "has an encrypted key: it is needed as it is, as `openssl pkey` writes it, where only \
                                   the exporter can read it"
                .to_owned()
        }
        Error::NoItemsFound => "has no private key: a PEM section `BEGIN PRIVATE KEY`, `BEGIN RSA PRIVATE KEY` or \
                                `BEGIN EC PRIVATE KEY` is needed"
            .to_owned(),
        error => damaged(error),
    })?;
    any_supported_type(&key).map_err(|_| {
        "has a private key that cannot be used: RSA of 2048 to 4096 bits, ECDSA of the curve P-256 or P-384, or \
         Ed25519 is needed"
            .to_owned()
    })
}

/// Whether a text contains a PEM section.
pub(crate) fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN")
}

/// Whether a text contains a key in one of the two encrypted forms, PKCS #8 or that of OpenSSL.
fn is_encrypted(pem: &[u8]) -> bool {
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    })
}

fn damaged(_: Error) -> String {
    "is not PEM text: a section of it is damaged".to_owned()
}
