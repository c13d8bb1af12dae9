//! For how long nobody exposes the toggles of a replica that ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::api::EndlessTasks;
use crate::fleet::{self, Fleet, REPLICAS, TICK, database, ended, figures, scrape, scrapes, toggles};
use crate::harness::{Failure, Table};

/// The default lease.
const LEASE: Duration = Duration::from_secs(15);

/// Few enough that a scrape takes no time.
const WATCHES: u32 = 300;

/// How often each signal is sent.
const ROUNDS: usize = 3;

/// What a replica that is told to stop may leave unexposed.
const STOP_GOAL: Duration = Duration::from_secs(1);

/// What one that is killed may, beyond its lease.
const KILL_GOAL: Duration = Duration::from_secs(2);

/// How long it may take at all.
const GAP_LIMIT: Duration = Duration::from_mins(1);

pub(crate) async fn measure() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("time without an owner, of {WATCHES} watches, with a lease of {LEASE:?}"));
    let ((_postgres, url), api) = (database().await, EndlessTasks::start(WATCHES).await?);
    let mut fleet = fleet::small(url, LEASE, &api, WATCHES).await?;
    for (name, signal, goal) in [("SIGTERM", Signal::TERM, STOP_GOAL), ("kill -9", Signal::KILL, LEASE + KILL_GOAL)] {
        let mut gaps = Vec::new();
        for round in 0..ROUNDS {
            gaps.push(gap(&mut fleet, round % REPLICAS, signal).await?);
        }
        table.row(name, figures(&gaps, goal));
    }
    Ok(table)
}

/// Sends a signal to a replica, and starts it again; how long it took until the others exposed all of its toggles.
async fn gap(fleet: &mut Fleet, number: usize, signal: Signal) -> Result<Duration, Failure> {
    let text = scrape(fleet.address(number)?).await?;
    let mut missing: HashSet<&str> = toggles(&text);
    let mut others = fleet.addresses();
    others.retain(|(other, _)| *other != number);
    let process = fleet.process(number)?;
    let sent = Instant::now();
    fleet.signal(number, signal)?;
    while !missing.is_empty() {
        for (_, text) in scrapes(&others, GAP_LIMIT).await {
            let text = text.ok_or("A replica was not scraped.")?;
            for toggle in toggles(&text) {
                missing.remove(toggle);
            }
        }
        if sent.elapsed() > GAP_LIMIT {
            return Err(format!("{} toggles were not exposed within {GAP_LIMIT:?}.", missing.len()).into());
        }
        tokio::time::sleep(TICK).await;
    }
    let gap = sent.elapsed();
    ended(process, GAP_LIMIT).await?;
    fleet.kill(number);
    fleet.start_replica(number).await?;
    fleet.shared().await?;
    Ok(gap)
}
