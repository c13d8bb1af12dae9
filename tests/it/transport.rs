//! The way to the upstream: TLS, root certificates and proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cekura_exporter::demo::simulator::{Reply, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Authority, Exporter, KEY, Pair, ReservedPort, TlsUpstream, Upstream, eventually, tool};

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
            let detail = exporter.toggle("w").await["poll_error_detail"].to_string();
            let by = format!(" through the proxy {}: ", proxy_url.trim_start_matches("http://"));
            assert!(detail.contains("the proxy refuses to connect there") && detail.contains(&by), "{detail}");
        } else {
            completes(&exporter).await;
        }
        proxy.abort();
    }
}

/// Answers CONNECT, and then copies both ways.
pub(crate) async fn tunnels(listener: TcpListener, refuse: bool) {
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

/// Whether so many connections were made to an upstream that answers each request so, over connections that
/// it would keep.
async fn connections_to(answer: &'static str, count: usize, more: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let made = Arc::new(AtomicUsize::new(0));
    let accepted = made.clone();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    let _exporter = Exporter::with(config(&url, more)).start().await;
    eventually("it connects so often", async || (made.load(Ordering::Relaxed) >= count).then_some(())).await;
    serving.abort();
}

/// Else an API whose name moved would never be followed: connections are kept as long as polls go on.
#[tokio::test]
async fn connections_that_bring_nothing_but_errors_are_given_up() {
    connections_to("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 3, "").await;
}

#[tokio::test]
async fn a_connection_that_was_given_up_when_it_was_used_again_costs_no_failure() {
    let upstream = Upstream::start().await;
    let running = || Reply::task("in_progress", None);
    let reset = || Reply::Reset(Vec::new());
    upstream.script("p", [running(), reset(), running(), reset(), running(), reset(), Reply::task("completed", None)]);
    let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
    completes(&exporter).await;
    let e = exporter.scrape().await;
    assert_eq!(e.value("cekura_toggle_poll_failures_total", &[]), Some(0.0));
    assert_eq!(e.value("cekura_toggle_polls_total", &[]), Some(4.0), "what is sent twice is one poll");
    assert_eq!(upstream.requests().len(), 7);
}

#[tokio::test]
async fn an_upstream_that_resets_every_connection_is_asked_twice_at_most_and_is_aborted() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None), Reply::Reset(Vec::new())]);
    // Another one whose answers end their connections, which is none that was kept.
    let body = r#"{"status":"in_progress","mock_enabled":null,"message":null,"error":null}"#;
    let closing = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    upstream.script("q", [Reply::Raw(closing.into_bytes())]);
    let config = config(&upstream.url(), "");
    let config = config.replace("watches: [", "watches: [{name: v, agent_id: 1, progress_id: q}, ");
    let exporter = Exporter::with(config).start().await;
    let w = [("toggle", "w")];
    let failed = |e: &crate::harness::Exposition| e.value("cekura_toggle_poll_failures_total", &w) >= Some(5.0);
    let e = exporter.scrape_until("five polls failed", failed).await;
    assert_eq!(e.poll_error("w").as_deref(), Some("aborted"));
    let polls = e.value("cekura_toggle_polls_total", &w).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a few requests")]
    let requests = upstream.polls_of("p") as f64;
    // The first that is reset comes over a connection that answered before. One may be under way.
    assert!(requests <= polls + 2.0, "{requests} requests, {polls} polls");
}

/// Listens at an address whose connections are neither taken nor refused: as many as the system keeps are
/// waiting there already.
fn packets_are_dropped_at(address: std::net::SocketAddr) -> (socket2::Socket, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let waiting = std::iter::repeat_with(|| {
        let waiting = new();
        waiting.set_nonblocking(true).unwrap();
        let _ = waiting.connect(&address.into());
        waiting
    });
    let waiting = waiting.take(8).collect();
    (listener, waiting)
}

#[tokio::test]
async fn where_the_first_of_several_addresses_drops_packets_the_next_is_tried() {
    let upstream = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let port = upstream.local_addr().unwrap().port();
    let _dead = packets_are_dropped_at(([127, 0, 0, 2], port).into());
    let serving = tokio::spawn(async move {
        let body = r#"{"status":"completed","mock_enabled":true,"message":null,"error":null}"#;
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            let _ = stream.read_buf(&mut Vec::with_capacity(4096)).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    // With a file of hosts of its own, in a mount namespace of its own.
    let script = "mount --bind hosts /etc/hosts && exec \"$@\"";
    let start = Exporter::with(config(&format!("http://several.invalid:{port}"), ""));
    let start = start.file("hosts", "127.0.0.2 several.invalid\n127.0.0.3 several.invalid\n");
    let unshare = tool("unshare").display().to_string();
    let exporter = start.through(&[&unshare, "--mount", "--", "/bin/sh", "-c", script, "sh"]).start().await;
    completes(&exporter).await;
    assert_eq!(exporter.scrape().await.value("cekura_toggle_poll_failures_total", &[]), Some(0.0));
    serving.abort();
}

#[tokio::test]
async fn answers_that_are_compressed_unasked_are_read_and_bombs_are_too_large() {
    let gzip = |text: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, text).unwrap();
        gzip.finish().unwrap()
    };
    let raw = |encoding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply::Raw([head.as_bytes(), body].concat())
    };
    let task = br#"{"status":"completed","mock_enabled":true,"message":null,"error":null}"#;
    let bomb = gzip(&vec![b' '; 5 << 20]);
    for (encoding, body, reason) in
        [("gzip", gzip(task), None), ("gzip", bomb, Some("too_large")), ("br", vec![1, 2, 3], Some("decode"))]
    {
        let upstream = Upstream::start().await;
        upstream.script("p", [raw(encoding, &body)]);
        let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
        match reason {
            None => completes(&exporter).await,
            Some(reason) => fails_with(&exporter, reason).await,
        }
        if encoding == "br" {
            let detail = exporter.toggle("w").await["poll_error_detail"].to_string();
            assert!(detail.contains("br"), "{detail}");
        }
    }
}

#[tokio::test]
async fn answers_with_very_many_headers_are_read() {
    let upstream = Upstream::start().await;
    let body = r#"{"status":"completed","mock_enabled":true,"message":null,"error":null}"#;
    let headers = "x-more: and more\r\n".repeat(300);
    let answer = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    upstream.script("p", [Reply::Raw(answer.into_bytes())]);
    completes(&Exporter::with(config(&upstream.url(), "")).start().await).await;
}

#[test]
fn a_proxy_variable_that_cannot_be_used_is_an_error_that_does_not_show_it() {
    for (variable, value) in [
        ("HTTP_PROXY", "http//h:3128"),
        ("https_proxy", "htp://h"),
        ("HTTPS_PROXY", "http://u:s3[cret@h:1"),
        ("ALL_PROXY", "corp\\u:s3cret@h"),
    ] {
        for check in [&[][..], &["--config.check"]] {
            let args = [&["--config.file=/dev/null"], check].concat();
            let output = crate::harness::run(&args, &[(variable, value)]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{variable}: {said}");
            assert!(
                said.contains(&format!("{variable}: ")) && !said.contains("cret") && !said.contains("3128"),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_login_says_so_for_plain_http_and_for_tunnels() {
    let refuse = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    for (url, variable) in [("http://api.invalid", "HTTP_PROXY"), ("https://api.invalid", "HTTPS_PROXY")] {
        let proxy = Simulator::start(move |_| Reply::Raw(refuse.as_bytes().to_vec())).await.unwrap();
        // White space around it is no part of it.
        let value = format!(" http://{}\n", proxy.address());
        let exporter = Exporter::with(config(url, "")).env(variable, &value).start().await;
        fails_with(&exporter, "connect").await;
        let detail = exporter.toggle("w").await["poll_error_detail"].to_string();
        assert!(detail.contains("the proxy wants a login, or another one (HTTP 407)"), "{detail}");
        assert!(detail.contains("before the host"), "{detail}");
    }
}

#[tokio::test]
async fn the_login_of_a_proxy_variable_is_sent_to_the_proxy() {
    let proxy = Simulator::start(|request| {
        assert_eq!(request.header("proxy-authorization"), Some("Basic dTpwIHc="));
        Reply::task("completed", None)
    })
    .await
    .unwrap();
    let value = format!("http://u:p%20w@{}", proxy.address());
    completes(&Exporter::with(config("http://api.invalid", "")).env("HTTP_PROXY", &value).start().await).await;
}

#[tokio::test]
async fn a_renewed_authority_is_used_without_a_reload_and_one_that_cannot_be_is_not() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let upstream = TlsUpstream::start(&new, "127.0.0.1").await;
    let more = ", ca_file: ca.pem";
    let exporter = Exporter::with(config(&upstream.url(), more)).file("ca.pem", &old.pem()).start().await;
    fails_with(&exporter, "tls").await;
    exporter.place("ca.pem", "no certificate");
    exporter.logged("api authorities not changed: those in force stay", 1).await;
    exporter.place("ca.pem", &new.pem());
    completes(&exporter).await;
    exporter.logged("api authorities changed", 1).await;
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_accepted_where_exactly_it_is_configured() {
    let (own, other) = (Pair::own_authority("127.0.0.1"), Pair::own_authority("127.0.0.1"));
    let elsewhere = Pair::own_authority("elsewhere.invalid");
    for (shown, configured, accepted) in [(&own, &own, true), (&own, &other, false), (&elsewhere, &elsewhere, false)] {
        let upstream = TlsUpstream::showing(shown).await;
        let start = Exporter::with(config(&upstream.url(), ", ca_file: ca.pem"));
        let exporter = start.file("ca.pem", &configured.certificate).start().await;
        if accepted {
            completes(&exporter).await;
        } else {
            fails_with(&exporter, "tls").await;
        }
    }
}
