//! The HTTP side: routes, methods, listeners, draining.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use rustix::process::Signal;

use crate::harness::{Exporter, KEY, ReservedPort, Upstream, eventually, has_ipv6};

const EMPTY: &str = "watches: []\n";

#[tokio::test]
async fn every_path_answers_with_its_content_type() {
    let exporter = Exporter::with(EMPTY).start().await;
    for (path, content_type) in [
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/", "text/html; charset=utf-8"),
        ("/api/v1/toggles", "application/json"),
        ("/-/healthy", "text/plain; charset=utf-8"),
        ("/-/ready", "text/plain; charset=utf-8"),
        ("/config", "application/yaml"),
    ] {
        let answer = exporter.request(Method::GET, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], content_type, "{path}");
        let length = answer.headers().get("content-length").cloned();
        assert_eq!(length.is_none(), path == "/metrics", "only what is encoded while it is sent has no length");
        assert!(!answer.text().await.unwrap().is_empty(), "{path}");
        let head = exporter.request(Method::HEAD, path).await;
        assert_eq!(head.status(), 200, "HEAD {path}");
        if path != "/" {
            assert_eq!(head.headers().get("content-length").cloned(), length, "HEAD {path}");
        }
        assert!(head.text().await.unwrap().is_empty(), "HEAD {path}");
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let exporter = Exporter::with(EMPTY).start().await;
    for path in ["/nothing", "/metrics/", "/api/v1/toggles/none", "/api/v1/toggles/a/b", "/api", "//"] {
        let (status, text) = exporter.get(path).await;
        assert_eq!(status, 404, "{path}");
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(problem["error"].as_str().is_some_and(|error| !error.is_empty()), "{text}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let answer = exporter.request(method.clone(), "/metrics").await;
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD, OPTIONS");
    }
    let e = exporter.scrape().await;
    let requests =
        |handler, code| e.value("cekura_exporter_http_requests_total", &[("handler", handler), ("code", code)]);
    assert_eq!((requests("other", "404"), requests("/metrics", "405")), (Some(5.0), Some(5.0)));
    assert_eq!(requests("/api/v1/toggles/{name}", "404"), Some(1.0));
}

#[tokio::test]
async fn options_on_a_known_path_answers_204_with_its_methods_and_404_elsewhere() {
    let exporter = Exporter::with("state_file: state\nregistrations: {enabled: true}\n").start().await;
    for (path, allowed) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/config", "GET, HEAD, OPTIONS"),
        ("/-/healthy", "GET, HEAD, OPTIONS"),
        ("/-/ready", "GET, HEAD, OPTIONS"),
        ("/-/reload", "POST, OPTIONS"),
        ("/runbooks", "GET, HEAD, OPTIONS"),
        ("/api/v1/status", "GET, HEAD, OPTIONS"),
        ("/api/v1/toggles?wait=soon", "GET, HEAD, OPTIONS"),
        ("/api/v1/toggles/none", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/api/v1/toggles/none/events", "GET, HEAD, OPTIONS"),
    ] {
        let answer = exporter.request(Method::OPTIONS, path).await;
        assert_eq!(answer.status(), 204, "{path}");
        assert_eq!(answer.headers()["allow"], allowed, "{path}");
        let content: Vec<_> = answer.headers().keys().filter(|name| name.as_str().starts_with("content-t")).collect();
        assert!(content.is_empty() && !answer.headers().contains_key("content-length"), "{path}: {content:?}");
        assert_eq!(answer.text().await.unwrap(), "", "{path}");
    }
    for path in ["/nothing", "/metrics/", "/api/v1/toggles/a/b"] {
        let answer = exporter.request(Method::OPTIONS, path).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("allow")), (404, None), "{path}");
    }
    assert_eq!(exporter.logs_of("configuration reloaded").len(), 0);
}

#[tokio::test]
async fn the_health_check_of_haproxy_is_answered_without_a_host() {
    let exporter = Exporter::with(EMPTY).start().await;
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"OPTIONS / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 204 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_metrics_are_where_the_flag_says() {
    let exporter = Exporter::with(EMPTY).arg("--web.telemetry-path=/probe").start().await;
    assert_eq!(exporter.get("/probe").await.0, 200);
    assert_eq!(exporter.get("/metrics").await.0, 404);
    assert!(exporter.get("/").await.1.contains("href=\"probe\""));
}

#[tokio::test]
async fn every_listen_address_serves() {
    let exporter = Exporter::with(EMPTY)
        .arg("--web.listen-address=127.0.0.1:0")
        .arg("--web.listen-address=localhost:0")
        .arg("--web.listen-address=:0")
        .start()
        .await;
    for url in &exporter.urls {
        // All interfaces are shown as such; this machine's is one of them.
        let url = url.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1");
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{url}/-/ready")).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{url}");
    }
}

/// The status that a URL is answered with, whatever the environment's proxies.
async fn status_of(url: &str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{url}/-/ready")).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses_on_one_port() {
    let exporter = Exporter::with(EMPTY).arg("--web.listen-address=localhost:0").start().await;
    let port = exporter.address().rsplit_once(':').unwrap().1;
    let mut expected = vec![format!("http://127.0.0.1:{port}")];
    expected.extend(has_ipv6().then(|| format!("http://[::1]:{port}")));
    assert_eq!(exporter.urls, expected);
    for url in &exporter.urls {
        assert_eq!(status_of(url).await, 200, "{url}");
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_can_be_listened_on_by_two_addresses_with_one_port_in_either_order() {
    if !has_ipv6() {
        return;
    }
    for [first, second] in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["", "0.0.0.0"]] {
        let reserved = ReservedPort::new();
        let port = reserved.address.port();
        let address = |host| format!("--web.listen-address={host}:{port}");
        let exporter = Exporter::with(EMPTY).arg(&address(first)).arg(&address(second)).start().await;
        let mut urls = exporter.urls.clone();
        urls.sort();
        assert_eq!(urls, [format!("http://0.0.0.0:{port}"), format!("http://[::]:{port}")]);
        for host in ["127.0.0.1", "[::1]"] {
            assert_eq!(status_of(&format!("http://{host}:{port}")).await, 200, "{first} and {second}: {host}");
        }
    }
}

#[tokio::test]
async fn the_unspecified_address_of_ipv6_alone_serves_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let exporter = Exporter::with(EMPTY).arg("--web.listen-address=[::]:0").start().await;
    let port = exporter.address().rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "[::1]"] {
        assert_eq!(status_of(&format!("http://{host}:{port}")).await, 200, "{host}");
    }
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let config = format!(
        "apis:\n  default: {{api_key: {KEY}}}\n  other: {{base_url: http://127.0.0.1:9/p, api_key_file: k}}\n\
         watches: [{{agent_id: 5, progress_id: \"0123\", labels: {{team: \"no\"}}}}]\n"
    );
    let exporter = Exporter::with(config).start().await;
    let (_, text) = exporter.get("/config").await;
    assert!(!text.contains(KEY), "{text}");
    for line in [
        "    api_key: <secret>",
        "    base_url: https://api.cekura.ai/",
        "    timeout: 10s",
        "    max_in_flight: 16",
        "  min_interval: 5s",
        "  - name: agent-5",
        "    progress_id: \"0123\"",
        "      team: \"no\"",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_first_signal_drains_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut exporter = Exporter::with(EMPTY).start().await;
        exporter.signal(signal);
        assert_eq!(exporter.ended().await.code(), Some(0));
        let messages: Vec<_> = exporter.logs().iter().map(|line| line["message"].clone()).collect();
        assert!(messages.contains(&"stopping".into()) && messages.contains(&"stopped".into()), "{messages:?}");
    }
}

/// Stops the exporter while a connection has sent half of a request, and returns the connection.
async fn stopped_amid_a_request(exporter: &Exporter) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.urls[0].trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /-/ready HTTP/1.1\r\nhost: x\r\n").unwrap();
    exporter
        .scrape_until("both connections are open", |e| {
            e.value("cekura_exporter_http_connections", &[]).is_some_and(|open| open >= 2.0)
        })
        .await;
    exporter.signal(Signal::TERM);
    exporter.logged("stopping", 1).await;
    stream
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_while_draining_and_readiness_is_refused() {
    let mut exporter = Exporter::with(EMPTY).start().await;
    let mut stream = stopped_amid_a_request(&exporter).await;
    stream.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(exporter.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut exporter = Exporter::with(EMPTY).start().await;
    let _stream = stopped_amid_a_request(&exporter).await;
    assert_eq!(exporter.told_again().await.code(), Some(0));
    assert_eq!(exporter.logs_of("stopped at once").len(), 1);
    assert!(exporter.logs_of("stopped").is_empty(), "it drained to the end");
}

#[tokio::test]
async fn metrics_are_served_while_the_upstream_hangs() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::Silence]);
    let exporter = Exporter::polling(&upstream, "  - {name: w, agent_id: 1, progress_id: p}\n").start().await;
    eventually("a poll hangs", async || (!upstream.requests().is_empty()).then_some(())).await;
    let e = exporter.scrape().await;
    assert_eq!(e.value("cekura_api_requests_in_flight", &[]), Some(1.0));
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(e.value(name, &[]).unwrap() > 0.0, "{name}");
    }
    assert_eq!(e.value("cekura_exporter_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
}
