//! Requests by curl, as users make them.

use std::process::{Command, Stdio};

use super::{Exporter, tool};

/// Asks an exporter for a path with these arguments more, in the folder of its configuration. Returns
/// the status, or 0 if there is no answer.
pub(crate) fn curl(exporter: &Exporter, path: &str, args: &[&str]) -> u16 {
    let mut command = Command::new(tool("curl"));
    command.env_clear().args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "60"]);
    command.args(args).arg(exporter.urls[0].clone() + path).current_dir(exporter.folder()).stdin(Stdio::null());
    String::from_utf8(command.output().unwrap().stdout).unwrap().parse().unwrap()
}
