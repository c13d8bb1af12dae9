//! What `deploy/` has, checked by the programs that it is for.

mod alerting;
mod alerts;
mod release;

use std::path::{Path, PathBuf};
use std::process::Command;

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
