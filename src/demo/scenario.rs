//! The watch list of the demo: every kind of run, and new runs that begin by themselves.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::fault::{self, Fault};
use super::simulator::{Reply, Request, Simulator};
use super::tasks::{Ending, Task, Tasks};
use crate::cekura::{Api, KeySource, Rate, Secret};
use crate::config::{Config, ConnectionLimits, Polling, Registrations};
use crate::toggle::{AgentId, ApiName, Expect, LabelName, Labels, ProgressId, Source, Watch, WatchName};

/// The key that the simulated API accepts.
pub const KEY: &str = "demo-key";

/// How often the next watch of the demo gets a new run.
const NEW_RUN_INTERVAL: Duration = Duration::from_secs(15);

/// The path prefix of the API that sometimes answers 429 or 502.
const FLAKY_PREFIX: &str = "/flaky";

/// One watch of the demo and the task of each of its runs.
struct DemoWatch {
    name: &'static str,
    team: &'static str,
    api: &'static str,
    expect: Option<Expect>,
    task: Task,
}

/// The watches of the demo, and the tasks behind them.
pub struct Scenario {
    tasks: Arc<Tasks>,
    upstream: SocketAddr,
    demo_watches: Vec<DemoWatch>,
    /// How many runs each of the watches has had.
    runs: Vec<u32>,
}

// === impl Scenario ===

impl Scenario {
    /// The scenario for the API at `upstream`. The first run of every watch begins now.
    pub fn new(tasks: Arc<Tasks>, upstream: SocketAddr) -> Self {
        let demo_watches = demo_watches();
        let mut scenario = Self { tasks, upstream, runs: vec![0; demo_watches.len()], demo_watches };
        (0..scenario.demo_watches.len()).for_each(|index| scenario.begin_run(index));
        scenario
    }

    /// The configuration of the demo: two APIs, which are the same simulator, and short intervals.
    ///
    /// # Errors
    /// If the scenario is not valid. A test checks that it is.
    pub fn config(&self) -> Result<Config, String> {
        let polling = Polling {
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(5),
            backoff_max: Duration::from_secs(10),
            ..Polling::default()
        };
        let apis = vec![self.api("default", "")?, self.api("flaky", FLAKY_PREFIX)?];
        Ok(Config {
            apis,
            agents: Vec::new(),
            polling,
            watches: self.watches()?,
            watch_files: Vec::new(),
            registrations: Registrations::default(),
            state_file: None,
            external_url: None,
            linger: Duration::ZERO,
            connections: ConnectionLimits::default(),
        })
    }

    /// Gives one watch after the other a new run, until the receiver is dropped.
    ///
    /// # Errors
    /// As [`Scenario::config`].
    pub fn live(mut self, simulator: Simulator) -> Result<watch::Receiver<Vec<Arc<Watch>>>, String> {
        let (lists, receiver) = watch::channel(self.watches()?);
        tokio::spawn(async move {
            let _simulator = simulator;
            let mut ticks = tokio::time::interval(NEW_RUN_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            for index in (0..self.demo_watches.len()).cycle() {
                if self.demo_watches[index].task.takes >= STUCK {
                    continue;
                }
                ticks.tick().await;
                self.begin_run(index);
                let Ok(watches) = self.watches() else { return };
                if lists.send(watches).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    fn begin_run(&mut self, index: usize) {
        self.tasks.forget(&self.progress_id(index));
        self.runs[index] += 1;
        self.tasks.begin(&self.progress_id(index), self.demo_watches[index].task);
    }

    fn progress_id(&self, index: usize) -> String {
        format!("{}-run-{}", self.demo_watches[index].name, self.runs[index])
    }

    fn api(&self, name: &str, prefix: &str) -> Result<Api, String> {
        Ok(Api {
            name: ApiName::parse(name)?,
            base_url: format!("http://{}{prefix}", self.upstream).parse().map_err(|_| "not a URL")?,
            key: KeySource::Given(Secret::parse(KEY)?),
            ca: None,
            timeout: Duration::from_secs(5),
            max_in_flight: NonZeroU32::MIN.saturating_add(3),
            requests_per_second: Rate::DEFAULT,
            discover_agents: false,
        })
    }

    fn watches(&self) -> Result<Vec<Arc<Watch>>, String> {
        self.demo_watches
            .iter()
            .enumerate()
            .map(|(index, slot)| slot.watch(&self.progress_id(index)).map(Arc::new))
            .collect()
    }
}

// === impl DemoWatch ===

impl DemoWatch {
    fn watch(&self, progress_id: &str) -> Result<Watch, String> {
        Ok(Watch {
            name: WatchName::parse(self.name)?,
            api: ApiName::parse(self.api)?,
            agent_id: AgentId::parse(&self.task.agent_id.to_string())?,
            progress_id: ProgressId::parse(progress_id)?,
            expect: self.expect,
            labels: Labels::from([(LabelName::parse("team")?, self.team.into())]),
            source: Source::Config,
        })
    }
}

/// How long the hanging task takes.
const STUCK: Duration = Duration::from_hours(24);

fn demo_watches() -> Vec<DemoWatch> {
    let watch = |name, team, expect, agent_id, takes, ends| DemoWatch {
        name,
        team,
        api: "default",
        expect,
        task: Task { agent_id, takes, ends },
    };
    let (enabled, disabled) = (Some(Expect::Enabled), Some(Expect::Disabled));
    let seconds = Duration::from_secs;
    let refused = "the voice provider refused the tool update at https://provider.invalid/tools/17";
    vec![
        watch("bookings-enable", "bookings", enabled, 4321, seconds(8), Ending::Enabled { endpoints: 2 }),
        watch("support-disable", "support", disabled, 4322, seconds(5), Ending::Disabled),
        watch("payments-enable", "payments", enabled, 4400, seconds(10), Ending::Failed(refused)),
        watch("onboarding-enable", "growth", enabled, 4410, STUCK, Ending::Enabled { endpoints: 1 }),
        watch("refunds-enable", "payments", enabled, 4500, seconds(6), Ending::Disabled),
        DemoWatch {
            api: "flaky",
            ..watch("staging-enable", "platform", None, 77, seconds(20), Ending::Enabled { endpoints: 1 })
        },
    ]
}

/// The replies 429 and 502 of the flaky API; `None` for other APIs and most of the time.
pub fn flaky_reply(request: &Request, count: &AtomicU32) -> Option<Reply> {
    if !request.path.starts_with(FLAKY_PREFIX) {
        return None;
    }
    match count.fetch_add(1, Ordering::Relaxed) % 9 {
        3 => Some(fault::throttled(429, "3")),
        6 => Some(Fault::BadGateway.reply()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_is_valid_and_has_every_kind_of_run() {
        let tasks = Arc::new(Tasks::new(KEY));
        let scenario = Scenario::new(tasks, ([127, 0, 0, 1], 1).into());
        let config = scenario.config().unwrap();
        assert_eq!(config.watches.len(), scenario.demo_watches.len());
        assert!(config.watches.iter().all(|watch| config.apis.iter().any(|api| api.name == watch.api)));
        let ends: Vec<_> = scenario.demo_watches.iter().map(|slot| slot.task.ends).collect();
        assert!(ends.iter().any(|e| matches!(e, Ending::Failed(_))) && ends.contains(&Ending::Disabled));
    }
}
