//! `docs/openapi.yaml`: that it is valid, and that it describes what the program answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use cekura_exporter::demo::simulator::Reply;
use reqwest::{Method, Response};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::deploy::yaml;
use crate::harness::markdown::{code, rows, section};
use crate::harness::{Client, Exporter, Exposition, KEY, Upstream, eventually, tool};
use crate::waiting::waiting;

const DESCRIPTION: &str = "docs/openapi.yaml";

/// Codes that some operations answer only in conditions that no test makes for each of them.
const RARE: [&str; 5] = ["408", "413", "500", "503", "507"];

/// What `openapi.py` found.
#[derive(Debug)]
struct Report {
    faults: Vec<String>,
    /// Operations with a code each, such as `GET /metrics 200`.
    described: BTreeSet<String>,
    seen: BTreeSet<String>,
}

/// Compares the description with these exchanges.
fn compared(exchanges: &[Value]) -> Report {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(tool("python3"));
    command.env_clear().arg(root.join("tests/it/openapi.py")).arg(root.join(DESCRIPTION));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(json!(exchanges).to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts = |field: &str| -> Vec<String> { serde_json::from_value(report[field].clone()).unwrap() };
    Report {
        faults: texts("faults"),
        described: texts("described").into_iter().collect(),
        seen: texts("seen").into_iter().collect(),
    }
}

// === Requests ===

/// A request and its answer.
async fn exchange(method: &Method, target: &str, answer: Response) -> Value {
    let status = answer.status().as_u16();
    let header = |name: &str| Some((name.to_owned(), answer.headers().get(name)?.to_str().unwrap().to_owned()));
    let names = ["allow", "content-encoding", "content-type", "etag", "location", "retry-after", "vary"];
    let names = names.into_iter().chain(["www-authenticate"]);
    let headers: BTreeMap<_, _> = names.filter_map(header).collect();
    let body = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
    json!({"method": method.as_str(), "target": target, "status": status, "headers": headers, "body": body})
}

/// Sends a request with these headers and this body.
async fn ask(exporter: &Exporter, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let request = exporter.http().request(method.clone(), exporter.urls[0].clone() + target).body(body.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    exchange(&method, target, request.send().await.unwrap()).await
}

async fn get(exporter: &Exporter, target: &str) -> Value {
    ask(exporter, Method::GET, target, &[], "").await
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn put(exporter: &Exporter, name: &str, body: &Value) -> Value {
    let target = format!("/api/v1/toggles/{name}");
    let mut exchange = ask(exporter, Method::PUT, &target, &[JSON], &body.to_string()).await;
    exchange["sent"] = body.clone();
    exchange
}

/// Sends a request without a Host header, which no client does.
fn without_host(exporter: &Exporter, method: &str, target: &str) -> Value {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<_, _> = lines.filter_map(|line| line.split_once(": ")).collect();
    json!({"method": method, "target": target, "status": status, "headers": headers, "body": body})
}

/// The operations that are described, each with a target.
fn operations() -> Vec<(Method, String)> {
    let description = yaml(DESCRIPTION);
    let paths = description["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let target = path.replace("{name}", "completed").replace("{api}/{agent_id}", "default/1");
        let target = target.replace("{file}", "base.css");
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        let methods = methods.map(|method| Method::from_bytes(method.to_uppercase().as_bytes()).unwrap());
        methods.map(|method| (method, target.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

// === Exporters ===

fn task(progress_id: &str) -> Value {
    json!({"agent_id": 7, "progress_id": progress_id})
}

/// An exporter that takes registrations, with toggles of every status and of every source.
async fn exporter_of_all(upstream: &Upstream) -> Exporter {
    let endpoint = json!({"mock_index": 0, "url": "https://mock.invalid/0", "tool_names": ["book"]});
    let completed = json!({"status": "completed", "mock_enabled": true, "mcp_endpoints": [endpoint], "message": "on"});
    for (id, replies) in [
        ("completed", vec![Reply::new(200, completed.to_string())]),
        ("mismatched", vec![Reply::task("completed", Some(false))]),
        ("failed", vec![Reply::new(200, r#"{"status": "failed", "error": "no room"}"#)]),
        ("recovered", vec![Reply::detail(500, "oops"), Reply::task("in_progress", None)]),
        ("odd", vec![Reply::task("paused", None)]),
        ("silent", vec![Reply::Silence]),
        ("throttled", vec![Reply::with_header(503, "retry-after", "600", "{}")]),
    ] {
        upstream.script(id, replies);
    }
    upstream.mock_status(2, [Reply::mock_status(true, "vapi")]);
    let api = json!({"base_url": upstream.url(), "api_key": KEY, "requests_per_second": 1000});
    let watch = |id: &str, agent_id: u32, api: &str| {
        json!({"name": id, "agent_id": agent_id, "progress_id": id, "expect": "enabled", "api": api,
               "labels": {"team": "bookings"}})
    };
    let config = json!({
        "apis": {"default": api, "throttled": api},
        "polling": {"min_interval": "50ms", "max_interval": "100ms", "backoff_max": "200ms"},
        "agents": [
            {"agent_id": 2, "expect": "disabled"},
            // The API does not know this one.
            {"agent_id": 99, "expect": "disabled", "labels": {"team": "support"}},
        ],
        "watches": [
            watch("completed", 1, "default"), watch("mismatched", 2, "default"), watch("failed", 3, "default"),
            watch("recovered", 4, "default"), watch("odd", 5, "default"), watch("silent", 6, "default"),
            watch("throttled", 7, "throttled"),
        ],
        "watch_files": ["watches/*.json"],
        "registrations": {"enabled": true},
        "state_file": "state",
    });
    let file = json!([{"name": "expired", "agent_id": 8, "progress_id": "expired"}]);
    let exporter = Exporter::with(config.to_string()).file("watches/a.json", &file.to_string()).start().await;
    let settled = |e: &Exposition| {
        let is = |name: &str, status: &str| e.status(name).as_deref() == Some(status);
        is("completed", "completed")
            && is("mismatched", "completed")
            && is("failed", "failed")
            && is("recovered", "in_progress")
            && e.count("cekura_agent_up") == 2
            && ["odd", "throttled", "expired"]
                .iter()
                .all(|name| e.value("cekura_toggle_up", &[("toggle", name)]).is_some())
    };
    exporter.scrape_until("all were polled", settled).await;
    exporter
}

// === What is asked ===

/// Everything that can be read, in every form.
async fn read(exporter: &Exporter) -> Vec<Value> {
    let mut exchanges = Vec::new();
    for name in ["completed", "mismatched", "failed", "recovered", "odd", "silent", "throttled", "expired", "none"] {
        exchanges.push(get(exporter, &format!("/api/v1/toggles/{name}")).await);
        exchanges.push(get(exporter, &format!("/api/v1/toggles/{name}/events?pretty")).await);
    }
    for target in [
        "/?status=failed&q=room",
        "/?standing=failed&sort=-name&more=1",
        "/?toggle=failed",
        "/toggles/failed",
        "/toggles/none",
        "/agents?q=vapi",
        "/assets/well.svg",
        "/agents?standing=drifted&q=default&more=1",
        "/agents/default/1000",
        "/runbooks?toggle=failed",
        "/runbooks?agent=default/1",
        "/runbooks?api=default",
        "/assets/page.js",
        "/assets/none",
        "/api/v1/status?pretty",
        "/api/v1/toggles?limit=2&after=a&status=completed&q=bookings&pretty",
        "/api/v1/toggles?limit=100",
        "/api/v1/toggles?status=",
        "/api/v1/toggles?limit=0",
        "/api/v1/toggles/completed?wait=5m&progress_id=completed&pretty=0",
        "/api/v1/toggles/completed?wait=soon",
        "/api/v1/toggles/completed?progress_id=other",
        "/api/v1/agents?pretty",
        "/api/v1/agents/default/99",
        "/api/v1/agents/default/1?pretty",
        "/api/v1/agents/default/2",
        "/api/v1/agents/default/2?wait=5m&live=enabled&pretty=0",
        "/api/v1/agents/default/2?wait=1ms&live=disabled",
        "/api/v1/agents/default/2?wait=5m",
        "/api/v1/agents/default/2?wait=soon&live=enabled",
        "/api/v1/agents/default/1?wait=5m&live=enabled",
        "/api/v1/agents/default/1000",
        "/api/v1/agents/default/1000?wait=5m&live=enabled",
    ] {
        exchanges.push(get(exporter, target).await);
    }
    let large = "x".repeat(17 * 1024);
    for (method, target) in operations() {
        exchanges.push(without_host(exporter, method.as_str(), &target));
        exchanges.push(ask(exporter, method.clone(), &target, &[("x-large", &large)], "").await);
        exchanges.push(ask(exporter, Method::OPTIONS, &target, &[], "").await);
        if method != Method::GET {
            exchanges.push(ask(exporter, method, &target, &[("sec-fetch-site", "cross-site")], "").await);
            continue;
        }
        let answer = get(exporter, &target).await;
        let head = ask(exporter, Method::HEAD, &target, &[], "").await;
        assert_eq!(head["status"], answer["status"], "HEAD {target}");
        if let Some(etag) = answer["headers"]["etag"].as_str() {
            // A star is whatever is there, so that no change meanwhile makes a difference.
            assert!(etag.starts_with("W/"), "{target}");
            exchanges.push(ask(exporter, Method::GET, &target, &[("if-none-match", "*")], "").await);
        }
        exchanges.push(ask(exporter, Method::GET, &target, &[("accept-encoding", "gzip")], "").await);
        exchanges.extend([answer, head]);
    }
    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    exchanges.push(ask(exporter, Method::GET, "/metrics", &accept, "").await);
    exchanges
}

/// Debug polls, well and badly.
async fn poll_once(exporter: &Exporter) -> Vec<Value> {
    let target = |name: &str| format!("/-/debug/poll?toggle={name}");
    let post = async |target: &str| ask(exporter, Method::POST, target, &[], "").await;
    let mut exchanges = Vec::new();
    for name in ["completed", "failed", "odd", "throttled", "expired", "none"] {
        exchanges.push(post(&(target(name) + "&pretty")).await);
    }
    let html = [("accept", "text/html")];
    for name in ["completed", "none", "throttled"] {
        exchanges.push(ask(exporter, Method::POST, &target(name), &html, "").await);
    }
    exchanges.push(post("/-/debug/poll").await);
    // The API is silent to one of them, and the other one is refused.
    let silent = target("silent");
    exchanges.push(tokio::select! {
        first = post(&silent) => first,
        second = post(&silent) => second,
    });
    exchanges
}

/// Everything that can be changed, well and badly.
async fn write(exporter: &Exporter) -> Vec<Value> {
    let own = "/api/v1/toggles/own";
    let full = json!({
        "agent_id": 7, "progress_id": "p", "expect": "disabled", "api": "default", "labels": {"team": "x"},
    });
    let task = task("p").to_string();
    let mut exchanges = vec![
        put(exporter, "own", &full).await,
        put(exporter, "own", &full).await,
        put(exporter, "completed", &full).await,
        put(exporter, "own", &json!({"agent_id": 0, "name": "x"})).await,
        ask(exporter, Method::PUT, own, &[("content-type", "text/plain")], &task).await,
        ask(exporter, Method::PUT, own, &[JSON], &" ".repeat(64 * 1024 + 1)).await,
        ask(exporter, Method::DELETE, "/api/v1/toggles/completed", &[], "").await,
        ask(exporter, Method::DELETE, own, &[], "x").await,
        ask(exporter, Method::DELETE, own, &[], "").await,
        ask(exporter, Method::DELETE, own, &[], "").await,
        ask(exporter, Method::DELETE, "/api/v1/agents/default/1", &[], "").await,
        ask(exporter, Method::DELETE, "/api/v1/agents/default/1", &[], "").await,
        ask(exporter, Method::POST, "/-/reload", &[], "x").await,
        ask(exporter, Method::POST, "/-/reload", &[], "").await,
    ];
    exporter.reconfigure("nonsense: 1\n");
    exchanges.push(ask(exporter, Method::POST, "/-/reload", &[], "").await);
    exchanges
}

async fn without_login(upstream: &Upstream) -> Vec<Value> {
    let hash = bcrypt::hash("password", 4).unwrap();
    let config = Exporter::registering(upstream, Path::new("state"));
    let users = json!({"basic_auth_users": {"alice": hash}}).to_string();
    let exporter = Exporter::with(config).web(&users).start().await;
    let mut exchanges = Vec::new();
    for (method, target) in operations() {
        exchanges.push(ask(&exporter, method, &target, &[], "").await);
    }
    let probes = exchanges.iter().filter(|exchange| exchange["status"] == 200).count();
    assert_eq!(probes, 2, "{exchanges:#?}");
    let alice = Client::default().logged_in("alice", "password");
    let answer = exporter.answer_to(&alice, "/api/v1/toggles").await.unwrap();
    exchanges.push(exchange(&Method::GET, "/api/v1/toggles", answer).await);
    exchanges
}

async fn without_registrations() -> Vec<Value> {
    let exporter = Exporter::with("watches: []\n").start().await;
    let target = "/api/v1/toggles/a";
    vec![put(&exporter, "a", &task("p")).await, ask(&exporter, Method::DELETE, target, &[], "").await]
}

/// A replica, whose database is away.
async fn replica() -> Vec<Value> {
    let config = "watches: []\ndatabase: {url: 'postgresql://exporter@127.0.0.1:1/exporter', lease: 3s}\n";
    let exporter = Exporter::with(config).start().await;
    let target = "/replicas";
    let known = ask(&exporter, Method::GET, target, &[("if-none-match", "*")], "").await;
    vec![get(&exporter, target).await, known]
}

/// A disk that is full.
async fn without_room(upstream: &Upstream) -> Vec<Value> {
    let prlimit = tool("prlimit").display().to_string();
    let start = Exporter::with(Exporter::registering(upstream, Path::new("state")));
    let exporter = start.through(&[&prlimit, "--fsize=90000", "--"]).start().await;
    for i in 0..200 {
        let answer = put(&exporter, &format!("w{i}"), &task(&"p".repeat(200))).await;
        if answer["status"] == 507 {
            return vec![answer];
        }
    }
    panic!("there was always room");
}

/// An exporter that stops, first with and then without lingering.
async fn stopping(upstream: &Upstream) -> Vec<Value> {
    upstream.script("done", [Reply::task("completed", None)]);
    upstream.script("running", [Reply::task("in_progress", None)]);
    let watches = "watches: [{name: a, agent_id: 1, progress_id: done}]\n";
    let config = Exporter::quick(upstream, &format!("shutdown: {{linger: 1h}}\n{watches}"));
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    exporter.signal(Signal::TERM);
    let not_ready = eventually("it is not ready", async || {
        Some(get(&exporter, "/-/ready").await).filter(|answer| answer["status"] == 503)
    })
    .await;
    let exporter = Exporter::with(Exporter::registering(upstream, Path::new("state"))).start().await;
    exporter.put("a", &task("running")).await;
    let waiter = waiting(&exporter, "wait=10m").await;
    exporter.stop().await;
    vec![not_ready, exchange(&Method::GET, "/api/v1/toggles/a?wait=10m", waiter.await.unwrap()).await]
}

// === Tests ===

#[tokio::test]
async fn every_answer_is_as_it_is_described_and_all_that_is_described_is_answered() {
    let upstream = Upstream::start().await;
    let exporter = exporter_of_all(&upstream).await;
    let all = async {
        let mut exchanges = read(&exporter).await;
        let toggles: Value = serde_json::from_str(&exporter.get("/api/v1/toggles").await.1).unwrap();
        let statuses = toggles["toggles"].as_array().unwrap().iter().map(|toggle| toggle["status"].as_str().unwrap());
        assert_eq!(statuses.collect::<BTreeSet<_>>().len(), 4, "{toggles}");
        exchanges.extend(poll_once(&exporter).await);
        exchanges.extend(write(&exporter).await);
        exchanges
    };
    let (all, without_login, without_registrations, replica, without_room, stopping) = tokio::join!(
        all,
        without_login(&upstream),
        without_registrations(),
        replica(),
        without_room(&upstream),
        stopping(&upstream)
    );
    let exchanges = [all, without_login, without_registrations, replica, without_room, stopping].concat();
    let report = compared(&exchanges);
    assert_eq!(report.faults.join("\n"), "");
    let is_rare = |code: &&String| RARE.iter().any(|rare| code.ends_with(rare));
    let unseen: Vec<_> = report.described.difference(&report.seen).filter(|code| !is_rare(code)).collect();
    assert_eq!(unseen, [""; 0], "is described and was not answered");
    // The labels of the metric are the program's own list of its paths.
    let scrape = exporter.scrape().await;
    let handlers = scrape.text.lines().filter_map(|line| line.split_once("handler=\"")?.1.split('"').next());
    let mut handlers: BTreeSet<_> = handlers.map(str::to_owned).collect();
    handlers.remove("other");
    let paths = report.described.iter().map(|operation| operation.split(' ').nth(1).unwrap().to_owned());
    assert_eq!(handlers, paths.collect());
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_as_it_is_described() {
    let upstream = Upstream::start().await;
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state"))).start().await;
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    let head =
        "PUT /api/v1/toggles/a HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
    let headers = json!({"content-type": "application/json"});
    let exchange =
        json!({"method": "PUT", "target": "/api/v1/toggles/a", "status": 408, "headers": headers, "body": body});
    let report = compared(&[exchange]);
    assert_eq!(report.faults.join("\n"), "");
}

#[test]
fn the_page_and_the_description_have_the_same_operations() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http-api.md")).unwrap();
    let rows = rows(section(&page, "## Paths"));
    let requests = rows.iter().flat_map(|row| code(row[0])).filter_map(|request| request.split_once(' '));
    let documented: BTreeSet<_> = requests
        .map(|(method, target)| {
            let path = target.split('?').next().unwrap().replace("NAME", "{name}").replace("FILE", "{file}");
            format!("{method} {}", path.replace("API/ID", "{api}/{agent_id}"))
        })
        .collect();
    let described = compared(&[]).described;
    let described: BTreeSet<_> = described.iter().map(|code| code.rsplit_once(' ').unwrap().0.to_owned()).collect();
    assert_eq!(documented, described);
}
