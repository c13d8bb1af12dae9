//! What `deploy/` has, checked by the programs that it is for.

mod alerting;
mod alerts;
mod kubernetes;
mod mocked_tests;
mod pods;
mod release;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::tool;

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A YAML file of the repository, as JSON.
fn yaml(path: &str) -> Value {
    let script = file("tests/it/deploy/yaml_to_json.py");
    let output = Command::new(tool("python3")).env_clear().arg(script).arg(file(path)).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Kubernetes objects in a stream of YAML, once they were found valid.
fn validated(stream: &[u8]) -> Vec<Value> {
    let mut command = Command::new(tool("python3"));
    command.env_clear().arg(file("tests/it/deploy/kubernetes.py"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(stream).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
