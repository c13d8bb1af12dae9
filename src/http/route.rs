//! The routes: which resource each path names.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::page::Asset;

/// The resource that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Metrics,
    StatusPage,
    /// A toggle's name.
    TogglePage(Cow<'p, str>),
    AgentsPage,
    /// An API's name and an agent's id.
    AgentPage(Cow<'p, str>, Cow<'p, str>),
    ApisPage,
    SourcesPage,
    ReplicasPage,
    RuntimePage,
    Asset(Asset),
    Overview,
    Runbooks,
    Toggles,
    /// A toggle's name.
    Toggle(Cow<'p, str>),
    Agents,
    /// An API's name and an agent's id.
    Agent(Cow<'p, str>, Cow<'p, str>),
    /// A toggle's name.
    Events(Cow<'p, str>),
    Healthy,
    Ready,
    Reload,
    DebugPoll,
    Config,
}

// === impl Route ===

impl<'p> Route<'p> {
    /// The route of a path, with the metrics at `telemetry_path`.
    pub(super) fn from_path(path: &'p str, telemetry_path: &str) -> Option<Self> {
        if path == telemetry_path {
            return Some(Self::Metrics);
        }
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        let decoded = |segment: &'p str| percent_decode_str(segment).decode_utf8_lossy();
        Some(match *segments {
            [""] => Self::StatusPage,
            ["toggles", name] => Self::TogglePage(decoded(name)),
            ["agents"] => Self::AgentsPage,
            ["agents", api, id] => Self::AgentPage(decoded(api), decoded(id)),
            ["apis"] => Self::ApisPage,
            ["sources"] => Self::SourcesPage,
            ["replicas"] => Self::ReplicasPage,
            ["runtime"] => Self::RuntimePage,
            ["runbooks"] => Self::Runbooks,
            ["config"] => Self::Config,
            ["assets", file] => Self::Asset(Asset::from_name(file)?),
            ["api", "v1", "status"] => Self::Overview,
            ["api", "v1", "toggles"] => Self::Toggles,
            ["api", "v1", "toggles", name] => Self::Toggle(decoded(name)),
            ["api", "v1", "toggles", name, "events"] => Self::Events(decoded(name)),
            ["api", "v1", "agents"] => Self::Agents,
            ["api", "v1", "agents", api, id] => Self::Agent(decoded(api), decoded(id)),
            ["-", "healthy"] => Self::Healthy,
            ["-", "ready"] => Self::Ready,
            ["-", "reload"] => Self::Reload,
            ["-", "debug", "poll"] => Self::DebugPoll,
            _ => return None,
        })
    }

    /// The route as labels and log lines show it: one of a closed set, with nothing in it that a client chose.
    pub(super) fn pattern(route: Option<&Self>) -> &'static str {
        match route {
            Some(Self::Metrics) => "/metrics",
            Some(Self::StatusPage) => "/",
            Some(Self::TogglePage(_)) => "/toggles/{name}",
            Some(Self::AgentsPage) => "/agents",
            Some(Self::AgentPage(..)) => "/agents/{api}/{agent_id}",
            Some(Self::ApisPage) => "/apis",
            Some(Self::SourcesPage) => "/sources",
            Some(Self::ReplicasPage) => "/replicas",
            Some(Self::RuntimePage) => "/runtime",
            Some(Self::Asset(_)) => "/assets/{file}",
            Some(Self::Runbooks) => "/runbooks",
            Some(Self::Overview) => "/api/v1/status",
            Some(Self::Toggles) => "/api/v1/toggles",
            Some(Self::Toggle(_)) => "/api/v1/toggles/{name}",
            Some(Self::Agents) => "/api/v1/agents",
            Some(Self::Agent(..)) => "/api/v1/agents/{api}/{agent_id}",
            Some(Self::Events(_)) => "/api/v1/toggles/{name}/events",
            Some(Self::Healthy) => "/-/healthy",
            Some(Self::Ready) => "/-/ready",
            Some(Self::Reload) => "/-/reload",
            Some(Self::DebugPoll) => "/-/debug/poll",
            Some(Self::Config) => "/config",
            None => "other",
        }
    }

    /// Whether it is a health check. That shows only whether the exporter works, and needs no login.
    pub(super) fn is_probe(&self) -> bool {
        matches!(self, Self::Healthy | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_route() {
        let route = |path| Route::from_path(path, "/m");
        assert_eq!(route("/m"), Some(Route::Metrics));
        assert_eq!(route("/metrics"), None);
        assert_eq!(route("/"), Some(Route::StatusPage));
        assert_eq!(route("//"), None);
        assert_eq!(route(""), None);
        assert_eq!(route("/assets/page.js"), Some(Route::Asset(Asset::from_name("page.js").unwrap())));
        assert_eq!(route("/assets/../page.js"), None);
        assert_eq!(route("/assets/"), None);
        assert_eq!(route("/toggles/a.b"), Some(Route::TogglePage("a.b".into())));
        assert_eq!(route("/toggles/%3Ca"), Some(Route::TogglePage("<a".into())));
        assert_eq!(route("/toggles"), None);
        assert_eq!(route("/toggles/a/"), None);
        assert_eq!(route("/api/v1/toggles"), Some(Route::Toggles));
        assert_eq!(route("/api/v1/toggles/a.b"), Some(Route::Toggle("a.b".into())));
        assert_eq!(route("/api/v1/toggles/a%2Fb"), Some(Route::Toggle("a/b".into())));
        assert_eq!(route("/api/v1/toggles/a/b"), None);
        assert_eq!(route("/api/v1/toggles/events"), Some(Route::Toggle("events".into())));
        assert_eq!(route("/api/v1/toggles/a/events"), Some(Route::Events("a".into())));
        assert_eq!(route("/api/v1/toggles/a/events/"), None);
        assert_eq!(route("/api/v1/agents"), Some(Route::Agents));
        assert_eq!(route("/api/v1/agents/eu/7"), Some(Route::Agent("eu".into(), "7".into())));
        assert_eq!(route("/api/v1/agents/7"), None);
        assert_eq!(route("/api/v1/agents/eu/7/"), None);
        assert_eq!(route("/agents/eu/7"), Some(Route::AgentPage("eu".into(), "7".into())));
        assert_eq!(route("/agents/eu"), None);
        assert_eq!(route("/apis"), Some(Route::ApisPage));
        assert_eq!(route("/apis/eu"), None);
        assert_eq!(route("/config/"), None);
        assert_eq!(route("/-/reload"), Some(Route::Reload));
        assert_eq!(route("/-/debug/poll"), Some(Route::DebugPoll));
        assert_eq!(route("/-/debug/poll/"), None);
        assert_eq!(route("/-/debug"), None);
    }
}
