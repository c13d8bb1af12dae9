//! The units for systemd.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;

use super::{file, printed};
use crate::harness::{Exporter, Upstream, eventually, tool};

fn service() -> String {
    std::fs::read_to_string(file("deploy/systemd/cekura-exporter.service")).unwrap()
}

/// The values of a setting of the service, in their order.
fn settings(name: &str) -> Vec<String> {
    let text = service();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_cekura-exporter");
    let text = service().replace("=/usr/local/bin/cekura-exporter", &format!("={program}"));
    assert!(text.contains(program));
    std::fs::write(folder.path().join("cekura-exporter.service"), text).unwrap();
    std::fs::copy(file("deploy/systemd/cekura-exporter.socket"), folder.path().join("cekura-exporter.socket")).unwrap();
    let units = ["cekura-exporter.service", "cekura-exporter.socket"].map(|unit| folder.path().join(unit));
    let output = Command::new(tool("systemd-analyze")).arg("verify").args(units).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn little_is_exposed_to_the_service() {
    let mut analyze = Command::new(tool("systemd-analyze"));
    analyze.args(["security", "--offline=true", "--no-pager"]);
    let said = printed(analyze.arg(file("deploy/systemd/cekura-exporter.service")));
    let last = said.lines().last().unwrap();
    let level: f64 = last.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level < 2.0, "{said}");
}

#[test]
fn it_is_given_the_time_to_linger_that_other_manifests_give() {
    let seconds: u64 = settings("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds >= 60 + 10, "{seconds}");
    // 2 is what a bad configuration ends it with.
    assert_eq!(settings("RestartPreventExitStatus"), ["2"]);
}

/// The system calls that a filter names: sets and names, and after a tilde what is taken away again.
fn allowed(filters: &[String]) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for filter in filters {
        let (taken, rest) = filter.strip_prefix('~').map_or((false, filter.as_str()), |rest| (true, rest));
        let named: BTreeSet<_> = rest.split(' ').flat_map(calls_of).collect();
        if taken {
            allowed.retain(|call| !named.contains(call));
        } else {
            allowed.extend(named);
        }
    }
    allowed
}

/// The system calls of a set, and of those that it has.
fn calls_of(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let said = printed(Command::new(tool("systemd-analyze")).args(["syscall-filter", "--no-pager", name]));
    let lines = said.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(calls_of).collect()
}

#[tokio::test]
async fn it_makes_no_system_call_that_its_filter_refuses() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let strace = tool("strace");
    // -D: strace looks on from beside, and the program is the child.
    let through = [strace.to_str().unwrap(), "-D", "-f", "-o", trace.to_str().unwrap()];
    let config = Exporter::registering(&upstream, &folder.path().join("state"));
    let exporter = Exporter::with(config).through(&through).start().await;
    upstream.script("p", [cekura_exporter::demo::simulator::Reply::task("completed", Some(true))]);
    exporter.put("a", &json!({"agent_id": 7, "progress_id": "p"})).await;
    exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    assert_eq!(exporter.reload().await.0, 200);
    exporter.stop().await;
    let text = eventually("all of it was written down", async || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        text.contains("+++ exited with 0 +++").then_some(text)
    })
    .await;
    // The first call starts the program, and systemd makes it before the filter holds.
    let made: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('(').map(|(call, _)| call))
        .filter(|call| {
            call.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && *call != "execve"
        })
        .map(str::to_owned)
        .collect();
    assert!(made.contains("epoll_wait") && made.contains("fdatasync"), "{made:?}");
    let allowed = allowed(&settings("SystemCallFilter"));
    assert!(allowed.contains("read") && !allowed.contains("mount"));
    let refused: Vec<_> = made.difference(&allowed).collect();
    assert_eq!(refused, [] as [&String; 0]);
}
