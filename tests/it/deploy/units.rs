//! The units for systemd.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;

use super::{file, printed};
use crate::harness::markdown::section;
use crate::harness::{Authority, Client, Exporter, FAR, Start, Upstream, eventually, tool};

fn service() -> String {
    std::fs::read_to_string(file("deploy/systemd/cekura-exporter.service")).unwrap()
}

/// The drop-in for TLS by credentials.
fn tls() -> String {
    std::fs::read_to_string(file("deploy/systemd/tls.conf")).unwrap()
}

/// The drop-in for TLS by a group, which the page shows.
fn tls_by_group() -> String {
    let page = std::fs::read_to_string(file("docs/tls-and-logins.md")).unwrap();
    let (_, shown) = section(&page, "## systemd").split_once("```ini\n").unwrap();
    shown.split_once("```").unwrap().0.to_owned()
}

/// The values of a setting of the service, in their order.
fn settings(name: &str) -> Vec<String> {
    settings_of(&service(), name)
}

/// The values of a setting of a unit or a drop-in, in their order.
fn settings_of(text: &str, name: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// A folder with the units, and this drop-in if it is not empty.
fn units(drop_in: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let program = env!("CARGO_BIN_EXE_cekura-exporter");
        std::fs::write(
            folder.path().join(name),
            text.replace("=/usr/local/bin/cekura-exporter", &format!("={program}")),
        )
        .unwrap();
    };
    write("cekura-exporter.service", &service());
    write("cekura-exporter.socket", &std::fs::read_to_string(file("deploy/systemd/cekura-exporter.socket")).unwrap());
    if !drop_in.is_empty() {
        std::fs::create_dir(folder.path().join("cekura-exporter.service.d")).unwrap();
        write("cekura-exporter.service.d/tls.conf", drop_in);
    }
    folder
}

/// What systemd has against the units with this drop-in.
fn problems(drop_in: &str) -> String {
    let folder = units(drop_in);
    let units = ["cekura-exporter.service", "cekura-exporter.socket"].map(|unit| folder.path().join(unit));
    let output = Command::new(tool("systemd-analyze")).arg("verify").args(units).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn systemd_takes_the_units_with_and_without_the_drop_ins_for_tls() {
    assert!(service().contains("=/usr/local/bin/cekura-exporter "));
    for drop_in in [String::new(), tls(), tls_by_group()] {
        assert_eq!(problems(&drop_in), "", "{drop_in}");
    }
    // Drop-ins are read: without the empty ExecStart, this service has two commands.
    assert!(problems(&tls().replace("ExecStart=\n", "")).contains("more than one ExecStart="));
}

#[test]
fn little_is_exposed_to_the_service() {
    for drop_in in [String::new(), tls(), tls_by_group()] {
        let folder = units(&drop_in);
        let mut analyze = Command::new(tool("systemd-analyze"));
        analyze.args(["security", "--offline=true", "--no-pager"]);
        let said = printed(analyze.arg(folder.path().join("cekura-exporter.service")));
        let last = said.lines().last().unwrap();
        let level: f64 = last.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(level < 2.0, "{said}");
    }
}

/// The flag for the web configuration of a drop-in, whose command is otherwise that of the service.
fn web_flag(drop_in: &str) -> String {
    let commands = settings_of(drop_in, "ExecStart");
    let [reset, command] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(reset, "");
    let flag = command.strip_prefix(&settings("ExecStart")[0]).unwrap();
    assert!(flag.starts_with(" --web.config.file="), "{command}");
    flag.trim_start().to_owned()
}

/// An exporter as the user that systemd gives it, with this flag for the web configuration and this key. `prepare` is
/// a script that runs before that as root, in the folder that contains the files. A test that is not run by root
/// stays the user that it is.
fn as_service(prepare: &str, enter: &str, flag: &str, authority: &Authority) -> Start {
    let pair = authority.server(FAR);
    let is_root = rustix::process::geteuid().is_root();
    // The user may not enter the folder of the program, but it can run an open file.
    let enter = if is_root { format!("{enter} /proc/self/fd/9 \"$@\"") } else { "\"$program\" \"$@\"".to_owned() };
    let user = if is_root { "65532" } else { "$(id -u)" };
    let group = if is_root { "65532" } else { "$(id -g)" };
    let script = format!(
        "set -e; user={user} group={group} program=$1; shift; exec 9<\"$program\"; umask 022; chmod 755 .\n\
         mkdir source; mv web.yaml tls.crt tls.key source; chmod 600 source/*\n{prepare}\nexec {enter}"
    );
    Exporter::with("watches: []\n")
        .file("web.yaml", "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n")
        .file("tls.crt", &pair.certificate)
        .file("tls.key", &pair.key)
        .through(&["/bin/sh", "-c", &script, "sh"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .arg(flag)
        .client(&Client::trusting(authority))
}

/// Expects that it serves over TLS, as an ordinary user.
async fn serves_over_tls(exporter: Exporter) {
    assert!(exporter.urls[0].starts_with("https://"));
    assert_eq!(exporter.get("/metrics").await.0, 200);
    let ids = exporter.proc("status").lines().filter(|line| line.starts_with("Uid:")).collect::<String>();
    assert!(!ids.split_whitespace().any(|id| id == "0") || !rustix::process::geteuid().is_root(), "{ids}");
    exporter.stop().await;
}

#[tokio::test]
async fn the_drop_in_has_the_exporter_speak_tls_with_a_key_that_only_root_can_read() {
    let page = std::fs::read_to_string(file("docs/tls-and-logins.md")).unwrap();
    let shown = section(&page, "## systemd").split_once("```yaml\n").unwrap().1.lines().next().unwrap();
    assert_eq!(shown, "tls_server_config: {cert_file: tls.crt, key_file: tls.key}");
    // As systemd makes the folder of credentials.
    let credentials = settings_of(&tls(), "LoadCredential");
    let copy = |credential: &String| {
        let (name, path) = credential.split_once(':').unwrap();
        let file = path.strip_prefix("/etc/cekura-exporter/").unwrap();
        format!("install -m 0400 -o \"$user\" -g \"$group\" source/{file} credentials/{name}")
    };
    let copies = credentials.iter().map(copy).collect::<Vec<_>>().join("\n");
    let prepare = format!(
        "mkdir credentials\n{copies}\nchown \"$user:$group\" credentials; chmod 500 credentials\n\
         export CREDENTIALS_DIRECTORY=\"$PWD/credentials\""
    );
    let authority = Authority::new("servers");
    let enter = "setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs";
    let flag = web_flag(&tls()).replace("%d", "credentials");
    serves_over_tls(as_service(&prepare, enter, &flag, &authority).start().await).await;
}

#[tokio::test]
async fn a_key_that_a_group_can_read_is_readable_for_the_service_though_the_group_is_none_of_its_user_namespace() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a file to any group, so this is not tested");
        return;
    }
    assert_eq!(settings("PrivateUsers"), ["yes"]);
    assert_eq!(settings_of(&tls_by_group(), "SupplementaryGroups"), ["ssl-cert"]);
    let flag = web_flag(&tls_by_group()).replace("/etc/cekura-exporter/", "source/");
    let prepare = "chown root:4242 source/*; chmod 640 source/*";
    let enter = |groups: &str| {
        format!("setpriv --reuid=65532 --regid=65532 {groups} --no-new-privs unshare --user --map-current-user")
    };
    let authority = Authority::new("servers");
    let start = as_service(prepare, &enter("--groups=4242"), &flag, &authority);
    serves_over_tls(start.start().await).await;
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
