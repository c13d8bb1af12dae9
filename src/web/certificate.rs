//! The certificate chain of a server.

use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use crate::certificate::Validity;
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

// === impl Chain ===

impl Chain {
    /// Parses PEM text.
    ///
    /// # Errors
    /// What is wrong with the text, as a sentence for the user that does not quote it.
    pub(crate) fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates = pem::certificates(pem)?;
        let unreadable = |i: usize| format!("has a certificate that cannot be read (number {})", i + 1);
        let mut validity = Validity { from: Timestamp::from_millis(0), until: Timestamp::from_millis(u64::MAX) };
        for (i, certificate) in certificates.iter().enumerate() {
            validity = validity.and(Validity::of(certificate).ok_or_else(|| unreadable(i))?);
        }
        if certificates.first().is_none_or(|first| ParsedCertificate::try_from(first).is_err()) {
            return Err("has a first certificate that servers cannot show: X.509 of version 3 is needed".to_owned());
        }
        Ok(Self { certificates, validity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample::Authority;

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
}
