//! The exporter, or several replicas of it that share a database.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::exporter::Exporter;
use super::harness::Failure;
use super::plan::Ending;

/// How long the replicas may take to share everything after the start.
const SHARE_LIMIT: Duration = Duration::from_mins(1);

/// How often a condition is checked.
const LOOK: Duration = Duration::from_millis(100);

/// The number of shards that there are.
const SHARDS: u32 = 64;

/// Exporters with the same configuration in the same folder.
pub(super) struct Fleet {
    exporters: Vec<Exporter>,
    /// Whose turn it is to take a registration.
    next: usize,
    /// Whose turn it is to be ended.
    victim: usize,
}

// === impl Fleet ===

impl Fleet {
    /// Starts so many, and waits until they share everything.
    pub(super) async fn start(folder: &Path, count: usize, http: &reqwest::Client) -> Result<Self, Failure> {
        let mut exporters = Vec::new();
        for number in 0..count {
            let log = if count == 1 { "exporter.log".to_owned() } else { format!("exporter-{number}.log") };
            exporters.push(Exporter::start(folder, &log, http.clone()).await?);
        }
        let fleet = Self { exporters, next: 0, victim: 0 };
        if count > 1 {
            fleet.shared().await?;
        }
        Ok(fleet)
    }

    /// Whether there is only one, which shares nothing.
    pub(super) fn is_single(&self) -> bool {
        self.exporters.len() == 1
    }

    /// Whether none is ended.
    pub(super) fn is_complete(&self) -> bool {
        self.exporters.iter().all(Exporter::is_running)
    }

    /// The addresses of all of them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.exporters.iter().map(|exporter| exporter.address).collect()
    }

    /// The addresses of all of them for the next registration. The first one is that of another replica that runs each
    /// time.
    pub(super) fn addresses_in_turn(&mut self) -> Vec<SocketAddr> {
        let count = self.exporters.len();
        let mut turns = (0..count).map(|step| (self.next + step) % count);
        let first = turns.find(|number| self.exporters[*number].is_running()).unwrap_or(self.next);
        self.next = (first + 1) % count;
        let mut addresses = self.addresses();
        addresses.rotate_left(first);
        addresses
    }

    /// Whose turn it is to be ended.
    pub(super) fn next_victim(&mut self) -> usize {
        let victim = self.victim;
        self.victim = (victim + 1) % self.exporters.len();
        victim
    }

    pub(super) async fn end(&mut self, number: usize, how: Ending) -> Result<(), Failure> {
        self.exporters[number].end(how).await
    }

    pub(super) async fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        self.exporters[number].start_again().await
    }

    /// Kills one that runs.
    pub(super) async fn kill_one(&mut self) -> Result<(), Failure> {
        match self.exporters.iter_mut().find(|exporter| exporter.is_running()) {
            Some(exporter) => exporter.end(Ending::Killed).await,
            None => Ok(()),
        }
    }

    /// Kills all that run.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        for exporter in self.exporters.iter_mut().filter(|exporter| exporter.is_running()) {
            exporter.end(Ending::Killed).await?;
        }
        Ok(())
    }

    /// Has all that run read their configuration again. Whether all of them accepted that.
    pub(super) async fn reload(&self) -> Result<bool, Failure> {
        let mut accepted = HashSet::new();
        for exporter in self.running() {
            accepted.insert(exporter.reload().await);
        }
        match accepted.len() {
            0 | 1 => Ok(accepted.contains(&true)),
            _ => Err("Some replicas accepted a configuration that others refused.".into()),
        }
    }

    /// The ids of the agents that are exposed by others than this one.
    pub(super) async fn agents_of_others(&self, number: usize) -> Result<HashSet<u32>, Failure> {
        let mut agents = HashSet::new();
        let running = self.exporters.iter().enumerate().filter(|(_, exporter)| exporter.is_running());
        for (_, exporter) in running.filter(|(other, _)| *other != number) {
            agents.extend(exporter.agents().await?);
        }
        Ok(agents)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Exporter> {
        self.exporters.iter().filter(|exporter| exporter.is_running())
    }

    /// Waits until each owns a part of the shards, and all shards have an owner.
    async fn shared(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + SHARE_LIMIT;
        loop {
            let mut owned = Vec::new();
            for exporter in self.running() {
                owned.push(shards_owned(&exporter.scrape().await?));
            }
            if owned.iter().all(|count| *count > 0) && owned.iter().sum::<u32>() == SHARDS {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("The replicas did not share the shards: {owned:?}.").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many shards the replica with these metrics owns.
fn shards_owned(metrics: &str) -> u32 {
    let series = "cekura_exporter_shards{state=\"owned\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or_default()
}
