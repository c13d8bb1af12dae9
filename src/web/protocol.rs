//! The versions, cipher suites and curves of TLS.

use rustls::SupportedCipherSuite;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::{ALL_CIPHER_SUITES, kx_group};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// The versions, cipher suites and curves that a handshake may choose from.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// The allowed versions. A version without a suite is not used.
    pub(crate) versions: Vec<Version>,
    /// The configured cipher suites, in order of preference; empty for all.
    pub(crate) suites: Vec<Suite>,
    /// The configured curves; empty for all. The client chooses among those that both sides support.
    pub(crate) curves: Vec<Curve>,
    /// Whether the order of the suites takes precedence over that of the client.
    pub(crate) prefers_own_order: bool,
}

/// A cipher suite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Suite(SupportedCipherSuite);

/// A curve for the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    X25519,
    P256,
    P384,
}

// === impl Version ===

impl Version {
    /// Parses the name in a web configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => Err("is not spoken, because it is not safe any more: TLS12 or TLS13 is needed"),
            _ => Err("is not a version of TLS: TLS12 or TLS13 is needed"),
        }
    }

    /// The name in a web configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS12",
            Self::Tls13 => "TLS13",
        }
    }
}

// === impl Suite ===

impl Suite {
    /// Parses the name in Go.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let known = || ALL_CIPHER_SUITES.iter().copied().map(Self);
        known().find(|suite| suite.name() == text).ok_or_else(|| {
            let known: Vec<_> = known().map(Self::name).collect();
            format!("is not a cipher suite that is known here; known are {}", known.join(", "))
        })
    }

    /// The version that the suite belongs to.
    pub(crate) fn version(self) -> Version {
        if self.0.tls13().is_some() { Version::Tls13 } else { Version::Tls12 }
    }

    /// The name in Go. Only rustls has the prefix `TLS13_`.
    fn name(self) -> String {
        self.0.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
    }
}

// === impl Curve ===

impl Curve {
    /// Parses the name in Go.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "X25519" => Ok(Self::X25519),
            "CurveP256" => Ok(Self::P256),
            "CurveP384" => Ok(Self::P384),
            _ => Err("is not a curve that is known here; known are X25519, CurveP256, CurveP384"),
        }
    }

    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519 => kx_group::X25519,
            Self::P256 => kx_group::SECP256R1,
            Self::P384 => kx_group::SECP384R1,
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The allowed suites. If no suite of TLS 1.3 is configured, all of them are allowed, because lists
    /// that were written for Go, where these cannot be configured, are not meant to turn TLS 1.3 off.
    pub(super) fn suites(&self) -> Vec<SupportedCipherSuite> {
        let named = |version| self.suites.iter().filter(move |suite| suite.version() == version);
        let names_all = |version| match version {
            Version::Tls12 => self.suites.is_empty(),
            Version::Tls13 => named(version).next().is_none(),
        };
        let all = ALL_CIPHER_SUITES.iter().copied().map(Suite).filter(|suite| names_all(suite.version()));
        let spoken = all.chain(self.suites.iter().copied()).filter(|suite| self.versions.contains(&suite.version()));
        spoken.map(|Suite(suite)| suite).collect()
    }

    /// The curves for the key exchange.
    pub(super) fn groups(&self) -> Vec<&'static dyn SupportedKxGroup> {
        let all = [Curve::X25519, Curve::P256, Curve::P384];
        let curves = if self.curves.is_empty() { &all[..] } else { &self.curves };
        curves.iter().map(|curve| curve.group()).collect()
    }
}
