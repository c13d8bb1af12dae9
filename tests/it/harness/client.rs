//! Who asks an exporter, and how: over TLS, with a certificate, with a login.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::{Authority, Pair};

/// A client. The default one speaks plain HTTP and says nothing of itself.
#[derive(Clone, Default)]
pub(crate) struct Client {
    /// The certificate of whom it trusts; `None` for plain HTTP.
    authority: Option<String>,
    shows: Option<Pair>,
    version: Option<&'static SupportedProtocolVersion>,
    login: Option<(String, String)>,
}

// === impl Client ===

impl Client {
    /// One that speaks TLS with servers of this authority.
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self { authority: Some(authority.pem()), ..Self::default() }
    }

    /// It shows this certificate to whom asks for one.
    pub(crate) fn showing(mut self, pair: &Pair) -> Self {
        self.shows = Some(pair.clone());
        self
    }

    /// It speaks this version of TLS only.
    pub(crate) fn speaking(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// It sends this user and password.
    pub(crate) fn logged_in(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Where it finds what listens at this address, without a scheme.
    pub(crate) fn url(&self, address: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// How it shakes hands; `None` for plain HTTP.
    pub(crate) fn tls(&self) -> Option<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(self.authority.as_ref()?));
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = match self.version {
            Some(version) => builder.with_protocol_versions(&[version]).unwrap(),
            None => builder.with_safe_default_protocol_versions().unwrap(),
        };
        let builder = builder.with_root_certificates(roots);
        Some(match &self.shows {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(certificates(&pair.certificate), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        })
    }

    /// It, ready to ask. Over TLS, each request has a connection of its own, so that it meets what is
    /// in force now.
    pub(crate) fn http(&self) -> reqwest::Client {
        // It may be there already: the tests of one process share it.
        let _ = default_provider().install_default();
        let mut builder = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        builder = builder.timeout(Duration::from_secs(20));
        if let Some(tls) = self.tls() {
            builder = builder.tls_backend_preconfigured(tls).pool_max_idle_per_host(0);
        }
        if let Some((user, password)) = &self.login {
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let value = HeaderValue::from_str(&value).unwrap();
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
        }
        builder.build().unwrap()
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}
