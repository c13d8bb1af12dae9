//! Agents: what their toggle tasks told of their mocks, what their mock status says, and whether the two agree.

mod live;
mod told;

pub use live::{AgentTransition, LiveMocks, MockStatus};
pub use told::{ToldBy, ToldMocks};

use super::label::Labels;
use super::named::named_enum;
use super::watch::{AgentId, ApiName, Expect};

/// What identifies an agent.
pub type AgentKey = (ApiName, AgentId);

/// An agent whose mock status is asked for. It may have any number of watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDefinition {
    /// Its API.
    pub api: ApiName,
    /// Its id, unique within the API.
    pub agent_id: AgentId,
    /// The state in which its mocks should be if no toggle says otherwise.
    pub expect: Option<Expect>,
    /// The labels of its series.
    pub labels: Labels,
    /// Where the agent comes from.
    pub source: AgentSource,
    /// Its provider, if the source knows it.
    pub provider: Option<Provider>,
}

named_enum! {
    /// Where an agent comes from.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum AgentSource {
        /// The configuration.
        Config = "config",
        /// A watch file.
        File = "file",
        /// The list of the API.
        Discovered = "discovered",
    }
}

named_enum! {
    /// The provider of an agent: a closed set.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Provider {
        /// Vapi.
        Vapi = "vapi",
        /// Retell.
        Retell = "retell",
        /// `ElevenLabs`.
        Elevenlabs = "elevenlabs",
        /// Bland.
        Bland = "bland",
        /// `LiveKit`.
        Livekit = "livekit",
        /// The customer's own. The API always reports mocks as on, because it switches nothing.
        Custom = "custom",
        /// Another one, or none.
        Other = "other",
    }
}

/// Whether the mocks of an agent are as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    /// What they should be.
    pub expect: Expect,
    /// Whether they are not.
    pub drifted: bool,
}

/// Everything that is known of an agent whose mock status is asked for.
#[derive(Debug, Clone, Copy)]
pub struct AgentView<'a> {
    /// Its definition.
    pub definition: &'a AgentDefinition,
    /// What its toggle tasks told.
    pub told: &'a ToldMocks,
    /// What its mock status says.
    pub live: &'a LiveMocks,
    /// Whether a run of it is in progress.
    pub in_progress: bool,
}

// === impl Provider ===

impl Provider {
    /// The provider with this name in an answer, in upper or lower case and with or without white space around it.
    pub fn of(name: &str) -> Self {
        Self::parse(&name.trim().to_ascii_lowercase()).unwrap_or(Self::Other)
    }
}

// === impl AgentDefinition ===

impl AgentDefinition {
    /// What identifies the agent.
    pub fn key(&self) -> AgentKey {
        (self.api.clone(), self.agent_id)
    }
}

// === impl AgentView ===

impl AgentView<'_> {
    /// The provider, from the latest source that knows it.
    pub fn provider(&self) -> Option<Provider> {
        self.live.provider.or(self.definition.provider)
    }

    /// What its mocks should be: what its newest completed run told, otherwise what its definition expects.
    pub fn should_be(&self) -> Option<Expect> {
        should_be(self.told, self.definition.expect)
    }

    /// Whether its mocks are as they should be; `None` while that is not judged.
    ///
    /// It is not judged while either side is unknown, while a run is in progress, and after a run until the API was
    /// asked again. A custom provider is judged only if its definition expects a state.
    pub fn drift(&self) -> Option<Drift> {
        let is_judged = match self.provider() {
            Some(Provider::Custom) => self.definition.expect.is_some(),
            _ => true,
        };
        let live = self.live.enabled.filter(|_| is_judged && !self.in_progress && !self.is_outdated())?;
        let expect = self.should_be()?;
        Some(Drift { expect, drifted: !expect.is_met_by(Some(live)) })
    }

    /// Whether the API was asked before the last run finished.
    fn is_outdated(&self) -> bool {
        let run_ended = self.told.told_at().max(self.live.run_finished);
        self.live.asked < run_ended
    }
}

/// What the mocks of an agent should be: what its newest completed run told, otherwise what is expected.
pub fn should_be(told: &ToldMocks, expect: Option<Expect>) -> Option<Expect> {
    told.enabled().map(Expect::of_mocks).or(expect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::sample::{agent, answer, at, mock_status, watch};
    use crate::toggle::{Failure, Reason, ReportedStatus, Timestamp, Toggle};

    fn told(enabled: bool, finished: Timestamp) -> ToldMocks {
        let mut toggle = Toggle::new(std::sync::Arc::new(watch("w", "p")), at(0));
        toggle.apply(Ok(answer(ReportedStatus::InProgress, None)), at(0));
        toggle.apply(Ok(answer(ReportedStatus::Completed, Some(enabled))), finished);
        let mut told = ToldMocks::default();
        told.observe(&toggle.watch, &toggle.run, 1, finished);
        told
    }

    fn live(enabled: bool, asked: Timestamp) -> LiveMocks {
        let mut live = LiveMocks::default();
        live.apply(Ok(mock_status(enabled)), asked, asked);
        live
    }

    fn drift(definition: &AgentDefinition, told: &ToldMocks, live: &LiveMocks) -> Option<Drift> {
        AgentView { definition, told, live, in_progress: false }.drift()
    }

    #[test]
    fn what_a_toggle_told_precedes_what_is_expected() {
        let off = Some(Drift { expect: Expect::Disabled, drifted: false });
        let should_be_on = Some(Drift { expect: Expect::Enabled, drifted: true });
        let (nothing, live) = (ToldMocks::default(), live(false, at(20)));
        let expects = |expect| AgentDefinition { expect, ..agent("7") };
        assert_eq!(drift(&expects(None), &nothing, &live), None, "nothing says what they should be");
        assert_eq!(drift(&expects(Some(Expect::Enabled)), &nothing, &live), should_be_on);
        assert_eq!(drift(&expects(None), &told(true, at(10)), &live), should_be_on);
        assert_eq!(drift(&expects(Some(Expect::Enabled)), &told(false, at(10)), &live), off);
        let mut forgotten = told(false, at(10));
        forgotten.forget();
        assert_eq!(drift(&expects(Some(Expect::Enabled)), &forgotten, &live), should_be_on);
    }

    #[test]
    fn nothing_is_judged_while_a_run_is_in_progress_and_until_the_api_was_asked_after_it() {
        let (definition, told) = (agent("7"), told(true, at(10)));
        let judged = |live: &LiveMocks, in_progress| {
            AgentView { definition: &definition, told: &told, live, in_progress }.drift().map(|drift| drift.drifted)
        };
        assert_eq!(judged(&LiveMocks::default(), false), None, "the API was never asked");
        assert_eq!(judged(&live(false, at(9)), false), None, "that was before the run finished");
        assert_eq!(judged(&live(false, at(10)), false), Some(true));
        assert_eq!(judged(&live(false, at(10)), true), None);
        // A run that failed told nothing, but the state may have changed while it ran.
        let after_failed_run = LiveMocks { run_finished: Some(at(30)), ..live(false, at(20)) };
        assert_eq!(judged(&after_failed_run, false), None);
    }

    #[test]
    fn a_custom_provider_is_judged_only_if_a_state_is_expected() {
        let custom = AgentDefinition { provider: Some(Provider::Custom), ..agent("7") };
        let live = live(true, at(20));
        assert_eq!(drift(&custom, &told(false, at(10)), &live), None);
        let expects = AgentDefinition { expect: Some(Expect::Disabled), ..custom };
        let drifted = Some(Drift { expect: Expect::Disabled, drifted: true });
        assert_eq!(drift(&expects, &told(false, at(10)), &live), drifted);
    }

    #[test]
    fn the_time_since_mocks_are_on_is_that_of_the_first_answer_that_said_so() {
        let mut mocks = live(true, at(10));
        mocks.apply(Ok(mock_status(true)), at(20), at(21));
        assert_eq!((mocks.enabled_since, mocks.asked, mocks.last_success), (Some(at(10)), Some(at(20)), Some(at(21))));
        mocks.apply(Ok(mock_status(false)), at(30), at(30));
        assert_eq!((mocks.enabled, mocks.enabled_since), (Some(false), None));
    }

    #[test]
    fn a_failed_poll_changes_nothing_that_is_known_of_the_mocks() {
        let mut mocks = live(true, at(10));
        let before = mocks.clone();
        for (second, reason, changed) in [(20, Reason::Timeout, true), (21, Reason::Timeout, false)] {
            let transitions = mocks.apply(Err(Failure::new(reason)), at(second), at(second));
            assert_eq!(transitions, [AgentTransition::PollFailed { changed }]);
        }
        assert_eq!((mocks.up(), mocks.polls, mocks.failures), (Some(false), 3, 2));
        let known = LiveMocks { failing: None, polls: 1, failures: 0, ..mocks.clone() };
        assert_eq!(known, before);
        let recovered =
            AgentTransition::Recovered { reason: Reason::Timeout, lasted: std::time::Duration::from_secs(2) };
        assert_eq!(mocks.apply(Ok(mock_status(true)), at(22), at(22)), [recovered]);
    }

    #[test]
    fn an_unlisted_agent_is_kept_for_a_day() {
        let mut mocks = live(true, at(10));
        assert!(mocks.keep(false, at(100)) && mocks.keep(false, at(100 + 86_399)));
        assert!(!mocks.keep(false, at(100 + 86_400)));
        assert!(mocks.keep(true, at(200_000)) && mocks.keep(false, at(200_001)));
    }

    #[test]
    fn providers_are_a_closed_set_whatever_their_case() {
        for (name, provider) in [
            ("vapi", Provider::Vapi),
            (" ElevenLabs ", Provider::Elevenlabs),
            ("", Provider::Other),
            ("x", Provider::Other),
        ] {
            assert_eq!(Provider::of(name), provider, "{name}");
        }
    }
}
