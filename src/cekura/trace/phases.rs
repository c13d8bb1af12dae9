//! The phases of a request, from what was recorded of it. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;
use url::{Host, Url};

use super::{HandshakeMarks, Marks, TracedLookup};
use crate::certificate::CertificateSummary;
use crate::tls::AuthorityKind;
use crate::toggle::{Reason, named_enum};

named_enum! {
    /// A part of a request, in which it can fail.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RequestPhase {
        /// Finding the key, before anything is sent.
        Credentials = "credentials",
        /// Resolving the name of the host or the proxy.
        Resolve = "resolve",
        /// Connecting; through a proxy, the tunnel included.
        Connect = "connect",
        /// The TLS handshake.
        Tls = "tls",
        /// From the end of connecting to the head of the response.
        Processing = "processing",
        /// Reading the body.
        Transfer = "transfer",
        /// None of them: the response is complete, but it is no valid answer.
        Answer = "answer",
    }
}

/// The phases of a request that began, and the one in which it failed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestPhases {
    /// Resolving names; `None` if the host is an address.
    pub resolve: Option<ResolvePhase>,
    /// Connecting.
    pub connect: Option<ConnectPhase>,
    /// The TLS handshake; `None` without TLS.
    pub tls: Option<TlsPhase>,
    /// How long it took from the end of connecting to the head of the response.
    pub processing: Option<Duration>,
    /// How long reading the body took.
    pub transfer: Option<Duration>,
    /// The HTTP status of the response.
    pub http_status: Option<u16>,
    /// Where it failed; `None` if it succeeded.
    pub failed_in: Option<RequestPhase>,
}

/// The lookups of host names.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvePhase {
    /// How long they took.
    pub took: Duration,
    /// Each of them. There are two only with a SOCKS proxy: of the API and of the proxy.
    pub lookups: Vec<ResolvedHost>,
}

/// The lookup of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedHost {
    /// The host name.
    pub host: String,
    /// The addresses, in the order in which they are tried; none if it failed.
    pub addresses: Vec<IpAddr>,
}

/// Connecting to the API, or to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectPhase {
    /// How long it took.
    pub took: Duration,
    /// The address that was reached, or the only one that was tried: of the proxy, if there is one. `None` if there
    /// were several and it is not known which one was reached.
    pub address: Option<SocketAddr>,
}

/// The TLS handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsPhase {
    /// How long it took.
    pub took: Duration,
    /// The version; `None` if the handshake failed before it was certain.
    pub version: Option<&'static str>,
    /// The name that the certificate must be for.
    pub server_name: String,
    /// The certificate that the server showed, if it did.
    pub certificate: Option<CertificateSummary>,
    /// Which authorities the certificate was verified by; `None` if it was not.
    pub verified_by: Option<AuthorityKind>,
}

// === impl Marks ===

impl Marks {
    pub(super) fn new(started: Instant, target: Url) -> Self {
        Self { started, target, lookups: Vec::new(), handshake: None, connected: None, address: None, answered: None }
    }

    /// The phases of the request, which ended then and failed for this reason, if it did.
    pub(super) fn phases(&self, ended: Instant, failed: Option<Reason>) -> RequestPhases {
        let until = |end: Option<Instant>, began: Instant| end.unwrap_or(ended).saturating_duration_since(began);
        let answered = self.answered.map(|(at, _)| at);
        let secured = self.handshake.as_ref().map(|handshake| handshake.began);
        let connect = self.connecting_since().map(|began| ConnectPhase {
            took: until(secured.or(self.connected), began),
            address: self.address.or_else(|| self.only_address()),
        });
        let mut phases = RequestPhases {
            resolve: self.resolve(ended),
            connect,
            tls: self.handshake.as_ref().map(|handshake| handshake.phase(until(self.connected, handshake.began))),
            processing: self.connected.map(|began| until(answered, began)),
            transfer: answered.map(|began| until(None, began)),
            http_status: self.answered.map(|(_, status)| status),
            failed_in: None,
        };
        phases.failed_in = failed.map(|reason| phases.failed_in(reason));
        phases
    }

    fn resolve(&self, ended: Instant) -> Option<ResolvePhase> {
        let (first, last) = (self.lookups.first()?, self.lookups.last()?);
        let until = last.found.as_ref().map_or(ended, |(at, _)| *at);
        let took = until.saturating_duration_since(first.began);
        Some(ResolvePhase { took, lookups: self.lookups.iter().map(TracedLookup::result).collect() })
    }

    /// When connecting began; `None` if no name was resolved.
    fn connecting_since(&self) -> Option<Instant> {
        let Some(last) = self.lookups.last() else { return Some(self.started) };
        last.found.as_ref().filter(|(_, addresses)| !addresses.is_empty()).map(|(at, _)| *at)
    }

    /// The address that is connected to, if there is only one.
    fn only_address(&self) -> Option<SocketAddr> {
        let address = match (self.lookups.last(), self.target.host()) {
            (Some(lookup), _) => match lookup.found.as_ref()?.1[..] {
                [address] => address,
                _ => return None,
            },
            (None, Some(Host::Ipv4(address))) => address.into(),
            (None, Some(Host::Ipv6(address))) => address.into(),
            (None, _) => return None,
        };
        Some(SocketAddr::new(address, self.target.port_or_known_default()?))
    }
}

// === impl TracedLookup ===

impl TracedLookup {
    fn result(&self) -> ResolvedHost {
        let addresses = self.found.iter().flat_map(|(_, addresses)| addresses).copied().collect();
        ResolvedHost { host: self.host.clone(), addresses }
    }
}

// === impl HandshakeMarks ===

impl HandshakeMarks {
    fn phase(&self, took: Duration) -> TlsPhase {
        let version = self.version.map(|version| match version {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS 1.3",
        });
        TlsPhase {
            took,
            version,
            server_name: self.server_name.clone(),
            certificate: self.certificate.clone(),
            verified_by: self.verified_by,
        }
    }
}

// === impl RequestPhases ===

impl RequestPhases {
    /// The phases of a request that was not sent, because there is no key.
    pub(in crate::cekura) fn without_key() -> Self {
        Self { failed_in: Some(RequestPhase::Credentials), ..Self::default() }
    }

    /// The phase in which the request failed: the last one that began, unless the response is complete.
    fn failed_in(&self, reason: Reason) -> RequestPhase {
        let is_incomplete = matches!(reason, Reason::Timeout | Reason::Aborted | Reason::TooLarge);
        match self {
            Self { transfer: Some(_), .. } if is_incomplete => RequestPhase::Transfer,
            Self { transfer: Some(_), .. } => RequestPhase::Answer,
            Self { processing: Some(_), .. } => RequestPhase::Processing,
            Self { tls: Some(_), .. } => RequestPhase::Tls,
            Self { connect: Some(_), .. } => RequestPhase::Connect,
            _ => RequestPhase::Resolve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: fn(u64) -> Duration = Duration::from_millis;

    /// A request to this URL that has just started.
    fn started(start: Instant, url: &str) -> Marks {
        Marks::new(start, url.parse().unwrap())
    }

    /// A request to a host with two addresses that did everything: each phase took a millisecond longer than the one
    /// before it.
    fn complete(start: Instant) -> Marks {
        let at = |millis| start + MILLIS(millis);
        let addresses = vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        Marks {
            lookups: vec![TracedLookup { host: "h".to_owned(), began: start, found: Some((at(1), addresses)) }],
            handshake: Some(HandshakeMarks {
                began: at(3),
                server_name: "h".to_owned(),
                version: Some(ProtocolVersion::TLSv1_3),
                certificate: None,
                verified_by: Some(AuthorityKind::Machine),
            }),
            connected: Some(at(6)),
            address: Some(SocketAddr::from(([192, 0, 2, 2], 443))),
            answered: Some((at(10), 200)),
            ..started(start, "https://h")
        }
    }

    #[test]
    fn each_phase_ends_when_the_next_one_begins() {
        let start = Instant::now();
        let phases = complete(start).phases(start + MILLIS(15), None);
        assert_eq!(phases.resolve.unwrap().took, MILLIS(1));
        assert_eq!(phases.connect.unwrap().took, MILLIS(2));
        let tls = phases.tls.unwrap();
        assert_eq!((tls.took, tls.version), (MILLIS(3), Some("TLS 1.3")));
        assert_eq!((phases.processing, phases.transfer), (Some(MILLIS(4)), Some(MILLIS(5))));
        assert_eq!((phases.http_status, phases.failed_in), (Some(200), None));
    }

    #[test]
    fn a_request_fails_in_the_last_phase_that_began_and_the_others_are_absent() {
        let start = Instant::now();
        let failed = |marks: &Marks, reason| marks.phases(start + MILLIS(100), Some(reason));
        let mut marks = complete(start);
        for (reason, phase) in [
            (Reason::Timeout, RequestPhase::Transfer),
            (Reason::TooLarge, RequestPhase::Transfer),
            (Reason::ServerError, RequestPhase::Answer),
            (Reason::Decode, RequestPhase::Answer),
        ] {
            assert_eq!(failed(&marks, reason).failed_in, Some(phase), "{reason:?}");
        }
        marks.answered = None;
        let phases = failed(&marks, Reason::Timeout);
        assert_eq!((phases.failed_in, phases.processing), (Some(RequestPhase::Processing), Some(MILLIS(94))));
        (marks.connected, marks.address) = (None, None);
        let phases = failed(&marks, Reason::Tls);
        assert_eq!((phases.failed_in, phases.processing), (Some(RequestPhase::Tls), None));
        assert_eq!(phases.tls.unwrap().took, MILLIS(97));
        marks.handshake = None;
        let phases = failed(&marks, Reason::Connect);
        assert_eq!((phases.failed_in, phases.tls), (Some(RequestPhase::Connect), None));
        assert_eq!(phases.connect, Some(ConnectPhase { took: MILLIS(99), address: None }));
    }

    #[test]
    fn a_lookup_that_found_nothing_or_does_not_end_is_followed_by_nothing() {
        let start = Instant::now();
        for (found, took) in [(Some((start + MILLIS(5), Vec::new())), MILLIS(5)), (None, MILLIS(7))] {
            let lookups = vec![TracedLookup { host: "h".to_owned(), began: start, found }];
            let phases = Marks { lookups, ..started(start, "http://h") }.phases(start + MILLIS(7), Some(Reason::Dns));
            assert_eq!((phases.failed_in, phases.connect), (Some(RequestPhase::Resolve), None));
            assert_eq!(phases.resolve.unwrap().took, took);
        }
    }

    #[test]
    fn an_address_is_not_resolved_and_a_request_without_tls_is_sent_when_it_is_connected() {
        let start = Instant::now();
        let marks = Marks { connected: Some(start + MILLIS(2)), ..started(start, "http://192.0.2.1") };
        let phases = marks.phases(start + MILLIS(5), None);
        assert_eq!((&phases.resolve, &phases.tls), (&None, &None));
        let address = Some(SocketAddr::from(([192, 0, 2, 1], 80)));
        assert_eq!(phases.connect, Some(ConnectPhase { took: MILLIS(2), address }));
        assert_eq!(phases.processing, Some(MILLIS(3)));
    }

    #[test]
    fn an_address_that_was_not_reached_is_known_if_it_is_the_only_one() {
        let start = Instant::now();
        let address = |last| IpAddr::from([192, 0, 2, last]);
        for (url, found, only) in [
            ("https://h", vec![address(1)], Some("192.0.2.1:443")),
            ("http://h:8080", vec![address(1)], Some("192.0.2.1:8080")),
            ("http://h", vec![address(1), address(2)], None),
            ("socks5://h", vec![address(1)], None),
        ] {
            let lookups = vec![TracedLookup { host: "h".to_owned(), began: start, found: Some((start, found)) }];
            let phases = Marks { lookups, ..started(start, url) }.phases(start, Some(Reason::Connect));
            assert_eq!(phases.connect.unwrap().address, only.map(|only| only.parse().unwrap()), "{url}");
        }
        let phases = started(start, "https://[::1]:1").phases(start, Some(Reason::Connect));
        assert_eq!(phases.connect.unwrap().address, Some("[::1]:1".parse().unwrap()));
    }
}
