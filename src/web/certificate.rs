//! Certificates: their validity and their names.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use crate::pem;
use crate::toggle::Timestamp;

/// A certificate chain: first that of the server, then those that lead to an authority.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The certificates, in the order of the file.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// When all of them are valid.
    pub(crate) validity: Validity,
}

/// From when and until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first moment.
    pub(crate) from: Timestamp,
    /// The last moment.
    pub(crate) until: Timestamp,
}

// === impl Chain ===

impl Chain {
    /// Parses PEM text.
    ///
    /// # Errors
    /// What is wrong with the text, as a sentence for the user that does not quote it.
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

    /// The validity of one certificate; `None` if it cannot be parsed.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate().validity();
        Some(Self { from: timestamp(validity.not_before), until: timestamp(validity.not_after) })
    }

    /// When both are valid.
    fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
}

/// Whether a certificate has one of these subject alternative names: a DNS name, an IP address, an e-mail
/// address or a URI. A certificate that cannot be parsed has none.
pub(super) fn has_any_name(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::web::sample::{Authority, Name};

    /// A certificate with a name of every kind, as DER.
    static CERTIFICATE: LazyLock<CertificateDer<'static>> = LazyLock::new(|| {
        let names = [Name::Dns("a.example"), Name::Email("a@b.c"), Name::Uri("x://y"), Name::Address("10.0.0.7")];
        let pair = Authority::new("a").issue(&names);
        pem::certificates(pair.certificate.as_bytes()).unwrap().remove(0)
    });

    #[test]
    fn a_chain_expires_with_the_first_of_its_certificates() {
        let authority = Authority::new("a");
        let (late, early) = (authority.issue(&[]), authority.issue_expired(&[]));
        for pem in [late.certificate.clone() + &early.certificate, early.certificate.clone() + &late.certificate] {
            let validity = Chain::parse(pem.as_bytes()).unwrap().validity;
            assert_eq!(validity.until.to_string(), "2021-02-03T00:00:00.000Z");
        }
    }

    #[test]
    fn an_invalid_chain_is_refused_with_the_number_of_the_invalid_certificate() {
        let good = Authority::new("a").issue(&[]).certificate;
        for (pem, what) in [
            (String::new(), "has no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(), "is damaged"),
            (good.clone() + "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "number 2"),
        ] {
            let problem = Chain::parse(pem.as_bytes()).unwrap_err();
            assert!(problem.contains(what), "{problem}");
        }
    }

    #[test]
    fn a_certificate_matches_exactly_its_own_names() {
        let names = |name: &str| has_any_name(&CERTIFICATE, &["other".to_owned(), name.to_owned()]);
        assert!(["a.example", "a@b.c", "x://y", "10.0.0.7"].into_iter().all(names));
        assert!(!["", "A.example", "a.example.", "example", "x://", "10.0.0.70", "\u{0}"].into_iter().any(names));
    }

    proptest! {
        #[test]
        fn no_certificate_causes_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut changed = CERTIFICATE.to_vec();
            for (place, byte) in places {
                changed[place.index(CERTIFICATE.len())] = byte;
            }
            for der in [bytes, changed] {
                let certificate = CertificateDer::from(der);
                let _ = Validity::of(&certificate);
                let _ = has_any_name(&certificate, &["a.example".to_owned()]);
            }
        }
    }
}
