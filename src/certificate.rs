//! Certificates: whose they are, who issued them, and when they are valid.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use crate::toggle::{Text, Timestamp};

/// From when and until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The first moment.
    pub(crate) from: Timestamp,
    /// The last moment.
    pub(crate) until: Timestamp,
}

/// What people want to know of a certificate. Its texts are safe to show, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Its subject, as RFC 4514 writes it; may be empty.
    pub subject: Text,
    /// Its first subject alternative names, at most [`CertificateSummary::MAX_NAMES`].
    pub names: Vec<Text>,
    /// Its issuer, written as the subject is.
    pub issuer: Text,
    /// The first moment at which it is valid.
    pub not_before: Timestamp,
    /// The last moment at which it is valid.
    pub not_after: Timestamp,
}

/// A name that a server or a client may have.
enum SubjectName<'a> {
    /// A DNS name, an e-mail address or a URI.
    Text(&'a str),
    Address(IpAddr),
}

// === impl Validity ===

impl Validity {
    /// The validity of one certificate; `None` if it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Certificate::from_der(certificate).ok().as_ref().map(Self::of_parsed)
    }

    /// When both are valid.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    fn of_parsed(certificate: &Certificate) -> Self {
        let validity = certificate.tbs_certificate().validity();
        Self { from: timestamp(validity.not_before), until: timestamp(validity.not_after) }
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
}

// === impl CertificateSummary ===

impl CertificateSummary {
    /// The most names that are listed. A certificate may have thousands.
    pub const MAX_NAMES: usize = 20;

    /// The summary of a certificate; `None` if it cannot be parsed.
    pub fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let mut names = Vec::new();
        for_each_name(&certificate, |name| {
            if names.len() < Self::MAX_NAMES {
                names.push(shown(&name));
            }
        });
        let Validity { from: not_before, until: not_after } = Validity::of_parsed(&certificate);
        let content = certificate.tbs_certificate();
        Some(Self { subject: shown(content.subject()), names, issuer: shown(content.issuer()), not_before, not_after })
    }
}

fn shown(name: &impl fmt::Display) -> Text {
    Text::own(&name.to_string())
}

/// Whether a certificate has one of these subject alternative names: a DNS name, an IP address, an e-mail
/// address or a URI. A certificate that cannot be parsed has none.
pub(crate) fn has_any_name(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let mut found = false;
    for_each_name(&certificate, |subject| {
        found |= match subject {
            SubjectName::Text(text) => names.iter().any(|name| name == text),
            SubjectName::Address(address) => {
                names.iter().any(|name| name.parse().is_ok_and(|name: IpAddr| name == address))
            }
        };
    });
    found
}

/// Calls `each` with each subject alternative name of a kind that is known here.
fn for_each_name(certificate: &Certificate, mut each: impl FnMut(SubjectName<'_>)) {
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension() else { return };
    for name in &names {
        match name {
            GeneralName::DnsName(text)
            | GeneralName::Rfc822Name(text)
            | GeneralName::UniformResourceIdentifier(text) => each(SubjectName::Text(text.as_str())),
            GeneralName::IpAddress(octets) => {
                if let Some(address) = address(octets.as_bytes()) {
                    each(SubjectName::Address(address));
                }
            }
            _ => {}
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from).ok();
    v4().or_else(v6)
}

// === impl SubjectName ===

impl fmt::Display for SubjectName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::pem;
    use crate::web::sample::{Authority, Name};

    /// A certificate with a name of every kind, as DER.
    static CERTIFICATE: LazyLock<CertificateDer<'static>> = LazyLock::new(|| {
        let names = [Name::Dns("a.example"), Name::Email("a@b.c"), Name::Uri("x://y"), Name::Address("10.0.0.7")];
        let pair = Authority::new("a").issue(&names);
        pem::certificates(pair.certificate.as_bytes()).unwrap().remove(0)
    });

    #[test]
    fn a_certificate_matches_exactly_its_own_names() {
        let names = |name: &str| has_any_name(&CERTIFICATE, &["other".to_owned(), name.to_owned()]);
        assert!(["a.example", "a@b.c", "x://y", "10.0.0.7"].into_iter().all(names));
        assert!(!["", "A.example", "a.example.", "example", "x://", "10.0.0.70", "\u{0}"].into_iter().any(names));
    }

    #[test]
    fn a_summary_has_the_names_the_issuer_and_the_validity() {
        let summary = CertificateSummary::parse(&CERTIFICATE).unwrap();
        let names: Vec<_> = summary.names.iter().map(Text::as_str).collect();
        assert_eq!(names, ["a.example", "a@b.c", "<url>", "10.0.0.7"], "a URI may be anything");
        assert!(summary.issuer.as_str().contains("CN=a"), "{}", summary.issuer);
        assert!(summary.not_before < summary.not_after);
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
                let _ = CertificateSummary::parse(&certificate);
            }
        }
    }
}
