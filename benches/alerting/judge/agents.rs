//! Agents that the exporter asks for their mock status: what happens to their mocks, and how they answer.

use fastrand::Rng;

use super::Settings;
use super::plan::{Api, End, Run, Silence, Slot, Time};

/// For how long a test run of a newer deployment switches mocks, in seconds of the rules.
const TEST_RUN: Time = 120.0;

/// How often the mocks of an agent are switched for a test run.
const TEST_RUNS: u32 = 4;

/// How long a toggle takes at most until mocks are switched, in seconds of the rules.
const SLOWEST_TOGGLE: Time = 120.0;

/// What happens to the mocks of an agent that is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AgentScript {
    /// Mocks are switched on by hand.
    SwitchedOn,
    /// Mocks are switched off by hand.
    SwitchedOff,
    /// A toggle completes, and mocks stay as they were.
    NotTaken,
    /// A toggle completes, and mocks are switched some time later.
    Taken,
    /// Test runs switch mocks on for two minutes each.
    TestRuns,
    /// Mocks are switched on, and nothing says what they should be.
    LeftOn,
    /// A custom provider, of which the API always says that mocks are on.
    Custom,
    /// A custom provider that should not use mocks.
    CustomNotExpected,
    /// An agent of another project.
    Foreign,
    /// The API does not answer for this agent.
    Silent,
    /// An agent of an API that cannot tell the mock status.
    WithoutStatus,
}

/// An agent that is asked for its mock status.
pub(crate) struct AskedAgent {
    /// What its definition expects.
    pub(crate) expect: Option<bool>,
    /// Whether it is only listed by its API. Otherwise it is configured.
    pub(crate) discovered: bool,
    pub(crate) provider: &'static str,
    /// Whether its mocks are on at the beginning.
    pub(crate) on_at_first: bool,
    /// When its mocks are switched by hand.
    pub(crate) switches: Vec<(Time, bool)>,
    /// How long after the end of a toggle its mocks are switched; `None` if they stay as they are.
    pub(crate) takes: Option<Time>,
    /// From when to when it is not answered, and how.
    pub(crate) unanswered: Option<(Time, Time, Unanswered)>,
}

/// How a request for the mock status of an agent fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    Forbidden,
    Silent(Silence),
}

// === impl AgentScript ===

impl AgentScript {
    pub(crate) const ALL: [Self; 11] = [
        Self::SwitchedOn,
        Self::SwitchedOff,
        Self::NotTaken,
        Self::Taken,
        Self::TestRuns,
        Self::LeftOn,
        Self::Custom,
        Self::CustomNotExpected,
        Self::Foreign,
        Self::Silent,
        Self::WithoutStatus,
    ];

    /// The API of the agent with this script and this number among those with it.
    pub(crate) fn api(self, number: u32) -> Api {
        match self {
            Self::WithoutStatus => Api::Statusless,
            // An API that toggles nothing has no toggles that are answered.
            Self::SwitchedOn | Self::SwitchedOff | Self::TestRuns if number % 3 == 1 => Api::Toggleless,
            // A discovered agent has no `expect`.
            Self::NotTaken | Self::Taken | Self::LeftOn | Self::Custom if number % 2 == 1 => Api::Listed,
            _ => Api::Steady,
        }
    }

    /// The agent, and the run of a toggle of it.
    pub(crate) fn draw(self, api: Api, settings: &Settings, rng: &mut Rng) -> (AskedAgent, Option<Run>) {
        let whole = settings.seconds();
        let at = whole * (0.05 + rng.f64() * 0.4);
        let soon = (rng.f64() * 16.0 - 2.0).max(0.0);
        let told = rng.bool();
        let run = Run {
            at,
            expect: rng.bool().then_some(told),
            ends: Some((at + soon, End::Completed(Some(told)))),
            ..Run::default()
        };
        // Some stay as they are until the end.
        let corrected = at + soon + settings.surely_notified() + rng.f64() * 30.0;
        let corrected = (rng.u32(..3) > 0).then_some(corrected);
        let discovered = api == Api::Listed;
        let mut agent = AskedAgent { discovered, ..AskedAgent::default() };
        let by_hand = |on: bool| [(at, on)].into_iter().chain(corrected.map(|at| (at, !on))).collect();
        let mut is_toggled = false;
        match self {
            Self::SwitchedOn => (agent.expect, agent.switches) = (Some(false), by_hand(true)),
            Self::SwitchedOff => {
                (agent.expect, agent.on_at_first, agent.switches) = (Some(true), true, by_hand(false));
            }
            Self::NotTaken => {
                is_toggled = true;
                agent.on_at_first = !told;
                // What a toggle told counts more than what the definition expects.
                agent.expect = (!discovered && rng.bool()).then_some(!told);
                agent.switches = corrected.map(|at| (at, told)).into_iter().collect();
            }
            Self::Taken => {
                is_toggled = true;
                (agent.on_at_first, agent.takes) = (!told, Some(settings.scaled(SLOWEST_TOGGLE) * rng.f64()));
            }
            Self::TestRuns => (agent.expect, agent.switches) = (Some(false), test_runs(at, settings, rng)),
            Self::LeftOn => {
                let from = whole * (0.02 + rng.f64() * 0.18);
                let to = from + settings.scaled(7200.0) + settings.surely_notified();
                agent.switches = [(from, true)].into_iter().chain(rng.bool().then_some((to, false))).collect();
            }
            Self::Custom => {
                is_toggled = rng.bool();
                (agent.provider, agent.on_at_first) = ("custom", true);
            }
            Self::CustomNotExpected => {
                (agent.provider, agent.on_at_first, agent.expect) = ("custom", true, Some(false));
            }
            Self::Foreign => agent.unanswered = Some((0.0, f64::INFINITY, Unanswered::Forbidden)),
            Self::Silent => agent.unanswered = Some(silence(settings, rng)),
            Self::WithoutStatus => {}
        }
        (agent, is_toggled.then_some(run))
    }
}

/// Mocks are on for each test run. The next one begins after a while.
fn test_runs(at: Time, settings: &Settings, rng: &mut Rng) -> Vec<(Time, bool)> {
    let (mut at, mut switches) = (at, Vec::new());
    for _ in 0..TEST_RUNS {
        let over = at + settings.scaled(TEST_RUN);
        switches.extend([(at, true), (over, false)]);
        at = over + settings.scaled(2.0 * TEST_RUN) + rng.f64() * 10.0;
    }
    switches
}

/// An agent is not answered for a while, or from some time on.
fn silence(settings: &Settings, rng: &mut Rng) -> (Time, Time, Unanswered) {
    let how = [Silence::Hangs, Silence::Breaks, Silence::Resets, Silence::Babbles][rng.usize(..4)];
    let from = settings.seconds() * rng.f64() * 0.3;
    let to = from + settings.scaled(900.0) + settings.surely_notified() + rng.f64() * 30.0;
    (from, if rng.bool() { to } else { f64::INFINITY }, Unanswered::Silent(how))
}

// === impl AskedAgent ===

impl Default for AskedAgent {
    fn default() -> Self {
        Self {
            expect: None,
            discovered: false,
            provider: "vapi",
            on_at_first: false,
            switches: Vec::new(),
            takes: None,
            unanswered: None,
        }
    }
}

impl AskedAgent {
    /// The agent of a slot, which is configured to stay on. Its toggles take effect at once.
    pub(crate) fn staying_on() -> Self {
        Self { expect: Some(true), on_at_first: true, takes: Some(0.0), ..Self::default() }
    }

    /// Whether what its API says about its mocks is known to be true.
    pub(crate) fn is_live_known(&self) -> bool {
        self.provider != "custom"
    }

    /// When its mocks are switched, and to what. `told` is what the toggles of the agent told, with the times when
    /// that was served.
    pub(crate) fn timeline(&self, told: impl IntoIterator<Item = (Time, bool)>) -> Vec<(Time, bool)> {
        let taken = told.into_iter().filter_map(|(at, on)| Some((at + self.takes?, on)));
        let mut timeline: Vec<_> = self.switches.iter().copied().chain(taken).collect();
        timeline.sort_by(|a, b| a.0.total_cmp(&b.0));
        timeline.insert(0, (0.0, self.on_at_first));
        timeline
    }
}

/// What the completed runs of a slot told, with the times when that was served.
pub(crate) fn told(slot: &Slot, served: impl IntoIterator<Item = Option<Time>>) -> Vec<(Time, bool)> {
    let runs = slot.runs.iter().zip(served);
    let told = runs.filter_map(|(run, served)| match run.ends? {
        (_, End::Completed(Some(on))) => Some((served?, on)),
        _ => None,
    });
    told.collect()
}
