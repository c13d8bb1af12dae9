//! An upstream that speaks TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{Authority, Pair};

/// A server on loopback that shakes hands with a certificate for a host, and answers that every task
/// is completed.
pub(crate) struct TlsUpstream {
    port: u16,
    answered: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl TlsUpstream {
    /// Its certificate is of this authority, for this host.
    pub(crate) async fn start(authority: &Authority, host: &str) -> Self {
        Self::showing(&authority.server_named(host)).await
    }

    /// It has this certificate.
    pub(crate) async fn showing(pair: &Pair) -> Self {
        Self::speaking(pair, ALL_VERSIONS).await
    }

    /// It has this certificate and speaks these versions of TLS.
    pub(crate) async fn speaking(pair: &Pair, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), answered.clone()));
        Self { port, answered, serving }
    }

    /// Its URL at the address that it listens on.
    pub(crate) fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// Its URL at a host that is resolved to that address.
    pub(crate) fn url_at(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// How many requests it answered.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answered: Arc<AtomicUsize>) {
    let body = r#"{"status":"completed","mock_enabled":true,"message":null,"error":null}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that does not trust the certificate hangs up.
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        if stream.read_buf(&mut Vec::with_capacity(4096)).await.is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}
