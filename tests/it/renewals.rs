//! Certificates and keys that are replaced while the exporter runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use cekura_exporter::demo::simulator::Reply;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Authority, Client, Exporter, Exposition, FAR, Pair, TLS, Upstream, eventually};

/// The longest that a client waits for an answer or for the end of a connection.
const PATIENCE: Duration = Duration::from_mins(1);

/// When the certificates expire that take the place of others, as a day and as a timestamp.
const LATER: ((i32, u8, u8), f64) = ((2101, 1, 1), 4_133_980_800.0);

fn expiry(e: &Exposition) -> Option<f64> {
    e.value("cekura_exporter_tls_certificate_expiry_timestamp_seconds", &[])
}

fn successful(e: &Exposition) -> Option<f64> {
    e.value("cekura_exporter_web_config_last_reload_successful", &[])
}

async fn connect(exporter: &Exporter, client: &Client) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(exporter.address()).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    TlsConnector::from(Arc::new(client.tls().unwrap())).connect(name, stream).await.unwrap()
}

/// Sends a request that keeps the connection, without waiting for its answer.
async fn ask(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads an answer to its end, which is the end of its last line.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"ready\n") {
        assert_ne!(tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
    }
    String::from_utf8(answer).unwrap()
}

/// What still comes over a connection, until the exporter ends it as it should be ended.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    rest
}

/// Whether this certificate is shown to new connections.
async fn shows(exporter: &Exporter, client: &Client, pair: &Pair) -> bool {
    let connection = connect(exporter, client).await;
    let shown = &connection.get_ref().1.peer_certificates().unwrap()[0];
    *shown == CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

async fn shown(exporter: &Exporter, client: &Client, pair: &Pair) {
    eventually("the certificate is shown", async || shows(exporter, client, pair).await.then_some(())).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_soon_and_connections_of_the_old_one_end_when_they_are_answered() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let authority = Authority::new("servers");
    let client = Client::trusting(&authority);
    let watches = "  - {name: w, agent_id: 1, progress_id: p}\n";
    let exporter = Exporter::polling(&upstream, watches).tls(&authority, &[]).start().await;
    assert_eq!(expiry(&exporter.scrape().await), Some(4_102_444_800.0));
    let mut idle = connect(&exporter, &client).await;
    ask(&mut idle, "/-/ready").await;
    assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut waiting = connect(&exporter, &client).await;
    ask(&mut waiting, "/api/v1/toggles/w?wait=5m").await;

    let renewed = authority.server(LATER.0);
    exporter.place("server.pem", &renewed.certificate);
    exporter.place("server.key", &renewed.key);
    shown(&exporter, &client, &renewed).await;
    let follows = |e: &Exposition| expiry(e) == Some(LATER.1) && successful(e) == Some(1.0);
    exporter.scrape_until("the metrics follow", follows).await;
    assert_eq!(rest(idle).await, "");
    upstream.script("p", [Reply::task("completed", Some(true))]);
    let answered = rest(waiting).await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.contains(r#""status":"completed""#), "{answered}");
    let (logs, _) = exporter.last_words().await;
    assert_eq!(logs.iter().filter(|line| line["message"] == "web configuration reloaded").count(), 1);
}

#[tokio::test]
async fn who_connected_just_before_a_renewal_is_answered_once() {
    let authority = Authority::new("servers");
    let client = Client::trusting(&authority);
    let exporter = Exporter::with("watches: []\n").tls(&authority, &[]).start().await;
    let mut silent = connect(&exporter, &client).await;
    let renewed = authority.server(LATER.0);
    exporter.place("server.pem", &renewed.certificate);
    exporter.place("server.key", &renewed.key);
    assert_eq!(exporter.reload().await.0, 200);
    assert!(shows(&exporter, &client, &renewed).await);
    ask(&mut silent, "/-/ready").await;
    assert!(rest(silent).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_certificate_that_kubernetes_renews_by_swapping_symlinks_is_shown() {
    let authority = Authority::new("servers");
    let client = Client::trusting(&authority);
    let (first, renewed) = (authority.server(FAR), authority.server(LATER.0));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (version, pair) in [("v1", &first), ("v2", &renewed)] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("tls.crt"), &pair.certificate).unwrap();
        fs::write(root.join(version).join("tls.key"), &pair.key).unwrap();
    }
    let link = |target: &str, name: &str| symlink(target, root.join(name)).unwrap();
    link("v1", "..data");
    link("..data/tls.crt", "tls.crt");
    link("..data/tls.key", "tls.key");
    let path = |name: &str| root.join(name).display().to_string();
    let web = format!("tls_server_config: {{cert_file: {}, key_file: {}}}\n", path("tls.crt"), path("tls.key"));
    let exporter = Exporter::with("watches: []\n").web(&web).client(&client).start().await;
    assert!(shows(&exporter, &client, &first).await);
    link("v2", "..next");
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    shown(&exporter, &client, &renewed).await;
    exporter.scrape_until("the metric follows", |e| expiry(e) == Some(LATER.1)).await;
    let (logs, _) = exporter.last_words().await;
    assert!(logs.iter().all(|line| line["level"] != "ERROR"), "both were swapped at once: {logs:#?}");
}

#[tokio::test]
async fn a_key_that_is_gone_or_broken_is_said_once_and_the_last_good_certificate_stays_in_use() {
    const FAILED: &str = "web configuration not reloaded: the one in force stays";
    let authority = Authority::new("servers");
    let client = Client::trusting(&authority);
    let good = authority.server(FAR);
    let exporter = Exporter::with("watches: []\n").tls(&authority, &[]).server(&good).start().await;
    let other = authority.server(LATER.0).key;
    for (count, (key, what)) in [
        (None, "cannot be read"),
        (Some(""), "has no private key"),
        (Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "cannot be used"),
        (Some(&*other), "is not the key of the certificate"),
    ]
    .into_iter()
    .enumerate()
    {
        match key {
            Some(key) => exporter.place("server.key", key),
            None => fs::remove_file(exporter.folder().join("server.key")).unwrap(),
        }
        if count == 0 {
            exporter.scrape_until("it is seen", |e| successful(e) == Some(0.0)).await;
        }
        let (status, text) = exporter.reload().await;
        assert!(status == 500 && text.contains("server.key ") && text.contains(what), "{status} {text}");
        let said = &exporter.logged(FAILED, count + 1).await[count];
        let problem = said["problem"].as_str().unwrap();
        assert!(said["level"] == "ERROR" && problem.contains("server.key ") && problem.contains(what), "{said}");
        let e = exporter.scrape().await;
        assert_eq!((successful(&e), expiry(&e)), (Some(0.0), Some(4_102_444_800.0)));
        assert!(shows(&exporter, &client, &good).await);
    }
    exporter.place("server.key", &good.key);
    exporter.scrape_until("it is good again", |e| successful(e) == Some(1.0)).await;
    assert_eq!(exporter.reload().await, (200, "reloaded\n".to_owned()));
    let (logs, errors) = exporter.last_words().await;
    assert_eq!(logs.iter().filter(|line| line["message"] == FAILED).count(), 4);
    assert_eq!(errors, "");
}

#[tokio::test]
async fn tls_is_turned_on_and_off_by_the_file_for_new_connections_and_ends_those_that_are_there() {
    let authority = Authority::new("servers");
    let (plain, tls) = (Client::default(), Client::trusting(&authority));
    let exporter = Exporter::with("watches: []\n").web("").server(&authority.server(FAR)).start().await;
    let answers = async |client: &Client| {
        eventually("it answers", async || exporter.status_for(client, "/-/ready").await.filter(|s| *s == 200)).await
    };
    let mut kept = TcpStream::connect(exporter.address()).await.unwrap();
    ask(&mut kept, "/-/ready").await;
    answer(&mut kept).await;
    exporter.place("web.yaml", TLS);
    answers(&tls).await;
    assert_eq!(rest(kept).await, "");
    assert_eq!(exporter.status_for(&plain, "/-/ready").await, Some(400));
    let mut kept = connect(&exporter, &tls).await;
    ask(&mut kept, "/-/ready").await;
    answer(&mut kept).await;
    exporter.place("web.yaml", "{}");
    answers(&plain).await;
    assert_eq!(rest(kept).await, "");
    assert_eq!(exporter.status_for(&tls, "/-/ready").await, None);
    assert_eq!(expiry(&exporter.scrape().await), None);
}

#[tokio::test]
async fn clients_of_an_authority_that_is_trusted_no_more_are_refused_and_their_connections_end() {
    let (servers, old, new) = (Authority::new("servers"), Authority::new("clients"), Authority::new("clients"));
    let [of_old, of_new] = [&old, &new].map(|authority| Client::trusting(&servers).showing(&authority.client("a")));
    let verifying = ["client_ca_file: clients.pem", "client_auth_type: RequireAndVerifyClientCert"];
    let start = Exporter::with("watches: []\n").tls(&servers, &verifying).file("clients.pem", &old.pem());
    let exporter = start.start().await;
    let mut kept = connect(&exporter, &of_old).await;
    ask(&mut kept, "/-/ready").await;
    answer(&mut kept).await;
    assert_eq!(exporter.status_for(&of_new, "/-/ready").await, None);
    exporter.place("clients.pem", &new.pem());
    eventually("the new ones get in", async || exporter.status_for(&of_new, "/-/ready").await).await;
    assert_eq!(rest(kept).await, "");
    assert_eq!(exporter.status_for(&of_old, "/-/ready").await, None);
}
