//! A clock of the exporter's own, which can be set while it runs.

use std::process::Command;

use super::{Exporter, Start, tool};

/// Where the clock that an exporter sees is set, in the folder that it works in.
const CLOCK: &str = "clock";

/// Starts it with a clock that is so many seconds off, until [`set_clock`].
pub(crate) fn by_clock(start: Start, off: f64) -> Start {
    // What it preloads. Started through it, signals would go to it and not to the exporter.
    let mut asked = Command::new(tool("faketime"));
    asked.args(["-m", "-f", "+0s", "sh", "-c", r#"printf %s "$LD_PRELOAD""#]);
    // It does not start if its process id is that of an earlier one that was killed, which leaves files behind.
    let mut answers = (0..100).map(|_| String::from_utf8(asked.output().unwrap().stdout).unwrap());
    let preloaded = answers.find(|answer| !answer.is_empty()).unwrap();
    let start = start.env("LD_PRELOAD", &preloaded).env("FAKETIME_TIMESTAMP_FILE", CLOCK);
    let start = start.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    start.file(CLOCK, &setting(off))
}

/// Sets its clock so many seconds off.
pub(crate) fn set_clock(exporter: &Exporter, off: f64) {
    exporter.place(CLOCK, &setting(off));
}

fn setting(off: f64) -> String {
    format!("{off:+.0}s\n")
}
