//! The responses to GET and HEAD on each path, and forgetting an agent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, VARY};
use hyper::{Response, StatusCode};

use super::api::agents::{AgentJson, AgentListJson};
use super::api::history::EventList;
use super::api::overview::{ApiHealth, ApiProblem, Overview};
use super::api::toggles::{ToggleJson, ToggleList};
use super::api::wait::{AgentOutcome, AgentQuery, WaitOutcome, WaitQuery};
use super::api::write::{TRY_AGAIN, try_again};
use super::guard;
use super::page::runbooks::{AlertSubject, Runbooks, exporter_url};
use super::page::{AgentsQuery, MissingTogglePage, PageQuery, SiteInfo, StatusPage, TogglePage};
use super::responses::body::ResponseBody;
use super::responses::etag::ETag;
use super::responses::json_layout::JsonLayout;
use super::responses::negotiate;
use super::responses::renderings::{Document, MakeSource, RenderError, RenderingKey, RenderingSource};
use super::responses::response::{HTML, HttpResponse, JSON, TEXT, YAML, encode_json, json, ok, problem, response};
use super::route::Route;
use super::selection::Selection;
use super::site::{ReplicaAccess, Site};
use crate::clock;
use crate::exposition::Snapshot;
use crate::store::{AgentRequest, DatabaseStore};
use crate::toggle::{AgentId, AgentKey, ApiName, Timestamp, WatchName};

const NO_SUCH_AGENT: &str = "no such agent: no watch has it and no source lists it";

const NOT_ASKED: &str = "the exporter does not ask for the mock status of this agent: list it under `agents`";

/// How long a response may wait for the state file.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often is looked whether another replica has forgotten an agent.
const FORGET_INTERVAL: Duration = Duration::from_millis(50);

/// A configuration with at most this many watches is rendered on this thread.
const FEW_WATCHES: usize = 100;

// === impl Site ===

impl Site {
    /// Responds to a GET or HEAD request.
    pub(super) async fn get(
        &self,
        route: &Route<'_>,
        query: Option<&str>,
        layout: JsonLayout,
        headers: &HeaderMap,
    ) -> HttpResponse {
        match route {
            Route::Metrics => self.metrics(headers).await,
            Route::StatusPage => match PageQuery::toggle(query) {
                Some(toggle) => moved_to(&format!("toggles/{}", toggle.as_str())),
                None => self.status_page(PageQuery::parse(query), headers).await,
            },
            Route::TogglePage(name) => self.toggle_page(name, headers).await,
            Route::Asset(asset) => cacheable_response(asset.content_type, asset.content, headers),
            Route::Runbooks => self.runbooks(query, headers),
            Route::AgentsPage => self.agents_page(AgentsQuery::parse(query), headers).await,
            Route::AgentPage(api, id) => self.agent_page(api, id, headers).await,
            Route::ApisPage => self.apis_page(headers).await,
            Route::SourcesPage => self.sources_page(headers).await,
            Route::ReplicasPage => self.replicas_page(headers).await,
            Route::RuntimePage => self.runtime_page(headers).await,
            Route::Overview => self.overview(layout, headers).await,
            Route::Toggle(name) => self.toggle(name, query).await,
            Route::Events(name) => self.events(name).await,
            Route::Agents => self.agents(layout, headers).await,
            Route::Agent(api, id) => self.agent(api, id, query).await,
            Route::Toggles => match Selection::parse(query) {
                Ok(selection) => self.toggles(selection, layout, headers).await,
                Err(what) => problem(StatusCode::BAD_REQUEST, &what),
            },
            Route::Healthy => health(self.unhealthy_reason(), "healthy\n"),
            Route::Ready => health(self.not_ready_reason(), "ready\n"),
            Route::Config => self.config(headers).await,
            Route::Reload | Route::DebugPoll => self.refuse_method(route),
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> HttpResponse {
        let format = negotiate::format(headers);
        let (board, metrics) = (self.board.clone(), self.metrics.clone());
        let source = move || {
            let agents = board.owned_agents(clock::now());
            let snapshot = Snapshot::new(board.owned_rows(), agents, metrics.sources(), metrics.gather(Instant::now()));
            RenderingSource::Metrics(snapshot, format)
        };
        let content_type = format.content_type(negotiate::escaping(headers));
        let mut response =
            self.render_response(Document::Metrics(format), content_type, headers, Box::new(source)).await;
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        response
    }

    /// A toggle, at once or when its run is finished.
    async fn toggle(&self, name: &str, query: Option<&str>) -> HttpResponse {
        let query = match WaitQuery::parse(query) {
            Ok(query) => query,
            Err(what) => return problem(StatusCode::BAD_REQUEST, &what),
        };
        let caught_up = self.write_api.catch_up().await;
        match (query.wait(name, &self.board, self.draining.clone()).await, caught_up) {
            (WaitOutcome::Over(row), _) => json(&ToggleJson::of(&row, self.board.owners().as_deref())),
            (WaitOutcome::Draining, _) => try_again("the exporter stops"),
            (WaitOutcome::Gone | WaitOutcome::OtherRun, Err(why)) => may_be_registered(&why),
            (WaitOutcome::Gone, Ok(())) => no_such_watch(),
            (WaitOutcome::OtherRun, Ok(())) => problem(StatusCode::CONFLICT, "another run is watched under that name"),
        }
    }

    /// The events of a toggle.
    async fn events(&self, name: &str) -> HttpResponse {
        let caught_up = self.write_api.catch_up().await;
        match (self.board.events(name), caught_up) {
            (Some(events), _) => json(&EventList::of(&events)),
            (None, Err(why)) => may_be_registered(&why),
            (None, Ok(())) => no_such_watch(),
        }
    }

    /// The selected toggles, or 304 if the client has the current ones.
    async fn toggles(&self, selection: Selection, layout: JsonLayout, headers: &HeaderMap) -> HttpResponse {
        let minute = selection.depends_on_time().then(current_minute);
        let etag = ETag::from_hash_of((self.process, self.board.revision(), minute, layout));
        if etag.is_known(headers) {
            return etag.not_modified();
        }
        let (board, document) = (self.board.clone(), Document::Toggles(selection.clone(), layout));
        let source = move || {
            let rows = board.rows();
            let owners = board.owners();
            let list = encode_json(&ToggleList::of(&rows, owners.as_deref(), &selection, clock::now()));
            RenderingSource::Text(layout.lay_out(list.unwrap_or_default()))
        };
        let mut response = self.render_response(document, JSON, headers, Box::new(source)).await;
        etag.add_to(&mut response);
        response
    }

    /// All agents, or 304 if the client has the current ones.
    async fn agents(&self, layout: JsonLayout, headers: &HeaderMap) -> HttpResponse {
        // How an agent is judged may change with the time alone.
        let etag = ETag::from_hash_of((self.process, self.board.revision(), current_minute(), layout));
        if etag.is_known(headers) {
            return etag.not_modified();
        }
        let board = self.board.clone();
        let source = move || {
            let list = encode_json(&AgentListJson::of(&board.all_agents(clock::now()), board.owners().as_deref()));
            RenderingSource::Text(layout.lay_out(list.unwrap_or_default()))
        };
        let mut response = self.render_response(Document::Agents(layout), JSON, headers, Box::new(source)).await;
        etag.add_to(&mut response);
        response
    }

    /// An agent, at once or when the API says what the query waits for.
    async fn agent(&self, api: &str, id: &str, query: Option<&str>) -> HttpResponse {
        let query = match AgentQuery::parse(query) {
            Ok(query) => query,
            Err(what) => return problem(StatusCode::BAD_REQUEST, &what),
        };
        let Some(key) = agent_key(api, id) else { return problem(StatusCode::NOT_FOUND, NO_SUCH_AGENT) };
        let caught_up = self.write_api.catch_up().await;
        match query.wait(&key, &self.board, &self.asks, self.draining.clone()).await {
            AgentOutcome::Over(row) => json(&AgentJson::of(&row, self.board.owners().as_deref())),
            AgentOutcome::Gone if caught_up.is_err() => may_be_registered(&caught_up.err().unwrap_or_default()),
            AgentOutcome::Gone => problem(StatusCode::NOT_FOUND, NO_SUCH_AGENT),
            AgentOutcome::NotAsked => problem(StatusCode::CONFLICT, NOT_ASKED),
            AgentOutcome::Draining => try_again("the exporter stops"),
        }
    }

    /// Forgets what was told of an agent, and responds when the change is on the disk.
    pub(super) async fn forget_agent(&self, api: &str, id: &str) -> HttpResponse {
        let Some((api, id)) = agent_key(api, id) else { return nothing_told() };
        if let Some(ReplicaAccess { database, .. }) = &self.replica
            && !self.board.owns_agent(&api, id)
        {
            return self.forget_elsewhere(database, (api, id)).await;
        }
        if !self.board.forget_agent(&api, id, clock::now()) {
            return nothing_told();
        }
        match tokio::time::timeout(SAVE_TIMEOUT, self.board.all_saved()).await {
            Ok(()) => response(StatusCode::NO_CONTENT, None, ""),
            Err(_) => try_again("it is forgotten, but that is not saved yet: a restart would bring it back"),
        }
    }

    /// Has the replica that owns an agent forget what was told of it, and responds when that is known here.
    async fn forget_elsewhere(&self, database: &DatabaseStore, agent: AgentKey) -> HttpResponse {
        let is_told =
            || self.board.agent(&agent.0, agent.1, clock::now()).is_some_and(|row| row.told.enabled().is_some());
        if !is_told() {
            return nothing_told();
        }
        if let Err(error) = database.request(&AgentRequest::Forget(agent.clone())).await {
            return try_again(&format!("another replica has to forget it: {} {error}", error.subject()));
        }
        let forgotten = async {
            while is_told() {
                tokio::time::sleep(FORGET_INTERVAL).await;
            }
        };
        match tokio::time::timeout(SAVE_TIMEOUT, forgotten).await {
            Ok(()) => response(StatusCode::NO_CONTENT, None, ""),
            Err(_) => try_again("another replica has to forget it, and has not confirmed it yet"),
        }
    }

    /// What is wrong with an API as a whole.
    pub(super) fn api_problem(&self, api: &ApiName, now: Timestamp) -> Option<ApiProblem> {
        let (rows, agents) = (self.board.rows(), self.board.agents(now));
        let overview = Overview::of(&rows, &agents, self.api_health()(), self.started_at(), now);
        overview.apis.iter().find(|health| health.name == api.as_str())?.problem()
    }

    /// Reads the health of each API. The polls of toggles are not counted in it yet.
    fn api_health(&self) -> impl Fn() -> Vec<ApiHealth> + Send + use<> {
        let (config, metrics, sources) = (self.write_api.config(), self.metrics.clone(), self.sources.clone());
        move || ApiHealth::of_all_apis(&config(), &metrics.loads(), &sources.borrow())
    }

    async fn overview(&self, layout: JsonLayout, headers: &HeaderMap) -> HttpResponse {
        let (board, apis, started_at) = (self.board.clone(), self.api_health(), self.started_at());
        let source = move || {
            let now = clock::now();
            let agents = board.agents(now);
            let overview = encode_json(&Overview::of(&board.rows(), &agents, apis(), started_at, now));
            RenderingSource::Text(layout.lay_out(overview.unwrap_or_default()))
        };
        self.render_response(Document::Overview(layout), JSON, headers, Box::new(source)).await
    }

    /// The status page, or 304 if the client has the current one.
    async fn status_page(&self, query: PageQuery, headers: &HeaderMap) -> HttpResponse {
        let apis = self.api_health();
        let api_state = serde_json::to_string(&apis()).unwrap_or_default();
        // How a toggle or an agent stands may change with the time alone.
        let health = self.health();
        let made_from = (self.process, self.board.revision(), current_minute(), &query, api_state, &health);
        let etag = ETag::from_hash_of(made_from);
        let (board, document) = (self.board.clone(), Document::StatusPage(query.clone()));
        let render = move |site: SiteInfo<'_>| {
            let (agents, rows, owners) = (board.agents(site.now), board.rows(), board.owners());
            let page = StatusPage {
                site,
                overview: &Overview::of(&rows, &agents, apis(), site.started_at, site.now),
                rows: &rows,
                agents: &agents,
                health: &health,
                owners: owners.as_deref(),
                query: &query,
            };
            page.render()
        };
        self.shared_page(document, &etag, headers, Box::new(render)).await
    }

    /// The page of a toggle, or 304 if the client has the current one.
    async fn toggle_page(&self, name: &str, headers: &HeaderMap) -> HttpResponse {
        let mut response = match WatchName::parse(name) {
            Ok(watch) => self.known_toggle_page(&watch, headers).await,
            Err(_) => self.missing_toggle_page(name, None),
        };
        guard::protect_page(response.headers_mut());
        response
    }

    async fn known_toggle_page(&self, name: &WatchName, headers: &HeaderMap) -> HttpResponse {
        // What is known is shown at once, even while the database does not answer.
        if self.board.row(name.as_str()).is_none()
            && let Err(why) = self.write_api.catch_up().await
        {
            return self.missing_toggle_page(name.as_str(), Some(&why));
        }
        let revision = self.board.revision();
        let (Some(row), Some(events)) = (self.board.row(name.as_str()), self.board.events(name.as_str())) else {
            return self.missing_toggle_page(name.as_str(), None);
        };
        let origin = self.write_api.origin_of(name).await;
        let owners = self.board.owners();
        let replica = owners.as_ref().and_then(|owners| owners.of(&row.toggle.watch.api, row.toggle.watch.agent_id));
        let runbooks = self.filled_runbooks(Some(&format!("toggle={}", name.as_str())), headers);
        let info = self.info();
        let is_failing = row.toggle.run.failing.is_some();
        let api_problem = if is_failing { self.api_problem(&row.toggle.watch.api, info.now) } else { None };
        let page = TogglePage::new(&row, &events, origin.as_ref(), replica, api_problem, &runbooks, info.now);
        // How a toggle stands may change with the time alone.
        let made_from = (self.process, revision, current_minute(), name, &origin, page.commands(), api_problem);
        let etag = ETag::from_hash_of(made_from);
        if etag.is_known(headers) {
            return etag.not_modified();
        }
        let mut response = ok(HTML, page.render(info));
        etag.add_to(&mut response);
        response
    }

    /// The page that a toggle is not known, and why the other replicas could not be asked, if so.
    fn missing_toggle_page(&self, name: &str, unasked: Option<&str>) -> HttpResponse {
        let page = MissingTogglePage { name, unasked }.render(self.info());
        if unasked.is_none() {
            return response(StatusCode::NOT_FOUND, Some(HTML), page);
        }
        let mut response = response(StatusCode::SERVICE_UNAVAILABLE, Some(HTML), page);
        response.headers_mut().insert(RETRY_AFTER, TRY_AGAIN);
        response
    }

    /// What all pages have in common.
    pub(super) fn info(&self) -> SiteInfo<'_> {
        SiteInfo {
            telemetry_path: &self.telemetry_path,
            has_replicas: self.replica.is_some(),
            started_at: self.started_at(),
            now: clock::now(),
        }
    }

    /// The runbooks, with the commands for what the query names. If that does not exist, the status is still 200:
    /// proxies replace the page of a 404 with their own, and the person on call needs this one.
    fn runbooks(&self, query: Option<&str>, headers: &HeaderMap) -> HttpResponse {
        let runbooks = self.filled_runbooks(query, headers);
        let content = runbooks.content();
        // The foot of the page, which tells the time, makes no new version of it.
        let etag = ETag::from_hash_of((self.process, current_minute(), &content));
        let mut response =
            if etag.is_known(headers) { etag.not_modified() } else { ok(HTML, Runbooks::page(self.info(), &content)) };
        etag.add_to(&mut response);
        guard::allow_caching(response.headers_mut());
        guard::protect_page(response.headers_mut());
        response
    }

    /// The runbooks with the commands for what the query names, for the client that sent these headers.
    fn filled_runbooks(&self, query: Option<&str>, headers: &HeaderMap) -> Runbooks {
        let config = self.write_api.config()();
        let is_encrypted = self.web.borrow().tls.is_some();
        Runbooks {
            exporter: config.external_url.as_deref().map(str::to_owned).or_else(|| exporter_url(headers, is_encrypted)),
            subject: AlertSubject::from_query(query, &self.board, &config),
        }
    }

    /// The configuration in force.
    async fn config(&self, headers: &HeaderMap) -> HttpResponse {
        let config = self.write_api.config();
        if config().watches.len() <= FEW_WATCHES {
            return ok(YAML, config().to_string());
        }
        // Read again, because a client that shares the rendering may have asked after a reload.
        let source = move || RenderingSource::Text(config().to_string().into_bytes());
        self.render_response(Document::Config, YAML, headers, Box::new(source)).await
    }

    /// A response whose body is rendered on another thread and shared.
    pub(super) async fn render_response(
        &self,
        document: Document,
        content_type: &'static str,
        headers: &HeaderMap,
        source: MakeSource,
    ) -> HttpResponse {
        let gzip = negotiate::gzip(headers);
        let reader = match self.renderings.read(RenderingKey { document, gzip }, source).await {
            Ok(reader) => reader,
            Err(RenderError::Panicked) => {
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made");
            }
            Err(RenderError::TimedOut) => {
                return problem(StatusCode::SERVICE_UNAVAILABLE, "the answer could not be made in time");
            }
        };
        let mut response = Response::new(ResponseBody::shared(reader));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn health(unhealthy_reason: Option<&str>, healthy: &'static str) -> HttpResponse {
    match unhealthy_reason {
        None => ok(TEXT, healthy),
        Some(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// What a client asks for is not known here, and the other replicas cannot be asked.
fn may_be_registered(why: &str) -> HttpResponse {
    try_again(&format!("not known to this replica, but another one may have registered it: {why}"))
}

fn nothing_told() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "nothing is known of the mocks of such an agent")
}

fn no_such_watch() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "no watch of that name")
}

/// Leads a client to another path, which is relative: a proxy may serve the exporter below a prefix.
fn moved_to(path: &str) -> HttpResponse {
    let mut response = response(StatusCode::SEE_OTHER, None, "");
    if let Ok(location) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// An agent by the texts in a path.
pub(super) fn agent_key(api: &str, id: &str) -> Option<AgentKey> {
    Some((ApiName::parse(api).ok()?, AgentId::parse(id).ok()?))
}

pub(super) fn current_minute() -> u64 {
    clock::now().as_millis() / 60_000
}

/// Content that a client may cache, or 304 if the client has the current version.
fn cacheable_response(content_type: &'static str, content: impl Into<Bytes>, headers: &HeaderMap) -> HttpResponse {
    let content = content.into();
    let etag = ETag::from_hash_of(&content);
    let mut response = if etag.is_known(headers) { etag.not_modified() } else { ok(content_type, content) };
    etag.add_to(&mut response);
    guard::allow_caching(response.headers_mut());
    response
}
