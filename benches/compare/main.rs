//! How the exporter compares with its peers: `cargo bench --bench compare`, or some parts of it
//! only: `cargo bench --bench compare -- --rounds 7 polling scraping memory starting many busy`.
//!
//! Everything runs as processes of their own, on loopback and at the same time: the exporter; nginx
//! as what it polls; and as peers a bare loop of requests, which is this program once more, the
//! blackbox exporter and the Pushgateway. Rounds of the exporter and of its peer take turns, so that
//! both see the same machine. What is printed is the median of the rounds. Missing a goal fails
//! nothing. An answer that is wrong does, and so does a poll or a probe that failed.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod bare;
mod blackbox;
mod busy;
mod lines;
mod many;
mod memory;
mod polling;
mod pushgateway;
mod scraping;
mod starting;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use harness::{Failure, NGINX, Nginx, load_average};
use lines::Row;

/// The parts, in the order in which they are measured.
const PARTS: [&str; 6] = ["polling", "scraping", "memory", "starting", "many", "busy"];

/// Rounds of each part, if the command line says no other number.
const ROUNDS: usize = 5;

/// As many as the limit has time for.
const MOST_ROUNDS: usize = 15;

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(30);

/// What is asked for.
struct Wanted {
    rounds: usize,
    parts: Vec<String>,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| match arguments.as_slice() {
        [first, url] if first == bare::ARGUMENT => bare::run(url).await,
        _ => compare(&Wanted::parse(arguments)?).await,
    })
}

async fn compare(wanted: &Wanted) -> Result<(), Failure> {
    for program in [NGINX, blackbox::PROGRAM, pushgateway::PROGRAM] {
        program.find()?;
    }
    let nginx = Nginx::start().await?;
    let mut rows = Vec::new();
    writeln!(io::stdout(), "rounds of each: {}, load average {}", wanted.rounds, load_average()?)?;
    for part in &wanted.parts {
        writeln!(io::stderr(), "measuring {part}")?;
        rows.extend(measure(part, &nginx, wanted.rounds).await?);
    }
    let rows: String = rows.iter().map(Row::to_string).collect();
    write!(io::stdout(), "{}{rows}", lines::header())?;
    writeln!(io::stdout(), "load average at the end: {}", load_average()?)?;
    Ok(())
}

async fn measure(part: &str, nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    match part {
        "polling" => polling::measure(nginx, rounds).await,
        "scraping" => scraping::measure(nginx, rounds).await,
        "memory" => memory::measure(nginx, rounds).await,
        "starting" => starting::measure(nginx, rounds).await,
        "many" => many::measure(nginx, rounds).await,
        "busy" => busy::measure(nginx, rounds).await,
        _ => Err(format!("There is no part {part:?}. The parts are {PARTS:?}.").into()),
    }
}

// === impl Wanted ===

impl Wanted {
    fn parse(arguments: Vec<String>) -> Result<Self, Failure> {
        let (mut rounds, mut parts) = (ROUNDS, Vec::new());
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument != "--rounds" {
                parts.push(argument);
                continue;
            }
            let number = arguments.next().and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=MOST_ROUNDS).contains(number));
            rounds = number.ok_or_else(|| format!("--rounds takes a number from 1 to {MOST_ROUNDS}."))?;
        }
        if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("There is no part {unknown:?}. The parts are {PARTS:?}.").into());
        }
        if parts.is_empty() {
            parts = PARTS.map(str::to_owned).to_vec();
        }
        Ok(Self { rounds, parts })
    }
}
