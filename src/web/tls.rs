//! TLS settings of the server.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig, SupportedCipherSuite};

use super::certificate::Chain;
use super::clients::{ClientAuth, ClientCertificates};
use super::protocol::Protocol;
use crate::toggle::Timestamp;

/// TLS settings of the server.
pub struct Tls {
    /// The settings for handshakes.
    pub server: Arc<ServerConfig>,
    /// When the first certificate of the chain expires.
    pub expiry: Timestamp,
    /// Whether clients must have a certificate of the configured authorities.
    pub verifies_clients: bool,
}

/// The certificate chain of the server, and the key of its first certificate.
pub(crate) struct Identity {
    certified: CertifiedKey,
    expiry: Timestamp,
}

// === impl Identity ===

impl Identity {
    /// Combines a chain with its key.
    ///
    /// # Errors
    /// If the key belongs to another certificate, as a sentence for the user about the key.
    pub(crate) fn new(chain: Chain, key: Arc<dyn SigningKey>) -> Result<Self, &'static str> {
        let certified = CertifiedKey::new(chain.certificates, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Self { certified, expiry: chain.validity.until })
            }
            Err(_) => Err("is not the key of the certificate: the first certificate must be that of the key"),
        }
    }
}

// === impl Tls ===

impl Tls {
    /// Builds the settings.
    ///
    /// # Errors
    /// Why the parts do not fit together, as a sentence for the user.
    pub(crate) fn new(identity: Identity, clients: ClientCertificates, protocol: &Protocol) -> Result<Self, String> {
        let Identity { certified, expiry } = identity;
        let algorithm = certified.key.algorithm();
        let mut suites = protocol.suites();
        suites.retain(|suite| suite.usable_for_signature_algorithm(algorithm));
        if suites.is_empty() {
            return Err(format!(
                "has no cipher suite for a key of this kind ({algorithm:?}): add one to cipher_suites"
            ));
        }
        let versions: Vec<_> = suites.iter().map(SupportedCipherSuite::version).collect();
        let provider = CryptoProvider { cipher_suites: suites, kx_groups: protocol.groups(), ..default_provider() };
        let provider = Arc::new(provider);
        let unusable = |error: &dyn fmt::Display| format!("cannot be used: {error}");
        let auth = clients.auth;
        let verifier = clients.verifier(&provider).map_err(|error| unusable(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.ignore_client_order = protocol.prefers_own_order;
        if auth != ClientAuth::No {
            // A resumed session would outlive the certificate that its client showed.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(Self { server: Arc::new(server), expiry, verifies_clients: auth == ClientAuth::RequireAndVerify })
    }
}

/// Does not show the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server: _, expiry, verifies_clients } = self;
        f.debug_struct("Tls")
            .field("expiry", expiry)
            .field("verifies_clients", verifies_clients)
            .finish_non_exhaustive()
    }
}
