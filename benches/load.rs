//! How the exporter bears long lists: `cargo bench --bench load`, with another number of watches
//! `cargo bench --bench load -- 1000`, and with agents besides `cargo bench --bench load -- 1000 10000`.
//!
//! The program polls a stand-in of the API on loopback, whose tasks never finish and whose agents have their mocks on,
//! and is scraped meanwhile. The goals are those for 10,000 watches. They are printed beside the figures, and
//! missing one fails nothing; an answer that is wrong does.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
mod harness;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::{Buckets, Exporter, Failure, Scraper, Upstream, goal, mebibytes, spread};

/// Watches, if the command line says no other number.
const WATCHES: u32 = 10_000;

/// The time between polls of a run, however old it is: that of a young one by default.
const INTERVAL: Duration = Duration::from_secs(5);

/// The time between requests for the mock status of an agent: the default.
const AGENT_INTERVAL: Duration = Duration::from_mins(1);

/// After the first round of agents, the next ones are spread over the second half of the interval, and so is each
/// later round. The window begins with such a half, in which all agents are asked.
const AGENTS_SPREAD: Duration = Duration::from_secs(90);

/// How long is measured. Six and a half intervals, so that no watch that keeps its cadence has
/// fewer polls than six or more than seven, wherever the window falls.
const WINDOW: Duration = Duration::from_millis(32_500);

/// The polls in the window of a watch that keeps its cadence.
const CADENCE: (u32, u32) = (6, 7);

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(4);

/// Scrapes that are timed, spread over the window.
const SCRAPES: u32 = 20;

/// What a scrape should take at most.
const SCRAPE_GOAL: Duration = Duration::from_millis(50);

/// What the process should hold at most, in MiB.
const MEMORY_GOAL: f64 = 60.0;

/// What was measured.
struct Figures {
    watches: u32,
    agents: u32,
    /// Requests for the mock status of agents in the window.
    asked: u32,
    /// From starting the process to its listening.
    listening: Duration,
    /// From starting the process until every watch was polled once.
    round: Duration,
    window: Duration,
    /// Polls in the window, of each watch; sorted.
    polls: Vec<u32>,
    lag: Buckets,
    /// How long scrapes took; sorted.
    scrapes: Vec<Duration>,
    bytes: usize,
    series: usize,
    /// The most that any scrape reported, in MiB.
    resident: f64,
    /// The most that the kernel saw, in MiB.
    peak: f64,
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| {
        let figures = measure(harness::watches(&arguments, WATCHES)?, harness::agents(&arguments)?).await?;
        write!(io::stdout(), "{figures}")?;
        Ok(())
    })
}

async fn measure(watches: u32, agents: u32) -> Result<Figures, Failure> {
    let upstream = Upstream::start(watches, agents).await?;
    let polling = format!("polling: {{max_interval: {INTERVAL:?}}}\n");
    let folder = harness::folder(&(upstream.configuration() + &polling))?;
    let exporter = Exporter::start(folder.path(), &[]).await?;
    let client = Scraper::new(&exporter, reqwest::Client::builder())?;
    upstream.first_round().await?;
    let round = exporter.started.elapsed();

    if agents > 0 {
        tokio::time::sleep_until((exporter.started + AGENTS_SPREAD).into()).await;
    }
    let before = client.scrape().await?;
    let (polls_before, asked_before) = (upstream.polls(), upstream.asked());
    let opened = Instant::now();
    let mut scrapes = Vec::new();
    let mut resident = 0f64;
    for turn in 1..=SCRAPES {
        tokio::time::sleep_until((opened + WINDOW * turn / (SCRAPES + 1)).into()).await;
        let scrape = client.scrape().await?;
        resident = resident.max(scrape.value("process_resident_memory_bytes")?);
        scrapes.push(scrape.took);
    }
    tokio::time::sleep_until((opened + WINDOW).into()).await;
    let window = opened.elapsed();
    let (polls_after, asked_after) = (upstream.polls(), upstream.asked());
    let after = client.scrape().await?;

    after.require_success(watches)?;
    scrapes.sort_unstable();
    Ok(Figures {
        watches,
        agents,
        asked: asked_after - asked_before,
        listening: exporter.listening,
        round,
        window,
        polls: polls_between(&polls_before, &polls_after)?,
        lag: Buckets::of(after.series())?.since(&Buckets::of(before.series())?),
        scrapes,
        bytes: after.text.len(),
        series: after.series().count(),
        resident: resident / f64::from(1 << 20),
        peak: mebibytes(exporter.peak()?),
        cpu_seconds: after.value::<f64>("process_cpu_seconds_total")?
            - before.value::<f64>("process_cpu_seconds_total")?,
    })
}

/// The polls of each watch between two counts, sorted.
fn polls_between(before: &[u32], after: &[u32]) -> Result<Vec<u32>, Failure> {
    let mut polls: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    if let Some(number) = polls.iter().position(|polls| *polls == 0) {
        return Err(format!("The watch load-{number:05} was not polled within {WINDOW:?}.").into());
    }
    polls.sort_unstable();
    Ok(polls)
}

// === impl Figures ===

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs_f64();
        writeln!(f, "{} watches, each due every {INTERVAL:?}, over {seconds:.1} s", self.watches)?;
        row(f, "start", &format!("listening after {:.2?}, all polled once after {:.2?}", self.listening, self.round))?;
        let polls = f64::from(self.polls.iter().sum::<u32>());
        if self.agents > 0 {
            let asked = f64::from(self.asked);
            let due = f64::from(self.agents) / AGENT_INTERVAL.as_secs_f64();
            row(
                f,
                "agents",
                &format!("{}, asked {:.0} times per second ({due:.0} in the long run)", self.agents, asked / seconds),
            )?;
        }
        let (low, high) = CADENCE;
        let asked = |polls: u32| f64::from(polls) * f64::from(self.watches) / seconds;
        row(
            f,
            "polls",
            &format!("{:.0} per second (asked for {:.0} to {:.0})", polls / seconds, asked(low), asked(high)),
        )?;
        let (least, median, most) = spread(&self.polls);
        let cadence = goal(least >= low && most <= high);
        row(
            f,
            "polls per watch",
            &format!("min {least}, median {median}, max {most} (goal {low} to {high}: {cadence})"),
        )?;
        let (p50, p99) = (self.lag.quantile(0.5) * 1000.0, self.lag.quantile(0.99) * 1000.0);
        row(f, "poll lag", &format!("p50 {p50:.2} ms, p99 {p99:.2} ms"))?;
        let (least, median, most) = spread(&self.scrapes);
        let quick = goal(median < SCRAPE_GOAL);
        row(
            f,
            "scrape",
            &format!("min {least:.1?}, median {median:.1?}, max {most:.1?} (goal < {SCRAPE_GOAL:?}: {quick})"),
        )?;
        row(f, "size", &format!("{} bytes, {} series", self.bytes, self.series))?;
        row(f, "resident memory", &memory(self.resident))?;
        row(f, "its peak (VmHWM)", &memory(self.peak))?;
        row(f, "CPU", &format!("{:.3} s per 1,000 polls, scrapes included", self.cpu_seconds * 1000.0 / polls))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &str) -> fmt::Result {
    writeln!(f, "  {name:<18}{figures}")
}

fn memory(mebibytes: f64) -> String {
    format!("{mebibytes:.1} MiB (goal < {MEMORY_GOAL} MiB: {})", goal(mebibytes < MEMORY_GOAL))
}
