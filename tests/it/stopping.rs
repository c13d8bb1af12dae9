//! Going on for a while after the stop signal.

use std::io::{Read, Write};
use std::net::TcpStream;

use cekura_exporter::demo::simulator::Reply;
use rustix::process::Signal;

use crate::harness::{Exporter, Upstream, eventually, run_through, tool};

const WATCHES: &str = "watches:\n  - {name: w, agent_id: 1, progress_id: p}\n";

async fn lingering(exporter: &Exporter) {
    exporter.signal(Signal::TERM);
    eventually("it lingers", async || {
        let lingers =
            exporter.logs().iter().any(|line| line["message"].as_str().unwrap().starts_with("shutdown delayed"));
        lingers.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_was_sent_before_the_stop_is_answered() {
    for _ in 0..5 {
        let exporter = Exporter::with("watches: []\n").start().await;
        let address = exporter.urls[0].strip_prefix("http://").unwrap();
        let mut streams: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
        exporter
            .scrape_until("all are accepted", |e| {
                e.value("cekura_exporter_http_connections", &[]).is_some_and(|open| open >= 51.0)
            })
            .await;
        for stream in &mut streams {
            stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        }
        exporter.signal(Signal::TERM);
        for stream in &mut streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
}

#[tokio::test]
async fn after_a_change_it_goes_on_polling_and_serving_until_scrapers_saw_the_last_one() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let config = Exporter::quick(&upstream, &format!("shutdown: {{linger: 2s}}\n{WATCHES}"));
    let mut exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it is in progress", |e| e.status("w").as_deref() == Some("in_progress")).await;
    lingering(&exporter).await;
    assert_eq!(exporter.get("/-/ready").await.0, 503);
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    upstream.script("p", [Reply::task("completed", None)]);
    let e = exporter.scrape_until("the last change is served", |e| e.status("w").as_deref() == Some("completed")).await;
    assert!(e.value("cekura_toggle_finished_timestamp_seconds", &[]).is_some());
    assert_eq!(exporter.ended().await.code(), Some(0));
}

#[tokio::test]
async fn where_nothing_changed_it_stops_at_once() {
    let upstream = Upstream::start().await;
    let config = Exporter::quick(&upstream, &format!("shutdown: {{linger: 1h}}\n{WATCHES}"));
    let mut exporter = Exporter::with(config).start().await;
    exporter.scrape_until("a poll failed", |e| e.poll_error("w").is_some()).await;
    exporter.signal(Signal::TERM);
    assert_eq!(exporter.ended().await.code(), Some(0));
    assert_eq!(exporter.logs_of("stopped").len(), 1);
}

#[tokio::test]
async fn a_second_signal_ends_the_lingering() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", None)]);
    let config = Exporter::quick(&upstream, &format!("shutdown: {{linger: 1h}}\n{WATCHES}"));
    let mut exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
    lingering(&exporter).await;
    assert_eq!(exporter.told_again().await.code(), Some(0));
}

#[tokio::test]
async fn a_signal_that_is_delivered_twice_drains() {
    for second in [Signal::TERM, Signal::INT] {
        let upstream = Upstream::start().await;
        upstream.script("p", [Reply::task("completed", None)]);
        let config = Exporter::quick(&upstream, &format!("shutdown: {{linger: 3s}}\n{WATCHES}"));
        let mut exporter = Exporter::with(config).start().await;
        exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
        exporter.signal(Signal::TERM);
        exporter.signal(second);
        assert_eq!(exporter.ended().await.code(), Some(0));
        assert_eq!((exporter.logs_of("stopped").len(), exporter.logs_of("stopped at once").len()), (1, 0));
    }
}

/// The configuration is on a volume that takes twenty seconds to be opened.
#[test]
fn whoever_wants_to_stop_does_not_wait_for_a_configuration_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml").display().to_string();
    std::fs::write(&config, "watches: []\n").unwrap();
    let strace = tool("strace").display().to_string();
    let delayed = ["-P", &config, "-e", "trace=openat", "-e", "inject=openat:delay_enter=20s"];
    // -D: strace looks on from beside, and the program is the child.
    let words = ["timeout", "--preserve-status", "-s", "TERM", "6", &strace, "-D", "-f", "-o", "/dev/null"];
    let through: Vec<_> = [&words[..], &delayed[..]].concat().into_iter().map(str::to_owned).collect();
    let output = run_through(&through, &["--config.file", &config, "--web.listen-address=127.0.0.1:0"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "it read to the end");
}
