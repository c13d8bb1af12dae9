//! What the benches share: the program as a process of its own, what it polls, who scrapes it,
//! its peers, and how figures are shown.

mod buckets;
mod connection;
mod cpu;
mod daemon;
mod exporter;
mod nginx;
mod scraper;
mod site;
mod table;
mod upstream;
pub(crate) mod watch_list;

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use cekura_exporter::signals::{self, Signals};
use tempfile::TempDir;
use tokio::signal::unix::SignalKind;

pub(crate) use self::buckets::Buckets;
pub(crate) use self::connection::{Connection, Took};
pub(crate) use self::cpu::Cpu;
pub(crate) use self::daemon::{Daemon, Program};
pub(crate) use self::exporter::{Exporter, PROGRAM_FILE};
pub(crate) use self::nginx::{MESSAGE, NGINX, Nginx, Tasks};
pub(crate) use self::scraper::{Scrape, Scraper, receive};
pub(crate) use self::site::Site;
pub(crate) use self::table::{Table, goal, mebibytes, number, percentile, spread};
pub(crate) use self::upstream::Upstream;

/// What went wrong, as a sentence.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Runs a bench with the arguments of the command line, within this time. Everything that it started
/// ends with it, also when it is stopped.
pub(crate) fn main(limit: Duration, measure: impl AsyncFnOnce(Vec<String>) -> Result<(), Failure>) -> ExitCode {
    // Test runners start benches too, but without this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run(limit, measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If nobody reads it, there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", with_causes(&*failure));
            ExitCode::FAILURE
        }
    }
}

fn run(limit: Duration, measure: impl AsyncFnOnce(Vec<String>) -> Result<(), Failure>) -> Result<(), Failure> {
    let arguments = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // A signal is caught outside of any runtime.
    let [hangup, term, int] =
        [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()].map(signals::catch);
    let caught = (hangup?, [term?, int?]);
    tokio::runtime::Runtime::new()?.block_on(async {
        let stopped = Signals::listen(caught.0, caught.1);
        tokio::select! {
            measured = tokio::time::timeout(limit, measure(arguments)) => measured.map_err(|_| "It took too long.")?,
            () = stopped.stopped(1) => Err("It was stopped.".into()),
        }
    })
}

/// A failure, and why it came to that.
fn with_causes(failure: &dyn Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How many watches the command line asks for, if it does.
pub(crate) fn watches(arguments: &[String], otherwise: u32) -> Result<u32, Failure> {
    let Some(argument) = arguments.first() else { return Ok(otherwise) };
    let number = argument.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "The argument must be a number of watches.".into())
}

/// How many agents the command line asks for beside watches; none unless it says so.
pub(crate) fn agents(arguments: &[String]) -> Result<u32, Failure> {
    let number = arguments.get(1).map(|argument| argument.parse()).transpose();
    number.map(Option::unwrap_or_default).map_err(|_| "The second argument must be a number of agents.".into())
}

/// A folder with this configuration.
pub(crate) fn folder(configuration: &str) -> Result<TempDir, Failure> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("config.yaml"), configuration)?;
    Ok(folder)
}

pub(crate) fn load_average() -> Result<String, Failure> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
