//! What scrapes take while polls run.

use std::time::Duration;

use crate::harness::{Failure, Nginx, Scraper, Site, Tasks, percentile};
use crate::lines::{BUSY, Row, SATURATED};
use crate::polling::{SATURATING, WATCHES};

/// Scrapes in a round; of these the 99th percentile is its figure.
const SCRAPES: usize = 200;

/// The time between scrapes, so that they meet polls in all states.
const BETWEEN: Duration = Duration::from_millis(5);

/// After the first polls nothing is polled.
const IDLE: &str = "min_interval: 1h, max_interval: 1h, backoff_max: 1h";

/// With the watches that there are, ten thousand are due in each second.
const OFTEN: &str = "min_interval: 200ms, max_interval: 200ms";

/// How long polls run before scrapes are measured.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let (mut idle, mut often, mut saturated) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        idle.push(scrapes(nginx, IDLE).await?);
        often.push(scrapes(nginx, OFTEN).await?);
        saturated.push(scrapes(nginx, SATURATING).await?);
    }
    Ok(vec![Row::new(&BUSY, often, idle.clone()), Row::new(&SATURATED, saturated, idle)])
}

/// The 99th percentile of scrapes while 2,000 watches are polled so.
async fn scrapes(nginx: &Nginx, polling: &str) -> Result<f64, Failure> {
    let site = Site::polled_once(nginx, &nginx.watching(Tasks::InProgress, polling, WATCHES), WATCHES).await?;
    tokio::time::sleep(WARM_UP).await;
    let mut connection = site.connect().await?;
    let mut seconds = Vec::new();
    for _ in 0..SCRAPES {
        seconds.push(connection.scrape("").await?.seconds);
        tokio::time::sleep(BETWEEN).await;
    }
    Scraper::new(&site.exporter, reqwest::Client::builder())?.scrape().await?.require_success(WATCHES)?;
    seconds.sort_unstable_by(f64::total_cmp);
    Ok(percentile(&seconds, 99))
}
