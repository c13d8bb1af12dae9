//! The way to the upstream: TLS, root certificates and proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cekura_exporter::demo::simulator::{Reply, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Authority, Exporter, KEY, ReservedPort, TlsUpstream, Upstream, eventually};

/// A configuration with one watch of the API at this URL and more keys of the API.
fn config(url: &str, more: &str) -> String {
    format!(
        "apis: {{default: {{base_url: \"{url}\", api_key: {KEY}, timeout: 5s{more}}}}}\n\
         polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms}}\n\
         watches: [{{name: w, agent_id: 1, progress_id: p}}]\n"
    )
}

async fn completes(exporter: &Exporter) {
    exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
}

async fn fails_with(exporter: &Exporter, reason: &str) {
    let e = exporter.scrape_until("the poll failed", |e| e.poll_error("w").is_some()).await;
    assert_eq!(e.poll_error("w").as_deref(), Some(reason));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_tls_until_its_authority_is_a_ca_file() {
    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "127.0.0.1").await;
    fails_with(&Exporter::with(config(&upstream.url(), "")).start().await, "tls").await;
    assert_eq!(upstream.answered(), 0, "a request was sent to an unknown server");
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let more = format!(", ca_file: {}", ca_file.display());
    completes(&Exporter::with(config(&upstream.url(), &more)).start().await).await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_tls() {
    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "another.invalid").await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let more = format!(", ca_file: {}", ca_file.display());
    fails_with(&Exporter::with(config(&upstream.url(), &more)).start().await, "tls").await;
}

#[tokio::test]
async fn without_root_certificates_http_and_apis_with_a_ca_file_work_and_the_others_are_tls() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.pem");
    std::fs::write(&none, "").unwrap();
    let (none, nowhere) = (none.to_str().unwrap(), folder.path().join("nowhere"));
    let nowhere = nowhere.to_str().unwrap();
    let start = |config| Exporter::with(config).env("SSL_CERT_FILE", none).env("SSL_CERT_DIR", nowhere).start();

    let plain = Upstream::start().await;
    plain.script("p", [Reply::task("completed", None)]);
    completes(&start(config(&plain.url(), "")).await).await;

    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "127.0.0.1").await;
    fails_with(&start(config(&upstream.url(), "")).await, "tls").await;
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    completes(&start(config(&upstream.url(), &format!(", ca_file: {}", ca_file.display()))).await).await;
}

#[tokio::test]
async fn proxies_of_the_environment_are_used_and_no_proxy_goes_around_them() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", None)]);
    // A proxy for plain HTTP gets the whole URL; this one answers itself.
    let proxied = Arc::new(AtomicUsize::new(0));
    let count = proxied.clone();
    let proxy = Simulator::start(move |request| {
        assert!(request.path.starts_with("http://api.invalid/"), "{}", request.path);
        count.fetch_add(1, Ordering::Relaxed);
        Reply::task("completed", None)
    })
    .await
    .unwrap();
    let proxy_url = format!("http://{}", proxy.address());

    let exporter = Exporter::with(config("http://api.invalid", "")).env("HTTP_PROXY", &proxy_url).start().await;
    completes(&exporter).await;
    assert_eq!(proxied.load(Ordering::Relaxed), 1);

    let start = Exporter::with(config(&upstream.url(), ""));
    let exporter = start.env("HTTP_PROXY", &proxy_url).env("NO_PROXY", "127.0.0.1").start().await;
    completes(&exporter).await;
    assert_eq!((proxied.load(Ordering::Relaxed), upstream.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_tunnel_to_a_tls_server_goes_through_the_proxy_and_one_that_is_refused_is_connect() {
    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "127.0.0.1").await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let more = format!(", ca_file: {}", ca_file.display());
    for refuse in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_url = format!("http://{}", listener.local_addr().unwrap());
        let proxy = tokio::spawn(tunnels(listener, refuse));
        let start = Exporter::with(config(&upstream.url(), &more)).env("HTTPS_PROXY", &proxy_url);
        let exporter = start.start().await;
        if refuse {
            fails_with(&exporter, "connect").await;
        } else {
            completes(&exporter).await;
        }
        proxy.abort();
    }
}

/// Answers CONNECT, and then copies both ways.
async fn tunnels(listener: TcpListener, refuse: bool) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(client.read_buf(&mut head).await.unwrap() > 0);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(!head.to_lowercase().contains("cekura-api-key"), "the proxy sees the key: {head}");
        let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
        if refuse {
            client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            continue;
        }
        let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_connect() {
    let nobody = ReservedPort::new();
    let address = nobody.address;
    for (url, variable) in [("http://api.invalid", "HTTP_PROXY"), ("https://api.invalid", "HTTPS_PROXY")] {
        let exporter = Exporter::with(config(url, "")).env(variable, &format!("http://{address}")).start().await;
        fails_with(&exporter, "connect").await;
    }
}

#[tokio::test]
async fn a_secret_that_kubernetes_rotates_by_swapping_symlinks_is_read_again() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (version, key) in [("v1", "first-key"), ("v2", "second-key")] {
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("key"), format!("{key}\n")).unwrap();
    }
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    link("v1", "..data");
    link("..data/key", "key");
    let config = config(&upstream.url(), "")
        .replace(&format!("api_key: {KEY}"), &format!("api_key_file: {}", root.join("key").display()));
    let _exporter = Exporter::with(config).start().await;
    let used = async |key: &str| {
        eventually("the key is used", async || {
            let requests = upstream.requests();
            let last = requests.last().and_then(|(_, request)| request.header("x-cekura-api-key"));
            (last == Some(key)).then_some(())
        })
        .await;
    };
    used("first-key").await;
    link("v2", "..next");
    std::fs::rename(root.join("..next"), root.join("..data")).unwrap();
    used("second-key").await;
}
