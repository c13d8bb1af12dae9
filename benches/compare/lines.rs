//! The lines of the table, and their goals.

use std::fmt;

use crate::harness::{goal, spread};

/// What is measured, and what it should be.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) goal: Option<Goal>,
}

/// What the figures are in. They are kept in seconds and bytes.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Mebibytes,
    Bytes,
}

/// What should be: of the figure itself, or of its ratio to the peer's.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    Below(f64),
    RatioAtMost(f64),
    RatioBelow(f64),
}

use Goal::{AtLeast, Below, RatioAtMost, RatioBelow};
use Unit::{Bytes, Mebibytes, Milliseconds, PerSecond};

const MIB: f64 = 1_048_576.0;

const fn line(name: &'static str, unit: Unit, goal: Option<Goal>) -> Line {
    Line { name, unit, goal }
}

// Polling 2,000 watches without a pause.
pub(crate) const POLLS: Line = line("polls", PerSecond, Some(AtLeast(25_000.0)));
pub(crate) const CPU_BARE: Line = line("CPU per 1,000 polls; bare loop", Milliseconds, Some(RatioAtMost(1.3)));
pub(crate) const CPU_BLACKBOX: Line =
    line("CPU per 1,000 polls; blackbox_exporter", Milliseconds, Some(RatioAtMost(1.0 / 15.0)));

// Scraping 100,000 series.
pub(crate) const TEXT: Line = line("scrape; pushgateway", Milliseconds, Some(RatioAtMost(0.1)));
pub(crate) const TEXT_SIZE: Line = line("  its size", Bytes, None);
pub(crate) const TEXT_CHANGING: Line = line("scrape, while polled; pushgateway", Milliseconds, Some(RatioAtMost(0.1)));
pub(crate) const TEXT_CHANGING_SIZE: Line = line("  its size", Bytes, None);
pub(crate) const GZIP: Line = line("scrape, gzip; pushgateway", Milliseconds, Some(RatioAtMost(0.2)));
pub(crate) const GZIP_SIZE: Line = line("  its size", Bytes, None);
pub(crate) const GZIP_CHANGING: Line =
    line("scrape, gzip, while polled; pushgateway", Milliseconds, Some(RatioAtMost(0.2)));
pub(crate) const GZIP_CHANGING_SIZE: Line = line("  its size", Bytes, None);

// Memory.
pub(crate) const RESIDENT: Line = line("resident, 10 watches", Mebibytes, Some(Below(8.0 * MIB)));
pub(crate) const RESIDENT_ANONYMOUS: Line = line("  of this anonymous (RssAnon)", Mebibytes, None);
pub(crate) const RESIDENT_FILE: Line = line("  of this of files (RssFile)", Mebibytes, None);
pub(crate) const PER_WATCH_OF_10_000: Line = line("resident per watch, 10,000", Bytes, Some(Below(600.0)));
pub(crate) const PER_WATCH_OF_100_000: Line = line("resident per watch, 100,000", Bytes, Some(Below(600.0)));

// Starting, and 100,000 watches.
pub(crate) const SIZE: Line = line("size of the program", Mebibytes, Some(Below(8.0 * MIB)));
pub(crate) const READY: Line = line("ready, 10 watches", Milliseconds, Some(Below(0.02)));
pub(crate) const READY_CONFIGURED: Line = line("ready, 100,000 configured", Milliseconds, Some(Below(1.0)));
pub(crate) const READY_FILE: Line = line("ready, 100,000 in a file", Milliseconds, Some(Below(1.0)));
pub(crate) const LAG: Line = line("lag p99, 10,000 polls/s", Milliseconds, Some(Below(0.05)));
pub(crate) const SCRAPE_MANY: Line = line("scrape, 100,000 watches", Milliseconds, Some(Below(0.15)));
pub(crate) const SCRAPE_MANY_BUSY: Line =
    line("scrape, 100,000 watches, 10,000 polls/s", Milliseconds, Some(Below(0.15)));

// Scraping while polls run.
pub(crate) const BUSY: Line = line("scrape p99, 10,000 polls/s; idle", Milliseconds, Some(RatioBelow(2.0)));
pub(crate) const SATURATED: Line = line("scrape p99, all polls it can; idle", Milliseconds, Some(RatioBelow(2.0)));

/// The figures of a line, one of each round.
pub(crate) struct Row {
    line: &'static Line,
    exporter: Vec<f64>,
    peer: Vec<f64>,
    note: String,
}

// === impl Row ===

impl Row {
    /// Without a peer if that has no figures.
    pub(crate) fn new(line: &'static Line, mut exporter: Vec<f64>, mut peer: Vec<f64>) -> Self {
        exporter.sort_unstable_by(f64::total_cmp);
        peer.sort_unstable_by(f64::total_cmp);
        Self { line, exporter, peer, note: String::new() }
    }

    /// With something that is said behind the line.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        (!self.peer.is_empty()).then(|| spread(&self.exporter).1 / spread(&self.peer).1)
    }
}

pub(crate) fn header() -> String {
    format!(
        "{:<42} {:>30} {:>12} {:>8} {:>15} {}\n",
        "line; peer", "median (min..max)", "peer", "ratio", "goal", "reached"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.line.unit;
        let (least, median, most) = spread(&self.exporter);
        let figures = format!("{} ({}..{})", unit.with_name(median), unit.show(least), unit.show(most));
        let peer = self.peer.get(self.peer.len() / 2).map_or_else(String::new, |peer| unit.with_name(*peer));
        let ratio = self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let wanted = self.line.goal.map_or_else(String::new, |goal| goal.show(unit));
        let reached = self.line.goal.map_or("", |wanted| goal(wanted.is_reached(median, self.ratio())));
        let line = format!(
            "{:<42} {figures:>30} {peer:>12} {ratio:>8} {wanted:>15} {reached:<8}{}",
            self.line.name, self.note
        );
        writeln!(f, "{}", line.trim_end())
    }
}

// === impl Unit ===

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            PerSecond | Bytes => format!("{figure:.0}"),
            Milliseconds => format!("{:.2}", figure * 1000.0),
            Mebibytes => format!("{:.2}", figure / MIB),
        }
    }

    fn with_name(self, figure: f64) -> String {
        let name = match self {
            PerSecond => "/s",
            Milliseconds => " ms",
            Mebibytes => " MiB",
            Bytes => " B",
        };
        format!("{}{name}", self.show(figure))
    }
}

// === impl Goal ===

impl Goal {
    /// Whether the figure, or its ratio where there is a peer, is as it should be.
    fn is_reached(self, figure: f64, ratio: Option<f64>) -> bool {
        match self {
            AtLeast(least) => figure >= least,
            Below(limit) => figure < limit,
            RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            RatioBelow(limit) => ratio.is_some_and(|ratio| ratio < limit),
        }
    }

    fn show(self, unit: Unit) -> String {
        match self {
            AtLeast(least) => format!(">= {}", unit.with_name(least)),
            Below(limit) => format!("< {}", unit.with_name(limit)),
            RatioAtMost(most) if most < 1.0 => format!("<= 1/{:.0}", 1.0 / most),
            RatioAtMost(most) => format!("<= {most}"),
            RatioBelow(limit) => format!("< {limit}"),
        }
    }
}
