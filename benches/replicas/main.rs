//! How several exporters share a database: `cargo bench --bench replicas`, or some parts of it only:
//! `cargo bench --bench replicas -- losses gaps overlaps puts writes takeovers`.
//!
//! Each part starts a PostgreSQL of its own, on disk and synchronised at each commit, and three replicas as processes
//! of their own, on loopback. They poll a stand-in of the API. `--watches N` sets how many watches the parts `writes`
//! and `takeovers` have. The figures are printed beside the goals. Missing one fails nothing, but a registration that
//! was acknowledged and is missing does, and so does a run that was counted twice.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
mod harness;
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

mod api;
mod fleet;
mod gaps;
mod losses;
mod overlaps;
mod puts;
mod takeovers;
mod writes;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use harness::{Failure, Table, load_average};

/// The parts, in the order in which they are measured.
const PARTS: [&str; 6] = ["losses", "gaps", "overlaps", "puts", "writes", "takeovers"];

/// As many watches as there may be registrations.
const WATCHES: u32 = 100_000;

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(45);

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| {
        let (parts, watches) = parts(&arguments)?;
        let mut table = Table::new("the machine");
        table.row("cores", std::thread::available_parallelism()?);
        table.row("load average", load_average()?);
        write!(io::stdout(), "{table}")?;
        for part in parts {
            let table = match &*part {
                "losses" => losses::measure().await?,
                "gaps" => gaps::measure().await?,
                "overlaps" => overlaps::measure().await?,
                "puts" => puts::measure().await?,
                "writes" => writes::measure(watches).await?,
                "takeovers" => takeovers::measure(watches).await?,
                _ => return Err(format!("There is no part {part:?}. The parts are {PARTS:?}.").into()),
            };
            write!(io::stdout(), "{table}")?;
        }
        writeln!(io::stdout(), "load average at the end: {}", load_average()?)?;
        Ok(())
    })
}

/// The parts that the command line asks for, and the number of watches.
fn parts(arguments: &[String]) -> Result<(Vec<String>, u32), Failure> {
    let mut parts = Vec::new();
    let mut watches = WATCHES;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--watches" {
            let number = arguments.next().and_then(|number| number.parse().ok()).filter(|number| *number >= 100);
            watches = number.ok_or("--watches takes a number from 100 on.")?;
        } else {
            parts.push(argument.clone());
        }
    }
    if parts.is_empty() {
        parts.extend(PARTS.map(str::to_owned));
    }
    Ok((parts, watches))
}
