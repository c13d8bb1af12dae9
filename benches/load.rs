//! How the exporter bears a long watch list: `cargo bench --bench load`, or with another number
//! of watches `cargo bench --bench load -- 1000`.
//!
//! The program polls a stand-in of the API on loopback, whose tasks never finish, and is scraped
//! meanwhile. The goals are those for 10,000 watches. They are printed beside the figures, and
//! missing one fails nothing; an answer that is wrong does.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use cekura_exporter::signals::Signals;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Watches, if the command line says no other number.
const WATCHES: u32 = 10_000;

/// The time between polls of a run that is younger than ten times as much: the default.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long is measured. Six and a half intervals, so that no watch that keeps its cadence has
/// fewer polls than six or more than seven, wherever the window falls.
const WINDOW: Duration = Duration::from_millis(32_500);

/// The polls in the window of a watch that keeps its cadence.
const CADENCE: (u32, u32) = (6, 7);

/// How long the first poll of every watch may take. The window must end before runs are so old
/// that the cadence slows down.
const FIRST_ROUND: Duration = Duration::from_secs(15);

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(2);

/// Scrapes that are timed, spread over the window.
const SCRAPES: u32 = 20;

/// What a scrape should take at most.
const SCRAPE_GOAL: Duration = Duration::from_millis(50);

/// What the process should hold at most, in MiB.
const MEMORY_GOAL: f64 = 60.0;

/// What went wrong, as a sentence.
type Failure = Box<dyn Error>;

/// The API, as far as this needs it: every task is in progress, and its polls are counted.
struct Upstream {
    simulator: Simulator,
    polls: Arc<[AtomicU32]>,
}

/// The running program. Dropping it kills it.
struct Exporter {
    child: Child,
    metrics_url: String,
    http: reqwest::Client,
    _folder: TempDir,
}

/// One answer of `/metrics`.
struct Scrape {
    took: Duration,
    text: String,
}

/// The upper bounds of a histogram's buckets, and how much is below each.
struct Buckets(Vec<(f64, f64)>);

/// What was measured.
struct Figures {
    watches: u32,
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
    /// The most that any scrape reported, in bytes.
    resident: f64,
    /// The most that the kernel saw, in bytes.
    peak: f64,
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    // Test runners start benches too, but without this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If nobody reads it, there is nobody to tell.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let watches = match std::env::args().skip(1).find(|arg| arg != "--bench") {
        Some(arg) => arg.parse().ok().filter(|n| *n > 0).ok_or("The argument must be a number of watches.")?,
        None => WATCHES,
    };
    let figures = tokio::runtime::Runtime::new()?.block_on(async {
        let stopped = Signals::listen()?;
        tokio::select! {
            measured = tokio::time::timeout(LIMIT, measure(watches)) => measured.map_err(|_| "It took too long.")?,
            () = stopped.told(1) => Err("It was stopped.".into()),
        }
    })?;
    write!(io::stdout(), "{figures}")?;
    Ok(())
}

async fn measure(watches: u32) -> Result<Figures, Failure> {
    let upstream = Upstream::start(watches).await?;
    let started = Instant::now();
    let exporter = Exporter::start(&configuration(&upstream, watches)).await?;
    let listening = started.elapsed();
    upstream.first_round().await?;
    let round = started.elapsed();

    let before = exporter.scrape().await?;
    let polls_before = upstream.polls();
    let opened = Instant::now();
    let mut scrapes = Vec::new();
    let mut resident = 0f64;
    for turn in 1..=SCRAPES {
        tokio::time::sleep_until((opened + WINDOW * turn / (SCRAPES + 1)).into()).await;
        let scrape = exporter.scrape().await?;
        resident = resident.max(scrape.value("process_resident_memory_bytes")?);
        scrapes.push(scrape.took);
    }
    tokio::time::sleep_until((opened + WINDOW).into()).await;
    let window = opened.elapsed();
    let polls_after = upstream.polls();
    let after = exporter.scrape().await?;

    after.require_success(watches)?;
    scrapes.sort_unstable();
    Ok(Figures {
        watches,
        listening,
        round,
        window,
        polls: polls_between(&polls_before, &polls_after)?,
        lag: after.lag()?.since(&before.lag()?),
        scrapes,
        bytes: after.text.len(),
        series: after.series().count(),
        resident,
        peak: exporter.peak_memory()?,
        cpu_seconds: after.value("process_cpu_seconds_total")? - before.value("process_cpu_seconds_total")?,
    })
}

/// One API whose budget holds nothing back, and the default polling.
fn configuration(upstream: &Upstream, watches: u32) -> String {
    let mut text = format!(
        "apis:\n  default: {{base_url: 'http://{}', api_key: load, max_in_flight: 64, requests_per_second: 20000}}\n\
         watches:\n",
        upstream.simulator.address()
    );
    for number in 0..watches {
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: load-{number:05}, agent_id: {}, progress_id: {}, expect: enabled, labels: {{team: bookings}}}}",
            number + 1,
            progress_id(number),
        );
    }
    text
}

/// An id of the usual form that ends with the watch's number.
fn progress_id(number: u32) -> String {
    format!("6f0c1f6e-8d1c-4f0e-9f8e-{number:012}")
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

// === impl Upstream ===

impl Upstream {
    async fn start(watches: u32) -> Result<Self, Failure> {
        let polls: Arc<[AtomicU32]> = (0..watches).map(|_| AtomicU32::new(0)).collect();
        let counted = polls.clone();
        let task = Reply::task("in_progress", None);
        let simulator = Simulator::start(move |request| match number_of(request).and_then(|n| counted.get(n)) {
            Some(polls) => {
                polls.fetch_add(1, Ordering::Relaxed);
                task.clone()
            }
            None => Reply::detail(400, "no such id"),
        });
        Ok(Self { simulator: simulator.await?, polls })
    }

    /// The polls so far, of each watch.
    fn polls(&self) -> Vec<u32> {
        self.polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every watch was polled once.
    async fn first_round(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_ROUND;
        while let Some(number) = self.polls().iter().position(|polls| *polls == 0) {
            if Instant::now() > deadline {
                return Err(format!("The watch load-{number:05} was never polled within {FIRST_ROUND:?}.").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The number of the watch that is polled.
fn number_of(request: &Request) -> Option<usize> {
    request.progress_id()?.rsplit_once('-')?.1.parse().ok()
}

// === impl Exporter ===

impl Exporter {
    /// Starts the program with nothing in its environment, and waits until it listens.
    async fn start(configuration: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config.yaml"), configuration)?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let child = Command::new(env!("CARGO_BIN_EXE_cekura-exporter"))
            .arg("--web.listen-address=127.0.0.1:0")
            .env_clear()
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut exporter = Self { child, metrics_url: String::new(), http, _folder: folder };
        let stdout = exporter.child.stdout.take().ok_or("The exporter has no standard output.")?;
        let address = listening(stdout).await.map_err(|_| "The exporter ended before it listened.")?;
        exporter.metrics_url = format!("http://{address}/metrics");
        Ok(exporter)
    }

    async fn scrape(&self) -> Result<Scrape, Failure> {
        let started = Instant::now();
        let response = self.http.get(&self.metrics_url).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let took = started.elapsed();
        if status != reqwest::StatusCode::OK {
            return Err(format!("A scrape was answered with {status}.").into());
        }
        Ok(Scrape { took, text: String::from_utf8(body.into())? })
    }

    /// The most memory that was ever resident, in bytes.
    fn peak_memory(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("The kernel tells no VmHWM.")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address from the log line that tells it. The log is read on to its end, as the program
/// would wait for its reader.
fn listening(stdout: ChildStdout) -> oneshot::Receiver<String> {
    let (found, address) = oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if let Some(address) = lines.by_ref().find_map(|line| address_in(&line)) {
            // Whoever waited for it may be gone.
            let _ = found.send(address);
        }
        lines.for_each(drop);
    });
    address
}

fn address_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
}

// === impl Scrape ===

impl Scrape {
    fn series(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.starts_with('#'))
    }

    /// The value of the series that is written so.
    fn value(&self, series: &str) -> Result<f64, Failure> {
        let found = self.series().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.ok_or_else(|| format!("A scrape has no {series}.").into())
    }

    fn lag(&self) -> Result<Buckets, Failure> {
        let bucket = |line: &str| {
            let rest = line.strip_prefix("cekura_exporter_poll_lag_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        };
        let buckets: Vec<_> = self.series().filter_map(bucket).collect();
        if buckets.is_empty() { Err("A scrape has no poll lag.".into()) } else { Ok(Buckets(buckets)) }
    }

    /// Every watch must show a valid answer, and no poll may have failed.
    fn require_success(&self, watches: u32) -> Result<(), Failure> {
        let up = self.series().filter(|line| line.starts_with("cekura_toggle_up{") && line.ends_with("} 1")).count();
        if up != usize::try_from(watches)? {
            return Err(format!("Only {up} of {watches} watches are up.").into());
        }
        let failed = |line: &&str| {
            line.starts_with("cekura_api_requests_total{") && !line.contains("outcome=\"ok\"") && !line.ends_with(" 0")
        };
        match self.series().find(failed) {
            Some(line) => Err(format!("Polls failed: {line}.").into()),
            None => Ok(()),
        }
    }
}

// === impl Buckets ===

impl Buckets {
    fn since(mut self, earlier: &Self) -> Self {
        self.0.iter_mut().zip(&earlier.0).for_each(|(now, before)| now.1 -= before.1);
        self
    }

    /// The quantile, linear within its bucket, as `histogram_quantile` has it.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = self.0.last().map_or(0.0, |(_, count)| count * quantile);
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, count) in self.0.iter().filter(|(upper, _)| upper.is_finite()) {
            if *count >= rank {
                return lower + (upper - lower) * (rank - below) / (count - below).max(1.0);
            }
            (lower, below) = (*upper, *count);
        }
        lower
    }
}

// === impl Figures ===

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs_f64();
        writeln!(f, "{} watches, each due every {INTERVAL:?}, over {seconds:.1} s", self.watches)?;
        row(f, "start", &format!("listening after {:.2?}, all polled once after {:.2?}", self.listening, self.round))?;
        let polls = f64::from(self.polls.iter().sum::<u32>());
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

fn memory(bytes: f64) -> String {
    let mebibytes = bytes / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB (goal < {MEMORY_GOAL} MiB: {})", goal(mebibytes < MEMORY_GOAL))
}

fn goal(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

/// The least, the median and the most of what is sorted and not empty.
fn spread<T: Copy>(sorted: &[T]) -> (T, T, T) {
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}
