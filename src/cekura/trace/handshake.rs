//! A TLS handshake that is traced: when it begins, and which certificate is shown and verified.

use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, NamedGroup, ProtocolVersion, SignatureScheme,
};

use super::{HandshakeMarks, RequestTrace};
use crate::certificate::CertificateSummary;
use crate::tls::{self, AuthorityKind, CaBundle, ServerVerifier};

/// Verifies a server as every other request does, and records it.
///
/// It is a store of sessions, too, because a client asks for a session when the handshake begins. It has none.
#[derive(Debug)]
pub(super) struct TracedHandshake {
    trace: RequestTrace,
    /// By the authorities of the API; `None` if there are none.
    verifier: Option<ServerVerifier>,
    /// By those of the machine alone; `None` if there are none.
    machine: Option<ServerVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// TLS settings of a client whose handshake is traced.
///
/// # Errors
/// If the TLS library refuses its own defaults.
pub(super) fn client_config(handshake: TracedHandshake) -> Result<ClientConfig, Error> {
    let handshake = Arc::new(handshake);
    let mut config = tls::client_config_verifying(handshake.clone())?;
    config.resumption = Resumption::store(handshake);
    Ok(config)
}

// === impl TracedHandshake ===

impl TracedHandshake {
    /// # Errors
    /// If the TLS library refuses its own defaults.
    pub(super) fn new(trace: RequestTrace, extra: Option<&CaBundle>) -> Result<Self, Error> {
        let (verifier, machine) = (tls::server_verifier(extra)?, tls::server_verifier(None)?);
        Ok(Self { trace, verifier, machine, algorithms: default_provider().signature_verification_algorithms })
    }

    fn record(&self, change: impl FnOnce(&mut HandshakeMarks)) {
        if let Some(handshake) = &mut self.trace.marks().handshake {
            change(handshake);
        }
    }
}

impl ServerCertVerifier for TracedHandshake {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |verifier: &Option<ServerVerifier>| match verifier {
            Some(verifier) => verifier.verify_server_cert(certificate, intermediates, name, ocsp_response, now),
            // As a verifier with an empty list says.
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        let verified = verify(&self.verifier);
        let by = if verify(&self.machine).is_ok() { AuthorityKind::Machine } else { AuthorityKind::CaFile };
        self.record(|handshake| {
            handshake.certificate = CertificateSummary::parse(certificate);
            handshake.verified_by = verified.is_ok().then_some(by);
        });
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.record(|handshake| handshake.version = Some(ProtocolVersion::TLSv1_2));
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.record(|handshake| handshake.version = Some(ProtocolVersion::TLSv1_3));
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientSessionStore for TracedHandshake {
    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        let server_name = server.to_str().into_owned();
        let began = Instant::now();
        self.trace.marks().handshake =
            Some(HandshakeMarks { began, server_name, version: None, certificate: None, verified_by: None });
        None
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }

    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}
}
