//! Debug polls: `POST /-/debug/poll?toggle=NAME` polls once and says what happened in each phase.

use std::time::Duration;

use cekura_exporter::demo::fault::{Fault, throttled};
use cekura_exporter::demo::simulator::{Reply, Simulator};
use cekura_exporter::toggle::Reason;
use reqwest::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{Authority, Client, Exporter, KEY, Pair, ReservedPort, TlsUpstream, Upstream, eventually};
use crate::transport::tunnels;

/// The path that polls the watch `w`.
const POLL: &str = "/-/debug/poll?toggle=w";

/// What a browser sends.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A configuration with the watch `w` of the API at this URL, which is polled once and then not for long, and more keys
/// of the API.
fn config(url: &str, more: &str) -> String {
    format!(
        "apis: {{default: {{base_url: \"{url}\", api_key: {KEY}, timeout: 20s{more}}}}}\n\
         polling: {{min_interval: 1h, max_interval: 1h, backoff_max: 1h}}\n\
         watches: [{{name: w, agent_id: 1, progress_id: p}}]\n"
    )
}

/// The extra root certificates of an API, in a file that lives as long as the folder.
fn ca_file(authority: &Authority, folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    format!(", ca_file: {}", path.display())
}

/// Waits until the poll of the schedule has ended.
async fn polled(exporter: &Exporter) {
    exporter.scrape_until("it was polled", |e| e.value("cekura_toggle_polls_total", &[]) == Some(1.0)).await;
}

async fn post(exporter: &Exporter) -> Response {
    exporter.request(Method::POST, POLL).await
}

/// What a debug poll says that was made.
async fn debug_poll(exporter: &Exporter) -> Value {
    let response = post(exporter).await;
    assert_eq!(response.status(), 200);
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// What a debug poll says of the watch of this configuration.
async fn debug_poll_of(config: &str) -> Value {
    let exporter = Exporter::with(config).start().await;
    polled(&exporter).await;
    debug_poll(&exporter).await
}

#[track_caller]
fn assert_fails(report: &Value, phase: &str, reason: &str) {
    assert_eq!(
        (&report["failure"]["phase"], &report["failure"]["reason"]),
        (&json!(phase), &json!(reason)),
        "{report}"
    );
    assert_eq!(report["answer"], Value::Null, "{report}");
}

/// The names of the phases that happened.
fn phases(report: &Value) -> Vec<&str> {
    let phases = report["phases"].as_object().unwrap();
    let happened = phases.iter().filter(|(_, phase)| !phase.is_null());
    happened
        .map(|(name, phase)| {
            assert!(phase["seconds"].as_f64().unwrap() >= 0.0, "{report}");
            name.as_str()
        })
        .collect()
}

#[tokio::test]
async fn a_good_poll_shows_its_phases_and_the_answer_and_changes_nothing_that_is_known() {
    let upstream = Upstream::start().await;
    let endpoint = json!({"mock_index": 0, "url": "https://mock.invalid/0", "tool_names": ["book"]});
    let completed = json!({"status": "completed", "mock_enabled": true, "mcp_endpoints": [endpoint], "message": "on"});
    upstream.script("p", [Reply::task("in_progress", None), Reply::new(200, completed.to_string())]);
    let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
    polled(&exporter).await;
    let before = exporter.toggle("w").await;
    let report = debug_poll(&exporter).await;
    assert_eq!(phases(&report), ["connect", "processing", "transfer", "wait"]);
    let address = upstream.url().replace("http://", "");
    assert_eq!(report["phases"]["connect"]["address"], address.as_str());
    assert_eq!(report["phases"]["connect"]["proxy"], Value::Null);
    assert_eq!((&report["http_status"], &report["failure"]), (&json!(200), &Value::Null));
    let answer = json!({"status": "completed", "raw_status": null, "mock_enabled": true, "mcp_endpoints": 1,
                        "mcp_tools": 1, "message": "on", "error": null, "malformed": []});
    assert_eq!(report["answer"], answer);
    assert_eq!((&report["toggle"], &report["api"], &report["agent_id"]), (&json!("w"), &json!("default"), &json!(1)));
    assert_eq!(exporter.toggle("w").await, before);
    let e = exporter.scrape().await;
    assert_eq!(e.status("w").as_deref(), Some("in_progress"));
    assert_eq!(e.value("cekura_api_requests_total", &[("outcome", "ok")]), Some(2.0), "it is a request all the same");
    let logged = exporter.logged("debug poll ended", 1).await;
    assert_eq!((&logged[0]["toggle"], &logged[0]["level"]), (&json!("w"), &json!("INFO")));
}

#[tokio::test]
async fn over_tls_it_shows_the_version_the_certificate_and_what_it_was_verified_by() {
    let authority = Authority::new("servers");
    for (versions, shown) in [(rustls::ALL_VERSIONS, "TLS 1.3"), (&[&rustls::version::TLS12][..], "TLS 1.2")] {
        let upstream = TlsUpstream::speaking(&authority.server((2100, 1, 1)), versions).await;
        let folder = tempfile::tempdir().unwrap();
        let config = config(&upstream.url_at("localhost"), &ca_file(&authority, &folder));
        let report = debug_poll_of(&config).await;
        assert_eq!(phases(&report), ["connect", "processing", "resolve", "tls", "transfer", "wait"]);
        let lookups = &report["phases"]["resolve"]["lookups"];
        assert_eq!(lookups[0]["host"], "localhost");
        assert!(lookups[0]["addresses"].as_array().unwrap().contains(&json!("127.0.0.1")), "{lookups}");
        assert_eq!(report["phases"]["connect"]["address"], upstream.url().replace("https://", "").as_str());
        let tls = &report["phases"]["tls"];
        assert_eq!((&tls["version"], &tls["server_name"]), (&json!(shown), &json!("localhost")));
        assert_eq!(tls["verified_by"], "ca_file");
        let certificate = &tls["certificate"];
        assert_eq!(certificate["names"], json!(["127.0.0.1", "localhost"]));
        assert!(certificate["issuer"].as_str().unwrap().contains("CN=servers"), "{certificate}");
        assert_eq!(certificate["not_before"], "2020-01-01T00:00:00.000Z");
        assert_eq!(certificate["not_after"], "2100-01-01T00:00:00.000Z");
        assert_eq!(report["answer"]["status"], "completed");
    }
}

#[tokio::test]
async fn an_authority_of_the_machine_is_told_from_the_ca_file() {
    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "127.0.0.1").await;
    let start = Exporter::with(config(&upstream.url(), "")).file("roots.pem", &authority.pem());
    let exporter = start.env("SSL_CERT_FILE", "roots.pem").start().await;
    polled(&exporter).await;
    assert_eq!(debug_poll(&exporter).await["phases"]["tls"]["verified_by"], "machine");
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_shown() {
    let (authority, other) = (Authority::new("servers"), Authority::new("others"));
    let folder = tempfile::tempdir().unwrap();
    let trusted = ca_file(&authority, &folder);
    for (pair, more, issuer, what) in [
        (other.server((2100, 1, 1)), trusted.as_str(), "CN=others", "name it in ca_file"),
        (authority.server((2021, 2, 3)), &trusted, "CN=servers", "expired"),
        (authority.server_named("another.invalid"), &trusted, "CN=servers", "another.invalid"),
        (Pair::own_authority("127.0.0.1"), "", "", "own authority"),
    ] {
        let upstream = TlsUpstream::showing(&pair).await;
        let report = debug_poll_of(&config(&upstream.url(), more)).await;
        assert_fails(&report, "tls", "tls");
        assert_eq!(phases(&report), ["connect", "tls", "wait"]);
        let tls = &report["phases"]["tls"];
        assert_eq!((&tls["verified_by"], &tls["version"]), (&Value::Null, &Value::Null));
        assert!(tls["certificate"]["issuer"].as_str().unwrap().contains(issuer), "{tls}");
        let detail = report["failure"]["detail"].as_str().unwrap();
        assert!(detail.contains(what), "{detail}");
        assert_eq!(upstream.answered(), 0, "a request was sent to a server that is not trusted");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_called_that() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The first bytes of a handshake are there at once.
            stream.read_exact(&mut [0; 100]).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    let report = debug_poll_of(&config(&url, "")).await;
    serving.abort();
    assert_fails(&report, "tls", "tls");
    let detail = report["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("does not speak TLS") && detail.contains("http or https"), "{detail}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_fails_in_resolve_and_a_refused_connection_in_connect() {
    let report = debug_poll_of(&config("https://no-such-host.invalid", "")).await;
    assert_fails(&report, "resolve", "dns");
    assert_eq!(phases(&report), ["resolve", "wait"]);
    assert_eq!(report["phases"]["resolve"]["lookups"], json!([{"host": "no-such-host.invalid", "addresses": []}]));
    let nobody = ReservedPort::new();
    let report = debug_poll_of(&config(&format!("https://{}", nobody.address), "")).await;
    assert_fails(&report, "connect", "connect");
    assert_eq!(phases(&report), ["connect", "wait"]);
    assert_eq!(report["phases"]["connect"]["address"], nobody.address.to_string());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let report = debug_poll_of(&config(&url, "").replace("timeout: 20s", "timeout: 1s")).await;
    assert_fails(&report, "tls", "timeout");
    assert_eq!(report["phases"]["tls"]["certificate"], Value::Null);
}

#[tokio::test]
async fn a_wrong_answer_fails_with_its_status_and_what_the_api_said_though_the_api_has_an_outage() {
    let upstream = Upstream::start().await;
    for (fault, phase) in [
        (Fault::Unauthorized, "answer"),
        (Fault::ServerError, "answer"),
        (Fault::Redirect, "answer"),
        (Fault::NotFound, "answer"),
        (Fault::HalfJson, "answer"),
        (Fault::TooLarge, "transfer"),
        (Fault::CutBody, "transfer"),
        (Fault::Drip, "transfer"),
        (Fault::Silence, "processing"),
        (Fault::HangUp, "processing"),
        (Fault::NotHttp, "processing"),
    ] {
        upstream.script("p", [fault.reply()]);
        // What never ends by itself is given up soon, and what is long has the time that it takes.
        let timeout = if fault.reason() == Reason::Timeout { "timeout: 1s" } else { "timeout: 20s" };
        let report = debug_poll_of(&config(&upstream.url(), "").replace("timeout: 20s", timeout)).await;
        assert_fails(&report, phase, fault.reason().as_str());
        assert_eq!(report["http_status"].is_null(), phase == "processing", "{report}");
        let detail = report["failure"]["detail"].as_str().unwrap();
        assert!(detail.starts_with("GET 127.0.0.1:") && !detail.contains("progress_id"), "{detail}");
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_sent() {
    let upstream = Upstream::start().await;
    let report = debug_poll_of(&config(&upstream.url(), "").replace(&format!("api_key: {KEY}, "), "")).await;
    assert_fails(&report, "credentials", "credentials");
    assert_eq!((phases(&report), &report["seconds"]), (vec!["wait"], &Value::Null));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (upstream, elsewhere) = (Upstream::start().await, Upstream::start().await);
    let location = format!("{}/elsewhere", elsewhere.url());
    upstream.script("p", [Reply::with_header(302, "location", location, "")]);
    let report = debug_poll_of(&config(&upstream.url(), "")).await;
    assert_fails(&report, "answer", "redirect");
    assert_eq!(report["http_status"], 302);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn it_goes_through_the_proxy_and_names_it_without_its_login() {
    let proxy = Simulator::start(|request| {
        assert!(request.path.starts_with("http://api.invalid/"), "{}", request.path);
        Reply::task("completed", None)
    })
    .await
    .unwrap();
    let url = format!("http://user:p4ssw0rd@{}", proxy.address());
    let exporter = Exporter::with(config("http://api.invalid", "")).env("HTTP_PROXY", &url).start().await;
    polled(&exporter).await;
    let report = debug_poll(&exporter).await;
    let address = proxy.address().to_string();
    assert_eq!(report["phases"]["connect"]["proxy"], address.as_str());
    assert_eq!(report["phases"]["connect"]["address"], address.as_str());
    assert_eq!(report["phases"]["resolve"], Value::Null, "the proxy resolves the name");
    assert!(!report.to_string().contains("p4ssw0rd"), "{report}");
}

#[tokio::test]
async fn a_tunnel_is_a_part_of_connecting_and_one_that_is_refused_fails_there() {
    let authority = Authority::new("servers");
    let upstream = TlsUpstream::start(&authority, "127.0.0.1").await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(&upstream.url(), &ca_file(&authority, &folder));
    for refuse in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_address = listener.local_addr().unwrap().to_string();
        let proxy = tokio::spawn(tunnels(listener, refuse));
        let start = Exporter::with(config.as_str()).env("HTTPS_PROXY", &format!("http://{proxy_address}"));
        let exporter = start.start().await;
        polled(&exporter).await;
        let report = debug_poll(&exporter).await;
        assert_eq!(report["phases"]["connect"]["proxy"], proxy_address.as_str());
        if refuse {
            assert_fails(&report, "connect", "connect");
            assert_eq!(report["phases"]["tls"], Value::Null);
            let detail = report["failure"]["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("through the proxy {proxy_address}")), "{detail}");
        } else {
            assert_eq!(report["phases"]["tls"]["server_name"], "127.0.0.1");
            assert_eq!(report["answer"]["status"], "completed");
        }
        proxy.abort();
    }
}

#[tokio::test]
async fn it_waits_for_the_budget_and_is_refused_when_that_allows_nothing_in_time() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    // One request in 5 s, of which the poll of the schedule was one.
    let waits = Exporter::with(config(&upstream.url(), ", requests_per_second: 0.2")).start().await;
    polled(&waits).await;
    let waited = async {
        let report = debug_poll(&waits).await;
        assert!(report["phases"]["wait"]["seconds"].as_f64().unwrap() > 0.5, "{report}");
        assert_eq!(report["failure"], Value::Null);
    };
    let spent = Exporter::with(config(&upstream.url(), ", requests_per_second: 0.001")).start().await;
    polled(&spent).await;
    let refused = async {
        let response = post(&spent).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        let error = response.text().await.unwrap();
        assert!(error.contains("requests_per_second"), "{error}");
    };
    tokio::join!(waited, refused);
    assert_eq!(upstream.polls_of("p"), 3);
}

#[tokio::test]
async fn a_pause_that_the_api_asked_for_holds_and_a_debug_poll_can_bring_one() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None), throttled(429, "600")]);
    let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
    polled(&exporter).await;
    assert_fails(&debug_poll(&exporter).await, "answer", "rate_limited");
    let response = eventually("the API is paused", async || {
        Some(post(&exporter).await).filter(|response| response.status() == 503)
    })
    .await;
    let seconds: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&seconds) && seconds > 540, "{seconds}");
    assert_eq!(exporter.scrape().await.count("cekura_api_paused_until_timestamp_seconds"), 1);
}

#[tokio::test]
async fn an_api_has_one_at_a_time_and_it_is_cancelled_when_its_client_goes() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None), Reply::Silence]);
    let exporter = Exporter::with(config(&upstream.url(), "").replace("timeout: 20s", "timeout: 10m")).start().await;
    polled(&exporter).await;
    let request = exporter.http().post(exporter.urls[0].clone() + POLL).send();
    let first = tokio::spawn(request);
    eventually("the first is sent", async || (upstream.polls_of("p") == 2).then_some(())).await;
    assert_eq!(exporter.scrape().await.value("cekura_api_requests_in_flight", &[]), Some(1.0));
    let response = post(&exporter).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    first.abort();
    let free = |e: &crate::harness::Exposition| e.value("cekura_api_requests_in_flight", &[]) == Some(0.0);
    exporter.scrape_until("it is cancelled", free).await;
    upstream.script("p", [Reply::task("completed", None)]);
    assert_eq!(debug_poll(&exporter).await["answer"]["status"], "completed");
}

#[tokio::test]
async fn one_after_another_leave_the_budget_to_the_schedule_too() {
    let upstream = Upstream::start().await;
    for id in ["p", "q"] {
        upstream.script(id, [Reply::task("in_progress", None)]);
    }
    let config = config(&upstream.url(), ", requests_per_second: 10").replace("1h", "50ms");
    let config = config.replace("watches: [", "watches: [{name: v, agent_id: 2, progress_id: q}, ");
    let exporter = Exporter::with(config).start().await;
    eventually("the burst is spent", async || (upstream.requests().len() >= 20).then_some(())).await;
    let before = upstream.requests().len();
    for _ in 0..10 {
        debug_poll(&exporter).await;
    }
    let others = upstream.requests().len() - before - 10;
    assert!(others >= 8, "{others} polls of the schedule beside 10 debug polls");
}

#[tokio::test]
async fn a_browser_gets_a_page_and_neither_page_nor_json_nor_log_has_a_secret() {
    let upstream = Upstream::start().await;
    let said = format!("<b>key {KEY}</b> at https://mock.invalid/secret");
    let endpoint = json!({"mock_index": 0, "url": "https://mock.invalid/secret", "tool_names": []});
    let answer = json!({"status": "failed", "error": said, "mcp_endpoints": [endpoint]});
    upstream.script("p-9f3a", [Reply::new(200, answer.to_string())]);
    let config = config(&upstream.url(), "").replace("progress_id: p", "progress_id: p-9f3a");
    let exporter = Exporter::with(config).start().await;
    polled(&exporter).await;
    let request = exporter.http().post(exporter.urls[0].clone() + POLL).header(ACCEPT, BROWSER);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let page = response.text().await.unwrap();
    assert!(page.contains("<link rel=\"stylesheet\" href=\"../../assets/base.css\">"), "{page}");
    assert!(page.contains("<form method=\"post\" action=\"../../-/debug/poll?toggle=w\">"), "{page}");
    for part in ["failed", "Connect", "HTTP 200", "&lt;b&gt;", "&lt;url&gt;"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let json = post(&exporter).await.text().await.unwrap();
    let log = exporter.logged("debug poll ended", 2).await.iter().map(ToString::to_string).collect::<String>();
    for (what, text) in [("page", &page), ("json", &json), ("log", &log)] {
        assert!(!text.contains(KEY) && !text.contains("mock.invalid"), "{what}: {text}");
    }
    assert!(!page.contains("p-9f3a") && !json.contains("p-9f3a"), "{page}{json}");
    let missing = exporter.http().post(exporter.urls[0].clone() + "/-/debug/poll?toggle=none");
    let response = missing.header(ACCEPT, BROWSER).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[CONTENT_TYPE]), (404, &page_type()));
}

#[tokio::test]
async fn the_page_of_a_poll_that_failed_says_where_and_why() {
    let other = Authority::new("<others>");
    let upstream = TlsUpstream::start(&other, "127.0.0.1").await;
    let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
    polled(&exporter).await;
    let request = exporter.http().post(exporter.urls[0].clone() + POLL).header(ACCEPT, BROWSER);
    let page = request.send().await.unwrap().text().await.unwrap();
    let handshake = page.lines().find(|line| line.contains("TLS handshake</th>")).unwrap();
    for part in ["failed here", "CN=\\&lt;others\\&gt;", "valid until 2100-01-01", "Not trusted."] {
        assert!(handshake.contains(part), "{part}: {handshake}");
    }
    assert_eq!(page.matches("failed here").count(), 1, "{page}");
    assert!(page.contains("The poll failed in the TLS handshake:</strong> tls"), "{page}");
}

fn page_type() -> reqwest::header::HeaderValue {
    reqwest::header::HeaderValue::from_static("text/html; charset=utf-8")
}

#[tokio::test]
async fn what_is_no_debug_poll_is_refused_and_polls_nothing() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = Exporter::with(config(&upstream.url(), "")).start().await;
    polled(&exporter).await;
    for (path, status) in [
        ("/-/debug/poll?toggle=none", 404),
        ("/-/debug/poll", 400),
        ("/-/debug/poll?toggle=w&toggle=w", 400),
        ("/-/debug/poll?toggle=w&x=1", 400),
    ] {
        assert_eq!(exporter.request(Method::POST, path).await.status().as_u16(), status, "{path}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let response = exporter.request(method.clone(), POLL).await;
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()[ALLOW], "POST, OPTIONS", "{method}");
    }
    for (name, value) in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "null")] {
        let request = exporter.http().post(exporter.urls[0].clone() + POLL).header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 403, "{name}: {value}");
    }
    assert_eq!(upstream.polls_of("p"), 1);
    let own = exporter.http().post(exporter.urls[0].clone() + POLL).header("origin", &exporter.urls[0]);
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn it_needs_the_login_that_the_page_needs() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let users = json!({"basic_auth_users": {"alice": bcrypt::hash("password", 4).unwrap()}}).to_string();
    let exporter = Exporter::with(config(&upstream.url(), "")).web(&users).start().await;
    eventually("it was polled", async || (upstream.polls_of("p") == 1).then_some(())).await;
    assert_eq!(post(&exporter).await.status(), 401);
    assert_eq!(upstream.polls_of("p"), 1);
    let alice = Client::default().logged_in("alice", "password").http();
    let response = alice.post(exporter.urls[0].clone() + POLL).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn an_exporter_that_stops_does_not_wait_for_it() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None), Reply::Silence]);
    let exporter = Exporter::with(config(&upstream.url(), "").replace("timeout: 20s", "timeout: 10m")).start().await;
    polled(&exporter).await;
    let asked = tokio::spawn(exporter.http().post(exporter.urls[0].clone() + POLL).send());
    eventually("it is sent", async || (upstream.polls_of("p") == 2).then_some(())).await;
    let stopped = tokio::time::timeout(Duration::from_secs(9), exporter.stop()).await;
    assert!(stopped.is_ok(), "it waited");
    assert_eq!(asked.await.unwrap().unwrap().status(), 503);
}
