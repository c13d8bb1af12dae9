//! TLS to a server of the database, with the library that everything else uses.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ring::digest::{self, Algorithm, digest};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::{TlsConnector, client};
use x509_cert::Certificate;
use x509_cert::der::Decode;

// The algorithms by which certificates are signed, of RFC 4055 and RFC 5758.
const SHA1_WITH_RSA: &str = "1.2.840.113549.1.1.5";
const SHA256_WITH_RSA: &str = "1.2.840.113549.1.1.11";
const SHA384_WITH_RSA: &str = "1.2.840.113549.1.1.12";
const SHA512_WITH_RSA: &str = "1.2.840.113549.1.1.13";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_WITH_SHA384: &str = "1.2.840.10045.4.3.3";
const ECDSA_WITH_SHA512: &str = "1.2.840.10045.4.3.4";

/// An encrypted connection to a server.
#[derive(Debug)]
pub struct TlsStream(client::TlsStream<Socket>);

/// Begins handshakes with these settings.
#[derive(Clone)]
pub(super) struct Handshakes(pub(super) Arc<ClientConfig>);

/// A handshake with the server of this name.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    /// Empty where a socket of this machine leads to the server, and there is no handshake.
    server: String,
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct HandshakeError(io::Error);

// === impl Handshakes ===

impl MakeTlsConnect<Socket> for Handshakes {
    type Stream = TlsStream;
    type TlsConnect = Handshake;
    type Error = HandshakeError;

    fn make_tls_connect(&mut self, server: &str) -> Result<Handshake, HandshakeError> {
        Ok(Handshake { config: self.0.clone(), server: server.to_owned() })
    }
}

// === impl Handshake ===

impl TlsConnect<Socket> for Handshake {
    type Stream = TlsStream;
    type Error = HandshakeError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream, HandshakeError>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let server =
                ServerName::try_from(self.server).map_err(|invalid| HandshakeError(io::Error::other(invalid)))?;
            let connected = TlsConnector::from(self.config).connect(server, stream).await;
            connected.map(TlsStream).map_err(HandshakeError)
        })
    }
}

// === impl TlsStream ===

impl tls::TlsStream for TlsStream {
    /// The digest of the server's certificate, `tls-server-end-point` of RFC 5929. A login by SCRAM that is bound to it
    /// cannot be relayed by somebody who has another certificate.
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let digest = certificate.and_then(|der| Some(digest(digest_of_signature(der)?, der)));
        digest
            .map_or_else(ChannelBinding::none, |digest| ChannelBinding::tls_server_end_point(digest.as_ref().to_vec()))
    }
}

/// The digest by which a certificate is signed, or SHA-256 if it is weaker; `None` if it has none of its own.
fn digest_of_signature(der: &[u8]) -> Option<&'static Algorithm> {
    let certificate = Certificate::from_der(der).ok()?;
    match certificate.signature_algorithm().oid.to_string().as_str() {
        SHA1_WITH_RSA | SHA256_WITH_RSA | ECDSA_WITH_SHA256 => Some(&digest::SHA256),
        SHA384_WITH_RSA | ECDSA_WITH_SHA384 => Some(&digest::SHA384),
        SHA512_WITH_RSA | ECDSA_WITH_SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

// === impl HandshakeError ===

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS failed: {}", self.0)
    }
}

impl Error for HandshakeError {}
