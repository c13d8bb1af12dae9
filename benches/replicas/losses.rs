//! Whether anything that was acknowledged is lost, or counted twice, while replicas are killed and the database fails
//! over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::api::ShortTasks;
use crate::fleet::{Configuration, Fleet, REPLICAS, TICK, client, scrapes, toggle_of, value_of};
use crate::harness::{Failure, Table, goal};
use crate::test_harness::Postgres;

/// The shortest lease, so that there are as many takeovers as can be.
const LEASE: Duration = Duration::from_secs(3);

/// How often a replica is killed.
const KILLS: u32 = 20;

/// After how many kills the database fails over each time.
const FAIL_OVER_EVERY: u32 = 6;

/// How long before a replica is killed, and how long until it is started again, in milliseconds.
const BEFORE: std::ops::Range<u64> = 1500..5000;
const UNTIL_RESTART: std::ops::Range<u64> = 100..4000;

/// Who registers all the time, how many names each of them has, and how long each waits between two PUTs.
const WRITERS: u32 = 12;
const NAMES: usize = 60;
const PAUSE: Duration = Duration::from_millis(40);

/// How long a PUT may take.
const PUT_LIMIT: Duration = Duration::from_secs(10);

/// How often all replicas are scraped, and how long that may take.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(500);
const SCRAPE_LIMIT: Duration = Duration::from_secs(2);

/// How long everything may take to be known and finished at the end.
const END_LIMIT: Duration = Duration::from_mins(2);

/// What writers and observers need to know of the replicas.
struct Shared {
    /// Where they are, each process with a number of its own.
    addresses: Mutex<Vec<(usize, SocketAddr)>>,
    is_over: AtomicBool,
    api: ShortTasks,
}

/// Registers runs at any of the replicas.
struct Writer {
    number: u32,
    shared: Arc<Shared>,
    http: Client,
    names: Vec<Name>,
    /// PUTs so far, which tell its runs apart.
    puts: u32,
    acknowledged: u32,
}

/// A name that a writer registers.
#[derive(Default)]
struct Name {
    /// The last PUT that was acknowledged.
    acknowledged: Option<u32>,
    /// The PUT that was not, if there is one. It may have been stored, and the name is not used any more.
    unclear: Option<u32>,
}

/// The runs that were counted, as far as anybody saw.
#[derive(Default)]
struct Counted {
    /// By process, at its last scrape.
    by_process: HashMap<usize, u32>,
    /// How many runs more than finished were counted at most, by all processes together, and by a toggle.
    too_many: u32,
    too_many_of_toggle: u32,
    /// The runs that each toggle counted at most.
    by_toggle: HashMap<String, u32>,
    scrapes: u32,
}

#[derive(Deserialize)]
struct List {
    toggles: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    progress_id: String,
    status: Option<String>,
}

/// A cluster, its synchronous standby, and how often it failed over.
struct Databases {
    primary: Postgres,
    standby: Postgres,
    failovers: u32,
}

pub(crate) async fn measure() -> Result<Table, Failure> {
    let mut table = Table::new(&format!(
        "{KILLS} kills of a replica and failovers of the database amid PUTs of {WRITERS} writers, with a lease of {LEASE:?}"
    ));
    let mut databases = Databases::start().await;
    let api = ShortTasks::start().await?;
    let mut fleet = Fleet::start(Configuration {
        database: databases.url(),
        lease: LEASE,
        api: api.address(),
        budget: "requests_per_second: 3000, max_in_flight: 64",
        polling: "min_interval: 200ms, max_interval: 500ms",
        watches: String::new(),
    })
    .await?;
    let shared = Arc::new(Shared { addresses: Mutex::new(fleet.addresses()), is_over: AtomicBool::new(false), api });
    let writers = (0..WRITERS).map(|number| Writer::new(number, shared.clone()));
    let writers: JoinSet<_> =
        writers.map(|writer| Ok(writer?.write())).collect::<Result<Vec<_>, Failure>>()?.into_iter().collect();
    let observing = tokio::spawn(observe(shared.clone()));

    let started = Instant::now();
    disturb(&mut fleet, &mut databases, &shared).await?;
    shared.is_over.store(true, Ordering::SeqCst);
    let took = started.elapsed();
    let writers = writers.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    fleet.shared().await?;
    let known = all_known(&fleet, &writers).await;
    let counted = join(observing).await?;

    // Nothing is only in memory: all of them are killed.
    for number in 0..REPLICAS {
        fleet.kill(number);
    }
    for number in 0..REPLICAS {
        fleet.start_replica(number).await?;
    }
    fleet.shared().await?;
    let known = known.and(all_known(&fleet, &writers).await);

    let (puts, acknowledged): (u32, u32) = writers
        .iter()
        .fold((0, 0), |(puts, acknowledged), writer| (puts + writer.puts, acknowledged + writer.acknowledged));
    let names: usize = writers.iter().map(|writer| writer.names.len()).sum();
    table.row("over", format!("{took:.0?}, {KILLS} kills, {} failovers", databases.failovers));
    table.row("PUTs", format!("{puts}, of which {acknowledged} were acknowledged, of {names} names"));
    let lost = known.as_ref().err().map_or(0, |(lost, _)| *lost);
    table.row("acknowledged and lost", format!("{lost} (goal 0: {})", goal(lost == 0)));
    table.row("runs", shared.api.with_runs(|runs| format!("{} finished", runs.count())));
    let all: u32 = counted.by_process.values().sum();
    table.row(
        "runs_finished_total",
        format!(
            "{all} in {} processes, {} too many at most (goal 0: {})",
            counted.by_process.len(),
            counted.too_many,
            goal(counted.too_many == 0)
        ),
    );
    let mut at_end = Counted::default();
    at_end.add(&scrapes(&fleet.addresses(), END_LIMIT).await, &shared.api);
    let too_many = counted.too_many_of_toggle.max(at_end.too_many_of_toggle);
    let gone_back = at_end.less_than(&counted);
    let of_toggles: u32 = at_end.by_toggle.values().sum();
    table.row(
        "toggle_finished_total",
        format!(
            "{of_toggles} at the end, {too_many} too many at most (goal 0: {}), {gone_back} went back (goal 0: {}), {} \
             scrapes",
            goal(too_many == 0),
            goal(gone_back == 0),
            counted.scrapes
        ),
    );
    let is_good = counted.too_many == 0 && too_many == 0 && gone_back == 0;
    match known {
        Ok(()) if is_good => Ok(table),
        Ok(()) => Err(format!("{table}A run was counted twice, or not any more.").into()),
        Err((_, missing)) => Err(format!("{table}{missing}").into()),
    }
}

/// Kills replicas and starts them again, while the database fails over now and then.
async fn disturb(fleet: &mut Fleet, databases: &mut Databases, shared: &Shared) -> Result<(), Failure> {
    // The numbers of processes: those that run have the first ones.
    let mut numbers: [usize; REPLICAS] = std::array::from_fn(|number| number);
    let publish = |fleet: &Fleet, numbers: &[usize; REPLICAS]| {
        let addresses = fleet.addresses().into_iter().map(|(number, address)| (numbers[number], address));
        *lock(&shared.addresses) = addresses.collect();
    };
    for (next, kill) in (REPLICAS..).zip(1..=KILLS) {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(BEFORE))).await;
        let victim = fastrand::usize(..REPLICAS);
        fleet.kill(victim);
        publish(fleet, &numbers);
        let restart = tokio::time::sleep(Duration::from_millis(fastrand::u64(UNTIL_RESTART)));
        if kill % FAIL_OVER_EVERY == 0 {
            databases.fail_over().await;
        }
        restart.await;
        fleet.start_replica(victim).await?;
        numbers[victim] = next;
        publish(fleet, &numbers);
    }
    // What was left by the last kill is taken over.
    tokio::time::sleep(LEASE * 2).await;
    Ok(())
}

/// Scrapes all replicas until it is over and everything has been counted.
async fn observe(shared: Arc<Shared>) -> Counted {
    let mut counted = Counted::default();
    let mut ticks = tokio::time::interval(SCRAPE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Before the scrape, so that there is one after all is over.
        let is_over = shared.is_over.load(Ordering::SeqCst);
        let addresses = lock(&shared.addresses).clone();
        let texts = scrapes(&addresses, SCRAPE_LIMIT).await;
        counted.add(&texts, &shared.api);
        if is_over {
            return counted;
        }
    }
}

async fn join<T>(task: JoinHandle<T>) -> Result<T, Failure> {
    Ok(tokio::time::timeout(END_LIMIT, task).await.map_err(|_| "The scrapes did not end.")??)
}

/// Requires that all replicas list what was acknowledged, and that all of these runs have finished. How many names are
/// missing if not, and an example.
async fn all_known(fleet: &Fleet, writers: &[Writer]) -> Result<(), (usize, String)> {
    let deadline = Instant::now() + END_LIMIT;
    let mut result = Ok(());
    for (_, address) in fleet.addresses() {
        loop {
            let list = list(address).await.map_err(|failure| (1, failure.to_string()))?;
            let missing: Vec<_> = writers.iter().flat_map(|writer| writer.missing(&list)).collect();
            let Some(example) = missing.first() else { break };
            if Instant::now() > deadline {
                result = Err((missing.len(), format!("{} names are not as acknowledged: {example}", missing.len())));
                break;
            }
            tokio::time::sleep(TICK).await;
        }
    }
    result
}

async fn list(address: SocketAddr) -> Result<HashMap<String, Listed>, Failure> {
    let http = client(END_LIMIT)?;
    let body = http.get(format!("http://{address}/api/v1/toggles")).send().await?.error_for_status()?.bytes().await?;
    let List { toggles } = serde_json::from_slice(&body)?;
    Ok(toggles.into_iter().map(|listed| (listed.name.clone(), listed)).collect())
}

const FINISHED_BY_TOGGLE: &str = "cekura_toggle_finished_total{";
const FINISHED: &str = "cekura_api_runs_finished_total{";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Writer ===

impl Writer {
    fn new(number: u32, shared: Arc<Shared>) -> Result<Self, Failure> {
        let http = client(PUT_LIMIT)?;
        Ok(Self { number, shared, http, names: Vec::new(), puts: 0, acknowledged: 0 })
    }

    /// Registers until it is over.
    async fn write(mut self) -> Result<Self, Failure> {
        while !self.shared.is_over.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE).await;
            let addresses = lock(&self.shared.addresses).clone();
            let Some((_, address)) = fastrand::choice(&addresses) else { continue };
            let index = self.usable_name();
            self.puts += 1;
            let is_acknowledged = self.put(*address, index).await?;
            let name = &mut self.names[index];
            if is_acknowledged {
                name.acknowledged = Some(self.puts);
                self.acknowledged += 1;
            } else {
                name.unclear = Some(self.puts);
            }
        }
        Ok(self)
    }

    /// A name whose run is known, or a new one.
    fn usable_name(&mut self) -> usize {
        let usable: Vec<_> = (0..self.names.len()).filter(|index| self.names[*index].unclear.is_none()).collect();
        match fastrand::choice(&usable) {
            Some(index) if usable.len() >= NAMES => *index,
            _ => {
                self.names.push(Name::default());
                self.names.len() - 1
            }
        }
    }

    /// Registers a run, and returns whether that was acknowledged.
    async fn put(&self, address: SocketAddr, index: usize) -> Result<bool, Failure> {
        let (name, id) = (self.name(index), self.progress_id(index, self.puts));
        let agent = self.number as usize * 10_000 + index + 1;
        let body = json!({"agent_id": agent, "progress_id": id}).to_string();
        let request = self.http.put(format!("http://{address}/api/v1/toggles/{name}"));
        let answer = match request.header("content-type", "application/json").body(body).send().await {
            Ok(answer) => answer.status(),
            // The replica was killed.
            Err(_) => return Ok(false),
        };
        match answer {
            StatusCode::OK | StatusCode::CREATED => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            status => Err(format!("A PUT was answered with {status}.").into()),
        }
    }

    fn name(&self, index: usize) -> String {
        format!("storm{}-{index}", self.number)
    }

    fn progress_id(&self, index: usize, put: u32) -> String {
        format!("{}-{put}", self.name(index))
    }

    /// What should be listed, with a finished run, and is not.
    fn missing(&self, list: &HashMap<String, Listed>) -> Vec<String> {
        let mut missing = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let possible = name.acknowledged.into_iter().chain(name.unclear).map(|put| self.progress_id(index, put));
            let possible: Vec<_> = possible.collect();
            let listed = list.get(&self.name(index));
            let is_there = listed.is_some_and(|listed| {
                let is_finished = matches!(listed.status.as_deref(), Some("completed" | "failed"));
                possible.contains(&listed.progress_id) && is_finished
            });
            if !is_there && name.acknowledged.is_some() {
                let found = listed.map(|listed| (&listed.progress_id, &listed.status));
                missing.push(format!("{} should have one of {possible:?} and has {found:?}", self.name(index)));
            }
        }
        missing
    }
}

// === impl Counted ===

impl Counted {
    /// Adds scrapes. What has finished at the API is read after them, so it may be more than they say, but not less.
    fn add(&mut self, texts: &[(usize, Option<String>)], api: &ShortTasks) {
        let texts: Vec<_> = texts.iter().filter_map(|(process, text)| Some((*process, text.as_deref()?))).collect();
        for (process, text) in &texts {
            self.scrapes += 1;
            let counted = text.lines().filter(|line| line.starts_with(FINISHED)).filter_map(value_of).sum();
            self.by_process.insert(*process, counted);
        }
        api.with_runs(|runs| {
            let counted: u32 = self.by_process.values().sum();
            let finished = u32::try_from(runs.count()).unwrap_or(u32::MAX);
            self.too_many = self.too_many.max(counted.saturating_sub(finished));
            for (_, text) in &texts {
                let mut by_toggle: HashMap<&str, u32> = HashMap::new();
                for line in text.lines().filter(|line| line.starts_with(FINISHED_BY_TOGGLE)) {
                    let (Some(toggle), Some(value)) = (toggle_of(line), value_of(line)) else { continue };
                    *by_toggle.entry(toggle).or_default() += value;
                }
                for (toggle, counted) in by_toggle {
                    let most = self.by_toggle.entry(toggle.to_owned()).or_default();
                    *most = counted.max(*most);
                    let finished = runs.by_watch.get(toggle).copied().unwrap_or_default();
                    self.too_many_of_toggle = self.too_many_of_toggle.max(counted.saturating_sub(finished));
                }
            }
        });
    }

    /// How many toggles count less here than they did at most then.
    fn less_than(&self, earlier: &Self) -> usize {
        let now = |toggle: &str| self.by_toggle.get(toggle).copied().unwrap_or_default();
        earlier.by_toggle.iter().filter(|(toggle, most)| now(toggle) < **most).count()
    }
}

// === impl Databases ===

impl Databases {
    async fn start() -> Self {
        let primary = Postgres::with().durable().start().await;
        let standby = primary.synchronous_standby().await;
        Self { primary, standby, failovers: 0 }
    }

    fn url(&self) -> String {
        let (one, other) = (self.primary.address(), self.standby.address());
        format!("postgresql://postgres@{one},{other}/postgres?target_session_attrs=read-write")
    }

    /// Ends the primary as a power cut would, and promotes its standby. The cluster that was the primary follows it.
    async fn fail_over(&mut self) {
        self.primary.stop();
        self.standby.promote().await;
        self.failovers += 1;
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.standby.start_again_as_standby_of(&self.primary).await;
    }
}
