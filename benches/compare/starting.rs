//! How long starting takes with few watches, and how large the program is.

use crate::harness::{Failure, Nginx, PROGRAM_FILE, Site, Tasks, number};
use crate::lines::{READY, Row, SIZE};

/// Starts that are measured at least. They are quick.
const STARTS: usize = 11;

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let size = number(std::fs::metadata(PROGRAM_FILE)?.len())?;
    let configuration = nginx.watching(Tasks::InProgress, "", 10);
    let mut ready = Vec::new();
    for _ in 0..rounds.max(STARTS) {
        ready.push(Site::start(&configuration).await?.exporter.ready().await?.as_secs_f64());
    }
    Ok(vec![Row::new(&SIZE, vec![size], vec![]), Row::new(&READY, ready, vec![])])
}
