//! What an alert is about, as the query of the page names it.

use std::sync::Arc;

use url::form_urlencoded;

use crate::board::Board;
use crate::cekura::Api;
use crate::clock;
use crate::config::Config;
use crate::toggle::{AgentId, ApiName, Expect, Labels, Toggle, Watch, WatchName, should_be};

/// What an alert is about.
#[derive(Debug, Default)]
pub(crate) enum AlertSubject {
    /// The query names nothing: the commands keep their examples.
    #[default]
    Unspecified,
    /// What the query names does not exist: a sentence that says so.
    Missing(String),
    Toggle(Arc<Watch>, ApiUrl),
    /// An agent, with the labels of the toggle that last told whether its mocks are on, or else those of the
    /// configuration, and the state in which its mocks should be, if that is known.
    Agent(AgentId, ApiUrl, Labels, Option<Expect>),
    Api(ApiUrl),
}

/// An API and its base URL, without a slash at the end.
#[derive(Debug)]
pub(crate) struct ApiUrl {
    pub(super) api: ApiName,
    pub(super) url: String,
}

// === impl AlertSubject ===

impl AlertSubject {
    /// The subject of a query: `toggle=NAME`, `agent=API/ID` or `api=NAME`.
    pub(crate) fn from_query(query: Option<&str>, board: &Board, config: &Config) -> Self {
        let mut parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let subject = parameters.find_map(|(name, value)| match &*name {
            "toggle" => Some(Self::find_toggle(&value, board, config)),
            "agent" => Some(Self::find_agent(&value, board, config)),
            "api" => Some(Self::find_api(&value, config)),
            _ => None,
        });
        match subject {
            None => Self::Unspecified,
            Some(Ok(subject)) => subject,
            Some(Err(missing)) => Self::Missing(missing),
        }
    }

    fn find_toggle(name: &str, board: &Board, config: &Config) -> Result<Self, String> {
        // The page repeats only text that is a name.
        let name = WatchName::parse(name).map_err(|_| "The address of this page names no toggle.".to_owned())?;
        let watch = board.with_row(name.as_str(), |row| alerting_watch(&row.toggle));
        let found = watch.and_then(|watch| Some(Self::Toggle(watch.clone(), ApiUrl::find(&watch.api, config)?)));
        let name = name.as_str();
        found.ok_or_else(|| format!("There is no toggle {name} now. It may have been removed or have expired."))
    }

    fn find_agent(agent: &str, board: &Board, config: &Config) -> Result<Self, String> {
        let found = || {
            let (api, id) = agent.split_once('/')?;
            let (api, id) = (ApiName::parse(api).ok()?, AgentId::parse(id).ok()?);
            let (labels, should_be) = alerting_agent(&api, id, board);
            Some(Self::Agent(id, ApiUrl::find(&api, config)?, labels, should_be))
        };
        found().ok_or_else(|| "The address of this page names no agent of an API that is configured.".to_owned())
    }

    fn find_api(name: &str, config: &Config) -> Result<Self, String> {
        let api = ApiName::parse(name).ok().and_then(|api| ApiUrl::find(&api, config));
        api.map(Self::Api).ok_or_else(|| "The address of this page names no API that is configured.".to_owned())
    }

    /// What it is called, if it is something.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Toggle(watch, _) => Some(watch.name.as_str().to_owned()),
            Self::Agent(agent, api, ..) => Some(format!("agent {agent} of API {}", api.api.as_str())),
            Self::Api(api) => Some(format!("API {}", api.api.as_str())),
            Self::Unspecified | Self::Missing(_) => None,
        }
    }

    pub(super) fn api(&self) -> Option<&ApiUrl> {
        match self {
            Self::Toggle(_, api) | Self::Agent(_, api, ..) | Self::Api(api) => Some(api),
            Self::Unspecified | Self::Missing(_) => None,
        }
    }

    pub(super) fn agent(&self) -> Option<AgentId> {
        match self {
            Self::Toggle(watch, _) => Some(watch.agent_id),
            Self::Agent(agent, ..) => Some(*agent),
            _ => None,
        }
    }

    pub(super) fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Toggle(watch, _) => Some(&watch.labels),
            Self::Agent(_, _, labels, _) => Some(labels),
            _ => None,
        }
    }

    pub(super) fn watch(&self) -> Option<&Watch> {
        match self {
            Self::Toggle(watch, _) => Some(watch),
            _ => None,
        }
    }
}

// === impl ApiUrl ===

impl ApiUrl {
    fn find(api: &ApiName, config: &Config) -> Option<Self> {
        let Api { name, base_url, .. } = config.apis.iter().find(|found| found.name == *api)?;
        Some(Self { api: name.clone(), url: base_url.as_str().trim_end_matches('/').to_owned() })
    }
}

/// The watch of a toggle, with the direction that its alerts have: that of the run that ended badly, even while a
/// run in the other direction replaces it.
fn alerting_watch(toggle: &Toggle) -> Arc<Watch> {
    match toggle.tally.problem {
        Some(problem) if problem.expect != toggle.watch.expect => {
            Arc::new(Watch { expect: problem.expect, ..(*toggle.watch).clone() })
        }
        _ => toggle.watch.clone(),
    }
}

/// The labels of an agent, and the state in which its mocks should be.
fn alerting_agent(api: &ApiName, id: AgentId, board: &Board) -> (Labels, Option<Expect>) {
    let Some(agent) = board.agent(api, id, clock::now()) else { return Default::default() };
    let expect = agent.asked.as_ref().and_then(|asked| asked.definition.expect);
    (agent.labels().cloned().unwrap_or_default(), should_be(&agent.told, expect))
}
