//! Tracing one request: what it did, and when.
//!
//! A request that is traced uses the client settings of every other one. The parts of the client that see a phase
//! begin or end are wrapped: the resolver, the verifier of certificates, and the connector.

mod handshake;
mod phases;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{ClientConfig, ProtocolVersion};
use tower::util::MapResultLayer;
use url::Url;

use crate::certificate::CertificateSummary;
use crate::resolve::SystemResolver;
use crate::tls::{AuthorityKind, CaBundle};
use crate::toggle::Reason;
use handshake::TracedHandshake;
pub use phases::{ConnectPhase, RequestPhase, RequestPhases, ResolvePhase, ResolvedHost, TlsPhase};

/// Records what one request does.
#[derive(Debug, Clone)]
pub(super) struct RequestTrace(Arc<Mutex<Marks>>);

/// What a request did so far, and when.
#[derive(Debug)]
struct Marks {
    started: Instant,
    /// What is connected to: the API or the proxy.
    target: Url,
    lookups: Vec<TracedLookup>,
    handshake: Option<HandshakeMarks>,
    /// When the connection was ready for the request, handshake included.
    connected: Option<Instant>,
    /// The other end of the connection.
    address: Option<SocketAddr>,
    /// When the head of the response was complete, and its status.
    answered: Option<(Instant, u16)>,
}

/// The lookup of a host name.
#[derive(Debug)]
struct TracedLookup {
    host: String,
    began: Instant,
    /// When it ended, and the addresses that it found in the order in which they are tried; none if it failed.
    found: Option<(Instant, Vec<IpAddr>)>,
}

/// A TLS handshake.
#[derive(Debug)]
struct HandshakeMarks {
    began: Instant,
    server_name: String,
    version: Option<ProtocolVersion>,
    certificate: Option<CertificateSummary>,
    verified_by: Option<AuthorityKind>,
}

/// A resolver whose lookups are traced.
struct TracedResolver {
    resolver: SystemResolver,
    trace: RequestTrace,
}

// === impl RequestTrace ===

impl RequestTrace {
    /// The trace of a request that starts now and connects to this: the API or the proxy.
    pub(super) fn new(target: &Url) -> Self {
        Self(Arc::new(Mutex::new(Marks::new(Instant::now(), target.clone()))))
    }

    /// The TLS settings of a client with these extra root certificates, for the traced request. No session is
    /// resumed, so that the server shows its certificate.
    ///
    /// # Errors
    /// If the TLS library refuses its own defaults.
    pub(super) fn client_config(&self, extra: Option<&CaBundle>) -> Result<ClientConfig, rustls::Error> {
        handshake::client_config(TracedHandshake::new(self.clone(), extra)?)
    }

    /// Traces the lookups and the connection of this client.
    pub(super) fn attach(&self, http: ClientBuilder, resolver: SystemResolver) -> ClientBuilder {
        let trace = self.clone();
        http.dns_resolver(TracedResolver { resolver, trace: self.clone() }).connector_layer(MapResultLayer::new(
            move |connected| {
                if let Ok(connection) = &connected {
                    trace.connected(connection);
                }
                connected
            },
        ))
    }

    /// Records the head of the response.
    pub(super) fn answered(&self, status: u16) {
        self.marks().answered = Some((Instant::now(), status));
    }

    /// The phases of the request, which ends now and failed for this reason, if it did.
    pub(super) fn end(&self, failed: Option<Reason>) -> RequestPhases {
        self.marks().phases(Instant::now(), failed)
    }

    fn connected(&self, connection: &impl Connection) {
        let mut of_connection = hyper::http::Extensions::new();
        connection.connected().get_extras(&mut of_connection);
        let mut marks = self.marks();
        marks.connected = Some(Instant::now());
        marks.address = of_connection.get::<HttpInfo>().map(HttpInfo::remote_addr);
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl TracedResolver ===

impl Resolve for TracedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let trace = self.trace.clone();
        trace.marks().lookups.push(TracedLookup { host: name.as_str().to_owned(), began: Instant::now(), found: None });
        let resolving = self.resolver.resolve(name);
        Box::pin(async move {
            let resolved = resolving.await.map(Vec::from_iter);
            let addresses = resolved.iter().flatten().map(SocketAddr::ip).collect();
            if let Some(lookup) = trace.marks().lookups.last_mut() {
                lookup.found = Some((Instant::now(), addresses));
            }
            resolved.map(|addresses| Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
