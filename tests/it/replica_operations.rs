//! What docs/replicas.md tells operators to do, done with the commands and the configuration that it shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{
    Authority, Exporter, FAR, Postgres, Upstream, eventually, markdown, postgres_programs, psql, tool,
};

/// The code blocks of a section of the page, in this language.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/replicas.md")).unwrap();
    let section = markdown::section(&page, heading);
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

/// Replaces a text that has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

/// Runs commands as an operator does, in this folder and with the URL of a database in `$url`.
async fn operate(folder: &Path, commands: &str, url: &str) -> Output {
    let programs = [postgres_programs(), tool("curl").parent().unwrap().to_owned(), "/usr/bin".into(), "/bin".into()];
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", commands]).current_dir(folder).env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::join_paths(programs).unwrap()).env("url", url);
    command.kill_on_drop(true).output().await.unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The configuration of a replica that polls `upstream` quickly and takes registrations.
fn replica(upstream: &Upstream, database: &str) -> String {
    Exporter::quick(upstream, &format!("registrations: {{enabled: true}}\ndatabase: {{url: {database}, lease: 3s}}\n"))
}

/// All toggles of an exporter, by name.
async fn toggles(exporter: &Exporter) -> BTreeMap<String, Value> {
    let (status, text) = exporter.get("/api/v1/toggles").await;
    assert_eq!(status, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let of_list = |toggle: &Value| (toggle["name"].as_str().unwrap().to_owned(), toggle.clone());
    list["toggles"].as_array().unwrap().iter().map(of_list).collect()
}

/// What a job hands over, of a toggle in JSON.
fn definition(toggle: &Value) -> Value {
    ["agent_id", "progress_id", "api", "source", "expect", "labels"]
        .into_iter()
        .map(|key| (key.to_owned(), toggle[key].clone()))
        .collect()
}

// === Set up ===

/// A cluster with TLS and passwords, and the statements that the page gives an administrator.
async fn administered(authority: &Authority) -> (Postgres, Vec<String>, String) {
    let postgres = Postgres::with().password("of the administrator").tls(&authority.server(FAR)).start().await;
    let [role, schema] = &blocks("### The database", "sql")[..] else { panic!("two blocks of SQL are expected") };
    let statements = role.lines().map(str::to_owned).collect();
    (postgres, statements, schema.clone())
}

/// Starts a replica with the configuration that the page shows, in this database of the cluster.
async fn configured(upstream: &Upstream, postgres: &Postgres, authority: &Authority, database: &str) -> Exporter {
    let [config] = &blocks("### The exporters", "yaml")[..] else { panic!("one configuration is expected") };
    let config = replaced(config, "db.example.com:5432/cekura", &format!("{}/{database}", postgres.address()));
    let config = replaced(&config, "/run/secrets/database/", "");
    let start = Exporter::with(Exporter::quick(upstream, &config));
    let exporter = start.file("password", "choose-a-password\n").file("ca.crt", &authority.pem()).start().await;
    exporter.scrape_until("it has the database", |e| e.value("cekura_exporter_database_up", &[]) == Some(1.0)).await;
    exporter
}

/// The schemas of a database that the role of the page owns.
async fn schemas(postgres: &Postgres, database: &str) -> Vec<Vec<String>> {
    let url = format!("postgresql://cekura_exporter:choose-a-password@{}/{database}", postgres.address());
    let sql = "SELECT nspname FROM pg_namespace WHERE pg_get_userbyid(nspowner) = 'cekura_exporter'";
    psql(&url, sql).await.unwrap()
}

#[tokio::test]
async fn the_role_that_the_page_creates_lets_an_exporter_create_its_schema_in_a_database_of_its_own() {
    let (upstream, authority) = (Upstream::start().await, Authority::new("databases"));
    let (postgres, statements, _) = administered(&authority).await;
    for statement in &statements {
        postgres.query(statement).await;
    }
    let exporter = configured(&upstream, &postgres, &authority, "cekura").await;
    let (status, answer) = exporter.put("a", &json!({"agent_id": 7, "progress_id": "p"})).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(schemas(&postgres, "cekura").await, [["cekura_exporter"]]);
}

#[tokio::test]
async fn an_exporter_uses_the_schema_that_an_administrator_creates_where_it_may_not() {
    let (upstream, authority) = (Upstream::start().await, Authority::new("databases"));
    let (postgres, statements, schema) = administered(&authority).await;
    postgres.query(&statements[0]).await;
    postgres.query(&schema).await;
    let exporter = configured(&upstream, &postgres, &authority, "postgres").await;
    let (status, answer) = exporter.put("a", &json!({"agent_id": 7, "progress_id": "p"})).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(schemas(&postgres, "postgres").await, [["cekura_exporter"]]);
}

#[tokio::test]
async fn the_query_of_the_page_counts_the_owners_of_all_shards() {
    let query = blocks("## Metrics and alerts", "promql").concat();
    assert_eq!(query.trim(), "sum without (instance, pod) (cekura_exporter_shards{state=\"owned\"})");
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let start = async || Exporter::with(replica(&upstream, &postgres.url())).start().await;
    let replicas = [start().await, start().await];
    let owned = [("state", "owned")];
    eventually("each shard has one owner, and both own some", async || {
        let [one, other] = &replicas;
        let one = one.scrape().await.value("cekura_exporter_shards", &owned);
        let other = other.scrape().await.value("cekura_exporter_shards", &owned);
        let is_divided = one.zip(other).map(|(one, other)| one + other) == Some(64.0);
        (is_divided && one > Some(0.0) && other > Some(0.0)).then_some(())
    })
    .await;
}

// === Without a database ===

#[tokio::test]
async fn two_exporters_without_a_database_each_poll_and_expose_everything() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None), Reply::task("completed", Some(true))]);
    let watch = "  - {name: a, agent_id: 7, progress_id: p}\n";
    let exporters =
        [Exporter::polling(&upstream, watch).start().await, Exporter::polling(&upstream, watch).start().await];
    for exporter in &exporters {
        exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
        // Such an exporter takes no registrations, which would reach only one of the two.
        assert_eq!(exporter.request(Method::PUT, "/api/v1/toggles/b").await.status(), 405);
    }
}

// === Backup and restore ===

#[tokio::test]
async fn the_commands_of_the_page_restore_what_a_backup_of_running_replicas_has() {
    let [backup, restore] = &blocks("## Backup and restore", "sh")[..] else { panic!("two blocks are expected") };
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let folder = tempfile::tempdir().unwrap();
    upstream.script("failed", [Reply::task("failed", None)]);
    upstream.script("running", [Reply::task("in_progress", None)]);
    let start = async || Exporter::with(replica(&upstream, &postgres.url())).start().await;
    let [one, other] = [start().await, start().await];
    let labels = json!({"team": "bookings"});
    for id in ["failed", "running"] {
        let body = json!({"agent_id": 7, "progress_id": id, "expect": "disabled", "labels": labels});
        assert_eq!(one.put(id, &body).await.0, 201);
    }
    // One of the two does not poll it, so it has this from the database.
    for exporter in [&one, &other] {
        eventually("the failure is known", async || {
            (exporter.toggle("failed").await["status"] == "failed").then_some(())
        })
        .await;
    }
    let before = toggles(&one).await;
    succeeded(&operate(folder.path(), backup, &postgres.url()).await);

    assert_eq!(one.put("later", &json!({"agent_id": 7, "progress_id": "running"})).await.0, 201);
    assert_eq!(other.delete("failed").await, 204);
    one.stop().await;
    other.stop().await;
    // The API has forgotten it, so that nobody can find out again how it ended.
    upstream.script("failed", [Reply::detail(404, "Not found.")]);
    let restored = operate(folder.path(), restore, &postgres.url()).await;
    assert!(restored.status.success(), "{restored:?}");

    let polls = upstream.polls_of("running");
    let restored = start().await;
    let after = eventually("it has what was saved", async || {
        Some(toggles(&restored).await).filter(|toggles| toggles.len() == before.len())
    })
    .await;
    assert_eq!(after.keys().collect::<Vec<_>>(), ["failed", "running"]);
    for (name, toggle) in &before {
        assert_eq!(definition(&after[name]), definition(toggle), "{name}");
    }
    for key in ["status", "problem", "finished_at", "started_at"] {
        assert_eq!(after["failed"][key], before["failed"][key], "{key}");
    }
    eventually("what was in progress is polled", async || (upstream.polls_of("running") > polls).then_some(())).await;
    let finished = [("toggle", "failed"), ("status", "failed")];
    let exposed = |e: &crate::harness::Exposition| e.value("cekura_toggle_finished_total", &finished).is_some();
    let exposition = restored.scrape_until("it is exposed", exposed).await;
    assert_eq!(exposition.value("cekura_toggle_finished_total", &finished), Some(1.0));
    assert_eq!(restored.put("later", &json!({"agent_id": 7, "progress_id": "running"})).await.0, 201);
}

// === Moving from a state file ===

/// An exporter with a state file, and an exporter to which its registrations are moved.
async fn neighbours(upstream: &Upstream, new: String) -> [Exporter; 2] {
    let old = Exporter::with(Exporter::registering(upstream, Path::new("state"))).start().await;
    [old, Exporter::with(new).start().await]
}

/// The commands that copy registrations from one address to another.
fn copying(from: &str, to: &str) -> String {
    let [commands] = &blocks("## Moving from a state file", "sh")[..] else { panic!("one block is expected") };
    let commands = replaced(commands, "old=http://localhost:10058 ", &format!("old={from} "));
    replaced(&commands, "new=http://localhost:10059\n", &format!("new={to}\n"))
}

#[tokio::test]
async fn the_commands_of_the_page_copy_unfinished_registrations_to_replicas_and_change_none_that_is_there() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let folder = tempfile::tempdir().unwrap();
    upstream.script("finished", [Reply::task("completed", Some(true))]);
    let quoted = r#"p "1" \ 2&3"#;
    for id in ["running", quoted, "newer"] {
        upstream.script(id, [Reply::task("in_progress", None)]);
    }
    let [old, new] = neighbours(&upstream, replica(&upstream, &postgres.url())).await;
    let body = json!({"agent_id": 7, "progress_id": "finished", "expect": "enabled"});
    assert_eq!(old.put("finished", &body).await.0, 201);
    for (name, body) in [
        ("bookings-enable", json!({"agent_id": 7, "progress_id": "running", "expect": "enabled"})),
        ("a.b_c", json!({"agent_id": 8, "progress_id": quoted, "labels": {"team": r#"book "ings" \ a"#}})),
        ("known", json!({"agent_id": 9, "progress_id": "running"})),
    ] {
        assert_eq!(old.put(name, &body).await.0, 201, "{name}");
    }
    old.scrape_until("one is finished", |e| e.status("finished").as_deref() == Some("completed")).await;
    assert_eq!(new.put("known", &json!({"agent_id": 9, "progress_id": "newer"})).await.0, 201);

    let commands = copying(&old.urls[0], &new.urls[0]);
    for _ in 0..2 {
        succeeded(&operate(folder.path(), &commands, "").await);
        let (at_old, at_new) = (toggles(&old).await, toggles(&new).await);
        assert_eq!(at_new.keys().collect::<Vec<_>>(), ["a.b_c", "bookings-enable", "known"]);
        for name in ["a.b_c", "bookings-enable"] {
            assert_eq!(definition(&at_new[name]), definition(&at_old[name]), "{name}");
        }
        assert_eq!(at_new["known"]["progress_id"], "newer");
    }
    let status = |e: &crate::harness::Exposition| e.status("bookings-enable").as_deref() == Some("in_progress");
    new.scrape_until("the API was asked anew", status).await;
}

#[tokio::test]
async fn a_registration_that_replicas_refuse_is_reported_and_ends_the_copy() {
    let upstream = Upstream::start().await;
    upstream.script("running", [Reply::task("in_progress", None)]);
    let folder = tempfile::tempdir().unwrap();
    // It takes no registrations.
    let [old, new] = neighbours(&upstream, Exporter::quick(&upstream, "watches: []\n")).await;
    for name in ["a", "b"] {
        assert_eq!(old.put(name, &json!({"agent_id": 7, "progress_id": "running"})).await.0, 201);
    }
    let output = operate(folder.path(), &copying(&old.urls[0], &new.urls[0]), "").await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("405").count(), 1, "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("registrations are not enabled"), "{said}");
}
