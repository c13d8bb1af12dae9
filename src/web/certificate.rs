//! What is written in a certificate: for how long it is valid, and whom it names.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use super::pem;
use crate::toggle::Timestamp;

/// The certificates that are shown: first that of the server, then those that lead to an authority.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The certificates.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// While all of them are valid.
    pub(crate) validity: Validity,
}

/// From when and until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// From when.
    pub(crate) from: Timestamp,
    /// Until when.
    pub(crate) until: Timestamp,
}

// === impl Chain ===

impl Chain {
    /// Takes PEM text.
    ///
    /// # Errors
    /// What is wrong with the text, as a sentence for the user that has no part of it.
    pub(crate) fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates = pem::certificates(pem)?;
        let unreadable = |i: usize| format!("has a certificate that cannot be read (number {})", i + 1);
        let mut validity = Validity::ALWAYS;
        for (i, certificate) in certificates.iter().enumerate() {
            validity = validity.and(Validity::of(certificate).ok_or_else(|| unreadable(i))?);
        }
        if certificates.first().is_none_or(|first| ParsedCertificate::try_from(first).is_err()) {
            return Err("has a first certificate that servers cannot show: X.509 of version 3 is needed".to_owned());
        }
        Ok(Self { certificates, validity })
    }
}

// === impl Validity ===

impl Validity {
    const ALWAYS: Self = Self { from: Timestamp::from_millis(0), until: Timestamp::from_millis(u64::MAX) };

    /// That of one certificate; `None` if it cannot be read.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate().validity();
        Some(Self { from: timestamp(validity.not_before), until: timestamp(validity.not_after) })
    }

    /// While both are valid.
    fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
}

/// Whether a certificate names one of these: a DNS name, an address, an e-mail address or a URI of
/// its subject. A certificate that cannot be read names nobody.
pub(super) fn names_any(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let Ok(Some((_, SubjectAltName(subject)))) = certificate.tbs_certificate().get_extension() else { return false };
    subject.iter().any(|subject| match subject {
        GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => {
            names.iter().any(|name| name == text.as_str())
        }
        GeneralName::IpAddress(octets) => address(octets.as_bytes())
            .is_some_and(|address| names.iter().any(|name| name.parse().is_ok_and(|name: IpAddr| name == address))),
        _ => false,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from).ok();
    v4().or_else(v6)
}
