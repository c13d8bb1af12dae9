//! How the exporter bears very many registrations: `cargo bench --bench registrations`, or some
//! parts of it only: `cargo bench --bench registrations -- start writes waiters reloads kills`.
//!
//! The program runs as a process of its own, on loopback, and polls a stand-in of the API whose
//! tasks are in progress. The figures are printed beside the goals, and missing one fails nothing.
//! An answer that is wrong does, and so does a registration that was acknowledged and is missing.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
mod harness;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use cekura_exporter::demo::simulator::{Reply, Simulator};
use cekura_exporter::store::{
    FileStore, Registration, RegistrationChange, SavedAgent, SavedAgentChange, SavedToggle, ToggleChange,
};
use cekura_exporter::toggle::{
    AgentId, ApiName, Expect, Finish, LabelName, LastAnswer, ProgressId, Run, Source, Status, Tally, Text, Timestamp,
    Toggle, ToldMocks, Watch, WatchName,
};
use harness::{Exporter, Failure, Table, folder, goal, load_average, mebibytes, percentile};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The parts, in the order in which they are measured.
const PARTS: [&str; 5] = ["start", "writes", "waiters", "reloads", "kills"];

/// As many registrations as there may be.
const MOST: u32 = 100_000;

/// Registrations in the state file before writers come.
const BEFORE: u32 = 99_000;

/// Agents that the registrations are of.
const AGENTS: u32 = 500;

/// What the poller may send. It is enough to poll each of the 40,000 unfinished runs every 40 s,
/// and leaves most of two cores to what is measured.
const BUDGET: &str = "requests_per_second: 1000, max_in_flight: 16";

/// How long the program is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

/// What starting may take.
const START_GOAL: Duration = Duration::from_secs(1);

/// Connections that write all the time.
const WRITERS: u32 = 16;

/// How long they write just after the start, when the program still has to do with that.
const FIRST: Duration = Duration::from_secs(3);

/// How long they write after that.
const REST: Duration = Duration::from_secs(10);

/// How long they write the same again.
const AGAIN: Duration = Duration::from_secs(5);

/// Of a writer's PUTs, one in so many is of a new name, as long as there is room.
const NEW_EVERY: u32 = 40;

/// What a PUT should take at most, but for one in a hundred.
const PUT_GOAL: Duration = Duration::from_millis(20);

/// Connections that wait for one run. There are as many for a second one.
const WAITERS: usize = 1000;

/// Reloads of a configuration.
const RELOADS: u32 = 1000;

/// Watches that are in the configuration that is reloaded.
const RELOADED: u32 = 100;

/// PUTs in the midst of which the program is killed.
const PUTS: u32 = 300;

/// How often it is killed.
const KILLS: u32 = 20;

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(5);

/// The API: every task is in progress, but for those that finish when told to.
struct Upstream {
    simulator: Simulator,
    polls: Arc<AtomicU64>,
    finishing: Arc<AtomicBool>,
    /// When it was first answered that the task of [`FINISHING`] is completed.
    finished: Arc<OnceLock<Instant>>,
}

/// The task that completes when that is told.
const FINISHING: &str = "finishing";

/// A connection that is kept alive, with little more than the socket.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// The list of toggles, as far as it is checked.
#[derive(Deserialize)]
struct List {
    toggles: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    progress_id: String,
}

/// Registers again and again, with names that are no other writer's.
struct Writer {
    number: u32,
    connection: Connection,
    /// PUTs so far, which also tell its progress ids apart.
    puts: u32,
    /// New names that it has registered so far.
    new: u32,
    /// What was acknowledged, by the number of the name: the last PUT.
    acknowledged: HashMap<u32, u32>,
    /// How long its PUTs of new names took in this phase, and how long the others.
    created: Vec<Duration>,
    replaced: Vec<Duration>,
}

/// The writers, what they write to, and what was measured.
struct Writing {
    table: Table,
    upstream: Upstream,
    exporter: Exporter,
    writers: Vec<Writer>,
}

/// What processes used since it was made.
struct Usage {
    since: Instant,
    polls: u64,
    exporter: f64,
    own: f64,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |parts| {
        if parts.is_empty() { measure(&PARTS.map(str::to_owned)).await } else { measure(&parts).await }
    })
}

async fn measure(parts: &[String]) -> Result<(), Failure> {
    write!(io::stdout(), "{}", machine()?)?;
    for part in parts {
        let table = match part.as_str() {
            "start" => start().await?,
            "writes" => writes().await?,
            "waiters" => waiters().await?,
            "reloads" => reloads().await?,
            "kills" => kills().await?,
            _ => return Err(format!("There is no part {part:?}. The parts are {PARTS:?}.").into()),
        };
        write!(io::stdout(), "{table}")?;
    }
    writeln!(io::stdout(), "load average at the end: {}", load_average()?)?;
    Ok(())
}

/// What the figures depend on.
fn machine() -> Result<Table, Failure> {
    const SYNCS: u64 = 200;
    let mut table = Table::new("the machine");
    table.row("cores", std::thread::available_parallelism()?);
    table.row("load average", load_average()?);
    let folder = tempfile::tempdir()?;
    let file = File::create(folder.path().join("file"))?;
    file.set_len(SYNCS * 4096)?;
    file.sync_all()?;
    let mut syncs = Vec::new();
    for page in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(&[1; 4096], page * 4096)?;
        file.sync_data()?;
        syncs.push(started.elapsed());
    }
    table.row("writing one page", quantiles(&mut syncs));
    Ok(table)
}

// === Start ===

/// How long it takes to start with as many registrations as there may be, and in how much memory.
async fn start() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("starting with {MOST} registrations, 40 % unfinished, polled with {BUDGET}"));
    let upstream = Upstream::start().await?;
    let folder = folder(&registering(&upstream, ""))?;
    prepare(folder.path(), MOST)?;
    table.row("state file", format!("{:.1} MiB", mebibytes(fs::metadata(folder.path().join("state"))?.len())));
    let (exporter, ready) = ready(folder.path()).await?;
    table.row("ready", timed(ready, START_GOAL));
    table.row("resident memory", exporter.memory()?);
    let usage = Usage::since_now(&upstream, &exporter)?;
    tokio::time::sleep(SETTLE).await;
    table.row(&format!("after {SETTLE:?}"), exporter.memory()?);
    table.row("meanwhile", usage.until_now(&upstream, &exporter)?);
    let (took, list) = exporter.list().await?;
    require(&list, &HashMap::new(), MOST, MOST)?;
    table.row("listing all", format!("{took:.2?}, then {}", exporter.memory()?));
    Ok(table)
}

/// Writes a state file with so many registrations.
fn prepare(folder: &Path, count: u32) -> Result<(), Failure> {
    let now = Timestamp::from(SystemTime::now());
    let (store, _) = FileStore::open(&folder.join("state"))?;
    let registrations = (0..count).map(|number| registration(number, now)).collect::<Result<Vec<_>, _>>()?;
    let toggles: Vec<_> = registrations.iter().zip(0..).map(|(known, number)| saved_toggle(known, number)).collect();
    let agents = (0..AGENTS.min(count)).map(|number| agent(number, now)).collect::<Result<Vec<_>, _>>()?;
    store.register(&registrations.into_iter().map(RegistrationChange::Put).collect::<Vec<_>>())?;
    store.save(&toggles, &agents)?;
    Ok(())
}

fn registration(number: u32, now: Timestamp) -> Result<Registration, Failure> {
    let watch = Watch {
        name: WatchName::parse(&toggle_name(number))?,
        api: ApiName::default_api(),
        agent_id: agent_id(number)?,
        progress_id: ProgressId::parse(&progress_id(number, 0))?,
        expect: Some(Expect::Enabled),
        labels: [(LabelName::parse("team")?, team(number).into())].into(),
        source: Source::Http,
    };
    // Up to half an hour ago, so that nothing expires meanwhile.
    let started = Timestamp::from_millis(now.as_millis() - 1000 * u64::from(number % 1800));
    Ok(Registration { watch: Arc::new(watch), started, registered: started })
}

/// What is known of its run: of ten, four are in progress, four completed and two failed.
fn saved_toggle(registration: &Registration, number: u32) -> ToggleChange {
    let Registration { watch, started, .. } = registration;
    let at = started.after(Duration::from_secs(1));
    let (status, finished) = match number % 10 {
        0..4 => (Status::InProgress, None),
        4..8 => (Status::Completed, Some(Finish { at, at_first_answer: false })),
        _ => (Status::Failed, Some(Finish { at, at_first_answer: false })),
    };
    let completed = status == Status::Completed;
    let failed = status == Status::Failed;
    let last_answer = LastAnswer {
        status,
        mock_enabled: completed.then_some(true),
        mcp_endpoints: Some(2),
        mcp_tools: Some(11),
        message: completed.then(|| Text::own("Mock tools are enabled for 11 tools.")),
        error: failed.then(|| Text::own("The agent's MCP server did not answer in time.")),
    };
    let run = Run { started: *started, last_answer, finished, last_success: Some(at), failing: None, raw: None };
    let tally = Tally {
        polls: 3,
        completed: completed.into(),
        failed: failed.into(),
        last_completed: completed.then_some(at),
        last_failed: failed.then_some(at),
        ..Tally::default()
    };
    let toggle = Toggle { watch: watch.clone(), run, tally };
    (watch.name.clone(), vec![SavedToggle::of(&toggle, u64::from(number) + 1)])
}

fn agent(number: u32, now: Timestamp) -> Result<SavedAgentChange, Failure> {
    let told = ToldMocks { newest: Some((now, 1)), enabled_since: Some(now), ..ToldMocks::default() };
    Ok(((ApiName::default_api(), agent_id(number)?), Some(SavedAgent { told, ..SavedAgent::default() })))
}

// === Writes ===

/// What registering takes when nearly as many are registered as there may be.
async fn writes() -> Result<Table, Failure> {
    let table = Table::new(&format!(
        "{WRITERS} writers with {BEFORE} registrations before, 40 % unfinished, polled with {BUDGET}"
    ));
    let upstream = Upstream::start().await?;
    let folder = folder(&registering(&upstream, ""))?;
    prepare(folder.path(), BEFORE)?;
    let (exporter, _) = ready(folder.path()).await?;
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(Writer::new(number, exporter.connect().await?));
    }
    let mut writing = Writing { table, upstream, exporter, writers };
    writing.phase("just after the start", FIRST, Writer::write).await?;
    writing.phase("other runs", REST, Writer::write).await?;
    writing.phase("the same again", AGAIN, Writer::repeat).await?;
    let Writing { mut table, exporter, writers, .. } = writing;
    table.row("resident memory", exporter.memory()?);
    table.row("acknowledged", all_are_there(exporter, folder.path(), &writers).await?);
    Ok(table)
}

impl Writing {
    /// Has all of them do this for some time, and shows how that went.
    async fn phase<F>(&mut self, name: &str, time: Duration, act: fn(Writer, Instant) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<Writer, Failure>> + Send + 'static,
    {
        let usage = Usage::since_now(&self.upstream, &self.exporter)?;
        let started = Instant::now();
        self.writers =
            all(std::mem::take(&mut self.writers).into_iter().map(|writer| act(writer, started + time))).await?;
        let took = started.elapsed();
        let mut created: Vec<_> = self.writers.iter_mut().flat_map(|writer| writer.created.drain(..)).collect();
        let mut puts: Vec<_> = self.writers.iter_mut().flat_map(|writer| writer.replaced.drain(..)).collect();
        puts.extend(&created);
        self.table.row(name, per_second(puts.len(), took));
        self.table.row("  each", format!("{}, {}", quantiles(&mut puts), p99_goal(&puts)));
        if !created.is_empty() {
            self.table.row("  new names", format!("{} of them, {}", created.len(), quantiles(&mut created)));
        }
        self.table.row("  meanwhile", usage.until_now(&self.upstream, &self.exporter)?);
        Ok(())
    }
}

/// Requires that all that was acknowledged is listed, and is so after a kill.
async fn all_are_there(exporter: Exporter, folder: &Path, writers: &[Writer]) -> Result<String, Failure> {
    let acknowledged: HashMap<u32, u32> = writers.iter().flat_map(|writer| writer.acknowledged.clone()).collect();
    let new: u32 = writers.iter().map(|writer| writer.new).sum();
    let list = exporter.list().await?.1;
    require(&list, &acknowledged, BEFORE, BEFORE + new)?;
    drop(exporter);
    let (exporter, ready) = ready(folder).await?;
    let list = exporter.list().await?.1;
    require(&list, &acknowledged, BEFORE, BEFORE + new)?;
    let (count, ready) = (acknowledged.len(), timed(ready, START_GOAL));
    Ok(format!("{count} names, {new} of them new, all there; and after a kill, ready {ready}"))
}

/// Requires that so many toggles are listed: those of the state file, but for the ones that were
/// acknowledged since, and all of these.
fn require(list: &List, acknowledged: &HashMap<u32, u32>, prepared: u32, count: u32) -> Result<(), Failure> {
    let there: HashMap<_, _> = list.toggles.iter().map(|listed| (&*listed.name, &*listed.progress_id)).collect();
    let numbers = acknowledged.keys().copied().filter(|number| *number >= prepared);
    for number in numbers.chain(0..prepared) {
        let (name, put) = (toggle_name(number), acknowledged.get(&number).copied().unwrap_or_default());
        if there.get(&*name) != Some(&&*progress_id(number, put)) {
            return Err(format!("{name} was acknowledged, and is missing: {:?} is there.", there.get(&*name)).into());
        }
    }
    if there.len() != usize::try_from(count)? {
        return Err(format!("{} toggles are listed, and should be {count}.", there.len()).into());
    }
    Ok(())
}

impl Writer {
    /// New names that it may register.
    const ROOM: u32 = (MOST - BEFORE) / WRITERS;

    fn new(number: u32, connection: Connection) -> Self {
        Self {
            number,
            connection,
            puts: 0,
            new: 0,
            acknowledged: HashMap::new(),
            created: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Registers new names, and other runs under names that are there.
    async fn write(mut self, until: Instant) -> Result<Self, Failure> {
        while Instant::now() < until {
            self.puts += 1;
            let is_new = self.puts.is_multiple_of(NEW_EVERY) && self.new < Self::ROOM;
            let number = if is_new {
                self.new += 1;
                BEFORE + self.number * Self::ROOM + self.new - 1
            } else {
                fastrand::u32(..BEFORE / WRITERS) * WRITERS + self.number
            };
            let (took, status) = put(&mut self.connection, number, self.puts).await?;
            self.acknowledged.insert(number, self.puts);
            let (times, expected) = if is_new { (&mut self.created, 201) } else { (&mut self.replaced, 200) };
            times.push(took);
            if status != expected {
                return Err(format!("A PUT was answered with {status} and not with {expected}.").into());
            }
        }
        Ok(self)
    }

    /// Registers what it has registered.
    async fn repeat(mut self, until: Instant) -> Result<Self, Failure> {
        let known: Vec<_> = self.acknowledged.iter().map(|(number, put)| (*number, *put)).collect();
        while Instant::now() < until {
            let (number, last) = known[fastrand::usize(..known.len())];
            let (took, status) = put(&mut self.connection, number, last).await?;
            self.replaced.push(took);
            if status != 200 {
                return Err(format!("The same PUT again was answered with {status}.").into());
            }
        }
        Ok(self)
    }
}

/// Registers a run; how long that took, and the status of the answer.
async fn put(connection: &mut Connection, number: u32, put: u32) -> Result<(Duration, u16), Failure> {
    let body = json!({
        "agent_id": number % AGENTS + 1,
        "progress_id": progress_id(number, put),
        "expect": "enabled",
        "labels": {"team": team(number)},
    });
    let (path, body) = (toggle_path(&toggle_name(number)), body.to_string());
    let started = Instant::now();
    let answer = connection.ask("PUT", &path, &body).await?;
    Ok((started.elapsed(), answer.status))
}

// === Waiters ===

/// What those who wait for a run hold, and how soon they are told.
async fn waiters() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("{WAITERS} connections that wait for one run, and as many for another one"));
    let upstream = Upstream::start().await?;
    let folder = folder(&registering(&upstream, "polling: {min_interval: 200ms, max_interval: 200ms}\n"))?;
    let (exporter, _) = ready(folder.path()).await?;
    for (name, id) in [("finishes", FINISHING), ("is-replaced", "replaced")] {
        let body = json!({"agent_id": 1, "progress_id": id}).to_string();
        exporter.connect().await?.ask("PUT", &toggle_path(name), &body).await?.require(201)?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = exporter.resident()?;
    let finish = exporter.wait("finishes", WAITERS).await?;
    let replaced = exporter.wait("is-replaced", WAITERS).await?;
    tokio::time::sleep(SETTLE).await;
    let held = exporter.resident()?.saturating_sub(before);
    table.row(
        "memory per waiter",
        format!("{:.1} KiB", mebibytes(held) * 1024.0 / f64::from(2 * u32::try_from(WAITERS)?)),
    );

    upstream.finishing.store(true, Ordering::Relaxed);
    let (last, answer) = answers(finish).await?;
    answer.require(200)?;
    if serde_json::from_slice::<Value>(&answer.body)?["status"] != "completed" {
        return Err("A waiter was answered before the run had completed.".into());
    }
    let told = upstream.finished.get().ok_or("A waiter was answered before the API said that the run completed.")?;
    table.row("all told of its end", format!("{:.1?} after the API answered", last.duration_since(*told)));

    let body = json!({"agent_id": 1, "progress_id": "other"}).to_string();
    let mut connection = exporter.connect().await?;
    let started = Instant::now();
    connection.ask("PUT", &toggle_path("is-replaced"), &body).await?.require(200)?;
    let took = started.elapsed();
    let (last, answer) = answers(replaced).await?;
    answer.require(409)?;
    let all = last.duration_since(started);
    table.row("all told of another", format!("{all:.1?} after the PUT was sent, which took {took:.1?}"));
    table.row("memory afterwards", exporter.memory()?);
    Ok(table)
}

/// Waits for all of the answers, which must be the same; when the last one came, and what it is.
async fn answers(mut waiting: JoinSet<Result<(Instant, Answer), Failure>>) -> Result<(Instant, Answer), Failure> {
    let mut last: Option<(Instant, Answer)> = None;
    while let Some(answered) = waiting.join_next().await {
        let (at, answer) = answered??;
        if last.as_ref().is_some_and(|(_, other)| (other.status, &other.body) != (answer.status, &answer.body)) {
            return Err("Two who waited for the same run were told different things.".into());
        }
        let latest = last.map_or(at, |(before, _)| at.max(before));
        last = Some((latest, answer));
    }
    last.ok_or_else(|| "Nobody waited.".into())
}

// === Reloads ===

/// What reloading takes, and whether anything is left behind.
async fn reloads() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("{RELOADS} reloads with {RELOADED} watches, a key file and a watch file"));
    let upstream = Upstream::start().await?;
    let mut config = format!(
        "apis:\n  default: {{base_url: 'http://{}', api_key_file: key}}\nwatch_files: [more.yaml]\nwatches:\n",
        upstream.simulator.address()
    );
    for number in 0..RELOADED {
        config.push_str(&watch_line(number));
    }
    let folder = folder(&config)?;
    fs::write(folder.path().join("key"), "load\n")?;
    fs::write(folder.path().join("more.yaml"), watch_line(RELOADED))?;
    let (exporter, _) = ready(folder.path()).await?;
    tokio::time::sleep(SETTLE).await;

    table.row("before", format!("{}, {} descriptors", exporter.memory()?, exporter.descriptors()?));
    let usage = Usage::since_now(&upstream, &exporter)?;
    let mut connection = exporter.connect().await?;
    let (started, mut took) = (Instant::now(), Vec::new());
    for _ in 0..RELOADS {
        let sent = Instant::now();
        connection.ask("POST", "/-/reload", "").await?.require(200)?;
        took.push(sent.elapsed());
    }
    table.row("reloads", per_second(took.len(), started.elapsed()));
    table.row("each", quantiles(&mut took));
    table.row("meanwhile", usage.until_now(&upstream, &exporter)?);
    table.row("afterwards", format!("{}, {} descriptors", exporter.memory()?, exporter.descriptors()?));
    require(&exporter.list().await?.1, &HashMap::new(), RELOADED + 1, RELOADED + 1)?;
    Ok(table)
}

fn watch_line(number: u32) -> String {
    let (name, id) = (toggle_name(number), progress_id(number, 0));
    format!("  - {{name: {name}, agent_id: 1, progress_id: {id}, expect: enabled, labels: {{team: bookings}}}}\n")
}

// === Kills ===

/// Whether what was acknowledged outlives a kill in the midst of many registrations.
async fn kills() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("{KILLS} kills in the midst of {PUTS} PUTs at once"));
    let upstream = Upstream::start().await?;
    let folder = folder(&registering(&upstream, ""))?;
    let (mut acknowledged, mut broken, mut opened) = (HashMap::new(), 0, Vec::new());
    // Nothing is broken off in the first round. It says how long the PUTs take.
    let mut whole = None;
    for round in 0..=KILLS {
        let (exporter, ready) = ready(folder.path()).await?;
        opened.push(ready);
        require_acknowledged(&exporter, &acknowledged).await?;
        let moment = whole.map(|whole: Duration| whole * (2 * round - 1) / (2 * KILLS));
        let (took, more) = put_and_kill(exporter, round * PUTS, moment).await?;
        whole.get_or_insert(took);
        broken += PUTS - u32::try_from(more.len())?;
        acknowledged.extend(more);
    }
    let (exporter, ready) = ready(folder.path()).await?;
    opened.push(ready);
    require_acknowledged(&exporter, &acknowledged).await?;
    if broken == 0 {
        return Err("No kill broke off a PUT.".into());
    }
    table.row("PUTs", format!("{} acknowledged, 0 lost, {broken} broken off", acknowledged.len()));
    let [first, last] = [1, 2 * KILLS - 1].map(|part| whole.unwrap_or_default() * part / (2 * KILLS));
    table.row("moments of the kills", format!("{first:.1?} to {last:.1?}"));
    table.row("ready", quantiles(&mut opened));
    Ok(table)
}

/// Sends the PUTs all at once, and kills the program at that moment after that, or when all are
/// answered. How long that took, and what was acknowledged.
async fn put_and_kill(
    mut exporter: Exporter,
    first: u32,
    moment: Option<Duration>,
) -> Result<(Duration, HashMap<u32, u32>), Failure> {
    let mut connections = Vec::new();
    for _ in 0..PUTS {
        connections.push(exporter.connect().await?);
    }
    let killed = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let puts = all(connections.into_iter().zip(first..).map(|(mut connection, number)| {
        let killed = killed.clone();
        async move {
            match put(&mut connection, number, 1).await {
                Ok((_, 201)) => Ok(Some((number, 1))),
                Ok((_, status)) => Err(format!("A PUT was answered with {status} and not with 201.").into()),
                Err(_) if killed.load(Ordering::SeqCst) => Ok(None),
                Err(failure) => Err(failure),
            }
        }
    }));
    let kill = async {
        if let Some(moment) = moment {
            tokio::time::sleep_until((started + moment).into()).await;
            killed.store(true, Ordering::SeqCst);
            exporter.kill()?;
        }
        Ok::<_, Failure>(())
    };
    let (puts, killed) = tokio::join!(puts, kill);
    killed?;
    Ok((started.elapsed(), puts?.into_iter().flatten().collect()))
}

/// Requires that all that was acknowledged is listed; more may be.
async fn require_acknowledged(exporter: &Exporter, acknowledged: &HashMap<u32, u32>) -> Result<(), Failure> {
    let list = exporter.list().await?.1;
    let there = u32::try_from(list.toggles.len())?;
    require(&list, acknowledged, 0, there)
}

// === What is registered ===

/// A configuration with a state file and registrations, and with more text.
fn registering(upstream: &Upstream, more: &str) -> String {
    format!(
        "apis:\n  default: {{base_url: 'http://{}', api_key: load, {BUDGET}}}\n\
         state_file: state\nregistrations: {{enabled: true, max: 200000}}\nweb: {{max_connections: 10000, max_connections_per_peer: 10000}}\n{more}",
        upstream.simulator.address()
    )
}

/// Names that follow each other in number do so nowhere else, as those that jobs choose.
fn toggle_name(number: u32) -> String {
    format!("pr-{:04x}-bookings-{number:06}", number.wrapping_mul(0x9e37_79b1) >> 16)
}

fn toggle_path(name: &str) -> String {
    format!("/api/v1/toggles/{name}")
}

/// An id of the usual form. Each PUT of a writer has its own; the state file has PUT 0.
fn progress_id(number: u32, put: u32) -> String {
    format!("{:08x}-8d1c-4f0e-9f8e-{put:06}{number:06}", number.wrapping_mul(0x9e37_79b1))
}

fn team(number: u32) -> String {
    format!("team-{:02}", number % 50)
}

fn agent_id(number: u32) -> Result<AgentId, String> {
    AgentId::parse(&(number % AGENTS + 1).to_string())
}

/// What all of these come to.
async fn all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    tasks.collect::<JoinSet<_>>().join_all().await.into_iter().collect()
}

// === impl Upstream ===

impl Upstream {
    async fn start() -> Result<Self, Failure> {
        let (polls, finishing, finished): (Arc<AtomicU64>, Arc<AtomicBool>, Arc<OnceLock<Instant>>) =
            Default::default();
        let (counted, finish, told) = (polls.clone(), finishing.clone(), finished.clone());
        let (task, completed) = (Reply::task("in_progress", None), Reply::task("completed", Some(true)));
        let simulator = Simulator::start(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            if finish.load(Ordering::Relaxed) && request.progress_id().as_deref() == Some(FINISHING) {
                told.get_or_init(Instant::now);
                return completed.clone();
            }
            task.clone()
        });
        Ok(Self { simulator: simulator.await?, polls, finishing, finished })
    }
}

// === impl Exporter ===

/// Starts the program in this folder, and waits until it is ready; how long that took.
async fn ready(folder: &Path) -> Result<(Exporter, Duration), Failure> {
    let exporter = Exporter::start(folder, &[]).await?;
    exporter.connect().await?.ask("GET", "/-/ready", "").await?.require(200)?;
    let ready = exporter.started.elapsed();
    Ok((exporter, ready))
}

impl Exporter {
    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Every toggle, and how long the answer took.
    async fn list(&self) -> Result<(Duration, List), Failure> {
        let mut connection = self.connect().await?;
        let started = Instant::now();
        let answer = connection.ask("GET", "/api/v1/toggles", "").await?;
        let took = started.elapsed();
        answer.require(200)?;
        Ok((took, serde_json::from_slice(&answer.body)?))
    }

    /// Has so many connections wait for the run of this name; when each was answered, and what.
    async fn wait(&self, name: &str, waiters: usize) -> Result<JoinSet<Result<(Instant, Answer), Failure>>, Failure> {
        let mut waiting = JoinSet::new();
        for _ in 0..waiters {
            let mut connection = self.connect().await?;
            connection.send("GET", &format!("{}?wait=10m", toggle_path(name)), "").await?;
            waiting.spawn(async move {
                let answer = connection.receive().await?;
                Ok((Instant::now(), answer))
            });
        }
        Ok(waiting)
    }

    fn descriptors(&self) -> Result<usize, Failure> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id()))?.count())
    }
}

// === impl Connection ===

impl Connection {
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Failure> {
        self.send(method, path, body).await?;
        self.receive().await
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<(), Failure> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    async fn receive(&mut self) -> Result<Answer, Failure> {
        let (status, head, length) = loop {
            match head(&self.buffer)? {
                Some(found) => break found,
                None => self.read().await?,
            }
        };
        self.buffer.reserve((head + length).saturating_sub(self.buffer.len()));
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        let body = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Ok(Answer { status, body })
    }

    async fn read(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("The exporter closed a connection.".into()),
            _ => Ok(()),
        }
    }
}

/// Status, length of the head, and length of the body of the answer that begins here; `None` if
/// its head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else { return Ok(None) };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or("An answer has no length.")?.value;
    Ok(Some((answer.code.unwrap_or_default(), head, str::from_utf8(length)?.parse()?)))
}

impl Answer {
    fn require(&self, status: u16) -> Result<(), Failure> {
        if self.status == status {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&self.body);
        Err(format!("An answer is {} and not {status}: {body}", self.status).into())
    }
}

// === impl Usage ===

impl Usage {
    fn since_now(upstream: &Upstream, exporter: &Exporter) -> Result<Self, Failure> {
        Ok(Self {
            since: Instant::now(),
            polls: upstream.polls.load(Ordering::Relaxed),
            exporter: cpu_seconds(exporter.id())?,
            own: cpu_seconds(std::process::id())?,
        })
    }

    fn until_now(&self, upstream: &Upstream, exporter: &Exporter) -> Result<String, Failure> {
        let now = Self::since_now(upstream, exporter)?;
        let seconds = (now.since - self.since).as_secs_f64();
        let polls = f64::from(u32::try_from(now.polls - self.polls)?) / seconds;
        let (exporter, own) = ((now.exporter - self.exporter) / seconds, (now.own - self.own) / seconds);
        Ok(format!("{polls:.0} polls per second, {exporter:.2} cores used, and {own:.2} by load and stand-in"))
    }
}

/// What a process has used of the CPU.
fn cpu_seconds(process: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("The kernel tells no CPU time.")?.1;
    // User and system time, counted from behind the name.
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Ok(f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?))
}

/// Quantiles of times, which are sorted by this.
fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| percentile(times, percent));
    format!("p50 {p50:.2?}, p90 {p90:.2?}, p99 {p99:.2?}, max {max:.2?}")
}

fn p99_goal(sorted: &[Duration]) -> String {
    let reached = goal(percentile(sorted, 99) < PUT_GOAL);
    format!("goal p99 < {PUT_GOAL:?}: {reached}")
}

fn timed(took: Duration, limit: Duration) -> String {
    format!("after {took:.2?} (goal < {limit:?}: {})", goal(took < limit))
}

fn per_second(count: usize, took: Duration) -> String {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    format!("{count} in {took:.1?}, {:.0} per second", f64::from(count) / took.as_secs_f64())
}
