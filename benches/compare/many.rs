//! How 100,000 watches are borne.

use std::fs;
use std::time::Duration;

use crate::harness::{Buckets, Exporter, Failure, Nginx, Scraper, Site, Tasks, folder, watch_list};
use crate::lines::{LAG, READY_CONFIGURED, READY_FILE, Row, SCRAPE_MANY, SCRAPE_MANY_BUSY};

const WATCHES: u32 = 100_000;

/// Ten thousand are due in each second.
const POLLING: &str = "min_interval: 10s, max_interval: 10s";

/// The same as a time. It is also how long the lag is measured in a round, so that each watch is due
/// once.
const INTERVAL: Duration = Duration::from_secs(10);

/// Scrapes in a round; their median is its figure.
const SCRAPES: usize = 3;

/// The watch file that has all of them.
const FILE: &str = "watches.yaml";

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let (mut configured, mut file) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        configured.push(ready_configured(nginx).await?);
        file.push(ready_file(nginx).await?);
    }
    let mut rows = vec![Row::new(&READY_CONFIGURED, configured, vec![]), Row::new(&READY_FILE, file, vec![])];
    rows.extend(polled(nginx, rounds).await?);
    rows.push(finished(nginx, rounds).await?);
    Ok(rows)
}

// === Starting ===

async fn ready_configured(nginx: &Nginx) -> Result<f64, Failure> {
    let site = Site::start(&nginx.watching(Tasks::InProgress, POLLING, WATCHES)).await?;
    let ready = site.exporter.ready().await?;
    require_watches(&site.exporter, "config").await?;
    Ok(ready.as_secs_f64())
}

async fn ready_file(nginx: &Nginx) -> Result<f64, Failure> {
    let polled = nginx.polled(Tasks::InProgress, POLLING, BUDGET);
    let folder = folder(&format!("{polled}watch_files: [{FILE}]\n"))?;
    fs::write(folder.path().join(FILE), watch_list::entries(WATCHES))?;
    let exporter = Exporter::start(folder.path(), &[]).await?;
    let ready = exporter.ready().await?;
    require_watches(&exporter, "file").await?;
    Ok(ready.as_secs_f64())
}

/// It must have all watches from there when it says that it is ready.
async fn require_watches(exporter: &Exporter, source: &str) -> Result<(), Failure> {
    let scrape = Scraper::new(exporter, reqwest::Client::builder())?.scrape().await?;
    match scrape.value(&format!("cekura_exporter_watches{{source=\"{source}\"}}"))? {
        WATCHES => Ok(()),
        watches => Err(format!("There are {watches} watches and not {WATCHES}.").into()),
    }
}

// === Polling ===

/// The lag, and what scrapes take, while polls are due evenly.
async fn polled(nginx: &Nginx, rounds: usize) -> Result<[Row; 2], Failure> {
    let site = evenly_polled(nginx).await?;
    let (mut lags, mut scrapes) = (Vec::new(), Vec::new());
    let (mut polls, mut bounds) = (0.0, (0.0, 0.0));
    for _ in 0..rounds {
        let before = lag(&site).await?;
        tokio::time::sleep(INTERVAL).await;
        let window = lag(&site).await?.since(&before);
        lags.push(window.quantile(0.99));
        (polls, bounds) = (window.count() / INTERVAL.as_secs_f64(), window.bounds(0.99));
        scrapes.push(site.median_scrape(SCRAPES).await?);
        // What the scrapes held up is over before the lag is measured again.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (lower, upper) = bounds;
    let note = format!("{polls:.0} polls/s, last within {:.1} to {:.1} ms", lower * 1000.0, upper * 1000.0);
    Scraper::new(&site.exporter, reqwest::Client::builder())?.scrape().await?.require_success(WATCHES)?;
    Ok([Row::new(&LAG, lags, vec![]).note(note), Row::new(&SCRAPE_MANY_BUSY, scrapes, vec![])])
}

/// A first round of polls is as fast as the budget lets it be, and begins with a burst of one
/// second's worth; and how it goes, so go all that follow. So it begins with next to no budget, goes
/// on with one that spreads it over the interval, and after that the budget is put out of the way.
async fn evenly_polled(nginx: &Nginx) -> Result<Site, Failure> {
    let list = watch_list::entries(WATCHES);
    let with_budget = |budget: &str| {
        let polled = nginx.polled(Tasks::InProgress, POLLING, budget);
        format!("{polled}watches:\n{list}")
    };
    let before = nginx.requests().await?;
    let site = Site::start(&with_budget("1")).await?;
    site.exporter.ready().await?;
    site.reload(&with_budget("10000")).await?;
    nginx.reaches(before + u64::from(WATCHES)).await?;
    site.reload(&with_budget(BUDGET)).await?;
    // What the reload held up is over when all were polled once more.
    tokio::time::sleep(INTERVAL).await;
    Ok(site)
}

/// A budget that holds nothing back.
const BUDGET: &str = "1000000";

/// The lag so far. It comes before the series of watches, which are not waited for, because to send
/// them would take longer than the lag that is measured.
async fn lag(site: &Site) -> Result<Buckets, Failure> {
    let text = site.connect().await?.scrape_until("cekura_exporter_poll_lag_seconds_count").await?;
    Buckets::of(text.lines())
}

// === Scraping ===

/// What scrapes take when nothing is polled.
async fn finished(nginx: &Nginx, rounds: usize) -> Result<Row, Failure> {
    let configuration = nginx.watching(Tasks::Completed, POLLING, WATCHES);
    let site = Site::polled_once(nginx, &configuration, WATCHES).await?;
    let mut scrapes = Vec::new();
    for _ in 0..rounds {
        scrapes.push(site.median_scrape(SCRAPES).await?);
    }
    Ok(Row::new(&SCRAPE_MANY, scrapes, vec![]))
}
