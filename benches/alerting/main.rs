//! Judges the alerts: `cargo bench --bench alerting`.
//!
//! Slots with random scripts pass through the real exporter, Prometheus and Alertmanager to a webhook, and the
//! notifications are compared with what was true. The exit code is 1 if any is wrong or missing.
//!
//! Arguments after `--`: `--slots N`, `--minutes M` and `--seed S` choose the run; `--replicas N` has that many exporters
//! share a database, which fails over; `--factor F` sets the divisor of all times; `--keep FOLDER` copies the scaled rules and the exporter's log there; `--break WHAT` breaks the rules
//! on purpose (`keep_firing_for`, `mismatch`, `drift` or `inhibition`), to check that the judge finds it.

mod judge;
#[path = "../../tests/it/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is the harness of the tests, of which this uses the clusters"
)]
mod test_harness;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use judge::harness::{self, Failure};
use judge::{Break, Settings};
use test_harness::Postgres;

/// The run without arguments.
const SLOTS: u32 = 10_000;
const MINUTES: u32 = 10;

/// The time limit of everything.
const LIMIT: Duration = Duration::from_hours(2);

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| {
        let report = judge::run(settings(&arguments)?).await?;
        write!(io::stdout(), "{report}")?;
        if report.is_good() { Ok(()) } else { Err("The alerts are wrong.".into()) }
    })
}

fn settings(arguments: &[String]) -> Result<Settings, Failure> {
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(place + 1).map_or("", String::as_str))
    };
    let minutes = number(value("--minutes"), MINUTES)?;
    let mut settings = Settings::new(number(value("--slots"), SLOTS)?, minutes, number(value("--seed"), 1)?);
    settings.replicas = number(value("--replicas"), settings.replicas)?.max(1);
    settings.factor = number(value("--factor"), settings.factor)?;
    settings.keep = value("--keep").map(Into::into);
    if let Some(name) = value("--break") {
        let names = Break::ALL.map(Break::as_str).join(", ");
        settings.broken = Some(Break::parse(name).ok_or_else(|| format!("--break takes one of {names}."))?);
    }
    Ok(settings)
}

fn number<N: FromStr>(text: Option<&str>, otherwise: N) -> Result<N, Failure> {
    let Some(text) = text else { return Ok(otherwise) };
    text.parse().map_err(|_| format!("{text:?} is no number.").into())
}
