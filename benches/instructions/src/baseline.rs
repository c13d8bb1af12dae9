//! What the work may take, in a file that is kept with the code.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cekura_exporter::BUILD;

use crate::Failure;
use crate::work::Work;

/// How far a count may be from the baseline, in percent: the least that nothing exceeds but a change
/// of the program or of the compiler.
const TOLERANCE: u64 = 10;

/// What the work took when the baseline was set.
pub(crate) struct Baseline {
    rustc: String,
    counts: Vec<(String, u64)>,
}

// === impl Baseline ===

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let (mut rustc, mut counts) = (String::new(), Vec::new());
        for (name, value) in text.lines().filter_map(entry) {
            match value.parse() {
                Ok(count) => counts.push((name.to_owned(), count)),
                Err(_) if name == RUSTC => value.trim_matches('"').clone_into(&mut rustc),
                Err(e) => return Err(format!("{}: {name} is no count: {e}", path.display()).into()),
            }
        }
        Ok(Self { rustc, counts })
    }

    /// Sets the values anew, and leaves the comments as they are.
    pub(crate) fn rewrite(path: &Path, counts: &[(Work, u64)]) -> Result<(), Failure> {
        let mut text = String::new();
        for line in fs::read_to_string(path)?.lines().filter(|line| entry(line).is_none()) {
            writeln!(text, "{line}")?;
        }
        writeln!(text, "{RUSTC} = \"{}\"", BUILD[2])?;
        for (work, counted) in counts {
            writeln!(text, "{} = {counted}", work.name())?;
        }
        Ok(fs::write(path, text)?)
    }

    /// What was counted beside the baseline.
    pub(crate) fn compared(&self, work: Work, counted: u64) -> Result<String, Failure> {
        let baseline = self.of(work)?;
        let [least, most] = allowed(baseline);
        Ok(format!(
            "{}: {counted} instructions, {} % of the baseline {baseline} (allowed {least} to {most})",
            work.title(),
            percentage(counted, baseline),
        ))
    }

    /// What there is to say against a count, if anything.
    pub(crate) fn objection(&self, work: Work, counted: u64) -> Result<Option<String>, Failure> {
        let [least, most] = allowed(self.of(work)?);
        let what = work.title();
        Ok(if counted > most {
            Some(format!("{what} takes more than is allowed: {counted} instructions, and {most} are."))
        } else if counted < least {
            Some(format!(
                "{what} takes less than it did: {counted} instructions, and {least} are the least that the baseline \
                 stands for. The baseline is to be lowered, so that what was gained is not lost unseen."
            ))
        } else {
            None
        })
    }

    /// What to do about objections.
    pub(crate) fn how_to_go_on(&self) -> String {
        let [_, _, rustc] = BUILD;
        let compiler = if self.rustc == rustc {
            String::new()
        } else {
            format!("The baseline was set with rustc {}, and this is {rustc}, which may be why.\n", self.rustc)
        };
        format!("{compiler}If it is meant, set a new baseline: cargo run --profile dist -p instructions rewrite")
    }

    fn of(&self, work: Work) -> Result<u64, Failure> {
        let count = self.counts.iter().find(|(name, count)| name == work.name() && *count > 0);
        Ok(count.ok_or_else(|| format!("The baseline has no count of {}.", work.name()))?.1)
    }
}

const RUSTC: &str = "rustc";

/// A line of the form `name = value`.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    Some((name.trim(), value.trim()))
}

/// The least and the most.
fn allowed(baseline: u64) -> [u64; 2] {
    [baseline * (100 - TOLERANCE) / 100, baseline * (100 + TOLERANCE) / 100]
}

fn percentage(counted: u64, baseline: u64) -> String {
    let tenths = (counted * 1000 + baseline / 2) / baseline;
    format!("{}.{}", tenths / 10, tenths % 10)
}
