//! How soon the watches of a replica that ends are polled by the others.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::api::EndlessTasks;
use crate::fleet::{BUDGET, Fleet, INTERVAL, TICK, database, ended, large};
use crate::harness::{Failure, Table, goal};
use crate::test_harness::Postgres;

/// How soon the first watch should be polled.
const GOAL: Duration = Duration::from_secs(2);

/// How long it may take until all are.
const ALL_LIMIT: Duration = Duration::from_mins(4);

/// How long is waited, beyond a third of the lease, until all who live have renewed their leases.
const RENEWED: Duration = Duration::from_secs(2);

/// When the watches of a replica were polled by others.
struct Takeover {
    watches: usize,
    /// When nobody else owned them any more.
    lost: Instant,
    first: Instant,
    all: Instant,
}

pub(crate) async fn measure(watches: u32) -> Result<Table, Failure> {
    let mut table = Table::new(&format!("takeovers, {watches} watches, polled each {INTERVAL:?}, with {BUDGET}"));
    let ((postgres, url), api) = (database().await, EndlessTasks::start(watches).await?);
    let mut fleet = large(url, &api, watches).await?;
    every_watch_is_polled(&api).await?;
    let stopped = take_over(&mut fleet, &postgres, &api, 2, Signal::TERM).await?;
    table.row("SIGTERM, one of three", stopped.figures());
    fleet.shared().await?;
    let killed = take_over(&mut fleet, &postgres, &api, 1, Signal::KILL).await?;
    table.row("kill -9, one of two", killed.figures());
    Ok(table)
}

/// Waits until every watch was polled by the replica that owns it since the replicas share everything.
async fn every_watch_is_polled(api: &EndlessTasks) -> Result<(), Failure> {
    let since = Instant::now();
    while !api.polls().all(|poll| poll.is_some_and(|poll| poll.at > since)) {
        if since.elapsed() > ALL_LIMIT {
            return Err(format!("Not all watches were polled within {ALL_LIMIT:?}.").into());
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Ends a replica, and waits until the others have polled all of its watches.
async fn take_over(
    fleet: &mut Fleet,
    postgres: &Postgres,
    api: &EndlessTasks,
    number: usize,
    signal: Signal,
) -> Result<Takeover, Failure> {
    let owned: Vec<_> = api.polls().map(|poll| poll.is_some_and(|poll| poll.replica == number)).collect();
    let (process, lease) = (fleet.process(number)?, fleet.lease());
    let sent = Instant::now();
    fleet.signal(number, signal)?;
    let others = async {
        let mut first = None;
        loop {
            let polls = || api.polls().zip(&owned).filter_map(|(poll, owned)| poll.filter(|_| *owned));
            first = first.or_else(|| polls().filter(|poll| poll.replica != number).map(|poll| poll.at).min());
            if let Some(first) = first
                && polls().all(|poll| poll.replica != number)
            {
                return Ok::<_, Failure>((first, Instant::now()));
            }
            if sent.elapsed() > ALL_LIMIT + lease {
                return Err(format!("Not all watches were taken over within {ALL_LIMIT:?}.").into());
            }
            tokio::time::sleep(TICK).await;
        }
    };
    let lost = async {
        if signal == Signal::KILL {
            // By then, its lease is the one that ends first.
            tokio::time::sleep(lease / 3 + RENEWED).await;
            expiry(postgres).await
        } else {
            Ok(sent)
        }
    };
    let (others, lost) = tokio::join!(others, lost);
    let (first, all) = others?;
    ended(process, ALL_LIMIT).await?;
    fleet.kill(number);
    Ok(Takeover { watches: owned.into_iter().filter(|owned| *owned).count(), lost: lost?, first, all })
}

/// When the first lease ends.
async fn expiry(postgres: &Postgres) -> Result<Instant, Failure> {
    let sql = "SELECT extract(epoch FROM min(expires) - clock_timestamp()) FROM cekura_exporter.replicas";
    let asked = Instant::now();
    let rows = postgres.query(sql).await;
    let left: f64 = rows.first().and_then(|row| row.first()).ok_or("There is no replica in the database.")?.parse()?;
    let left = Duration::try_from_secs_f64(left).map_err(|_| "The lease of a replica has ended too soon.")?;
    Ok(asked + left)
}

// === impl Takeover ===

impl Takeover {
    fn figures(&self) -> String {
        let first = self.first.saturating_duration_since(self.lost);
        let all = self.all - self.first;
        format!(
            "{} watches; the first poll after {first:.2?} (goal {GOAL:?}: {}), all polled {all:.1?} later (goal \
             {INTERVAL:?}: {})",
            self.watches,
            goal(first <= GOAL),
            goal(all <= INTERVAL)
        )
    }
}
