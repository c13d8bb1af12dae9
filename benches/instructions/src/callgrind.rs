//! Counting instructions with valgrind's callgrind.

use std::env;
use std::fs;
use std::process::Command;

use crate::Failure;

/// The first argument of a process whose instructions are counted.
pub(crate) const COUNTED: &str = "counted";

/// The function in which they are, wherever it is and however its name is mangled.
pub(crate) const REGION: &str = "*only_this_is_counted*";

/// How many instructions that work takes, in another process.
pub(crate) fn count(work: &str) -> Result<u64, Failure> {
    let program = env::current_exe()?;
    let file = program.with_extension(format!("{work}.callgrind"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={REGION}"));
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(program).args([COUNTED, work]);
    let output = valgrind.output().map_err(|e| format!("valgrind could not be started: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("Counting {work} failed: {}\n{said}", output.status).into());
    }
    match total(&fs::read_to_string(file)?) {
        Some(0) | None => Err(format!("Nothing of {work} was counted: has {REGION} no symbol?").into()),
        Some(total) => Ok(total),
    }
}

/// The sum that callgrind wrote at the end of its counts.
fn total(counts: &str) -> Option<u64> {
    counts.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}
