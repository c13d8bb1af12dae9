//! What the exporter costs by the number of watches: `cargo bench --bench curves`. It writes
//! `docs/cost.csv` and draws `docs/cost.svg` from it; `cargo bench --bench curves -- draw` draws
//! only.
//!
//! The program runs as a process of its own, polls nginx on loopback with the default polling, and
//! all of its runs are in progress. No run is older than 70 seconds, so this is about what young
//! runs cost; one that is ten minutes old is polled a twelfth as often. All runs are as old as each
//! other, so their polls come in bursts: as the lag is shown, it is that of a start.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod drawing;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drawing::COLUMNS;
use harness::{Buckets, Cpu, Failure, Nginx, Scraper, Site, Tasks, number};

/// The numbers of watches.
const WATCHES: [u32; 4] = [10, 1_000, 10_000, 100_000];

/// How long all go on before they are measured.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long they are measured.
const WINDOW: Duration = Duration::from_mins(1);

/// Scrapes that are timed after that.
const SCRAPES: usize = 11;

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(10);

/// The default polling.
const DEFAULT: &str = "";

/// The first argument that asks for the picture only.
const DRAW: &str = "draw";

/// What so many watches cost.
struct Cost {
    watches: u32,
    polls_per_second: f64,
    /// Scrapes are not part of it.
    cpu_per_second: f64,
    resident: f64,
    scrape: f64,
    lag_p50: f64,
    lag_p99: f64,
}

/// What was used and done so far.
struct Reading {
    at: Instant,
    cpu: Cpu,
    polls: u64,
    lag: Buckets,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| match arguments.first().map(String::as_str) {
        None => measure().await,
        Some(DRAW) => draw(),
        Some(_) => Err(format!("The argument can only be {DRAW}.").into()),
    })
}

async fn measure() -> Result<(), Failure> {
    let nginx = Nginx::start().await?;
    let mut csv = format!("{COLUMNS}\n");
    let mut table = String::from(
        "| watches | polls/s | CPU s/s | resident MiB | scrape ms | lag p50 ms | lag p99 ms |\n\
         |--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for watches in WATCHES {
        writeln!(io::stderr(), "measuring {watches} watches")?;
        let cost = cost(&nginx, watches).await?;
        writeln!(csv, "{}", cost.fields())?;
        writeln!(table, "{}", cost.row())?;
    }
    fs::create_dir_all(docs())?;
    fs::write(docs().join("cost.csv"), csv)?;
    write!(io::stdout(), "{table}")?;
    draw()
}

fn draw() -> Result<(), Failure> {
    let svg = drawing::draw(&fs::read_to_string(docs().join("cost.csv"))?)?;
    Ok(fs::write(docs().join("cost.svg"), svg)?)
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

async fn cost(nginx: &Nginx, watches: u32) -> Result<Cost, Failure> {
    let configuration = nginx.watching(Tasks::InProgress, DEFAULT, watches);
    let site = Site::polled_once(nginx, &configuration, watches).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = Reading::of(&site).await?;
    tokio::time::sleep(WINDOW).await;
    let after = Reading::of(&site).await?;

    let scrape = site.median_scrape(SCRAPES).await?;
    let resident = number(site.exporter.resident()?)?;
    Scraper::new(&site.exporter, reqwest::Client::builder())?.scrape().await?.require_success(watches)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let lag = after.lag.since(&before.lag);
    Ok(Cost {
        watches,
        polls_per_second: number(after.polls - before.polls)? / seconds,
        cpu_per_second: after.cpu.since(&before.cpu).as_secs_f64() / seconds,
        resident,
        scrape,
        lag_p50: lag.quantile(0.5),
        lag_p99: lag.quantile(0.99),
    })
}

// === impl Reading ===

impl Reading {
    /// Of a scrape only the beginning is asked for, so that it costs little itself.
    async fn of(site: &Site) -> Result<Self, Failure> {
        let (at, cpu) = (Instant::now(), Cpu::of(site.exporter.id())?);
        let text = site.connect().await?.scrape_until("cekura_exporter_poll_lag_seconds_count").await?;
        let polls = "cekura_api_requests_total{api=\"default\",outcome=\"ok\"} ";
        let polls = text.lines().find_map(|line| line.strip_prefix(polls)?.parse().ok());
        Ok(Self { at, cpu, polls: polls.ok_or("A scrape tells no polls.")?, lag: Buckets::of(text.lines())? })
    }
}

// === impl Cost ===

impl Cost {
    /// As one line of the file.
    fn fields(&self) -> String {
        let Self { watches, polls_per_second, cpu_per_second, resident, scrape, lag_p50, lag_p99 } = self;
        format!(
            "{watches},{polls_per_second:.2},{cpu_per_second:.6},{resident:.0},{scrape:.6},{lag_p50:.6},{lag_p99:.6}"
        )
    }

    /// As one line of a Markdown table.
    fn row(&self) -> String {
        let [scrape, p50, p99] = [self.scrape, self.lag_p50, self.lag_p99].map(|seconds| seconds * 1000.0);
        format!(
            "| {} | {:.1} | {:.4} | {:.1} | {scrape:.2} | {p50:.2} | {p99:.2} |",
            self.watches,
            self.polls_per_second,
            self.cpu_per_second,
            self.resident / f64::from(1 << 20),
        )
    }
}
