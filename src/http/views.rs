//! The responses to GET and HEAD on the pages of agents, APIs, sources, replicas and the process.

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};

use super::api::overview::{ApiHealth, Overview};
use super::api::write::TRY_AGAIN;
use super::guard;
use super::handlers::{agent_key, current_minute};
use super::page::{
    AgentPage, AgentsPage, AgentsQuery, ApisPage, ExporterHealth, HealthSources, MissingPage, ReplicasPage,
    RuntimePage, SiteInfo, SourcesPage, View,
};
use super::responses::etag::ETag;
use super::responses::renderings::{Document, RenderingSource};
use super::responses::response::{HTML, HttpResponse, response};
use super::site::{ReplicaAccess, Site};
use crate::board::ToggleRow;
use crate::clock;
use crate::intake::SourceReport;
use crate::replicas::ReplicaReport;

/// The flag that names the configuration.
const CONFIG_FLAG: &str = "--config.file";

// === impl Site ===

impl Site {
    /// What is wrong with the exporter itself.
    pub(super) fn health(&self) -> ExporterHealth {
        let (sources, replicas) = (self.source_report(), self.replica_report());
        ExporterHealth::of(&HealthSources {
            sources: &sources,
            replicas: replicas.as_ref(),
            unhealthy: self.unhealthy_reason(),
            web_refused: !self.metrics.is_web_reloaded(),
        })
    }

    fn source_report(&self) -> SourceReport {
        self.sources.borrow().clone()
    }

    fn replica_report(&self) -> Option<ReplicaReport> {
        self.replica.as_ref().map(|replica| replica.report.borrow().clone())
    }

    /// The page of the agents.
    pub(super) async fn agents_page(&self, query: AgentsQuery, headers: &HeaderMap) -> HttpResponse {
        // How an agent is judged may change with the time alone.
        let etag = ETag::from_hash_of((self.process, self.board.revision(), current_minute(), &query));
        let (board, document) = (self.board.clone(), Document::AgentsPage(query.clone()));
        let render = move |site: SiteInfo<'_>| {
            let (agents, owners) = (board.agents(site.now), board.owners());
            AgentsPage { site, agents: &agents, owners: owners.as_deref(), query: &query }.render()
        };
        self.shared_page(document, &etag, headers, Box::new(render)).await
    }

    /// The page of one agent.
    pub(super) async fn agent_page(&self, api: &str, id: &str, headers: &HeaderMap) -> HttpResponse {
        let caught_up = self.write_api.catch_up().await;
        let known = agent_key(api, id).and_then(|key| Some((self.board.agent(&key.0, key.1, clock::now())?, key)));
        let Some((agent, key)) = known else {
            let (status, sentence) = match caught_up {
                Ok(()) => (StatusCode::NOT_FOUND, format!("No toggle and no source has agent {id} of API {api}.")),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("This replica does not know agent {id}: {why}.")),
            };
            return self.missing_page(View::Agents, 2, status, &sentence);
        };
        let etag = ETag::from_hash_of((self.process, self.board.revision(), current_minute(), &key));
        let (board, document) = (self.board.clone(), Document::AgentPage(key.clone()));
        let is_failing = agent.asked.as_ref().is_some_and(|asked| asked.live.failing.is_some());
        let api_problem = if is_failing { self.api_problem(&key.0, clock::now()) } else { None };
        let render = move |site: SiteInfo<'_>| {
            let (api, id) = &key;
            // It may have been forgotten meanwhile.
            let agent = board.agent(api, *id, site.now).unwrap_or(agent);
            let rows = board.rows();
            let is_of_agent = |row: &&ToggleRow| row.toggle.watch.agent_id == *id && row.toggle.watch.api == *api;
            let toggles: Vec<_> = rows.iter().filter(is_of_agent).cloned().collect();
            let owners = board.owners();
            let replica = owners.as_deref().and_then(|owners| owners.of(api, *id));
            AgentPage { site, agent: &agent, toggles: &toggles, replica, api_problem }.render()
        };
        self.shared_page(document, &etag, headers, Box::new(render)).await
    }

    /// The page of the APIs.
    pub(super) async fn apis_page(&self, headers: &HeaderMap) -> HttpResponse {
        let (config, loads) = (self.write_api.config(), self.metrics.loads());
        let (sources, replicas) =
            (self.source_report(), self.replica_report().map_or(1, |report| report.members.len()));
        let state = serde_json::to_string(&ApiHealth::of_all_apis(&config(), &loads, &sources)).unwrap_or_default();
        let made_from = (self.process, self.board.revision(), current_minute(), sources.revision, state);
        let etag = ETag::from_hash_of(made_from);
        let board = self.board.clone();
        let render = move |site: SiteInfo<'_>| {
            let (config, rows, agents) = (config(), board.rows(), board.agents(site.now));
            let apis = ApiHealth::of_all_apis(&config, &loads, &sources);
            let overview = Overview::of(&rows, &agents, apis, site.started_at, site.now);
            let page = ApisPage {
                site,
                config: &config,
                overview: &overview,
                loads: &loads,
                sources: &sources,
                rows: &rows,
                agents: &agents,
                replicas,
            };
            page.render()
        };
        self.shared_page(Document::ApisPage, &etag, headers, Box::new(render)).await
    }

    /// The page of the sources.
    pub(super) async fn sources_page(&self, headers: &HeaderMap) -> HttpResponse {
        let (config, sources) = (self.write_api.config(), self.source_report());
        let etag = ETag::from_hash_of((self.process, current_minute(), sources.revision));
        let file = self.start.flags.iter().find(|(flag, _)| *flag == CONFIG_FLAG).map(|(_, file)| file.clone());
        let render = move |site: SiteInfo<'_>| {
            SourcesPage { site, config: &config(), file: file.as_deref(), sources: &sources }.render()
        };
        self.shared_page(Document::SourcesPage, &etag, headers, Box::new(render)).await
    }

    /// The page of the replicas, if there can be any.
    pub(super) async fn replicas_page(&self, headers: &HeaderMap) -> HttpResponse {
        let Some(ReplicaAccess { database, .. }) = &self.replica else {
            const ALONE: &str = "There is this exporter only: no database is configured.";
            return self.missing_page(View::Replicas, 0, StatusCode::NOT_FOUND, ALONE);
        };
        let (database, report) = (database.clone(), self.replica_report().unwrap_or_default());
        let state = format!("{report:?}");
        let etag = ETag::from_hash_of((self.process, self.board.revision(), current_minute(), state));
        let board = self.board.clone();
        let render = move |site: SiteInfo<'_>| {
            let (rows, agents, owners) = (board.rows(), board.agents(site.now), board.owners());
            let (id, lease) = (database.id(), database.lease());
            let owners = owners.as_deref();
            ReplicasPage { site, id, lease, report: &report, owners, rows: &rows, agents: &agents }.render()
        };
        self.shared_page(Document::ReplicasPage, &etag, headers, Box::new(render)).await
    }

    /// The page of the process.
    pub(super) async fn runtime_page(&self, headers: &HeaderMap) -> HttpResponse {
        let (unhealthy, not_ready) = (self.unhealthy_reason(), self.not_ready_reason());
        let (config, start) = (self.write_api.config(), self.start.clone());
        let is_encrypted = self.web.borrow().tls.is_some();
        let (reload, minute) = (self.sources.borrow().last_reload.at, current_minute());
        let etag = ETag::from_hash_of((self.process, minute, reload, unhealthy, not_ready, is_encrypted));
        let render = move |site: SiteInfo<'_>| {
            let (flags, addresses) = (&start.flags, &start.addresses);
            RuntimePage { site, config: &config(), flags, addresses, is_encrypted, unhealthy, not_ready }.render()
        };
        self.shared_page(Document::RuntimePage, &etag, headers, Box::new(render)).await
    }

    /// A page that is rendered on another thread, or 304 if the client has the current one.
    pub(super) async fn shared_page(
        &self,
        document: Document,
        etag: &ETag,
        headers: &HeaderMap,
        render: Box<dyn FnOnce(SiteInfo<'_>) -> String + Send>,
    ) -> HttpResponse {
        let mut response = if etag.is_known(headers) {
            etag.not_modified()
        } else {
            let (has_replicas, started_at) = (self.replica.is_some(), self.started_at());
            let telemetry_path = self.telemetry_path.clone();
            let source = move || {
                let site = SiteInfo { telemetry_path: &telemetry_path, has_replicas, started_at, now: clock::now() };
                RenderingSource::Text(render(site).into_bytes())
            };
            let mut response = self.render_response(document, HTML, headers, Box::new(source)).await;
            etag.add_to(&mut response);
            response
        };
        guard::protect_page(response.headers_mut());
        response
    }

    /// A page that says what does not exist.
    fn missing_page(&self, view: View, depth: usize, status: StatusCode, sentence: &str) -> HttpResponse {
        let site = self.info();
        let page = MissingPage { site, view, depth, sentence }.render();
        let mut response = response(status, Some(HTML), page);
        guard::protect_page(response.headers_mut());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, TRY_AGAIN);
        }
        response
    }
}
