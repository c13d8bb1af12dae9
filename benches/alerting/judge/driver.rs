//! Carries out the plan: registers runs, removes slots, restarts exporters, breaks their files and has their database
//! fail over.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Settings;
use super::configuration::{configuration, definitions, watch};
use super::database::Database;
use super::finale::Finale;
use super::fleet::Fleet;
use super::harness::Failure;
use super::plan::{Ending, Plan, Source, Time};
use super::registration::Registration;
use super::upstream::Upstreams;

/// How often a changed configuration is written and reloaded.
const RELOAD: Time = 5.0;

/// How long the driver waits before it replaces a run, so that the exporter has saved how that run ended.
const SETTLED: Time = 3.0;

/// How long the driver waits before it retries what is not possible yet.
const LATER: Time = 1.0;

/// How long agents may be without an owner beyond the lease of a replica that was killed, after the end of one that was
/// stopped, and while some are given to one that has joined. The first two are what users are promised. A replica that
/// joins is noticed at once or, without a notification, within a second, and then it is as when one is stopped.
pub(crate) const TAKEN_OVER: Time = 2.0;
const HANDED_OVER: Time = 1.0;
const SHARED_ANEW: Time = 2.0;

/// How many registrations are sent at a time. All connections come from one address, as those of Prometheus do, and
/// the exporter limits the connections of one address.
const CONNECTIONS: usize = 16;

/// The content of the broken watch file.
const GARBAGE: &str = "[{name: ";

/// Carries out the plan.
pub(crate) struct Driver {
    plan: Arc<Plan>,
    settings: Settings,
    upstreams: Arc<Upstreams>,
    begun: Instant,
    folder: PathBuf,
    http: reqwest::Client,
    fleet: Fleet,
    /// What the exporters share if there are several.
    database: Option<Database>,
    storage: (&'static str, Value),
    /// From when on everything is polled and saved; it may be in the future.
    up_since: Time,
    /// The current run of each slot; `None` while the slot is not on the watch list.
    listed: Vec<Option<usize>>,
    events: BinaryHeap<Reverse<Event>>,
    configuration_changed: bool,
    sending: JoinSet<Result<(), Failure>>,
    connections: Arc<Semaphore>,
    broken_file: bool,
    broken_configuration: bool,
    happened: Happened,
}

/// What the driver did, and when.
pub(crate) struct Happened {
    /// When the driver began to hand each run over.
    pub(crate) handed: Vec<Vec<Option<Time>>>,
    /// When the driver began to remove each slot.
    pub(crate) removed: Vec<Option<Time>>,
    /// The times in which agents may have been without an owner.
    pub(crate) away: Vec<Absence>,
    /// The times in which exporters did not run.
    pub(crate) ended: Vec<Ended>,
    /// From the end of the primary of the database until its standby was promoted.
    pub(crate) failover: Option<(Time, Time)>,
    pub(crate) broken_file: (Time, Time),
    pub(crate) broken_configuration: (Time, Time),
}

/// A time in which agents may have been without an owner: from the end of the exporter until it was ready again. Of
/// replicas, it is until another one must have taken over, however long the one that was ended is away.
pub(crate) struct Absence {
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// The agents that other replicas owned before and after, by id. Of these, nothing may be late.
    pub(crate) unconcerned: HashSet<u32>,
}

/// A time in which an exporter did not run.
pub(crate) struct Ended {
    pub(crate) address: String,
    pub(crate) how: Ending,
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// A planned action. The time is in milliseconds, so that events can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    HandOver(usize, usize),
    Remove(usize),
    Restart(bool),
    ComeBack(usize),
    Settled(usize),
    FailOver,
    BreakFile,
    MendFile,
    BreakConfiguration,
    MendConfiguration,
    Reload,
}

// === impl Driver ===

impl Driver {
    /// Starts the exporter with agents only.
    pub(crate) async fn start(
        plan: &Arc<Plan>,
        settings: &Settings,
        upstreams: &Arc<Upstreams>,
        database: Option<Database>,
        folder: &Path,
        http: &reqwest::Client,
        begun: Instant,
    ) -> Result<Self, Failure> {
        let listed = vec![None; plan.slots.len()];
        let files = plan.slots.iter().filter_map(|slot| match slot.source {
            Source::File(number) => Some(number),
            Source::Configuration | Source::Http => None,
        });
        fs::create_dir(folder.join("watches"))?;
        for number in files.collect::<BTreeSet<_>>() {
            let content = Value::from(definitions(plan, &listed, Source::File(number)));
            fs::write(folder.join(format!("watches/{number}.json")), content.to_string())?;
        }
        let storage = storage(database.as_ref(), settings);
        let text = configuration(plan, upstreams, settings, &listed, &storage).to_string();
        fs::write(folder.join("config.yaml"), text)?;
        let fleet = Fleet::start(folder, settings.replicas, http).await?;
        let happened = Happened {
            handed: plan.slots.iter().map(|slot| vec![None; slot.runs.len()]).collect(),
            removed: vec![None; plan.slots.len()],
            away: Vec::new(),
            ended: Vec::new(),
            failover: None,
            broken_file: (f64::INFINITY, f64::INFINITY),
            broken_configuration: (f64::INFINITY, f64::INFINITY),
        };
        let mut driver = Self {
            plan: plan.clone(),
            settings: settings.clone(),
            upstreams: upstreams.clone(),
            begun,
            folder: folder.to_owned(),
            http: http.clone(),
            fleet,
            database,
            storage,
            up_since: 0.0,
            listed,
            events: BinaryHeap::new(),
            configuration_changed: false,
            sending: JoinSet::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            broken_file: false,
            broken_configuration: false,
            happened,
        };
        driver.up_since = driver.now();
        if !driver.fleet.is_single() {
            // Starting all of them takes a while, and nothing is exposed before.
            let absence = Absence { from: 0.0, to: driver.up_since, unconcerned: HashSet::new() };
            driver.happened.away.push(absence);
        }
        driver.schedule();
        Ok(driver)
    }

    /// The addresses of the exporters.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.fleet.addresses().iter().map(ToString::to_string).collect()
    }

    /// Carries out everything that is planned before this time, and waits for that time.
    pub(crate) async fn drive(&mut self, until: Time) -> Result<(), Failure> {
        while let Some(Reverse(event)) = self.events.peek().copied() {
            let at = Duration::from_millis(event.at);
            if at.as_secs_f64() > until {
                break;
            }
            self.events.pop();
            tokio::time::sleep_until((self.begun + at).into()).await;
            self.handle(event.what).await?;
            while let Some(sent) = self.sending.try_join_next() {
                sent??;
            }
        }
        let end = self.begun + Duration::from_secs_f64(until);
        tokio::time::sleep_until(end.into()).await;
        Ok(())
    }

    /// Plans nothing more. Returns what is left, and what happened.
    pub(crate) fn finish(mut self) -> (Finale, Happened) {
        self.sending.abort_all();
        (Finale { begun: self.begun, fleet: self.fleet, database: self.database }, self.happened)
    }

    fn now(&self) -> Time {
        self.begun.elapsed().as_secs_f64()
    }

    fn schedule(&mut self) {
        let plan = self.plan.clone();
        for (slot, planned) in plan.slots.iter().enumerate() {
            for (run, planned) in planned.runs.iter().enumerate() {
                self.at(planned.at, What::HandOver(slot, run));
            }
            if let Some(at) = planned.removed {
                self.at(at, What::Remove(slot));
            }
        }
        for (at, how) in &plan.restarts {
            self.at(*at, What::Restart(*how == Ending::Killed));
        }
        if self.database.is_some() {
            self.at(plan.failover, What::FailOver);
        }
        self.at(plan.broken_file.0, What::BreakFile);
        self.at(plan.broken_configuration.0, What::BreakConfiguration);
        self.at(RELOAD, What::Reload);
    }

    fn at(&mut self, at: Time, what: What) {
        let at = Duration::try_from_secs_f64(at).unwrap_or_default().as_millis();
        self.events.push(Reverse(Event { at: u64::try_from(at).unwrap_or(u64::MAX), what }));
    }

    fn later(&mut self, what: What) {
        self.at(self.now() + LATER, what);
    }

    async fn handle(&mut self, what: What) -> Result<(), Failure> {
        match what {
            What::HandOver(slot, run) => {
                if run > 0 && !self.saw_the_end(slot, run - 1) {
                    self.later(what);
                } else {
                    self.happened.handed[slot][run] = Some(self.now());
                    self.listed[slot] = Some(run);
                    self.list(slot)?;
                }
            }
            What::Remove(slot) => {
                if self.saw_the_end(slot, 0) {
                    self.happened.removed[slot] = Some(self.now());
                    self.listed[slot] = None;
                    self.list(slot)?;
                } else {
                    self.later(what);
                }
            }
            // With a broken configuration the exporter would not start again.
            What::Restart(_) if self.broken_file || self.broken_configuration => self.later(what),
            // A replica that is away could not start with what is broken.
            What::BreakFile | What::BreakConfiguration if !self.fleet.is_complete() => self.later(what),
            // What is promised is promised for one failure at a time.
            What::Restart(_) | What::FailOver if !self.is_settled() => self.later(what),
            What::Restart(killed) => {
                self.restart(if killed { Ending::Killed } else { Ending::Stopped }).await?;
            }
            What::ComeBack(number) => self.come_back(number).await?,
            What::Settled(number) => self.settled(number).await?,
            What::FailOver => self.fail_over().await,
            What::BreakFile => {
                self.broken_file = true;
                self.happened.broken_file.0 = self.now();
                self.place("watches/0.json", GARBAGE)?;
                let (from, to) = self.plan.broken_file;
                self.at(self.now() + to - from, What::MendFile);
            }
            What::MendFile => {
                self.broken_file = false;
                self.happened.broken_file.1 = self.now();
                self.write_file(0)?;
            }
            What::BreakConfiguration => {
                self.broken_configuration = true;
                self.happened.broken_configuration.0 = self.now();
                self.place("config.yaml", "apis: {steady: {base_url: none}}")?;
                if self.fleet.reload().await? {
                    return Err("A configuration that is wrong was taken.".into());
                }
                let (from, to) = self.plan.broken_configuration;
                self.at(self.now() + to - from, What::MendConfiguration);
            }
            What::MendConfiguration => {
                self.broken_configuration = false;
                self.happened.broken_configuration.1 = self.now();
                self.configure().await?;
            }
            What::Reload => {
                if self.configuration_changed && !self.broken_configuration {
                    self.configure().await?;
                }
                self.at(self.now() + RELOAD, What::Reload);
            }
        }
        Ok(())
    }

    /// Whether the exporter saw the end of a run and has had the time to save it.
    fn saw_the_end(&self, slot: usize, run: usize) -> bool {
        let settled = self.now() - SETTLED;
        self.up_since < settled && self.upstreams.record(slot, run).ended.is_some_and(|ended| ended < settled)
    }

    /// Writes the current run of a slot to its source.
    fn list(&mut self, slot: usize) -> Result<(), Failure> {
        match self.plan.slots[slot].source {
            Source::Configuration => self.configuration_changed = true,
            Source::File(number) if number > 0 || !self.broken_file => self.write_file(number)?,
            Source::File(_) => {}
            Source::Http => {
                let registration = Registration {
                    addresses: self.fleet.addresses_in_turn(),
                    name: self.plan.slots[slot].name.clone(),
                    body: self.listed[slot].map(|run| watch(&self.plan, slot, run)),
                };
                self.sending.spawn(registration.send(self.http.clone(), self.connections.clone()));
            }
        }
        Ok(())
    }

    fn write_file(&self, number: usize) -> Result<(), Failure> {
        let content = Value::from(definitions(&self.plan, &self.listed, Source::File(number)));
        self.place(&format!("watches/{number}.json"), &content.to_string())
    }

    /// Writes the configuration and reloads it.
    async fn configure(&mut self) -> Result<(), Failure> {
        let text = configuration(&self.plan, &self.upstreams, &self.settings, &self.listed, &self.storage);
        self.place("config.yaml", &text.to_string())?;
        self.configuration_changed = !self.fleet.reload().await?;
        Ok(())
    }

    /// Replaces a file atomically.
    fn place(&self, name: &str, text: &str) -> Result<(), Failure> {
        let next = self.folder.join("next");
        fs::write(&next, text)?;
        Ok(fs::rename(&next, self.folder.join(name))?)
    }

    /// Whether all exporters run, and nothing that happened to them can still be noticed.
    fn is_settled(&self) -> bool {
        self.fleet.is_complete() && self.up_since <= self.now()
    }

    /// Ends an exporter, which comes back later. If there are several, the others go on.
    async fn restart(&mut self, how: Ending) -> Result<(), Failure> {
        let number = self.fleet.next_victim();
        let unconcerned = self.fleet.agents_of_others(number).await?;
        let from = self.now();
        self.fleet.end(number, how).await?;
        let address = self.fleet.addresses()[number].to_string();
        self.happened.ended.push(Ended { address, how, from, to: f64::INFINITY });
        let back = from + self.plan.away;
        if self.fleet.is_single() {
            tokio::time::sleep_until((self.begun + Duration::from_secs_f64(back)).into()).await;
            return self.come_back(number).await;
        }
        let to = match how {
            Ending::Killed => from + self.settings.lease + TAKEN_OVER,
            Ending::Stopped => self.now() + HANDED_OVER,
        };
        self.up_since = to;
        self.happened.away.push(Absence { from, to, unconcerned });
        self.at(back, What::ComeBack(number));
        Ok(())
    }

    /// Starts the exporter that was ended.
    async fn come_back(&mut self, number: usize) -> Result<(), Failure> {
        let starts = self.now();
        self.fleet.start_again(number).await?;
        self.up_since = self.now();
        let Some(ended) = self.happened.ended.last_mut() else { return Ok(()) };
        ended.to = self.up_since;
        let mut from = ended.from;
        if !self.fleet.is_single() {
            from = starts;
            self.up_since += SHARED_ANEW;
            self.at(self.up_since, What::Settled(number));
        }
        self.happened.away.push(Absence { from, to: self.up_since, unconcerned: HashSet::new() });
        Ok(())
    }

    /// The replica that came back has got its share from the others. What they have now they had all the time.
    async fn settled(&mut self, number: usize) -> Result<(), Failure> {
        let unconcerned = self.fleet.agents_of_others(number).await?;
        if let Some(absence) = self.happened.away.last_mut() {
            absence.unconcerned = unconcerned;
        }
        Ok(())
    }

    /// Has the database fail over. All replicas go on meanwhile, so nothing is put off but registrations.
    async fn fail_over(&mut self) {
        let Some(database) = &mut self.database else { return };
        let from = self.begun.elapsed().as_secs_f64();
        database.fail_over().await;
        self.up_since = self.now();
        self.happened.failover = Some((from, self.up_since));
    }
}

/// Where the exporters keep what they know: the key and the value in the configuration.
fn storage(database: Option<&Database>, settings: &Settings) -> (&'static str, Value) {
    match database {
        Some(database) => {
            let lease = format!("{}ms", settings.lease * 1000.0);
            ("database", json!({"url": database.url(), "lease": lease}))
        }
        None => ("state_file", json!("state")),
    }
}
