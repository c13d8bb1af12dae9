//! Replicas that share a database.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::api::{self, EndlessTasks};
use crate::harness::{self, Connection, Exporter, Failure, watch_list};
use crate::test_harness::Postgres;

/// How many replicas there are.
pub(crate) const REPLICAS: usize = 3;

/// How long the replicas may take to share everything.
const SHARE_LIMIT: Duration = Duration::from_mins(3);

/// The default lease.
const LEASE: Duration = Duration::from_secs(15);

/// The budget and the interval of many watches. Polling all of them takes two fifths of the budget.
pub(crate) const BUDGET: &str = "requests_per_second: 4000, max_in_flight: 64";
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);

/// How often something is asked for that is waited for.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// What replicas are configured with.
pub(crate) struct Configuration {
    pub(crate) database: String,
    pub(crate) lease: Duration,
    pub(crate) api: SocketAddr,
    /// What the poller may send, and how often it polls a watch.
    pub(crate) budget: &'static str,
    pub(crate) polling: &'static str,
    /// The entries of the list of watches.
    pub(crate) watches: String,
}

/// Replicas by their numbers. Some may not run. Dropping it kills those that do.
pub(crate) struct Fleet {
    configuration: Configuration,
    replicas: [Option<Replica>; REPLICAS],
}

/// A running replica.
pub(crate) struct Replica {
    pub(crate) exporter: Exporter,
    _folder: TempDir,
}

/// What a replica says about itself in its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    replicas: u32,
    owned: u32,
    database_up: bool,
}

/// A PostgreSQL on disk, and its URL.
pub(crate) async fn database() -> (Postgres, String) {
    let postgres = Postgres::with().durable().start().await;
    let url = postgres.url();
    (postgres, url)
}

/// Replicas with few watches, which they poll each second.
pub(crate) async fn small(
    database: String,
    lease: Duration,
    api: &EndlessTasks,
    watches: u32,
) -> Result<Fleet, Failure> {
    Fleet::start(Configuration {
        database,
        lease,
        api: api.address(),
        budget: "requests_per_second: 1000, max_in_flight: 16",
        polling: "min_interval: 1s, max_interval: 1s",
        watches: watch_list::entries(watches),
    })
    .await
}

/// Replicas with many watches, whose tasks are in progress.
pub(crate) async fn large(database: String, api: &EndlessTasks, watches: u32) -> Result<Fleet, Failure> {
    Fleet::start(Configuration {
        database,
        lease: LEASE,
        api: api.address(),
        budget: BUDGET,
        polling: "min_interval: 1m, max_interval: 1m",
        watches: watch_list::entries(watches),
    })
    .await
}

// === impl Configuration ===

impl Configuration {
    /// The text of the configuration of a replica. They differ in the key of the API, so that it knows who polls.
    fn text(&self, replica: usize) -> String {
        let Self { database, lease, api, budget, polling, watches } = self;
        let key = api::key(replica);
        let watches = if watches.is_empty() { String::new() } else { format!("watches:\n{watches}") };
        format!(
            "apis:\n  default: {{base_url: 'http://{api}', api_key: {key}, {budget}}}\n\
             polling: {{{polling}}}\n\
             database: {{url: '{database}', lease: {}ms}}\n\
             registrations: {{enabled: true, max: 200000}}\n{watches}",
            lease.as_millis()
        )
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts all replicas, and waits until they share everything.
    pub(crate) async fn start(configuration: Configuration) -> Result<Self, Failure> {
        let mut fleet = Self { configuration, replicas: [const { None }; REPLICAS] };
        for number in 0..REPLICAS {
            fleet.start_replica(number).await?;
        }
        fleet.shared().await?;
        Ok(fleet)
    }

    pub(crate) fn lease(&self) -> Duration {
        self.configuration.lease
    }

    /// Starts a replica that does not run, and waits until it listens.
    pub(crate) async fn start_replica(&mut self, number: usize) -> Result<(), Failure> {
        let folder = harness::folder(&self.configuration.text(number))?;
        let exporter = Exporter::start(folder.path(), &[]).await?;
        self.replicas[number] = Some(Replica { exporter, _folder: folder });
        Ok(())
    }

    /// Sends a signal to a replica.
    pub(crate) fn signal(&self, number: usize, signal: Signal) -> Result<(), Failure> {
        self.replica(number)?.exporter.signal(signal)
    }

    /// Kills a replica if it still runs.
    pub(crate) fn kill(&mut self, number: usize) {
        self.replicas[number] = None;
    }

    fn replica(&self, number: usize) -> Result<&Replica, Failure> {
        self.replicas[number].as_ref().ok_or_else(|| format!("The replica {number} does not run.").into())
    }

    /// The addresses of the replicas that run, with their numbers.
    pub(crate) fn addresses(&self) -> Vec<(usize, SocketAddr)> {
        let running = self.replicas.iter().enumerate();
        running.filter_map(|(number, replica)| Some((number, replica.as_ref()?.exporter.address))).collect()
    }

    /// The memory of each replica that is resident, in bytes.
    pub(crate) fn resident(&self) -> Result<Vec<u64>, Failure> {
        self.replicas.iter().flatten().map(|replica| replica.exporter.resident()).collect()
    }

    /// The id of the process of a replica.
    pub(crate) fn process(&self, number: usize) -> Result<u32, Failure> {
        Ok(self.replica(number)?.exporter.id())
    }

    pub(crate) fn address(&self, number: usize) -> Result<SocketAddr, Failure> {
        Ok(self.replica(number)?.exporter.address)
    }

    /// Waits until the replicas that run share everything, and no others.
    pub(crate) async fn shared(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + SHARE_LIMIT;
        let addresses = self.addresses();
        loop {
            let mut standings = Vec::new();
            for (_, address) in &addresses {
                standings.push(Standing::of(*address).await?);
            }
            let is_settled = |standing: &Standing| {
                usize::try_from(standing.replicas).ok() == Some(addresses.len())
                    && standing.owned > 0
                    && standing.database_up
            };
            if standings.iter().all(is_settled) && standings.iter().map(|standing| standing.owned).sum::<u32>() == 64 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(
                    format!("The replicas did not share everything within {SHARE_LIMIT:?}: {standings:?}").into()
                );
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

// === impl Standing ===

impl Standing {
    async fn of(address: SocketAddr) -> Result<Self, Failure> {
        // What is exposed of toggles comes after that, and may be long.
        let text = Connection::open(address).await?.scrape_until("cekura_toggle_").await?;
        let value = |series: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
            value.ok_or_else(|| format!("A scrape has no {series}."))
        };
        Ok(Self {
            replicas: value("cekura_exporter_replicas")?,
            owned: value("cekura_exporter_shards{state=\"owned\"}")?,
            database_up: value("cekura_exporter_database_up")? == 1,
        })
    }
}

/// A client for requests that take no longer than this.
pub(crate) fn client(limit: Duration) -> Result<reqwest::Client, Failure> {
    // It fails if it was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().timeout(limit).build()?)
}

/// Everything that a replica exposes.
pub(crate) async fn scrape(address: SocketAddr) -> Result<String, Failure> {
    let mut text = Vec::new();
    let status = Connection::open(address).await?.get("/metrics", "", |piece| text.extend_from_slice(piece)).await?;
    if status != 200 {
        return Err(format!("A scrape was answered with {status}.").into());
    }
    Ok(String::from_utf8(text)?)
}

/// What these replicas expose, asked at the same time; `None` for those that do not answer within this time.
pub(crate) async fn scrapes(addresses: &[(usize, SocketAddr)], limit: Duration) -> Vec<(usize, Option<String>)> {
    let ask = |(number, address): (usize, SocketAddr)| async move {
        (number, tokio::time::timeout(limit, scrape(address)).await.ok().and_then(Result::ok))
    };
    addresses.iter().copied().map(ask).collect::<JoinSet<_>>().join_all().await
}

/// The names of the toggles that are exposed.
pub(crate) fn toggles(text: &str) -> HashSet<&str> {
    text.lines().filter(|line| line.starts_with("cekura_toggle_info{")).filter_map(toggle_of).collect()
}

/// The name of the toggle that a series is of.
pub(crate) fn toggle_of(series: &str) -> Option<&str> {
    series.split_once("toggle=\"")?.1.split('"').next()
}

/// The value of a series.
pub(crate) fn value_of(series: &str) -> Option<u32> {
    series.rsplit_once(' ')?.1.parse().ok()
}

/// Waits until a process has ended, at most for this time.
pub(crate) async fn ended(process: u32, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let stat = format!("/proc/{process}/stat");
    // Nobody has waited for it, so it stays as a zombie.
    while fs::read_to_string(&stat)?.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z')) {
        if Instant::now() > deadline {
            return Err(format!("A replica did not end within {limit:?}.").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Durations, with the most of them.
pub(crate) fn figures(times: &[Duration], goal: Duration) -> String {
    let most = times.iter().max().copied().unwrap_or_default();
    let each: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    format!("{} s (goal {:.1} s: {})", each.join(", "), goal.as_secs_f64(), harness::goal(most <= goal))
}
