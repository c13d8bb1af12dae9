//! Handshakes, as a web configuration allows them.

use std::sync::Arc;

use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::ring::{ALL_CIPHER_SUITES, cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::sample::{Authority, Folder, Name, Pair};
use super::*;
use crate::pem;

/// A server and a client that try a handshake.
struct Handshake {
    server: Arc<rustls::ServerConfig>,
    authority: Authority,
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
    groups: Vec<&'static dyn SupportedKxGroup>,
    shows: Option<CertifiedKey>,
    protocols: Vec<Vec<u8>>,
}

/// The result of a handshake.
#[derive(Debug)]
struct Agreed {
    version: ProtocolVersion,
    suite: CipherSuite,
    group: Option<NamedGroup>,
    protocol: Option<Vec<u8>>,
    kind: HandshakeKind,
    client_is_known: bool,
}

impl Handshake {
    /// Adds these lines to the `tls_server_config` of the server.
    fn with(more: &str) -> Self {
        Self::with_authorities(more, &Authority::new("clients"))
    }

    /// Like [`Handshake::with`], with these authorities of clients in `clients.pem`.
    fn with_authorities(more: &str, clients: &Authority) -> Self {
        let authority = Authority::new("servers");
        let folder = Folder::of_server(&authority.issue(&[Name::Dns("localhost")]), more);
        folder.write("clients.pem", &clients.pem());
        let (file, warnings) = WebFile::open(&folder.config()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(warnings, []);
        Self {
            server: file.web().tls.as_ref().unwrap().server.clone(),
            authority,
            versions: vec![&TLS12, &TLS13],
            suites: ALL_CIPHER_SUITES.to_vec(),
            groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
            shows: None,
            protocols: Vec::new(),
        }
    }

    fn show(&mut self, pair: Option<&Pair>) {
        self.shows = pair.map(|pair| certified(&pair.certificate, &pair.key));
    }

    fn client(&self) -> ClientConfig {
        let provider =
            CryptoProvider { cipher_suites: self.suites.clone(), kx_groups: self.groups.clone(), ..default_provider() };
        let provider = Arc::new(provider);
        let roots = pem::authorities(&pem::certificates(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_webpki_verifier(verifier);
        let mut client = match self.shows.clone() {
            Some(certified) => client.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols.clone_from(&self.protocols);
        client
    }

    async fn shake(&self) -> Result<Agreed, String> {
        self.shake_as(Arc::new(self.client())).await
    }

    /// The result of the server, or the alert that the client received.
    async fn shake_as(&self, client: Arc<ClientConfig>) -> Result<Agreed, String> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(self.server.clone());
        let serving = async move {
            let mut stream = acceptor.accept(near).await.ok()?;
            stream.write_all(b"ok").await.unwrap();
            stream.shutdown().await.unwrap();
            let connection = stream.get_ref().1;
            Some(Agreed {
                version: connection.protocol_version().unwrap(),
                suite: connection.negotiated_cipher_suite().unwrap().suite(),
                group: connection.negotiated_key_exchange_group().map(SupportedKxGroup::name),
                protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
                kind: connection.handshake_kind().unwrap(),
                client_is_known: connection.peer_certificates().is_some(),
            })
        };
        let asking = async move {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(client).connect(name, far).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        match tokio::join!(serving, asking) {
            (Some(agreed), Ok(answer)) if answer == "ok" => Ok(agreed),
            (None, Err(error)) => Err(error.to_string()),
            (agreed, answer) => panic!("{agreed:?}, and the client {answer:?}"),
        }
    }
}

fn certified(certificate: &str, key: &str) -> CertifiedKey {
    let certificates = pem::certificates(certificate.as_bytes()).unwrap();
    CertifiedKey::new(certificates, pem::key(key.as_bytes()).unwrap())
}

const JOB: Name = Name::Dns("job.example");

#[tokio::test]
async fn each_client_auth_type_accepts_the_right_clients() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let (good, other, expired) = (clients.issue(&[JOB]), others.issue(&[JOB]), clients.issue_expired(&[JOB]));
    let shown = [None, Some(&good), Some(&other), Some(&expired)];
    let verifying = "client_ca_file: clients.pem\nclient_auth_type: ";
    for (lines, gets_in, is_known) in [
        (String::new(), [true, true, true, true], [false, false, false, false]),
        ("client_auth_type: NoClientCert".to_owned(), [true, true, true, true], [false, false, false, false]),
        ("client_auth_type: RequestClientCert".to_owned(), [true, true, true, true], [false, true, true, true]),
        ("client_auth_type: RequireAnyClientCert".to_owned(), [false, true, true, true], [false, true, true, true]),
        ("client_auth_type: RequireClientCert".to_owned(), [false, true, true, true], [false, true, true, true]),
        (format!("{verifying}VerifyClientCertIfGiven"), [true, true, false, false], [false, true, false, false]),
        (format!("{verifying}RequireAndVerifyClientCert"), [false, true, false, false], [false, true, false, false]),
    ] {
        let mut handshake = Handshake::with_authorities(&lines, &clients);
        for versions in [&TLS12, &TLS13] {
            handshake.versions = vec![versions];
            for ((shown, gets_in), is_known) in shown.into_iter().zip(gets_in).zip(is_known) {
                handshake.show(shown);
                let agreed = handshake.shake().await;
                assert_eq!(agreed.is_ok(), gets_in, "{lines}: {agreed:?}");
                assert!(agreed.is_ok_and(|agreed| agreed.client_is_known) == is_known, "{lines}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_the_key_of_its_certificate_is_refused_even_where_any_certificate_is_accepted() {
    let clients = Authority::new("clients");
    let (mine, stolen) = (clients.issue(&[JOB]), clients.issue(&[JOB]));
    for auth in ["RequestClientCert", "RequireAnyClientCert"] {
        let mut handshake = Handshake::with(&format!("client_auth_type: {auth}"));
        for version in [&TLS12, &TLS13] {
            handshake.versions = vec![version];
            handshake.shows = Some(certified(&stolen.certificate, &mine.key));
            assert!(handshake.shake().await.unwrap_err().contains("DecryptError"));
        }
    }
}

#[tokio::test]
async fn a_client_must_have_exactly_one_of_the_allowed_names() {
    let clients = Authority::new("clients");
    let lines = "client_ca_file: clients.pem\nclient_auth_type: RequireAndVerifyClientCert\n\
                 client_allowed_sans: [job.example, ci@example.org, \"spiffe://example/job\", 10.0.0.7, \"2001:DB8:0::7\"]";
    let mut handshake = Handshake::with_authorities(lines, &clients);
    for version in [&TLS12, &TLS13] {
        handshake.versions = vec![version];
        for names in [
            &[JOB][..],
            &[Name::Dns("other.example"), JOB],
            &[Name::Email("ci@example.org")],
            &[Name::Uri("spiffe://example/job")],
            &[Name::Address("10.0.0.7")],
            &[Name::Address("2001:db8::7")],
        ] {
            handshake.show(Some(&clients.issue(names)));
            handshake.shake().await.unwrap();
        }
        for names in [
            &[][..],
            &[Name::Dns("jobs.example"), Name::Dns("a.job.example"), Name::Dns("job.exampl")],
            &[Name::Dns("*.example")],
            &[Name::Dns("JOB.example")],
            &[Name::Email("other@example.org")],
            &[Name::Uri("spiffe://example/job/2")],
            &[Name::Address("10.0.0.8"), Name::Address("2001:db8::8")],
        ] {
            handshake.show(Some(&clients.issue(names)));
            assert!(handshake.shake().await.unwrap_err().contains("AccessDenied"));
        }
        // The right name does not make up for the wrong authority.
        handshake.show(Some(&Authority::new("others").issue(&[JOB])));
        assert!(handshake.shake().await.unwrap_err().contains("UnknownCA"));
    }
}

#[tokio::test]
async fn only_versions_between_the_minimum_and_the_maximum_are_used() {
    for (lines, tls12, tls13) in [
        ("", true, true),
        ("min_version: TLS12\nmax_version: TLS13", true, true),
        ("min_version: TLS13", false, true),
        ("max_version: TLS12", true, false),
        ("min_version: TLS13\nmax_version: TLS13", false, true),
    ] {
        let mut handshake = Handshake::with(lines);
        for (version, is_spoken) in [(&TLS12, tls12), (&TLS13, tls13)] {
            handshake.versions = vec![version];
            let agreed = handshake.shake().await;
            assert_eq!(agreed.as_ref().map(|agreed| agreed.version).ok(), is_spoken.then_some(version.version));
            assert!(agreed.is_ok() || agreed.unwrap_err().contains("ProtocolVersion"), "{lines}");
        }
    }
}

#[tokio::test]
async fn a_version_with_configured_suites_uses_no_others() {
    use cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
    };
    let all = [
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ];
    for (named, spoken) in [
        ("[]", [true, true, true, true]),
        ("[TLS_AES_128_GCM_SHA256]", [true, false, false, false]),
        ("[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]", [true, true, false, true]),
        ("[TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384]", [false, true, true, false]),
    ] {
        let mut handshake = Handshake::with(&format!("cipher_suites: {named}"));
        for (suite, is_spoken) in all.into_iter().zip(spoken) {
            handshake.suites = vec![suite];
            handshake.versions = vec![suite.version()];
            let agreed = handshake.shake().await;
            assert_eq!(agreed.map(|agreed| agreed.suite).ok(), is_spoken.then_some(suite.suite()), "{named}");
        }
    }
}

#[tokio::test]
async fn the_order_of_the_suites_decides_unless_the_client_takes_precedence() {
    let named = "cipher_suites: [TLS_CHACHA20_POLY1305_SHA256, TLS_AES_256_GCM_SHA384]";
    for (lines, expected) in [
        (named.to_owned(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (format!("{named}\nprefer_server_cipher_suites: true"), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (format!("{named}\nprefer_server_cipher_suites: false"), CipherSuite::TLS13_AES_256_GCM_SHA384),
    ] {
        // The client prefers AES.
        assert_eq!(Handshake::with(&lines).shake().await.unwrap().suite, expected, "{lines}");
    }
}

#[tokio::test]
async fn only_the_configured_curves_are_used() {
    let mut handshake = Handshake::with("");
    assert_eq!(handshake.shake().await.unwrap().group, Some(NamedGroup::X25519));
    handshake = Handshake::with("curve_preferences: [CurveP384, CurveP256]");
    for version in [&TLS12, &TLS13] {
        handshake.versions = vec![version];
        for (offered, agreed) in [
            (vec![kx_group::X25519, kx_group::SECP256R1], NamedGroup::secp256r1),
            (vec![kx_group::X25519, kx_group::SECP384R1], NamedGroup::secp384r1),
        ] {
            handshake.groups = offered;
            assert_eq!(handshake.shake().await.unwrap().group, Some(agreed));
        }
        handshake.groups = vec![kx_group::X25519];
        assert!(handshake.shake().await.unwrap_err().contains("HandshakeFailure"));
    }
}

#[tokio::test]
async fn http_1_1_is_the_only_protocol() {
    let mut handshake = Handshake::with("");
    assert_eq!(handshake.shake().await.unwrap().protocol, None);
    handshake.protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    assert_eq!(handshake.shake().await.unwrap().protocol.as_deref(), Some(&b"http/1.1"[..]));
    handshake.protocols = vec![b"h2".to_vec()];
    assert!(handshake.shake().await.unwrap_err().contains("NoApplicationProtocol"));
}

#[tokio::test]
async fn sessions_are_resumed_only_without_client_certificates() {
    let clients = Authority::new("clients");
    for (lines, kind) in [
        ("", HandshakeKind::Resumed),
        ("client_auth_type: RequestClientCert", HandshakeKind::Full),
        ("client_ca_file: clients.pem\nclient_auth_type: RequireAndVerifyClientCert", HandshakeKind::Full),
    ] {
        let mut handshake = Handshake::with_authorities(lines, &clients);
        handshake.show(Some(&clients.issue(&[JOB])));
        for version in [&TLS12, &TLS13] {
            handshake.versions = vec![version];
            let client = Arc::new(handshake.client());
            assert_eq!(handshake.shake_as(client.clone()).await.unwrap().kind, HandshakeKind::Full);
            assert_eq!(handshake.shake_as(client).await.unwrap().kind, kind, "{lines}");
        }
    }
}

#[tokio::test]
async fn the_whole_chain_is_sent() {
    let root = Authority::new("root");
    let between = root.issue_authority("between");
    let mut server = between.issue(&[Name::Dns("localhost")]);
    let alone = Folder::of_server(&server, "");
    server.certificate += &between.pem();
    let whole = Folder::of_server(&server, "");
    let mut handshake = Handshake::with("");
    handshake.authority = root;
    for (folder, is_trusted) in [(whole, true), (alone, false)] {
        let (file, _) = WebFile::open(&folder.config()).unwrap();
        handshake.server = file.web().tls.as_ref().unwrap().server.clone();
        assert_eq!(handshake.shake().await.is_ok(), is_trusted);
    }
}

#[test]
fn only_a_certificate_that_is_required_and_verified_or_a_login_authenticates() {
    let server = Authority::new("servers").issue(&[Name::Dns("localhost")]);
    let authenticates = |lines: &str| {
        let folder = Folder::of_server(&server, lines);
        folder.write("clients.pem", &Authority::new("clients").pem());
        let (file, _) = WebFile::open(&folder.config()).unwrap();
        file.web().authenticates()
    };
    assert!(!Web::default().authenticates());
    assert!(!authenticates(""));
    assert!(!authenticates("client_auth_type: RequireAnyClientCert"));
    assert!(!authenticates("client_ca_file: clients.pem\nclient_auth_type: VerifyClientCertIfGiven"));
    assert!(authenticates("client_ca_file: clients.pem\nclient_auth_type: RequireAndVerifyClientCert"));
}

#[test]
fn debug_output_shows_neither_keys_nor_hashes() {
    let server = Authority::new("servers").issue(&[Name::Dns("localhost")]);
    let folder = Folder::of_server(&server, "");
    let hash = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
    let config = std::fs::read_to_string(folder.config()).unwrap();
    folder.write("web.yaml", &format!("{config}basic_auth_users: {{alice: {hash}}}\n"));
    let (file, _) = WebFile::open(&folder.config()).unwrap();
    let shown = format!("{file:?}");
    assert!(shown.contains("alice") && !shown.contains("$2y"), "{shown}");
    let key: Vec<_> = server.key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(!key.is_empty() && key.iter().all(|line| !shown.contains(line)), "{shown}");
}
