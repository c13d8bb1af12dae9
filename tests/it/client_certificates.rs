//! Certificates of clients: who gets in with which, and what is said of those who do not.

use rustls::version::{TLS12, TLS13};

use crate::harness::{Authority, Client, Exporter, FAR, Pair, curl};

const FAILED: &str = "TLS handshake failed";

const NAME: &str = "prometheus.example";

#[tokio::test]
async fn who_shows_no_good_certificate_is_refused_in_one_line_and_who_shows_one_gets_in() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let shown = [
        (None, "no certificates"),
        (Some(Authority::new("others").client(NAME)), "UnknownIssuer"),
        (Some(clients.expired_client(NAME)), "expired"),
        (Some(clients.client("grafana.example")), "names nobody in client_allowed_sans"),
        // It is for servers.
        (Some(clients.server(FAR)), "extended key usage"),
    ];
    for version in [&TLS12, &TLS13] {
        let client = Client::trusting(&servers).speaking(version);
        let allowed = format!("client_allowed_sans: [other.example, {NAME}]");
        let verifying = ["client_ca_file: clients.pem", "client_auth_type: RequireAndVerifyClientCert", &allowed];
        let start = Exporter::with("watches: []\n").tls(&servers, &verifying).file("clients.pem", &clients.pem());
        let exporter = start.client(&client.clone().showing(&clients.client(NAME))).start().await;
        for (count, (pair, what)) in shown.iter().enumerate() {
            let client = pair.iter().fold(client.clone(), Client::showing);
            assert_eq!(exporter.status_for(&client, "/metrics").await, None, "{what}");
            let line = &exporter.logged(FAILED, count + 1).await[count];
            let text = |field: &str| line[field].as_str().unwrap();
            assert_eq!(text("level"), "WARN");
            let peer = line["peer"].as_str().unwrap();
            assert!(peer.starts_with("127.0.0.1:") && text("error").contains(what), "{what}: {line}");
        }
        assert_eq!(exporter.get("/metrics").await.0, 200);
        let (logs, errors) = exporter.last_words().await;
        let lines: Vec<_> = logs.iter().filter(|line| line["message"] == FAILED).collect();
        assert!(lines.len() == shown.len() && errors.is_empty(), "{lines:#?} {errors}");
    }
}

/// The status that curl gets with a certificate, or 0 if it gets no answer.
fn status_for(exporter: &Exporter, pair: Option<&Pair>) -> u16 {
    exporter.place("client.pem", &pair.map_or(String::new(), |pair| pair.certificate.clone() + &pair.key));
    let shown = if pair.is_some() { &["--cert", "client.pem"][..] } else { &[] };
    curl(exporter, "/metrics", &[&["--cacert", "ca.pem"], shown].concat())
}

#[tokio::test]
async fn each_type_of_authentication_asks_for_what_its_name_says() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (good, other) = (clients.client(NAME), Authority::new("others").client(NAME));
    let expired = clients.expired_client(NAME);
    let authorities = "client_ca_file: clients.pem";
    for (kind, more, statuses) in [
        ("NoClientCert", &[][..], [200, 200, 200, 200]),
        ("RequestClientCert", &[], [200, 200, 200, 200]),
        ("RequireAnyClientCert", &[], [0, 200, 200, 200]),
        ("VerifyClientCertIfGiven", &[authorities], [200, 200, 0, 0]),
        ("RequireAndVerifyClientCert", &[authorities], [0, 200, 0, 0]),
    ] {
        let kind = format!("client_auth_type: {kind}");
        let start = Exporter::with("watches: []\n").tls(&servers, &[&[kind.as_str()], more].concat());
        let exporter = start.file("clients.pem", &clients.pem()).file("ca.pem", &servers.pem()).start().await;
        let got = [None, Some(&good), Some(&other), Some(&expired)].map(|pair| status_for(&exporter, pair));
        assert_eq!(got, statuses, "{kind}");
        let refused = statuses.iter().filter(|status| **status == 0).count();
        let (logs, _) = exporter.last_words().await;
        assert_eq!(logs.iter().filter(|line| line["message"] == FAILED).count(), refused, "{kind}");
    }
}
