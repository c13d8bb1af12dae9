//! Judges how much work encoding and polling are, by the instructions that they take:
//! `cargo run --profile dist -p instructions`, which needs valgrind.
//!
//! A time says as much of the machine as of the program; a number of instructions hardly depends on
//! the machine, so this can fail a change. `baseline.toml` says what is allowed. With
//! `cargo run --profile dist -p instructions rewrite` what is counted becomes the new baseline.

mod baseline;
mod callgrind;
#[allow(dead_code, reason = "who has it uses a part of it")]
#[path = "../../sample/mod.rs"]
mod sample;
mod work;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use baseline::Baseline;
use work::Work;

/// What went wrong, as a sentence.
type Failure = Box<dyn Error + Send + Sync>;

/// What is allowed.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.toml");

/// The architecture whose instructions the baseline counts.
const ARCHITECTURE: &str = "x86_64";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments {
        // What this runs under valgrind.
        [callgrind::COUNTED, name] => work_of(name).and_then(Work::run),
        [] => judge(Path::new(BASELINE)),
        ["rewrite"] => rewrite(Path::new(BASELINE)),
        _ => Err("The one argument that this takes is `rewrite`.".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If nobody reads it, there is nobody to tell.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn work_of(name: &str) -> Result<Work, Failure> {
    Work::ALL.into_iter().find(|work| work.name() == name).ok_or_else(|| format!("There is no work {name}.").into())
}

/// Counts everything, and compares it with the baseline.
fn judge(path: &Path) -> Result<(), Failure> {
    if std::env::consts::ARCH != ARCHITECTURE {
        writeln!(io::stdout(), "Nothing is judged: the baseline counts instructions of {ARCHITECTURE}.")?;
        return Ok(());
    }
    let baseline = Baseline::read(path)?;
    let mut wrong = String::new();
    for work in Work::ALL {
        let counted = callgrind::count(work.name())?;
        writeln!(io::stdout(), "{}", baseline.compared(work, counted)?)?;
        if let Some(sentence) = baseline.objection(work, counted)? {
            writeln!(wrong, "{sentence}")?;
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("\n{wrong}\n{}", baseline.how_to_go_on()).into()) }
}

/// Counts everything, and makes that the baseline.
fn rewrite(path: &Path) -> Result<(), Failure> {
    if std::env::consts::ARCH != ARCHITECTURE {
        return Err(format!("The baseline is one of {ARCHITECTURE}.").into());
    }
    let counts = Work::ALL.map(|work| callgrind::count(work.name()).map(|counted| (work, counted)));
    let counts = counts.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (work, counted) in &counts {
        writeln!(io::stdout(), "{}: {counted} instructions", work.title())?;
    }
    Baseline::rewrite(path, &counts)
}
