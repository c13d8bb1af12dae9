//! Watches and answers for tests. Invalid values panic.

use super::{
    AgentDefinition, AgentId, AgentSource, Answer, ApiName, Labels, MockStatus, ProgressId, ReportedStatus, Source,
    Timestamp, Watch, WatchName,
};

/// A watch of agent 4321 at the default API.
pub(crate) fn watch(name: &str, progress_id: &str) -> Watch {
    Watch {
        name: WatchName::parse(name).unwrap(),
        api: ApiName::default_api(),
        agent_id: AgentId::parse("4321").unwrap(),
        progress_id: ProgressId::restore(progress_id).unwrap(),
        expect: None,
        labels: Labels::default(),
        source: Source::Config,
    }
}

/// An answer without optional fields.
pub(crate) fn answer(status: ReportedStatus, mock_enabled: Option<bool>) -> Answer {
    Answer {
        status,
        mock_enabled,
        mcp_endpoints: None,
        mcp_tools: None,
        message: None,
        error: None,
        malformed: Vec::new(),
    }
}

/// A time, by seconds after some fixed time.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1000)
}

/// A configured agent of the default API.
pub(crate) fn agent(id: &str) -> AgentDefinition {
    AgentDefinition {
        api: ApiName::default_api(),
        agent_id: AgentId::parse(id).unwrap(),
        expect: None,
        labels: Labels::default(),
        source: AgentSource::Config,
        provider: None,
    }
}

/// A mock status without optional fields.
pub(crate) fn mock_status(enabled: bool) -> MockStatus {
    MockStatus { enabled, provider: None, mcp_endpoints: None, tool_endpoints: None, malformed: Vec::new() }
}
