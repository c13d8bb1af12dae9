//! Watches that are handed over by HTTP.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use cekura_exporter::demo::simulator::Reply;
use cekura_exporter::store::{FileStore, Registration, RegistrationChange};
use cekura_exporter::toggle::{AgentId, ApiName, Labels, ProgressId, Source, Timestamp, Watch, WatchName};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Exporter, Upstream, eventually, run, tool};

fn task(progress_id: &str) -> Value {
    json!({"agent_id": 7, "progress_id": progress_id})
}

async fn registering(upstream: &Upstream) -> Exporter {
    Exporter::with(Exporter::registering(upstream, Path::new("state"))).start().await
}

#[tokio::test]
async fn registrations_are_off_by_default_and_the_refusal_says_what_would_enable_them() {
    let exporter = Exporter::with("watches: [{name: w, agent_id: 1, progress_id: p}]\n").start().await;
    for method in [Method::PUT, Method::DELETE] {
        let answer = exporter.request(method, "/api/v1/toggles/a").await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()["allow"], "GET, HEAD, OPTIONS");
        assert!(answer.text().await.unwrap().contains("registrations.enabled"));
    }
}

#[tokio::test]
async fn every_read_after_the_answer_sees_what_was_registered() {
    let upstream = Upstream::start().await;
    upstream.script("p1", [Reply::task("completed", Some(true))]);
    let exporter = registering(&upstream).await;
    let body = json!({"agent_id": 7, "progress_id": "p1", "expect": "enabled", "labels": {"team": "bookings"}});
    let (status, toggle) = exporter.put("a", &body).await;
    assert_eq!((status, &toggle["name"], &toggle["source"]), (201, &json!("a"), &json!("http")));
    let info =
        [("toggle", "a"), ("progress_id", "p1"), ("source", "http"), ("expect", "enabled"), ("team", "bookings")];
    assert_eq!(exporter.scrape().await.value("cekura_toggle_info", &info), Some(1.0));
    exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    let before = exporter.toggle("a").await;

    let (status, again) = exporter.put("a", &body).await;
    assert_eq!((status, &again), (200, &before), "the same again changes nothing");
    let relabelled = json!({"agent_id": 7, "progress_id": "p1", "expect": "enabled", "labels": {"team": "x"}});
    let (status, other) = exporter.put("a", &relabelled).await;
    assert_eq!((status, &other["status"], &other["labels"]["team"]), (200, &json!("completed"), &json!("x")));
    assert_eq!(other["started_at"], before["started_at"]);
    let (status, next) = exporter.put("a", &task("p2")).await;
    assert_eq!((status, &next["status"], &next["progress_id"]), (200, &json!("unknown"), &json!("p2")));
    assert_ne!(next["started_at"], before["started_at"]);
    assert_eq!(exporter.scrape().await.value("cekura_exporter_watches", &[("source", "http")]), Some(1.0));

    assert_eq!(exporter.get("/api/v1/toggles/%61").await.0, 200, "as any client may write it");
    assert_eq!(exporter.delete("%61").await, 204);
    assert_eq!(exporter.get("/api/v1/toggles/a").await.0, 404);
    assert!(!exporter.scrape().await.text.contains("toggle=\"a\""));
    assert_eq!(exporter.delete("a").await, 404);
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_said_and_changes_nothing() {
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream).await;
    for (body, what) in [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "must be one JSON object"),
        ("{agent_id: 7, progress_id: p}", "JSON"),
        (r#"{"agent_id": 7}"#, "progress_id: is missing"),
        (r#"{"agent_id": 0, "progress_id": "p"}"#, "agent_id: `0`"),
        (r#"{"agent_id": 1.5, "progress_id": "p"}"#, "agent_id: `1.5`"),
        (r#"{"agent_id": 7, "progress_id": ""}"#, "progress_id"),
        (r#"{"agent_id": 7, "progress_id": " p"}"#, "progress_id: ` p` begins or ends with white space"),
        (r#"{"agent_id": 7, "progress_id": "p", "expect": "on"}"#, "expect: `on`"),
        (r#"{"agent_id": 7, "progress_id": "p", "api": "none"}"#, "api: `none`"),
        (r#"{"agent_id": 7, "progress_id": "p", "labels": {"job": "x"}}"#, "labels.job"),
        (r#"{"agent_id": 7, "progress_id": "p", "name": "a"}"#, "name: is not a known key"),
        (r#"{"agent_id": 7, "agent_id": 8, "progress_id": "p"}"#, "agent_id: is given a second time"),
    ] {
        let (status, answer) = exporter.put_text("a", "application/json", body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(what), "{body}: {answer}");
        let problems = answer["problems"].as_array().unwrap();
        assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains(what)), "{body}: {answer}");
    }
    let (status, both) = exporter.put_text("-a", "application/json", r#"{"agent_id": 0}"#).await;
    assert_eq!(both["problems"].as_array().unwrap().len(), 3, "{both}");
    let both = both["error"].as_str().unwrap();
    assert!(status == 400 && both.contains("watch name") && both.contains("agent_id") && both.contains("progress_id"));
    assert_eq!(exporter.put_text("a", "text/plain", task("p").to_string()).await.0, 415);
    assert_eq!(exporter.put_text("a", "application/x-www-form-urlencoded", task("p").to_string()).await.0, 415);
    assert_eq!(exporter.put_text("a", "application/json", " ".repeat(64 * 1024 + 1)).await.0, 413);
    let answer = put_in_pieces(&exporter, &" ".repeat(32 * 1024), 3);
    assert!(answer.starts_with("HTTP/1.1 413"), "also without a length: {answer}");
    assert_eq!(exporter.scrape().await.value("cekura_exporter_watches", &[("source", "http")]), Some(0.0));
    let padded = format!("{}{}", task("p"), " ".repeat(64 * 1024 - task("p").to_string().len()));
    assert_eq!(exporter.put_text("a", "Application/JSON; charset=utf-8", padded).await.0, 201, "64 KiB are fine");
}

#[tokio::test]
async fn a_connection_whose_body_was_not_read_to_its_end_is_not_used_again() {
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream).await;
    let closes = async |path: &str, method: Method, body: &str| {
        let request = exporter.http().request(method, format!("{}{path}", exporter.urls[0])).body(body.to_owned());
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        answer.headers().get("connection").is_some_and(|value| value == "close")
    };
    let large = " ".repeat(64 * 1024 + 1);
    assert!(closes("/api/v1/toggles/a", Method::PUT, &large).await);
    assert!(closes("/metrics", Method::POST, "x").await);
    assert!(!closes("/api/v1/toggles/a", Method::PUT, &task("p").to_string()).await);
    assert!(!closes("/-/reload", Method::POST, "").await);
}

/// Sends a body in pieces, so that its length is not known before; returns the answer's first line.
fn put_in_pieces(exporter: &Exporter, piece: &str, pieces: usize) -> String {
    let mut stream = TcpStream::connect(exporter.urls[0].trim_start_matches("http://")).unwrap();
    let head = "PUT /api/v1/toggles/a HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..pieces {
        // It may be refused before the last one.
        let _ = stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
    }
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_name_that_belongs_to_another_source_can_be_neither_registered_nor_removed() {
    let upstream = Upstream::start().await;
    let config =
        Exporter::registering(&upstream, Path::new("state")) + "watches: [{name: w, agent_id: 1, progress_id: p}]\n";
    let exporter = Exporter::with(config).start().await;
    let (status, answer) = exporter.put("w", &task("p")).await;
    assert!(status == 409 && answer["error"].as_str().unwrap().contains("config"), "{answer}");
    assert_eq!(exporter.delete("w").await, 409);
    assert_eq!(exporter.toggle("w").await["source"], "config");
}

#[tokio::test]
async fn registrations_expire_by_what_became_of_their_runs_and_do_not_come_back() {
    let upstream = Upstream::start().await;
    upstream.script("good", [Reply::task("completed", Some(true))]);
    upstream.script("bad", [Reply::task("failed", None)]);
    upstream.script("answers", [Reply::task("in_progress", None)]);
    let state = tempfile::tempdir().unwrap();
    let config = |completed: &str, unfinished: &str| {
        let retention = format!("{{completed: {completed}, failed: 1h, unfinished: {unfinished}}}");
        let state = state.path().join("state");
        Exporter::quick(&upstream, "")
            + &format!("state_file: {}\nregistrations: {{enabled: true, retention: {retention}}}\n", state.display())
    };
    let exporter = Exporter::with(config("1s", "1s")).start().await;
    for name in ["good", "bad", "silent", "answers"] {
        assert_eq!(exporter.put(name, &task(name)).await.0, 201);
    }
    eventually("the completed one and the silent one are gone", async || {
        let gone = async |name| exporter.get(&format!("/api/v1/toggles/{name}")).await.0 == 404;
        (gone("good").await && gone("silent").await).then_some(())
    })
    .await;
    assert_eq!(exporter.toggle("bad").await["status"], "failed");
    assert_eq!(exporter.toggle("answers").await["status"], "in_progress", "its last answer is young");
    assert_eq!(exporter.logged("registration expired", 2).await.len(), 2);
    exporter.kill().await;
    let exporter = Exporter::with(config("1h", "1h")).start().await;
    assert_eq!(names(&exporter).await, ["answers", "bad"]);
}

/// The names of all toggles, sorted.
async fn names(exporter: &Exporter) -> Vec<String> {
    let (_, list) = exporter.get("/api/v1/toggles").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    list["toggles"].as_array().unwrap().iter().map(|toggle| toggle["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn no_more_than_a_hundred_thousand_can_be_registered_if_that_is_the_maximum() {
    let upstream = Upstream::start().await;
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("state");
    let registration = |i: u64| {
        let watch = Watch {
            name: WatchName::parse(&format!("w{i}")).unwrap(),
            api: ApiName::default_api(),
            agent_id: AgentId::parse("1").unwrap(),
            progress_id: ProgressId::parse("p").unwrap(),
            expect: None,
            labels: Labels::default(),
            source: Source::Http,
        };
        let now = Timestamp::from(std::time::SystemTime::now());
        RegistrationChange::Put(Registration { watch: Arc::new(watch), started: now, registered: now })
    };
    let (store, _) = FileStore::open(&path).unwrap();
    store.register(&(1..100_000).map(registration).collect::<Vec<_>>()).unwrap();
    drop(store);
    let config = Exporter::registering(&upstream, &path)
        .replace("registrations: {enabled: true", "registrations: {max: 100000, enabled: true");
    let exporter = Exporter::with(config).start().await;
    assert_eq!(exporter.put("last", &task("p")).await.0, 201);
    let (status, answer) = exporter.put("more", &task("p")).await;
    assert!(status == 507 && answer["error"].as_str().unwrap().contains("100000"), "{status} {answer}");
    assert_eq!(exporter.put("last", &task("p2")).await.0, 200, "what is there can be replaced");
    assert_eq!(exporter.delete("last").await, 204);
    assert_eq!(exporter.put("more", &task("p")).await.0, 201);
    assert_eq!(exporter.logged("very many watches", 1).await.len(), 1);
}

#[tokio::test]
async fn a_state_file_that_may_not_grow_is_an_answer_and_no_end_of_the_process() {
    let upstream = Upstream::start().await;
    let prlimit = tool("prlimit").display().to_string();
    let start = Exporter::with(Exporter::registering(&upstream, Path::new("state")));
    let exporter = start.through(&[&prlimit, "--fsize=90000", "--"]).start().await;
    let mut statuses = HashSet::new();
    for i in 0..200 {
        statuses.insert(exporter.put(&format!("w{i}"), &task(&"p".repeat(200))).await.0);
    }
    assert_eq!(statuses, HashSet::from([201, 507]));
}

#[tokio::test]
async fn what_a_full_disk_kept_from_being_registered_is_settled_when_it_has_room_again() {
    let upstream = Upstream::start().await;
    let script = "mount -t tmpfs -o size=400k none disk && exec \"$@\"";
    let unshare = tool("unshare").display().to_string();
    let start = Exporter::with(Exporter::registering(&upstream, Path::new("disk/state"))).file("disk/.keep", "");
    let exporter = start.through(&[&unshare, "--mount", "--", "/bin/sh", "-c", script, "sh"]).start().await;
    let disk = format!("/proc/{}/root{}/disk", exporter.pid(), exporter.folder().display());
    let fill = Path::new(&disk).join("fill");
    std::fs::write(&fill, vec![0; 400 * 1024]).unwrap_err();
    // The file has room of its own for a while.
    let mut names = 0..5_000;
    let refused = loop {
        let name = format!("w{}", names.next().expect("it is full by now"));
        match exporter.put(&name, &task(&"p".repeat(200))).await.0 {
            201 => {}
            status => break (name, status),
        }
    };
    assert_eq!(refused.1, 507);
    std::fs::remove_file(fill).unwrap();
    // Nobody registers anything meanwhile.
    exporter.logged("registrations are written again", 1).await;
    assert_eq!(exporter.delete(&refused.0).await, 404, "it is known to be in no file");
}

#[tokio::test]
async fn registrations_beyond_the_maximum_are_refused_until_there_is_room_or_the_maximum_is_raised() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let limited = |max: u32| {
        let text = Exporter::registering(&upstream, &state);
        assert!(text.contains("registrations: {enabled: true"), "{text}");
        text.replace("registrations: {enabled: true", &format!("registrations: {{max: {max}, enabled: true"))
    };
    let exporter = Exporter::with(limited(2)).start().await;
    for name in ["a", "b"] {
        assert_eq!(exporter.put(name, &task(name)).await.0, 201);
    }
    let (status, refused) = exporter.put("c", &task("c")).await;
    let text = refused["error"].as_str().unwrap();
    assert!(
        status == 507 && text.contains("limit of 2 registrations") && text.contains("registrations.max"),
        "{refused}"
    );
    assert_eq!(exporter.put("b", &task("another")).await.0, 200, "it takes the place of another one");
    assert_eq!(exporter.delete("a").await, 204);
    assert_eq!(exporter.put("c", &task("c")).await.0, 201);
    exporter.reconfigure(limited(3));
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(exporter.put("d", &task("d")).await.0, 201);
    assert_eq!(exporter.put("e", &task("e")).await.0, 507);
    // What is kept stays when there is less room, also after a restart.
    exporter.stop().await;
    let exporter = Exporter::with(limited(1)).start().await;
    for name in ["b", "c", "d"] {
        assert_eq!(exporter.get(&format!("/api/v1/toggles/{name}")).await.0, 200, "{name}");
    }
    assert_eq!(exporter.put("e", &task("e")).await.0, 507);
}

#[tokio::test]
async fn that_anybody_can_register_is_said_once_where_it_is_so() {
    let upstream = Upstream::start().await;
    for (address, warnings) in [("127.0.0.1:0", 0), ("0.0.0.0:0", 1)] {
        let start = Exporter::with(Exporter::registering(&upstream, Path::new("state")));
        let exporter = start.arg(&format!("--web.listen-address={address}")).start().await;
        let (logs, _) = exporter.last_words().await;
        let warned = logs.iter().filter(|line| line.to_string().contains("without authentication")).count();
        assert_eq!(warned, warnings, "{address}");
    }
    let output =
        run(&["--config.check", "--config.file", "/dev/null"], &[("CEKURA_EXPORTER__REGISTRATIONS__ENABLED", "true")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("registrations.enabled: needs state_file"));
}

/// Registers 300 toggles at once and kills the exporter when so many are acknowledged. Returns what
/// was acknowledged.
async fn register_and_kill(exporter: Exporter, round: usize, after: usize) -> BTreeSet<String> {
    let (acknowledge, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut puts = tokio::task::JoinSet::new();
    for i in 0..300 {
        let (http, url, acknowledge) = (exporter.http(), exporter.urls[0].clone(), acknowledge.clone());
        puts.spawn(async move {
            let name = format!("r{round}-w{i}");
            let request = http.put(format!("{url}/api/v1/toggles/{name}")).header("content-type", "application/json");
            // What the kill broke off was not acknowledged.
            if let Ok(answer) = request.body(task(&name).to_string()).send().await {
                assert_eq!(answer.status(), 201);
                acknowledge.send(name).unwrap();
            }
        });
    }
    drop(acknowledge);
    let mut names = BTreeSet::new();
    while names.len() < after {
        names.insert(acknowledged.recv().await.expect("a request failed before the kill"));
    }
    exporter.kill().await;
    while let Some(name) = acknowledged.recv().await {
        names.insert(name);
    }
    puts.join_all().await;
    names
}

#[tokio::test]
async fn no_registration_that_was_acknowledged_is_lost_to_a_kill() {
    let (upstream, state) = (Upstream::start().await, tempfile::tempdir().unwrap());
    // Its three hundred writers are one peer.
    let config =
        Exporter::registering(&upstream, &state.path().join("state")) + "web: {max_connections_per_peer: 400}\n";
    let (mut acknowledged, mut broken_off) = (BTreeSet::new(), 0);
    for round in 0..=20 {
        let exporter = Exporter::with(config.clone()).start().await;
        let there: BTreeSet<_> = names(&exporter).await.into_iter().collect();
        let missing: Vec<_> = acknowledged.difference(&there).collect();
        assert!(missing.is_empty(), "round {round}: of {} acknowledged ones lost: {missing:?}", acknowledged.len());
        if round == 20 {
            break;
        }
        // Later in each round, so that the kill meets all that goes on.
        let more = register_and_kill(exporter, round, 1 + 14 * round).await;
        broken_off += 300 - more.len();
        acknowledged.extend(more);
    }
    println!("{} acknowledged, 0 lost, {broken_off} broken off", acknowledged.len());
    assert!(broken_off > 0, "no kill met a request");
}
