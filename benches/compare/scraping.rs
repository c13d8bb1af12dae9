//! What scraping 100,000 series takes.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Connection, Failure, Nginx, Site, Tasks, number, spread};
use crate::lines::{self, Line, Row};
use crate::pushgateway::Pushgateway;

/// So many watches with finished runs have a hundred thousand series. A run that is finished has
/// more of them than one in progress.
const FINISHED: u32 = 5_000;

/// And so many with runs in progress.
const IN_PROGRESS: u32 = 6_670;

/// How many series all scraped programs must have.
const SERIES: RangeInclusive<usize> = 100_000..=101_000;

/// Scrapes in a round; their median is its figure.
const SCRAPES: usize = 5;

/// Header lines.
const PLAIN: &str = "";
const COMPRESSED: &str = "accept-encoding: gzip\r\n";

/// The default polling, under which a run is polled each five seconds at first.
const DEFAULT: &str = "";

/// How long the exporter runs on before it is scraped again.
const SETTLE: Duration = Duration::from_secs(1);

/// What scrapes of one program took, and how much they answered.
#[derive(Default)]
struct Figures {
    seconds: Vec<f64>,
    bytes: Vec<f64>,
}

/// What scrapes of both programs took.
#[derive(Default)]
struct Both {
    exporter: Figures,
    peer: Figures,
}

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let pushgateway = Pushgateway::start().await?;
    require_series(pushgateway.address()).await?;
    let mut rows = unchanging(nginx, &pushgateway, rounds).await?;
    rows.extend(changing(nginx, &pushgateway, rounds).await?);
    Ok(rows)
}

/// All runs are finished, so nothing is polled between scrapes.
async fn unchanging(nginx: &Nginx, pushgateway: &Pushgateway, rounds: usize) -> Result<Vec<Row>, Failure> {
    let site = Site::polled_once(nginx, &nginx.watching(Tasks::Completed, DEFAULT, FINISHED), FINISHED).await?;
    require_series(site.exporter.address).await?;
    let (mut text, mut gzip) = (Both::default(), Both::default());
    for _ in 0..rounds {
        text.exporter.add(site.exporter.address, PLAIN).await?;
        text.peer.add(pushgateway.address(), PLAIN).await?;
        gzip.exporter.add(site.exporter.address, COMPRESSED).await?;
        gzip.peer.add(pushgateway.address(), COMPRESSED).await?;
    }
    let text = text.rows(&lines::TEXT, &lines::TEXT_SIZE);
    let gzip = gzip.rows(&lines::GZIP, &lines::GZIP_SIZE);
    Ok(text.into_iter().chain(gzip).collect())
}

/// All runs are in progress, and are polled between and during scrapes. While the peer is scraped,
/// the exporter is stopped.
async fn changing(nginx: &Nginx, pushgateway: &Pushgateway, rounds: usize) -> Result<Vec<Row>, Failure> {
    let site = Site::polled_once(nginx, &nginx.watching(Tasks::InProgress, DEFAULT, IN_PROGRESS), IN_PROGRESS).await?;
    require_series(site.exporter.address).await?;
    let (mut text, mut gzip) = (Both::default(), Both::default());
    for _ in 0..rounds {
        site.exporter.signal(Signal::STOP)?;
        text.peer.add(pushgateway.address(), PLAIN).await?;
        gzip.peer.add(pushgateway.address(), COMPRESSED).await?;
        site.exporter.signal(Signal::CONT)?;
        // What became due meanwhile is polled first.
        tokio::time::sleep(SETTLE).await;
        text.exporter.add(site.exporter.address, PLAIN).await?;
        gzip.exporter.add(site.exporter.address, COMPRESSED).await?;
    }
    let text = text.rows(&lines::TEXT_CHANGING, &lines::TEXT_CHANGING_SIZE);
    let gzip = gzip.rows(&lines::GZIP_CHANGING, &lines::GZIP_CHANGING_SIZE);
    Ok(text.into_iter().chain(gzip).collect())
}

async fn require_series(address: SocketAddr) -> Result<(), Failure> {
    let mut text = Vec::new();
    Connection::open(address).await?.get("/metrics", PLAIN, |piece| text.extend_from_slice(piece)).await?;
    let series = str::from_utf8(&text)?.lines().filter(|line| !line.starts_with('#')).count();
    if SERIES.contains(&series) { Ok(()) } else { Err(format!("There are {series} series and not {SERIES:?}.").into()) }
}

// === impl Figures ===

impl Figures {
    /// Scrapes a few times on one connection.
    async fn add(&mut self, address: SocketAddr, headers: &str) -> Result<(), Failure> {
        let mut connection = Connection::open(address).await?;
        let mut scrapes = Vec::new();
        for _ in 0..SCRAPES {
            scrapes.push(connection.scrape(headers).await?);
        }
        scrapes.sort_unstable_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let (_, median, _) = spread(&scrapes);
        self.seconds.push(median.seconds);
        self.bytes.push(number(median.bytes)?);
        Ok(())
    }
}

// === impl Both ===

impl Both {
    fn rows(self, time: &'static Line, size: &'static Line) -> [Row; 2] {
        let Self { exporter, peer } = self;
        [Row::new(time, exporter.seconds, peer.seconds), Row::new(size, exporter.bytes, peer.bytes)]
    }
}
