//! Which certificates of clients are asked for and taken.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::certificate::names_any;

/// What is asked of clients, by the names that Go has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// Nothing.
    No,
    /// A certificate, if they have any.
    Request,
    /// Any certificate.
    RequireAny,
    /// A certificate of the authorities, if they have any.
    VerifyIfGiven,
    /// A certificate of the authorities.
    RequireAndVerify,
}

/// Which clients get in by their certificates.
#[derive(Debug)]
pub(crate) struct ClientCertificates {
    /// What is asked of them.
    pub(crate) auth: ClientAuth,
    /// Whose certificates are good, where that is verified.
    pub(crate) authorities: RootCertStore,
    /// Of whom a certificate must name one; `None` for whomever it names.
    pub(crate) names: Option<Vec<String>>,
}

/// Takes any certificate that the client has the key of.
#[derive(Debug)]
struct AnyCertificate {
    is_mandatory: bool,
    /// The authorities of certificates that clients should choose from.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Takes a good certificate if it names one of these.
#[derive(Debug)]
struct NamedCertificate {
    names: Vec<String>,
    good: Arc<dyn ClientCertVerifier>,
}

// === impl ClientAuth ===

impl ClientAuth {
    /// The names that it has in a web configuration.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::No, "NoClientCert"),
        (Self::Request, "RequestClientCert"),
        (Self::RequireAny, "RequireAnyClientCert"),
        (Self::VerifyIfGiven, "VerifyClientCertIfGiven"),
        (Self::RequireAndVerify, "RequireAndVerifyClientCert"),
    ];

    /// Takes what a web configuration says.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text {
            "" => Self::No.as_str(),
            // An old name of it, which is still in use.
            "RequireClientCert" => Self::RequireAny.as_str(),
            text => text,
        };
        Self::NAMES.iter().find(|(_, name)| *name == text).map(|(auth, _)| *auth).ok_or_else(|| {
            let known = Self::NAMES.map(|(_, name)| name);
            format!("is not known; known are {}", known.join(", "))
        })
    }

    /// As it is written in a web configuration.
    pub(crate) fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(auth, _)| *auth == self).map_or("", |(_, name)| name)
    }

    /// Whether certificates must be of the authorities.
    pub(crate) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

// === impl ClientCertificates ===

impl ClientCertificates {
    /// What is asked of clients in handshakes.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let algorithms = provider.signature_verification_algorithms;
        let hints = self.authorities.subjects();
        let of_authorities = WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities), provider.clone());
        let good = match self.auth {
            ClientAuth::No => return Ok(WebPkiClientVerifier::no_client_auth()),
            ClientAuth::Request => Arc::new(AnyCertificate { is_mandatory: false, hints, algorithms }),
            ClientAuth::RequireAny => Arc::new(AnyCertificate { is_mandatory: true, hints, algorithms }),
            ClientAuth::VerifyIfGiven => of_authorities.allow_unauthenticated().build()?,
            ClientAuth::RequireAndVerify => of_authorities.build()?,
        };
        Ok(match self.names {
            Some(names) => Arc::new(NamedCertificate { names, good }),
            None => good,
        })
    }
}

// === impl AnyCertificate ===

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// === impl NamedCertificate ===

impl ClientCertVerifier for NamedCertificate {
    fn offer_client_auth(&self) -> bool {
        self.good.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.good.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.good.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.good.verify_client_cert(end_entity, intermediates, now)?;
        if names_any(end_entity, &self.names) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.good.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.good.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.good.supported_verify_schemes()
    }
}
