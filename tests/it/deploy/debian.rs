//! The Debian package: what it has, and what it does to a machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{file, printed, value_of};
use crate::harness::{Exporter, tool};

/// Builds the package into this folder.
fn build(folder: &Path) -> PathBuf {
    PathBuf::from(printed(Command::new(file(".ci/deb")).arg(folder)).trim())
}

/// The names of what a folder has.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_package_is_in_order_and_has_what_debian_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path());
    let architecture = printed(Command::new("dpkg").arg("--print-architecture"));
    let name = format!("cekura-exporter_{}-1_{}.deb", env!("CARGO_PKG_VERSION"), architecture.trim());
    assert_eq!(package.file_name().unwrap().to_str().unwrap(), name);

    let mut lintian = Command::new(tool("lintian"));
    // What the tests run as is none of its business.
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(&package);
    assert_eq!(printed(&mut lintian), "");

    let control = printed(Command::new("dpkg-deb").arg("--field").arg(&package));
    assert_eq!(value_of(&control, "Description:"), env!("CARGO_PKG_DESCRIPTION"));
    // The program is static, and the service needs systemd.
    assert_eq!(value_of(&control, "Depends:"), "systemd (>= 250) | systemd-standalone-sysusers");

    let listed = printed(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let mut files: Vec<_> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| format!("{} {} {}", words[0], words[1], words[5].trim_start_matches('.')))
        .filter(|line| !line.starts_with('d'))
        .collect();
    files.sort();
    let doc = "/usr/share/doc/cekura-exporter";
    let optional = names(&file("deploy/debian/examples"));
    let optional = optional.iter().map(|name| format!("-rw-r--r-- 0/0 {doc}/examples/{name}"));
    let mut expected: Vec<_> = [
        "-rw------- 0/0 /etc/cekura-exporter/api-key",
        "-rw-r--r-- 0/0 /etc/cekura-exporter/config.yaml",
        "-rwxr-xr-x 0/0 /usr/bin/cekura-exporter",
        "-rw-r--r-- 0/0 /usr/lib/systemd/system/cekura-exporter.service",
        "-rw-r--r-- 0/0 /usr/lib/sysusers.d/cekura-exporter.conf",
        "-rw-r--r-- 0/0 /usr/share/bash-completion/completions/cekura-exporter",
        &format!("-rw-r--r-- 0/0 {doc}/README.Debian"),
        &format!("-rw-r--r-- 0/0 {doc}/changelog.Debian.gz"),
        &format!("-rw-r--r-- 0/0 {doc}/changelog.gz"),
        &format!("-rw-r--r-- 0/0 {doc}/copyright"),
        &format!("-rw-r--r-- 0/0 {doc}/examples/config.yaml"),
        &format!("-rw-r--r-- 0/0 {doc}/examples/dashboard.json"),
        &format!("-rw-r--r-- 0/0 {doc}/examples/rules.yaml"),
        &format!("-rwxr-xr-x 0/0 {doc}/examples/toggle.sh"),
        "-rw-r--r-- 0/0 /usr/share/fish/vendor_completions.d/cekura-exporter.fish",
        "-rw-r--r-- 0/0 /usr/share/lintian/overrides/cekura-exporter",
        "-rw-r--r-- 0/0 /usr/share/man/man1/cekura-exporter.1.gz",
        "-rw-r--r-- 0/0 /usr/share/zsh/vendor-completions/_cekura-exporter",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(optional)
    .collect();
    expected.sort();
    assert_eq!(files, expected);

    let again = tempfile::tempdir().unwrap();
    let same = build(again.path());
    assert!(std::fs::read(package).unwrap() == std::fs::read(same).unwrap(), "the same commit gives other bytes");
}

#[tokio::test]
async fn installed_it_serves_without_a_key_and_purged_it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path());
    let script = file("tests/it/deploy/installed.sh");
    let unshare = tool("unshare");
    let through = [unshare.to_str().unwrap(), "--mount", script.to_str().unwrap(), package.to_str().unwrap()];
    let exporter = Exporter::with("").through(&through).start().await;
    let found = |name: &str| std::fs::read_to_string(exporter.folder().join("found").join(name)).unwrap();
    assert_eq!((found("enabled").trim(), found("verified").trim()), ("enabled", ""));
    assert_eq!(
        found("configuration").lines().collect::<Vec<_>>(),
        ["600 root:root /etc/cekura-exporter/api-key", "644 root:root /etc/cekura-exporter/config.yaml"]
    );
    // The example in its configuration is in force, and no key was ever given to it.
    let labels = [("agent_id", "4321"), ("reason", "credentials"), ("team", "bookings")];
    exporter.scrape_until("it polls", |e| e.value("cekura_agent_poll_error", &labels) == Some(1.0)).await;
    let (status, shown) = exporter.get("/api/v1/agents/default/4321").await;
    let agent: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((status, &agent["expect"]), (200, &Value::from("disabled")), "{shown}");
    // The script fails if anything stays, the state that it saved included.
    exporter.stop().await;
}

#[test]
fn the_units_of_the_package_are_the_other_ones_with_the_program_where_debian_has_it() {
    let folder = tempfile::tempdir().unwrap();
    printed(Command::new(file("deploy/debian/units")).arg(folder.path()));
    let there = file("deploy/debian");
    let optional = names(&there.join("examples"));
    assert_eq!(names(&folder.path().join("examples")), optional, "run deploy/debian/units deploy/debian");
    assert!(optional.contains(&"cekura-exporter.socket".to_owned()), "{optional:?}");
    let optional = optional.iter().map(|name| format!("examples/{name}"));
    for unit in optional.chain(["cekura-exporter.service".to_owned()]) {
        let written = std::fs::read_to_string(folder.path().join(&unit)).unwrap();
        assert!(!written.contains("/usr/local"), "{written}");
        let committed = std::fs::read_to_string(there.join(&unit)).unwrap();
        assert!(written == committed, "{unit} differs: run deploy/debian/units deploy/debian");
    }
}

#[test]
fn the_changelog_of_the_package_begins_with_this_version() {
    let changelog = std::fs::read_to_string(file("deploy/debian/changelog")).unwrap();
    assert!(changelog.starts_with(&format!("cekura-exporter ({}-1) ", env!("CARGO_PKG_VERSION"))), "{changelog}");
}
