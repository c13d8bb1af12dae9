//! Watches from files that come and go.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, Exposition, Upstream, run};

fn watches(e: &Exposition) -> Option<f64> {
    e.value("cekura_exporter_watches", &[("source", "file")])
}

fn up(e: &Exposition, path: &str) -> Option<f64> {
    e.value("cekura_exporter_source_up", &[("source", "file"), ("path", path)])
}

/// Replaces a file as careful writers do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn files_are_watched_as_they_come_change_and_go() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let start = Exporter::with(Exporter::quick(&upstream, "watch_files: [\"*.toggle\", here/*.json]\n"));
    let exporter =
        start.file("a.toggle", "- {name: a, agent_id: 1, progress_id: p, labels: {team: x}}\n").start().await;
    let e = exporter.scrape().await;
    assert_eq!(e.value("cekura_toggle_info", &[("toggle", "a"), ("source", "file"), ("team", "x")]), Some(1.0));
    assert_eq!((up(&e, "*.toggle"), up(&e, "here/*.json")), (Some(1.0), Some(0.0)), "the folder is missing");
    let folder = exporter.folder();
    fs::create_dir(folder.join("here")).unwrap();
    fs::write(folder.join("here/b.json"), r#"{"agent_id": 2, "progress_id": "p", "expect": null}"#).unwrap();
    exporter
        .scrape_until("the folder is there and b is polled", |e| {
            up(e, "here/*.json") == Some(1.0) && e.status("agent-2").as_deref() == Some("in_progress")
        })
        .await;
    replace(
        &folder.join("a.toggle"),
        "- {name: a, agent_id: 1, progress_id: q}\n- {name: c, agent_id: 1, progress_id: p}\n",
    );
    let e = exporter.scrape_until("the file changed", |e| e.status("c").is_some()).await;
    assert_eq!(e.value("cekura_toggle_info", &[("toggle", "a"), ("progress_id", "q")]), Some(1.0));
    fs::remove_file(folder.join("a.toggle")).unwrap();
    let e = exporter.scrape_until("the file is gone", |e| watches(e) < Some(2.0)).await;
    assert!(!e.text.contains("toggle=\"a\"") && e.status("agent-2").is_some());
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_seen() {
    let upstream = Upstream::start().await;
    let config = Exporter::quick(&upstream, "watch_files: [map/*.yaml]\n");
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map");
    let version = |name: &str, id: &str| {
        fs::create_dir_all(map.join(name)).unwrap();
        fs::write(map.join(name).join("w.yaml"), format!("{{name: w, agent_id: 1, progress_id: {id}}}")).unwrap();
        symlink(name, map.join("..data_tmp")).unwrap();
        fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
    };
    version("..1", "one");
    symlink("..data/w.yaml", map.join("w.yaml")).unwrap();
    let config = config.replace("map/*.yaml", &format!("{}/*.yaml", map.display()));
    let exporter = Exporter::with(config).start().await;
    let is = |e: &Exposition, id: &str| e.value("cekura_toggle_info", &[("progress_id", id)]) == Some(1.0);
    assert!(is(&exporter.scrape().await, "one"));
    version("..2", "two");
    fs::remove_dir_all(map.join("..1")).unwrap();
    let e = exporter.scrape_until("it was swapped", |e| is(e, "two")).await;
    assert_eq!(watches(&e), Some(1.0), "the versions themselves are not read");
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_watches_and_is_said_once() {
    let upstream = Upstream::start().await;
    let start = Exporter::with(Exporter::quick(&upstream, "watch_files: [\"*.toggle\"]\n"));
    let start = start.file("good.toggle", "{name: w, agent_id: 1, progress_id: p}");
    let exporter = start.file("never.toggle", "[{name: v, agent_id: 0, progress_id: p}]").start().await;
    let e = exporter.scrape().await;
    assert_eq!((up(&e, "*.toggle"), watches(&e)), (Some(0.0), Some(1.0)), "not fatal at the start");
    let problems = || -> Vec<_> {
        let of_files = |line: &serde_json::Value| line["message"].as_str().unwrap().starts_with("watch file");
        exporter.logs().into_iter().filter(|line| of_files(line) && line["level"] == "WARN").collect()
    };
    crate::harness::eventually("it is said", async || (problems().len() == 1).then_some(())).await;
    let line = problems()[0].to_string();
    assert!(line.contains("never.toggle") && line.contains("[0].agent_id"), "{line}");
    replace(&exporter.folder().join("good.toggle"), "{name: w, agent_id: 1");
    crate::harness::eventually("it is said", async || (problems().len() == 2).then_some(())).await;
    assert_eq!(watches(&exporter.scrape().await), Some(1.0));
    replace(&exporter.folder().join("good.toggle"), "{name: w2, agent_id: 1, progress_id: p}");
    replace(&exporter.folder().join("never.toggle"), "[]");
    let e = exporter.scrape_until("both are good", |e| up(e, "*.toggle") == Some(1.0)).await;
    assert!(e.status("w2").is_some() && e.status("w").is_none());
    assert_eq!(problems().len(), 2, "each was said once");
}

#[tokio::test]
async fn names_that_clash_go_by_precedence_and_the_loser_shows_and_comes_back() {
    let upstream = Upstream::start().await;
    let text = "watch_files: [\"*.toggle\"]\nstate_file: state\nregistrations: {enabled: true}\n";
    let in_config = format!("{text}watches: [{{name: w, agent_id: 1, progress_id: config}}]\n");
    let start = Exporter::with(Exporter::quick(&upstream, text));
    let exporter = start.file("b.toggle", "{name: w, agent_id: 1, progress_id: b}").start().await;
    assert_eq!(exporter.put("w", &serde_json::json!({"agent_id": 1, "progress_id": "http"})).await.0, 409);
    let is = |e: &Exposition, id: &str| e.value("cekura_toggle_info", &[("progress_id", id)]) == Some(1.0);
    fs::write(exporter.folder().join("a.toggle"), "{name: w, agent_id: 1, progress_id: a}").unwrap();
    // What is watched may show a moment before how many are not.
    let rejected = |e: &Exposition, source| e.value("cekura_exporter_watches_rejected", &[("source", source)]);
    exporter.scrape_until("the first path goes first", |e| is(e, "a") && rejected(e, "file") == Some(1.0)).await;
    exporter.reconfigure(Exporter::quick(&upstream, &in_config));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape().await;
    assert!(is(&e, "config"));
    assert_eq!(rejected(&e, "file"), Some(2.0));
    exporter.reconfigure(Exporter::quick(&upstream, text));
    assert_eq!(exporter.reload().await.0, 200);
    assert!(is(&exporter.scrape().await, "a"));
    fs::remove_file(exporter.folder().join("a.toggle")).unwrap();
    exporter.scrape_until("the other file comes back", |e| is(e, "b")).await;
    fs::remove_file(exporter.folder().join("b.toggle")).unwrap();
    exporter.scrape_until("the name is free", |e| e.status("w").is_none()).await;
    assert_eq!(exporter.put("w", &serde_json::json!({"agent_id": 1, "progress_id": "http"})).await.0, 201);
    fs::write(exporter.folder().join("c.toggle"), "{name: w, agent_id: 1, progress_id: c}").unwrap();
    exporter
        .scrape_until("a file goes before a registration", |e| is(e, "c") && rejected(e, "http") == Some(1.0))
        .await;
    assert_eq!(exporter.delete("w").await, 409);
}

#[test]
fn the_check_reads_the_watch_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    fs::write(&config, "watches: [{agent_id: 2, progress_id: p}]\nwatch_files: [\"*.toggle\", none/*.yaml]\n").unwrap();
    fs::write(folder.path().join("good.toggle"), "{agent_id: 1, progress_id: p}").unwrap();
    let check = || run(&["--config.check", "--config.file", config.to_str().unwrap()], &[("CEKURA_API_KEY", "k")]);
    let output = check();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.lines().count() == 1 && errors.starts_with("warning: ") && errors.contains("none"), "{errors}");
    let found = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(found(&output), format!("{}: 2 watches, 0 agents, 1 API, 1 watch file: good\n", config.display()));
    fs::write(folder.path().join("bad.toggle"), "- {agent_id: 1, progress_id: p, x: y}\n- {agent_id: 0, name: b}\n")
        .unwrap();
    let output = check();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), found(&output).as_str()), (Some(2), ""), "{errors}");
    for expected in [
        "bad.toggle:1:33: [0].x: is not a known key",
        "bad.toggle:2:4: [1].agent_id: `0`",
        "bad.toggle:2:3: [1].progress_id: is missing",
    ] {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
    let text = "polling: {min_interval: 0s}\nstate_file: none/state\nwatch_files: [\"*.toggle\"]\n";
    fs::write(&config, text).unwrap();
    let errors = String::from_utf8_lossy(&check().stderr).into_owned();
    for expected in ["polling.min_interval", "none/state: has no folder", "bad.toggle:2:4: [1].agent_id"] {
        assert!(errors.contains(expected), "all at once: {expected}: {errors}");
    }
    fs::write(folder.path().join("bad.toggle"), "{name: agent-1, agent_id: 1, progress_id: p}").unwrap();
    fs::write(&config, "watch_files: [\"*.toggle\"]\n").unwrap();
    let output = check();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(
        found(&output).ends_with(": 1 watch, 0 agents, 1 API, 2 watch files: good\n"),
        "the one that is refused is not counted: {}",
        found(&output)
    );
    assert!(
        errors.starts_with("warning: ") && errors.contains("good.toggle: the name `agent-1` is taken by"),
        "{errors}"
    );
    fs::write(&config, "agents: [{agent_id: 7}]\nwatch_files: [\"*.toggle\"]\n").unwrap();
    fs::write(folder.path().join("bad.toggle"), "[{agent_id: 7, expect: enabled}, {agent_id: 8}]").unwrap();
    let output = check();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = ": 1 watch, 2 agents, 1 API, 2 watch files: good\n";
    assert!(output.status.code() == Some(0) && found(&output).ends_with(summary), "{}{errors}", found(&output));
    let refused =
        "bad.toggle: agent 7 of the API `default` is defined by the configuration: this definition is refused";
    assert!(errors.starts_with("warning: ") && errors.contains(refused) && errors.lines().count() == 1, "{errors}");
}
