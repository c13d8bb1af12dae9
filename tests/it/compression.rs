//! Answers that are compressed for whom accepts that.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;

use cekura_exporter::demo::simulator::Reply;
use flate2::read::GzDecoder;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, TRANSFER_ENCODING, VARY,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Exporter, Exposition, Upstream, tool};
use crate::openmetrics::MOVING;

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// What is compressed, and what it varies with.
const LARGE: [(&str, &str, &str); 4] = [
    ("/metrics", "text/plain", "accept, accept-encoding"),
    ("/metrics", OPEN_METRICS, "accept, accept-encoding"),
    ("/api/v1/toggles", "*/*", "accept-encoding"),
    ("/config", "*/*", "accept-encoding"),
];

/// An exporter with so many watches, each of which was polled and will not be polled again.
async fn with_watches(count: usize) -> Exporter {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    let watches: Vec<_> = (1..=count).map(|n| json!({"agent_id": n, "progress_id": "p"})).collect();
    let config = json!({
        "apis": {"default": {"base_url": upstream.url(), "api_key": "k", "requests_per_second": 10_000}},
        "watches": watches,
    });
    let exporter = Exporter::with(config.to_string()).start().await;
    let finished = |e: &Exposition| {
        e.count("cekura_toggle_finished_timestamp_seconds") == count
            && e.value("cekura_api_requests_in_flight", &[]) == Some(0.0)
    };
    exporter.scrape_until("each is finished", finished).await;
    exporter
}

async fn ask(exporter: &Exporter, method: Method, path: &str, accept: &str, encoding: &str) -> (HeaderMap, Vec<u8>) {
    let request = exporter.http().request(method, exporter.urls[0].clone() + path);
    let answer = request.header(ACCEPT, accept).header(ACCEPT_ENCODING, encoding).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    (answer.headers().clone(), answer.bytes().await.unwrap().to_vec())
}

/// The lines of a text that stand still between two requests.
fn still(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !MOVING.iter().any(|moving| line.starts_with(moving))).collect()
}

#[tokio::test]
async fn what_is_compressed_says_the_same_as_what_is_not_and_says_its_length() {
    let exporter = with_watches(500).await;
    for (path, accept, vary) in LARGE {
        let (plain_headers, plain) = ask(&exporter, Method::GET, path, accept, "identity").await;
        let (headers, body) = ask(&exporter, Method::GET, path, accept, "gzip").await;
        for (headers, encoding) in [(&plain_headers, None), (&headers, Some("gzip"))] {
            assert_eq!(headers[VARY], vary, "{path}");
            assert_eq!(headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap()), encoding, "{path}");
        }
        assert_eq!(headers[CONTENT_TYPE], plain_headers[CONTENT_TYPE]);
        assert_eq!(headers[CONTENT_LENGTH].to_str().unwrap().parse(), Ok(body.len()));
        assert!(body.len() * 4 < plain.len(), "{} of {}", body.len(), plain.len());
        // Some clients read no more than the first member.
        let (mut text, mut gzip) = (String::new(), GzDecoder::new(&body[..]));
        gzip.read_to_string(&mut text).unwrap();
        assert!(gzip.into_inner().is_empty(), "{path} has more than one member");
        let plain = String::from_utf8(plain).unwrap();
        let lines = still(&text);
        assert_eq!(lines, still(&plain), "{path}");
        assert!(lines.len() > 500 || path != "/metrics");
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_the_get_and_no_body() {
    let exporter = with_watches(50).await;
    for (path, accept, _) in LARGE {
        for encoding in ["identity", "gzip"] {
            let [get, head] = [Method::GET, Method::HEAD].map(|method| ask(&exporter, method, path, accept, encoding));
            let ((mut get, _), (mut head, body)) = tokio::join!(get, head);
            assert!(body.is_empty(), "{path} {encoding}");
            let has_length = |headers: &HeaderMap| headers.contains_key(CONTENT_LENGTH);
            assert_eq!(has_length(&get), has_length(&head), "{path} {encoding}");
            for headers in [&mut get, &mut head] {
                headers.remove(DATE);
                headers.remove(TRANSFER_ENCODING);
                if path == "/metrics" {
                    // What is in it moves.
                    headers.remove(CONTENT_LENGTH);
                }
            }
            assert_eq!(get, head, "{path} {encoding}");
        }
    }
}

#[tokio::test]
async fn what_a_client_does_not_accept_or_is_small_is_not_compressed() {
    let exporter = with_watches(50).await;
    for encoding in ["", "identity", "br, zstd", "gzip;q=0", "*;q=0", "identity, gzip;q=0.5"] {
        for (path, accept, _) in LARGE {
            let (headers, _) = ask(&exporter, Method::GET, path, accept, encoding).await;
            assert!(!headers.contains_key(CONTENT_ENCODING), "{path} {encoding}");
        }
    }
    for path in ["/config", "/-/ready", "/api/v1/toggles/agent-1"] {
        let (headers, _) = ask(&exporter, Method::GET, path, "*/*", "gzip").await;
        assert!(!headers.contains_key(CONTENT_ENCODING), "{path}");
    }
}

/// What curl gets.
fn curl(exporter: &Exporter, path: &str, args: &[&str]) -> String {
    let url = exporter.urls[0].clone() + path;
    let output = Command::new(tool("curl")).env_clear().args(["--silent", "--fail", &url]).args(args).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn curl_reads_what_is_compressed() {
    let exporter = with_watches(600).await;
    // From the second time on, metrics are made of what was made before.
    for path in ["/api/v1/toggles", "/metrics", "/metrics", "/metrics"] {
        let [plain, unpacked] = [&[][..], &["--compressed"]].map(|args| curl(&exporter, path, args));
        assert_eq!(still(&unpacked), still(&plain), "{path}");
        assert!(plain.len() > 100 * 1024);
    }
}

/// Reads with both of Python's modules for gzip; the second knows no second member.
const PYTHON: &str = "import gzip, sys, zlib; packed = sys.stdin.buffer.read(); text = gzip.decompress(packed); \
                      assert zlib.decompress(packed, 31) == text; sys.stdout.buffer.write(text)";

#[tokio::test]
async fn python_reads_scrape_after_scrape() {
    let exporter = with_watches(600).await;
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("packed");
    for accept in ["text/plain", OPEN_METRICS, "text/plain", OPEN_METRICS] {
        let (_, plain) = ask(&exporter, Method::GET, "/metrics", accept, "identity").await;
        let (_, body) = ask(&exporter, Method::GET, "/metrics", accept, "gzip").await;
        std::fs::write(&packed, body).unwrap();
        let mut python = Command::new("/usr/bin/python3");
        let output = python.env_clear().args(["-c", PYTHON]).stdin(File::open(&packed).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let [read, plain] = [output.stdout, plain].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(still(&read), still(&plain));
    }
}
