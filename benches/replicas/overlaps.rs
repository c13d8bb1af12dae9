//! For how long two replicas expose the same watch.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::api::EndlessTasks;
use crate::fleet::{self, Fleet, REPLICAS, database, ended, scrapes, toggles};
use crate::harness::{Failure, Table, goal};

/// The shortest lease, so that the goal is the hardest.
const LEASE: Duration = Duration::from_secs(3);

const WATCHES: u32 = 300;

/// How often each of these happens.
const ROUNDS: usize = 5;

/// How often all replicas are scraped.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a replica stands still.
const PAUSE: Duration = LEASE.saturating_mul(2);

const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Scrapes all replicas until it is dropped.
struct Observer {
    /// The replicas that run, as far as anybody may know.
    addresses: Arc<Mutex<Vec<(usize, SocketAddr)>>>,
    seen: Arc<Mutex<Overlaps>>,
    observing: JoinHandle<()>,
}

/// What was exposed twice.
#[derive(Default)]
struct Overlaps {
    rounds: u32,
    /// Scrapes that were not answered in time.
    unanswered: u32,
    /// The toggles that two replicas exposed in the last round, and when that was first seen.
    since: HashMap<String, Instant>,
    /// All that ever were.
    toggles: HashSet<String>,
    longest: Duration,
}

pub(crate) async fn measure() -> Result<Table, Failure> {
    let mut table = Table::new(&format!(
        "{WATCHES} watches during {ROUNDS} times SIGTERM, kill -9 and SIGSTOP of {PAUSE:?}, with a lease of {LEASE:?}"
    ));
    let ((_postgres, url), api) = (database().await, EndlessTasks::start(WATCHES).await?);
    let mut fleet = fleet::small(url, LEASE, &api, WATCHES).await?;
    let observer = Observer::start(&fleet);
    let mut by_signal = Vec::new();
    for (name, signal) in [("SIGTERM", Signal::TERM), ("kill -9", Signal::KILL), ("SIGSTOP", Signal::STOP)] {
        for round in 0..ROUNDS {
            disturb(&mut fleet, &observer, round % REPLICAS, signal).await?;
        }
        by_signal.push((name, observer.take()));
    }
    let limit = LEASE + INTERVAL;
    for (name, Overlaps { rounds, unanswered, toggles, longest, .. }) in by_signal {
        table.row(
            name,
            format!(
                "exposed twice for at most {longest:.2?} (goal {limit:?}: {}), {} watches; {rounds} rounds, {unanswered} \
                 scrapes unanswered",
                goal(longest <= limit),
                toggles.len()
            ),
        );
    }
    Ok(table)
}

/// Sends a signal to a replica, and waits until it shares everything with the others again.
async fn disturb(fleet: &mut Fleet, observer: &Observer, number: usize, signal: Signal) -> Result<(), Failure> {
    let process = fleet.process(number)?;
    fleet.signal(number, signal)?;
    if signal == Signal::STOP {
        tokio::time::sleep(PAUSE).await;
        fleet.signal(number, Signal::CONT)?;
    } else {
        ended(process, STOP_LIMIT).await?;
        fleet.kill(number);
        observer.set(fleet);
        // The others take over what it owned before it comes back.
        tokio::time::sleep(LEASE).await;
        fleet.start_replica(number).await?;
        observer.set(fleet);
    }
    fleet.shared().await
}

// === impl Observer ===

impl Observer {
    fn start(fleet: &Fleet) -> Self {
        let addresses = Arc::new(Mutex::new(fleet.addresses()));
        let seen: Arc<Mutex<Overlaps>> = Arc::default();
        let observing = tokio::spawn(observe(addresses.clone(), seen.clone()));
        Self { addresses, seen, observing }
    }

    fn set(&self, fleet: &Fleet) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = fleet.addresses();
    }

    /// What was seen since this was last called.
    fn take(&self) -> Overlaps {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.observing.abort();
    }
}

async fn observe(addresses: Arc<Mutex<Vec<(usize, SocketAddr)>>>, seen: Arc<Mutex<Overlaps>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let texts = scrapes(&addresses, INTERVAL).await;
        seen.lock().unwrap_or_else(PoisonError::into_inner).add(&texts);
    }
}

// === impl Overlaps ===

impl Overlaps {
    /// Adds a round of scrapes.
    fn add(&mut self, texts: &[(usize, Option<String>)]) {
        let now = Instant::now();
        self.rounds += 1;
        let (mut once, mut twice) = (HashSet::new(), HashSet::new());
        for (_, text) in texts {
            let Some(text) = text else {
                self.unanswered += 1;
                continue;
            };
            twice.extend(toggles(text).into_iter().filter(|toggle| !once.insert(toggle.to_owned())));
        }
        self.since.retain(|toggle, _| twice.contains(&**toggle));
        for toggle in twice {
            self.toggles.insert(toggle.to_owned());
            let since = *self.since.entry(toggle.to_owned()).or_insert(now);
            self.longest = self.longest.max(now - since);
        }
    }
}
