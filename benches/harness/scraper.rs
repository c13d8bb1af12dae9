//! Who scrapes.

use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, Instant};

use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode};

use super::{Exporter, Failure};

/// How long a scrape may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who scrapes.
#[derive(Clone)]
pub(crate) struct Scraper {
    http: Client,
    url: String,
}

/// One answer of `/metrics`.
pub(crate) struct Scrape {
    pub(crate) took: Duration,
    pub(crate) text: String,
}

// === impl Scraper ===

impl Scraper {
    pub(crate) fn new(exporter: &Exporter, client: ClientBuilder) -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = client.no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { http, url: format!("http://{}/metrics", exporter.address) })
    }

    /// A request of the metrics, to which more can be added.
    pub(crate) fn request(&self) -> RequestBuilder {
        self.http.get(&self.url)
    }

    pub(crate) async fn scrape(&self) -> Result<Scrape, Failure> {
        let mut text = Vec::new();
        let took = receive(self.request(), &mut text).await?;
        Ok(Scrape { took, text: String::from_utf8(text)? })
    }
}

/// Sends a request and takes the whole answer, whose status must be 200; how long that took.
pub(crate) async fn receive(request: RequestBuilder, body: &mut impl Write) -> Result<Duration, Failure> {
    let started = Instant::now();
    let mut response = request.send().await?;
    if response.status() != StatusCode::OK {
        return Err(format!("A scrape was answered with {}.", response.status()).into());
    }
    while let Some(chunk) = response.chunk().await? {
        body.write_all(&chunk)?;
    }
    Ok(started.elapsed())
}

// === impl Scrape ===

impl Scrape {
    pub(crate) fn series(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.starts_with('#'))
    }

    /// The value of the series that is written so.
    pub(crate) fn value<T: FromStr>(&self, series: &str) -> Result<T, Failure> {
        let found = self.series().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.ok_or_else(|| format!("A scrape has no {series}.").into())
    }

    /// Every watch must show a valid answer, and no poll may have failed.
    pub(crate) fn require_success(&self, watches: u32) -> Result<(), Failure> {
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
