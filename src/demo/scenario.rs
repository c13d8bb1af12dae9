//! The watches and agents of the demo: every kind of run and of mock state, new runs that begin by themselves, and an
//! agent whose mocks somebody switches again and again.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::agents::SimulatedAgent;
use super::api::{FLAKY_PREFIX, KEY, SimulatedApi};
use super::simulator::Simulator;
use super::tasks::{Ending, Task};
use crate::cekura::{Api, KeySource, Rate, Secret};
use crate::config::{Config, ConnectionLimits, Polling, Registrations};
use crate::tasks;
use crate::toggle::{
    AgentDefinition, AgentId, AgentSource, ApiName, Expect, LabelName, Labels, ProgressId, Source, Watch, WatchName,
};

/// How often the next watch of the demo gets a new run.
const NEW_RUN_INTERVAL: Duration = Duration::from_secs(15);

/// How often somebody switches the mocks of [`SWITCHED_AGENT`].
const SWITCH_INTERVAL: Duration = Duration::from_secs(30);

/// The agent that drifts and comes back by itself.
const SWITCHED_AGENT: u64 = 4440;

/// One watch of the demo and the task of each of its runs.
struct DemoWatch {
    name: &'static str,
    team: &'static str,
    api: &'static str,
    expect: Option<Expect>,
    task: Task,
}

/// One agent of the demo.
struct DemoAgent {
    id: u64,
    api: &'static str,
    /// How it is configured; `None` if it is not.
    configured: Option<ConfiguredAgent>,
    simulated: SimulatedAgent,
}

/// The configuration of an agent.
struct ConfiguredAgent {
    team: &'static str,
    expect: Option<Expect>,
}

/// The watches and agents of the demo, and the API behind them.
pub struct Scenario {
    simulated: Arc<SimulatedApi>,
    upstream: SocketAddr,
    demo_watches: Vec<DemoWatch>,
    /// How many runs each of the watches has had.
    runs: Vec<u32>,
}

// === impl Scenario ===

impl Scenario {
    /// The scenario for the API at `upstream`. The first run of every watch begins now.
    pub fn new(simulated: Arc<SimulatedApi>, upstream: SocketAddr) -> Self {
        for agent in demo_agents() {
            let agents = if agent.api == "flaky" { &simulated.flaky_agents } else { &simulated.agents };
            agents.put(agent.id, agent.simulated);
        }
        let demo_watches = demo_watches();
        let mut scenario = Self { simulated, upstream, runs: vec![0; demo_watches.len()], demo_watches };
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
            agent_interval: Duration::from_secs(3),
            ..Polling::default()
        };
        let apis = vec![Api { discover_agents: true, ..self.api("default", "")? }, self.api("flaky", FLAKY_PREFIX)?];
        let agents: Result<_, _> =
            demo_agents().iter().filter_map(DemoAgent::definition).map(|agent| agent.map(Arc::new)).collect();
        Ok(Config {
            apis,
            agents: agents?,
            polling,
            watches: self.watches()?,
            watch_files: Vec::new(),
            registrations: Registrations::default(),
            database: None,
            state_file: None,
            external_url: None,
            linger: Duration::ZERO,
            connections: ConnectionLimits::default(),
        })
    }

    /// Gives one watch after the other a new run until the receiver is dropped, and switches an agent by hand.
    ///
    /// # Errors
    /// As [`Scenario::config`].
    pub fn live(mut self, simulator: Simulator) -> Result<watch::Receiver<Vec<Arc<Watch>>>, String> {
        let (lists, receiver) = watch::channel(self.watches()?);
        tasks::spawn(switch_by_hand(self.simulated.clone()));
        tasks::spawn(async move {
            let _simulator = simulator;
            let mut ticks = tokio::time::interval(NEW_RUN_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            for index in (0..self.demo_watches.len()).cycle() {
                if !self.demo_watches[index].gets_new_runs() {
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
        self.simulated.tasks.forget(&self.progress_id(index));
        self.runs[index] += 1;
        self.simulated.tasks.begin(&self.progress_id(index), self.demo_watches[index].task);
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
    /// Whether new runs of it begin. Those that hang, and those that do not take effect, stay for people to look at.
    fn gets_new_runs(&self) -> bool {
        self.task.takes < STUCK && self.task.takes_effect
    }

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

// === impl DemoAgent ===

impl DemoAgent {
    /// Its definition; `None` if it is not configured.
    fn definition(&self) -> Option<Result<AgentDefinition, String>> {
        let ConfiguredAgent { team, expect } = self.configured.as_ref()?;
        let definition = || {
            Ok(AgentDefinition {
                api: ApiName::parse(self.api)?,
                agent_id: AgentId::parse(&self.id.to_string())?,
                expect: *expect,
                labels: Labels::from([(LabelName::parse("team")?, (*team).into())]),
                source: AgentSource::Config,
                provider: None,
            })
        };
        Some(definition())
    }
}

async fn switch_by_hand(simulated: Arc<SimulatedApi>) {
    let mut ticks = tokio::time::interval(SWITCH_INTERVAL);
    for enabled in [true, false].into_iter().cycle() {
        ticks.tick().await;
        simulated.agents.switch(SWITCHED_AGENT, enabled);
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
        task: Task { agent_id, takes, ends, takes_effect: true },
    };
    let (enabled, disabled) = (Some(Expect::Enabled), Some(Expect::Disabled));
    let seconds = Duration::from_secs;
    let refused = "the voice provider refused the tool update at https://provider.invalid/tools/17";
    let mut reminders =
        watch("reminders-enable", "growth", enabled, 4420, seconds(7), Ending::Enabled { endpoints: 1 });
    reminders.task.takes_effect = false;
    vec![
        watch("bookings-enable", "bookings", enabled, 4321, seconds(8), Ending::Enabled { endpoints: 2 }),
        watch("support-disable", "support", disabled, 4322, seconds(5), Ending::Disabled),
        watch("payments-enable", "payments", enabled, 4400, seconds(10), Ending::Failed(refused)),
        watch("onboarding-enable", "growth", enabled, 4410, STUCK, Ending::Enabled { endpoints: 1 }),
        watch("refunds-enable", "payments", enabled, 4500, seconds(6), Ending::Disabled),
        reminders,
        DemoWatch {
            api: "flaky",
            ..watch("staging-enable", "platform", None, 77, seconds(20), Ending::Enabled { endpoints: 1 })
        },
    ]
}

/// The agents of the demo: those whose watches are above, and those that only the agents' list has.
fn demo_agents() -> Vec<DemoAgent> {
    let agent = |id, configured, provider, mock_enabled| DemoAgent {
        id,
        api: "default",
        configured,
        simulated: SimulatedAgent { mock_enabled, provider, mock_tools: 2 },
    };
    let configured = |team, expect| Some(ConfiguredAgent { team, expect });
    let disabled = Some(Expect::Disabled);
    vec![
        // Its toggle says what is.
        agent(4321, configured("bookings", None), "vapi", false),
        agent(4322, configured("support", disabled), "retell", false),
        // Its toggle completes, but the mocks stay off.
        agent(4420, configured("growth", None), "elevenlabs", false),
        // Somebody left its mocks on.
        agent(4430, configured("reception", disabled), "vapi", true),
        // Somebody switches its mocks again and again.
        agent(SWITCHED_AGENT, configured("concierge", disabled), "bland", false),
        DemoAgent { api: "flaky", ..agent(77, configured("platform", None), "vapi", false) },
        agent(4400, None, "vapi", false),
        agent(4410, None, "vapi", false),
        agent(4500, None, "livekit", false),
        // Nothing says what its mocks should be.
        agent(5100, None, "retell", true),
        // Discovery leaves this one out.
        DemoAgent {
            simulated: SimulatedAgent { mock_enabled: false, provider: "vapi", mock_tools: 0 },
            ..agent(5200, None, "vapi", false)
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_is_valid_and_has_every_kind_of_run() {
        let scenario = Scenario::new(Arc::default(), ([127, 0, 0, 1], 1).into());
        let config = scenario.config().unwrap();
        assert_eq!(config.watches.len(), scenario.demo_watches.len());
        assert!(config.watches.iter().all(|watch| config.apis.iter().any(|api| api.name == watch.api)));
        let configured: Vec<_> = config.agents.iter().map(|agent| agent.agent_id.get()).collect();
        assert_eq!(configured, [4321, 4322, 4420, 4430, SWITCHED_AGENT, 77]);
        let ends: Vec<_> = scenario.demo_watches.iter().map(|slot| slot.task.ends).collect();
        assert!(ends.iter().any(|e| matches!(e, Ending::Failed(_))) && ends.contains(&Ending::Disabled));
    }
}
