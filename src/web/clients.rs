//! Certificates of clients: which are requested and which are accepted.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::certificate::has_any_name;

/// The certificate that clients must show, as `ClientAuthType` in Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// None.
    No,
    /// Any certificate, optional.
    Request,
    /// Any certificate, required.
    RequireAny,
    /// A certificate of the authorities, optional.
    VerifyIfGiven,
    /// A certificate of the authorities, required.
    RequireAndVerify,
}

/// The rules for certificates of clients.
#[derive(Debug)]
pub(crate) struct ClientCertificates {
    /// Which certificate they must show.
    pub(crate) auth: ClientAuth,
    /// The authorities, where certificates are verified.
    pub(crate) authorities: RootCertStore,
    /// The names of which a certificate must have one; `None` for any name.
    pub(crate) names: Option<Vec<String>>,
}

/// Accepts any certificate if the client has its key.
#[derive(Debug)]
struct AnyCertificate {
    is_mandatory: bool,
    /// Authorities, as a hint for clients which certificate to choose.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Accepts a valid certificate if it has one of these names.
#[derive(Debug)]
struct NamedCertificate {
    names: Vec<String>,
    valid: Arc<dyn ClientCertVerifier>,
}

// === impl ClientAuth ===

impl ClientAuth {
    /// The names in a web configuration.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::No, "NoClientCert"),
        (Self::Request, "RequestClientCert"),
        (Self::RequireAny, "RequireAnyClientCert"),
        (Self::VerifyIfGiven, "VerifyClientCertIfGiven"),
        (Self::RequireAndVerify, "RequireAndVerifyClientCert"),
    ];

    /// Parses the name in a web configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = match text {
            "" => Self::No.as_str(),
            // An old name that is still in use.
            "RequireClientCert" => Self::RequireAny.as_str(),
            text => text,
        };
        Self::NAMES.iter().find(|(_, name)| *name == text).map(|(auth, _)| *auth).ok_or_else(|| {
            let known = Self::NAMES.map(|(_, name)| name);
            format!("is not known; known are {}", known.join(", "))
        })
    }

    /// The name in a web configuration.
    pub(crate) fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(auth, _)| *auth == self).map_or("", |(_, name)| name)
    }

    /// Whether certificates are verified by the authorities.
    pub(crate) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

// === impl ClientCertificates ===

impl ClientCertificates {
    /// The verifier for handshakes.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let algorithms = provider.signature_verification_algorithms;
        let hints = self.authorities.subjects();
        let of_authorities = WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities), provider.clone());
        let valid = match self.auth {
            ClientAuth::No => return Ok(WebPkiClientVerifier::no_client_auth()),
            ClientAuth::Request => Arc::new(AnyCertificate { is_mandatory: false, hints, algorithms }),
            ClientAuth::RequireAny => Arc::new(AnyCertificate { is_mandatory: true, hints, algorithms }),
            ClientAuth::VerifyIfGiven => of_authorities.allow_unauthenticated().build()?,
            ClientAuth::RequireAndVerify => of_authorities.build()?,
        };
        Ok(match self.names {
            Some(names) => Arc::new(NamedCertificate { names, valid }),
            None => valid,
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
        self.valid.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.valid.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.valid.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.valid.verify_client_cert(end_entity, intermediates, now)?;
        if has_any_name(end_entity, &self.names) {
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
        self.valid.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.valid.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.valid.supported_verify_schemes()
    }
}
