//! Carries out the plan: registers runs, removes slots, restarts the exporter and breaks its files.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Settings;
use super::exporter::Exporter;
use super::harness::Failure;
use super::plan::{Api, Ending, Plan, Source, Time};
use super::upstream::Upstreams;

/// How often a changed configuration is written and reloaded.
const RELOAD: Time = 5.0;

/// How long the driver waits before it replaces a run, so that the exporter has saved how that run ended.
const SETTLED: Time = 3.0;

/// How long the driver waits before it retries what is not possible yet.
const LATER: Time = 1.0;

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
    exporter: Exporter,
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
    /// From the end of the exporter until it was ready again.
    pub(crate) away: Vec<(Time, Time)>,
    pub(crate) broken_file: (Time, Time),
    pub(crate) broken_configuration: (Time, Time),
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
        fs::write(folder.join("config.yaml"), configuration(plan, upstreams, settings, &listed).to_string())?;
        let exporter = Exporter::start(folder, http.clone()).await?;
        let happened = Happened {
            handed: plan.slots.iter().map(|slot| vec![None; slot.runs.len()]).collect(),
            removed: vec![None; plan.slots.len()],
            away: Vec::new(),
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
            exporter,
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
        driver.schedule();
        Ok(driver)
    }

    /// The address of the exporter.
    pub(crate) fn target(&self) -> String {
        self.exporter.address.to_string()
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

    /// Kills the exporter for good. Returns when that was, and what happened before.
    pub(crate) async fn finish(mut self) -> Result<(Time, Happened), Failure> {
        self.sending.abort_all();
        let at = self.now();
        self.exporter.end(Ending::Killed).await?;
        Ok((at, self.happened))
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
            What::Restart(killed) => {
                self.restart(if killed { Ending::Killed } else { Ending::Stopped }).await?;
            }
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
                if self.reload().await {
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
                let url = format!("http://{}/api/v1/toggles/{}", self.exporter.address, self.plan.slots[slot].name);
                let body = self.listed[slot].map(|run| watch(&self.plan, slot, run));
                self.sending.spawn(send(self.http.clone(), self.connections.clone(), url, body));
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
        let text = configuration(&self.plan, &self.upstreams, &self.settings, &self.listed).to_string();
        self.place("config.yaml", &text)?;
        self.configuration_changed = !self.reload().await;
        Ok(())
    }

    async fn reload(&self) -> bool {
        let answer = self.http.post(format!("http://{}/-/reload", self.exporter.address)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Replaces a file atomically.
    fn place(&self, name: &str, text: &str) -> Result<(), Failure> {
        let next = self.folder.join("next");
        fs::write(&next, text)?;
        Ok(fs::rename(&next, self.folder.join(name))?)
    }

    async fn restart(&mut self, how: Ending) -> Result<(), Failure> {
        let from = self.now();
        self.exporter.end(how).await?;
        let back = self.begun + Duration::from_secs_f64(from + self.plan.away);
        tokio::time::sleep_until(back.into()).await;
        self.exporter.start_again().await?;
        self.up_since = self.now();
        self.happened.away.push((from, self.up_since));
        Ok(())
    }
}

/// Registers or removes a watch. Retries until the exporter has accepted that.
async fn send(
    http: reqwest::Client,
    connections: Arc<Semaphore>,
    url: String,
    body: Option<Value>,
) -> Result<(), Failure> {
    loop {
        let connection = connections.acquire().await?;
        let request = match &body {
            Some(body) => http.put(&url).header("content-type", "application/json").body(body.to_string()),
            None => http.delete(&url),
        };
        let answer = request.send().await.map(|answer| answer.status().as_u16());
        drop(connection);
        match answer {
            Ok(200 | 201 | 204 | 404) => return Ok(()),
            Ok(status @ (400 | 409 | 413 | 415 | 507)) => {
                return Err(format!("{url} was answered with {status}.").into());
            }
            // The exporter is stopping or away.
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The definition of a slot's watch.
fn watch(plan: &Plan, slot: usize, run: usize) -> Value {
    let slot = &plan.slots[slot];
    let mut watch = json!({
        "agent_id": slot.agent_id,
        "progress_id": slot.progress_id(run),
        "api": slot.api.name(),
    });
    if let Some(expect) = slot.runs[run].expect {
        watch["expect"] = json!(expected(expect));
    }
    if let Some(team) = slot.team {
        watch["labels"] = json!({ "team": team });
    }
    watch
}

/// The watches that a source lists now.
fn watches(plan: &Plan, listed: &[Option<usize>], source: Source) -> Vec<Value> {
    let there = plan.slots.iter().enumerate().filter(|(_, slot)| slot.source == source);
    let named = there.filter_map(|(number, slot)| {
        let mut watch = watch(plan, number, listed[number]?);
        watch["name"] = json!(slot.name);
        Some(watch)
    });
    named.collect()
}

/// The definitions of the agents that a source has.
fn agents(plan: &Plan, source: Source) -> Vec<Value> {
    let agents = plan.slots.iter().filter_map(|slot| {
        let asked = slot.asked.as_ref().filter(|asked| !asked.discovered)?;
        // Agents cannot be registered.
        let is_there = if slot.source == Source::Http { Source::Configuration } else { slot.source };
        let mut agent = json!({"agent_id": slot.agent_id, "api": slot.api.name()});
        if let Some(expect) = asked.expect {
            agent["expect"] = json!(expected(expect));
        }
        if let Some(team) = slot.team {
            agent["labels"] = json!({ "team": team });
        }
        (is_there == source).then_some(agent)
    });
    agents.collect()
}

/// The content of a watch file.
fn definitions(plan: &Plan, listed: &[Option<usize>], file: Source) -> Vec<Value> {
    let mut definitions = watches(plan, listed, file);
    definitions.extend(agents(plan, file));
    definitions
}

fn expected(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

fn configuration(plan: &Plan, upstreams: &Upstreams, settings: &Settings, listed: &[Option<usize>]) -> Value {
    let api = |api: Api| {
        json!({
            "base_url": upstreams.base_url(api),
            "api_key": "sk-judge",
            "timeout": format!("{}ms", settings.timeout * 1000.0),
            "max_in_flight": 1000,
            "requests_per_second": api.requests_per_second(),
            "discover_agents": api == Api::Listed,
        })
    };
    let apis: serde_json::Map<_, _> = Api::ALL.into_iter().map(|name| (name.name().to_owned(), api(name))).collect();
    let interval = |seconds: f64| format!("{}ms", seconds * 1000.0);
    let kept = |seconds: f64| format!("{}ms", settings.scaled(seconds).ceil() * 1000.0);
    json!({
        "apis": apis,
        "agents": agents(plan, Source::Configuration),
        "polling": {
            "agent_interval": interval(settings.max_interval),
            "min_interval": interval(settings.min_interval),
            "max_interval": interval(settings.max_interval),
            "backoff_max": interval(settings.backoff_max),
        },
        "state_file": "state",
        "registrations": {
            "enabled": true,
            "retention": {"completed": kept(3600.0), "failed": kept(86400.0), "unfinished": kept(86400.0)},
        },
        "watch_files": ["watches/*.json"],
        "watches": watches(plan, listed, Source::Configuration),
    })
}
