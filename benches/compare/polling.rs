//! How much is polled, and what a poll costs.

use std::time::{Duration, Instant};

use crate::bare::BareLoop;
use crate::blackbox::Blackbox;
use crate::harness::{Cpu, Failure, Nginx, Scraper, Site, Tasks, number};
use crate::lines::{CPU_BARE, CPU_BLACKBOX, POLLS, Row};

/// Enough that some are always due.
pub(crate) const WATCHES: u32 = 2_000;

/// Shorter than can be reached, so that as much is polled as can be.
pub(crate) const SATURATING: &str = "min_interval: 10ms, max_interval: 10ms";

/// How long polls run before they are counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long they are counted.
const WINDOW: Duration = Duration::from_secs(3);

/// What polls or probes came to in a window.
struct Cost {
    per_second: f64,
    /// CPU seconds of a thousand.
    cpu: f64,
}

/// What was used and done so far, and when that was.
struct Reading {
    at: Instant,
    cpu: Cpu,
    polls: u64,
}

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let blackbox = Blackbox::start().await?;
    let (mut exporters, mut bares, mut probes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        exporters.push(exporter(nginx).await?);
        bares.push(bare(nginx).await?);
        probes.push(probing(nginx, &blackbox).await?);
    }
    let per_second = |costs: &[Cost]| costs.iter().map(|cost| cost.per_second).collect::<Vec<_>>();
    let cpu = |costs: &[Cost]| costs.iter().map(|cost| cost.cpu).collect::<Vec<_>>();
    Ok(vec![
        Row::new(&POLLS, per_second(&exporters), per_second(&bares)).note("the peer is the bare loop"),
        Row::new(&CPU_BARE, cpu(&exporters), cpu(&bares)),
        Row::new(&CPU_BLACKBOX, cpu(&exporters), cpu(&probes)),
    ])
}

/// A process of its own for each round, so that it does not poll while its peers are measured.
async fn exporter(nginx: &Nginx) -> Result<Cost, Failure> {
    let Site { exporter, .. } = &Site::start(&nginx.watching(Tasks::InProgress, SATURATING, WATCHES)).await?;
    let scraper = Scraper::new(exporter, reqwest::Client::builder())?;
    // Both readings come before the scrape that tells the polls, and so both are off by as much.
    let read = async || {
        let (at, cpu) = (Instant::now(), Cpu::of(exporter.id())?);
        let scrape = scraper.scrape().await?;
        let polls = scrape.value("cekura_api_requests_total{api=\"default\",outcome=\"ok\"}")?;
        scrape.require_success(WATCHES)?;
        Ok::<_, Failure>(Reading { at, cpu, polls })
    };
    tokio::time::sleep(WARM_UP).await;
    let before = read().await?;
    tokio::time::sleep(WINDOW).await;
    read().await?.since(&before)
}

async fn bare(nginx: &Nginx) -> Result<Cost, Failure> {
    let mut bare = BareLoop::start(&target(nginx))?;
    tokio::time::sleep(WARM_UP).await;
    let before = Reading { at: Instant::now(), cpu: bare.cpu()?, polls: bare.polls().await? };
    tokio::time::sleep(WINDOW).await;
    Reading { at: Instant::now(), cpu: bare.cpu()?, polls: bare.polls().await? }.since(&before)
}

async fn probing(nginx: &Nginx, blackbox: &Blackbox) -> Result<Cost, Failure> {
    let mut probing = blackbox.probe(&target(nginx));
    tokio::time::sleep(WARM_UP).await;
    let before = Reading { at: Instant::now(), cpu: blackbox.cpu()?, polls: probing.probes()? };
    tokio::time::sleep(WINDOW).await;
    Reading { at: Instant::now(), cpu: blackbox.cpu()?, polls: probing.probes()? }.since(&before)
}

/// What the exporter asks for, for one watch.
fn target(nginx: &Nginx) -> String {
    let url = nginx.url(Tasks::InProgress);
    format!(
        "{url}/test_framework/v2/aiagents/1/toggle-mock-tools-progress/\
         ?progress_id=6f0c1f6e-8d1c-4f0e-9f8e-000000000000"
    )
}

// === impl Reading ===

impl Reading {
    fn since(&self, before: &Self) -> Result<Cost, Failure> {
        let polls = number(self.polls - before.polls)?;
        if polls == 0.0 {
            return Err("Nothing was polled.".into());
        }
        Ok(Cost {
            per_second: polls / (self.at - before.at).as_secs_f64(),
            cpu: self.cpu.since(&before.cpu).as_secs_f64() * 1000.0 / polls,
        })
    }
}
