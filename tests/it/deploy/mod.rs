//! What `deploy/` has, checked by the programs that it is for.

mod alerting;
mod alerts;
mod ci;
mod compose;
mod dashboard;
mod debian;
mod helm;
mod image;
mod judging;
mod kubernetes;
mod manual;
mod mocked_tests;
mod pods;
mod release;
mod units;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::tool;

/// What a replica exposes of its group and its database, which an exporter without a database does not.
const REPLICA: &str = "\
cekura_exporter_database_up 1
cekura_exporter_replicas 3
cekura_exporter_shards{state=\"owned\"} 22
cekura_exporter_shards{state=\"all\"} 64
cekura_exporter_takeovers_total 0
";

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A YAML file of the repository, as JSON.
pub(crate) fn yaml(path: &str) -> Value {
    let script = file("tests/it/deploy/yaml_to_json.py");
    let output = Command::new(tool("python3")).env_clear().arg(script).arg(file(path)).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command that must succeed printed. It runs at the top of the repository.
fn printed(command: &mut Command) -> String {
    let output = command.current_dir(file("")).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{said}{errors}");
    said.into_owned()
}

/// The value of a key that stands at the beginning of a line.
fn value_of<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in\n{text}")).trim()
}

/// The static program, which is built if it is not as new as its source.
fn static_program() -> PathBuf {
    let folder = printed(&mut Command::new(file(".ci/dist")));
    Path::new(folder.trim()).join("cekura-exporter")
}

/// The Kubernetes objects in each stream of YAML, once all were found valid. One check of many is faster than many.
fn all_validated(streams: &[Vec<u8>]) -> Vec<Vec<Value>> {
    let end = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "end-of-stream"}});
    let stream: Vec<_> =
        streams.iter().map(|stream| [&stream[..], format!("\n---\n{end}\n---\n").as_bytes()].concat()).collect();
    let objects = validated(&stream.concat());
    let split: Vec<_> = objects.split(|of| *of == end).map(<[Value]>::to_vec).collect();
    assert_eq!(split.len(), streams.len() + 1);
    split[..streams.len()].to_vec()
}

/// Kubernetes objects in a stream of YAML, once they were found valid.
fn validated(stream: &[u8]) -> Vec<Value> {
    objects(stream, &[])
}

/// Kubernetes objects in a stream of YAML whose validity is for another test.
fn parsed(stream: &[u8]) -> Vec<Value> {
    objects(stream, &["--parse"])
}

fn objects(stream: &[u8], args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(tool("python3"));
    command.env_clear().arg(file("tests/it/deploy/kubernetes.py")).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(stream).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
