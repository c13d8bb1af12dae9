//! Which path answers what.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode, Version};
use percent_encoding::percent_decode_str;
use prometheus::IntGauge;
use tokio::sync::watch;

use super::api::agents;
use super::api::history::EventList;
use super::api::overview::{ApiHealth, Overview};
use super::api::toggles;
use super::api::wait::{Query, Waited};
use super::api::write::{WriteApi, try_again};
use super::auth::{Denied, Gate};
use super::events::Events;
use super::guard;
use super::page::runbooks::{About, Runbooks, address};
use super::page::{Asset, Page};
use super::responses::answer::{
    HTML, HttpResponse, JSON, TEXT, YAML, allow, answer, encoded, json, method_not_allowed, ok, problem,
};
use super::responses::body::Body;
use super::responses::etag::ETag;
use super::responses::layout::Layout;
use super::responses::negotiate;
use super::responses::renderings::{NotMade, RenderingKey, RenderingSource, Renderings, Subject};
use super::select::Selection;
use crate::board::{AgentKey, Board};
use crate::clock;
use crate::config::ConnectionLimits;
use crate::exposition::{Metrics, Snapshot};
use crate::liveness::Heartbeat;
use crate::threads::Worker;
use crate::toggle::{AgentId, ApiName, ClockJump, Timestamp};
use crate::web::Web;

const NO_SUCH_AGENT: &str = "no watch is of such an agent, nothing is known of one, and none is configured";

/// How long an answer may wait for the state file.
const SAVING_TIMEOUT: Duration = Duration::from_secs(5);

/// A configuration with no more watches is written out at once.
const FEW_WATCHES: usize = 100;

/// What is served, and all that it is made from.
pub struct Site {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    desk: WriteApi,
    web: watch::Receiver<Arc<Web>>,
    gate: Gate,
    telemetry_path: String,
    renderings: Renderings,
    /// Tells what this process says from what another one said.
    process: u64,
    /// When this process began, and the sum of the jumps of the clock by then.
    started: Timestamp,
    moved: ClockJump,
    /// What is said of connections.
    pub(super) events: Events,
    listening: watch::Sender<bool>,
    /// Whether readiness is refused.
    leaving: AtomicBool,
    /// Whether connections are being ended.
    draining: watch::Receiver<bool>,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'p> {
    Metrics,
    Page,
    Asset(Asset),
    Overview,
    Runbooks,
    Toggles,
    Toggle(&'p str),
    Agents,
    /// An API and the id of an agent there.
    Agent(&'p str, &'p str),
    Events(&'p str),
    Healthy,
    Ready,
    Reload,
    Config,
}

/// Counts a connection for as long as it lives.
pub(super) struct OpenConnection(IntGauge);

/// What is shown, and whether it is kept up to date.
pub struct SiteData {
    /// What is known of every toggle.
    pub board: Arc<Board>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the poller is alive.
    pub heartbeat: Heartbeat,
}

// === impl Site ===

impl Site {
    /// A site that is neither listening nor draining. Large answers are made by `renderer`. What `draining`
    /// tells ends all waiting.
    ///
    /// # Errors
    /// If the machine gives no random bytes.
    pub fn new(
        known: SiteData,
        renderer: Worker,
        desk: WriteApi,
        web: watch::Receiver<Arc<Web>>,
        draining: watch::Receiver<bool>,
        telemetry_path: String,
    ) -> io::Result<Self> {
        let SiteData { board, metrics, heartbeat } = known;
        Ok(Self {
            events: Events::new(metrics.clone()),
            board,
            metrics,
            heartbeat,
            desk,
            web,
            gate: Gate::new(draining.clone())?,
            telemetry_path,
            renderings: Renderings::new(renderer),
            process: fastrand::u64(..),
            started: clock::now(),
            moved: clock::moved(),
            listening: watch::Sender::new(false),
            leaving: AtomicBool::new(false),
            draining,
        })
    }

    /// Why the exporter should be started anew; `None` while it is healthy.
    pub fn ailment(&self) -> Option<&'static str> {
        let now = Instant::now();
        if !self.heartbeat.is_alive(now) {
            Some("the poller does not move")
        } else if self.renderings.are_stuck(now.into()) {
            Some("an answer has been in the making for more than half a minute")
        } else {
            None
        }
    }

    /// Readiness is refused from now on.
    pub fn refuse_readiness(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Every listener is bound.
    pub(super) fn listening(&self) {
        self.listening.send_replace(true);
    }

    /// Resolves when every listener serves.
    pub async fn serves(&self) {
        // The sender is here.
        let _ = self.listening.subscribe().wait_for(|listening| *listening).await;
    }

    pub(super) fn connection_opened(&self) -> OpenConnection {
        self.metrics.http_connections.inc();
        OpenConnection(self.metrics.http_connections.clone())
    }

    /// The web configuration, as it changes.
    pub(super) fn web(&self) -> watch::Receiver<Arc<Web>> {
        self.web.clone()
    }

    /// How many connections are served.
    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        self.desk.connection_limits()
    }

    /// Answers a request of a peer, and counts it.
    pub(super) async fn answer<B>(&self, mut request: Request<B>, peer: IpAddr) -> HttpResponse
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path().to_owned();
        let (layout, query) = Layout::of_query(request.uri().query());
        let route = Route::of(&path, &self.telemetry_path);
        let web = self.web.borrow().clone();
        let answer = if names_one_host(&request) {
            match self.admit(route, &request, &web, peer).await {
                Ok(()) => self.dispatch(route, query.as_deref(), layout, &mut request).await,
                Err(denied) => denied.into(),
            }
        } else {
            problem(StatusCode::BAD_REQUEST, "a request must have one Host header")
        };
        let mut answer = layout.apply(answer);
        guard::protect(answer.headers_mut(), &web.headers);
        if !request.body().is_end_stream() {
            // What may be left of the body would stand before the next request.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.count_http(Route::handler(route), answer.status().as_u16());
        answer
    }

    /// Probes get in without a login; they learn no more than whether this works.
    async fn admit<B>(
        &self,
        route: Option<Route<'_>>,
        request: &Request<B>,
        web: &Web,
        peer: IpAddr,
    ) -> Result<(), Denied> {
        let is_probe = matches!(route, Some(Route::Healthy | Route::Ready));
        if is_probe { Ok(()) } else { self.gate.admit(&web.users, request.headers(), peer).await }
    }

    async fn dispatch<B>(
        &self,
        route: Option<Route<'_>>,
        query: Option<&str>,
        layout: Layout,
        request: &mut Request<B>,
    ) -> HttpResponse
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // A page of another site that asks with OPTIONS what it may do is not told that it may do anything.
        if !reads && request.method() != Method::OPTIONS && guard::is_cross_site(request.headers()) {
            return problem(StatusCode::FORBIDDEN, "this is not for pages of other sites");
        }
        match (route, request.method()) {
            (None, _) => problem(StatusCode::NOT_FOUND, "no such path"),
            (Some(route), &Method::OPTIONS) => allow(answer(StatusCode::NO_CONTENT, None, ""), self.methods(route)),
            (Some(Route::Toggle(name)), &Method::PUT) => self.desk.register(&decoded(name), request, &self.board).await,
            (Some(Route::Toggle(name)), &Method::DELETE) => self.desk.deregister(&decoded(name), request).await,
            (Some(Route::Agent(api, id)), &Method::DELETE) => self.forget_agent(&decoded(api), &decoded(id)).await,
            (Some(Route::Reload), &Method::POST) => self.desk.reload(request).await,
            (Some(route), _) if reads => self.get(route, query, layout, request.headers()).await,
            (Some(route), _) => self.refuse_method(route),
        }
    }

    /// The toggle of that name, at once or when its run is finished.
    async fn toggle(&self, name: &str, query: Option<&str>) -> HttpResponse {
        let query = match Query::parse(query) {
            Ok(query) => query,
            Err(what) => return problem(StatusCode::BAD_REQUEST, &what),
        };
        match query.answer(name, &self.board, self.draining.clone()).await {
            Waited::Over(row) => json(&toggles::ToggleJson::of(&row)),
            Waited::Gone => problem(StatusCode::NOT_FOUND, "no watch of that name"),
            Waited::OtherRun => problem(StatusCode::CONFLICT, "another run is watched under that name"),
            Waited::Draining => try_again("the exporter stops"),
        }
    }

    /// What happened lately to the toggle of that name.
    fn happened(&self, name: &str) -> HttpResponse {
        match self.board.events(name) {
            Some(events) => json(&EventList::of(&events)),
            None => problem(StatusCode::NOT_FOUND, "no watch of that name"),
        }
    }

    /// Every agent that is known of.
    async fn agents(&self, layout: Layout, headers: &HeaderMap) -> HttpResponse {
        let (board, config) = (self.board.clone(), self.desk.config());
        let list = move || {
            let (rows, config) = (board.all_agents(), config());
            let list = encoded(&agents::Roster::of(&rows, &config.agents).list());
            RenderingSource::Text(layout.lay_out(list.unwrap_or_default()))
        };
        self.large(Subject::Agents(layout), JSON, headers, list).await
    }

    /// The agent of that API and id.
    fn agent(&self, api: &str, id: &str) -> HttpResponse {
        let (config, key) = (self.desk.config()(), agent_key(api, id));
        let row = key.and_then(|(api, id)| self.board.agent(&api, id));
        match agents::Roster::of(row.as_slice(), &config.agents).get(api, id) {
            Some(agent) => json(&agent),
            None => problem(StatusCode::NOT_FOUND, NO_SUCH_AGENT),
        }
    }

    /// Forgets what was said of the mocks of an agent. It is answered when that is on the disk.
    async fn forget_agent(&self, api: &str, id: &str) -> HttpResponse {
        let forgotten = agent_key(api, id).is_some_and(|(api, id)| self.board.forget_agent(&api, id, clock::now()));
        if !forgotten {
            return problem(StatusCode::NOT_FOUND, "nothing is known of the mocks of such an agent");
        }
        match tokio::time::timeout(SAVING_TIMEOUT, self.board.all_saved()).await {
            Ok(()) => answer(StatusCode::NO_CONTENT, None, ""),
            Err(_) => try_again("it is forgotten, but that is not saved yet: a restart would bring it back"),
        }
    }

    async fn get(&self, route: Route<'_>, query: Option<&str>, layout: Layout, headers: &HeaderMap) -> HttpResponse {
        match route {
            Route::Metrics => self.metrics(headers).await,
            Route::Page => self.page(Selection::of_page(query), headers).await,
            Route::Asset(asset) => kept(asset.content_type(), asset.content(), headers),
            Route::Runbooks => self.runbooks(query, headers),
            Route::Overview => self.overview(layout, headers).await,
            Route::Toggle(name) => self.toggle(&decoded(name), query).await,
            Route::Events(name) => self.happened(&decoded(name)),
            Route::Agents => self.agents(layout, headers).await,
            Route::Agent(api, id) => self.agent(&decoded(api), &decoded(id)),
            // A job that asks to wait must not take the answer for the end of the waiting.
            Route::Toggles => match Selection::parse(query) {
                Ok(selection) => self.toggles(selection, layout, headers).await,
                Err(what) => problem(StatusCode::BAD_REQUEST, &what),
            },
            Route::Healthy => match self.ailment() {
                None => ok(TEXT, "healthy\n"),
                Some(ailment) => problem(StatusCode::SERVICE_UNAVAILABLE, ailment),
            },
            Route::Ready if self.leaving.load(Ordering::Relaxed) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
            Route::Ready if *self.listening.borrow() => ok(TEXT, "ready\n"),
            Route::Ready => problem(StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Route::Config => self.config(headers).await,
            Route::Reload => self.refuse_method(route),
        }
    }

    /// The methods that a path answers.
    fn methods(&self, route: Route<'_>) -> &'static str {
        match route {
            Route::Toggle(_) => self.desk.toggle_methods(),
            Route::Agent(..) => "GET, HEAD, DELETE, OPTIONS",
            Route::Reload => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    fn refuse_method(&self, route: Route<'_>) -> HttpResponse {
        let allowed = self.methods(route);
        method_not_allowed(allowed, &format!("this path answers {allowed} only"))
    }

    /// What is known now, as metrics.
    async fn metrics(&self, headers: &HeaderMap) -> HttpResponse {
        let format = negotiate::format(headers);
        let (board, metrics) = (self.board.clone(), self.metrics.clone());
        let mut answer = self
            .large(Subject::Metrics(format), format.content_type(), headers, move || {
                RenderingSource::Metrics(snapshot(&board, &metrics), format)
            })
            .await;
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        answer
    }

    /// Toggles, unless the client has them as they are.
    async fn toggles(&self, selection: Selection, layout: Layout, headers: &HeaderMap) -> HttpResponse {
        let minute = selection.is_of_its_time().then(this_minute);
        let etag = ETag::of((self.process, self.board.revision(), minute, layout));
        if etag.is_known(headers) {
            return etag.not_modified();
        }
        let (board, subject) = (self.board.clone(), Subject::Toggles(selection.clone(), layout));
        let list = move || {
            let rows = board.rows();
            let list = encoded(&toggles::ToggleList::of(&rows, &selection, clock::now()));
            RenderingSource::Text(layout.lay_out(list.unwrap_or_default()))
        };
        let mut answer = self.large(subject, JSON, headers, list).await;
        etag.mark(&mut answer);
        answer
    }

    /// Tells how each API is, as long as no toggle was looked at.
    fn apis(&self) -> impl Fn() -> Vec<ApiHealth> + Send + use<> {
        let (config, metrics) = (self.desk.config(), self.metrics.clone());
        move || ApiHealth::of_all(&config(), &metrics.loads())
    }

    /// When this process began, by the clock as it is now.
    fn started(&self) -> Timestamp {
        self.started.moved(ClockJump::from_millis(clock::moved().as_millis() - self.moved.as_millis()))
    }

    /// How all is.
    async fn overview(&self, layout: Layout, headers: &HeaderMap) -> HttpResponse {
        let (board, apis, started) = (self.board.clone(), self.apis(), self.started());
        let overview = move || {
            let overview = encoded(&Overview::of(&board.rows(), apis(), started, clock::now()));
            RenderingSource::Text(layout.lay_out(overview.unwrap_or_default()))
        };
        self.large(Subject::Overview(layout), JSON, headers, overview).await
    }

    /// The status page, unless the client has it as it is.
    async fn page(&self, selection: Selection, headers: &HeaderMap) -> HttpResponse {
        let apis = self.apis();
        let state = serde_json::to_string(&apis()).unwrap_or_default();
        // How a toggle stands may change with the time alone.
        let etag = ETag::of((self.process, self.board.revision(), this_minute(), &selection, state));
        let mut answer = if etag.is_known(headers) {
            etag.not_modified()
        } else {
            let (board, subject) = (self.board.clone(), Subject::Page(selection.clone()));
            let (started, telemetry_path) = (self.started(), self.telemetry_path.clone());
            let page = move || {
                let (rows, now) = (board.rows(), clock::now());
                let page = Page {
                    overview: &Overview::of(&rows, apis(), started, now),
                    rows: &rows,
                    selection: &selection,
                    telemetry_path: &telemetry_path,
                    now,
                };
                RenderingSource::Text(page.render().into_bytes())
            };
            let mut answer = self.large(subject, HTML, headers, page).await;
            etag.mark(&mut answer);
            answer
        };
        guard::protect_page(answer.headers_mut());
        answer
    }

    /// What to do about alerts, with the commands for what the query names. It is found even if that is not there:
    /// proxies put pages of their own in the place of a 404, and whoever was woken needs this one.
    fn runbooks(&self, query: Option<&str>, headers: &HeaderMap) -> HttpResponse {
        let config = self.desk.config()();
        let runbooks = Runbooks {
            exporter: config
                .external_url
                .as_deref()
                .map(str::to_owned)
                .or_else(|| address(headers, self.web.borrow().tls.is_some())),
            about: About::of_query(query, &self.board, &config),
        };
        let mut answer = kept(HTML, runbooks.render(), headers);
        guard::protect_page(answer.headers_mut());
        answer
    }

    /// The configuration in force.
    async fn config(&self, headers: &HeaderMap) -> HttpResponse {
        let config = self.desk.config();
        if config().watches.len() <= FEW_WATCHES {
            return ok(YAML, config().to_string());
        }
        // Whoever shares it may have asked after a reload that was answered meanwhile.
        let text = move || RenderingSource::Text(config().to_string().into_bytes());
        self.large(Subject::Config, YAML, headers, text).await
    }

    /// An answer whose body is made off this thread, and shared.
    async fn large<F>(&self, subject: Subject, content_type: &'static str, headers: &HeaderMap, make: F) -> HttpResponse
    where
        F: FnOnce() -> RenderingSource + Send + 'static,
    {
        let gzip = negotiate::gzip(headers);
        let reader = match self.renderings.body(RenderingKey { subject, gzip }, make).await {
            Ok(reader) => reader,
            Err(NotMade::Panicked) => {
                return problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made");
            }
            Err(NotMade::Late) => {
                return problem(StatusCode::SERVICE_UNAVAILABLE, "the answer could not be made in time");
            }
        };
        let mut answer = Response::new(Body::shared(reader));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

// === impl Route ===

impl<'p> Route<'p> {
    fn of(path: &'p str, telemetry_path: &str) -> Option<Self> {
        if path == telemetry_path {
            return Some(Self::Metrics);
        }
        match path {
            "/" => Some(Self::Page),
            "/runbooks" => Some(Self::Runbooks),
            "/api/v1/status" => Some(Self::Overview),
            "/api/v1/toggles" => Some(Self::Toggles),
            "/api/v1/agents" => Some(Self::Agents),
            "/-/healthy" => Some(Self::Healthy),
            "/-/ready" => Some(Self::Ready),
            "/-/reload" => Some(Self::Reload),
            "/config" => Some(Self::Config),
            _ if path.starts_with("/assets/") => Asset::of(path.trim_start_matches("/assets/")).map(Self::Asset),
            _ if path.starts_with("/api/v1/agents/") => {
                let (api, id) = path.trim_start_matches("/api/v1/agents/").split_once('/')?;
                (!id.contains('/')).then_some(Self::Agent(api, id))
            }
            _ => {
                let name = path.strip_prefix("/api/v1/toggles/")?;
                match name.strip_suffix("/events") {
                    Some(name) if !name.contains('/') => Some(Self::Events(name)),
                    None if !name.contains('/') => Some(Self::Toggle(name)),
                    _ => None,
                }
            }
        }
    }

    /// The route in labels: a closed set.
    fn handler(route: Option<Self>) -> &'static str {
        match route {
            Some(Self::Metrics) => "/metrics",
            Some(Self::Page) => "/",
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
            Some(Self::Config) => "/config",
            None => "other",
        }
    }
}

// === impl OpenConnection ===

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// HTTP/1.1 wants one, and two are a way to be understood differently by different programs.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

/// What there is to expose now.
fn snapshot(board: &Board, metrics: &Metrics) -> Snapshot {
    Snapshot::new(board.rows(), board.agents(), metrics.configured(), metrics.gather(Instant::now()))
}

/// An agent, as a path has it.
fn agent_key(api: &str, id: &str) -> Option<AgentKey> {
    Some((ApiName::parse(api).ok()?, AgentId::parse(id).ok()?))
}

/// A name as it was before it was put into a path.
fn decoded(name: &str) -> Cow<'_, str> {
    percent_decode_str(name).decode_utf8_lossy()
}

fn this_minute() -> u64 {
    clock::now().as_millis() / 60_000
}

/// What a client may keep, unless it has it.
fn kept(content_type: &'static str, content: impl Into<Bytes>, headers: &HeaderMap) -> HttpResponse {
    let content = content.into();
    let etag = ETag::of(&content);
    let mut answer = if etag.is_known(headers) { etag.not_modified() } else { ok(content_type, content) };
    etag.mark(&mut answer);
    guard::may_be_kept(answer.headers_mut());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_route() {
        let of = |path| Route::of(path, "/m");
        assert_eq!(of("/m"), Some(Route::Metrics));
        assert_eq!(of("/metrics"), None);
        assert_eq!(of("/"), Some(Route::Page));
        assert_eq!(of("/assets/status.js"), Some(Route::Asset(Asset::Script)));
        assert_eq!(of("/assets/../status.js"), None);
        assert_eq!(of("/assets/"), None);
        assert_eq!(of("/api/v1/toggles"), Some(Route::Toggles));
        assert_eq!(of("/api/v1/toggles/a.b"), Some(Route::Toggle("a.b")));
        assert_eq!(of("/api/v1/toggles/a/b"), None);
        assert_eq!(of("/api/v1/toggles/events"), Some(Route::Toggle("events")));
        assert_eq!(of("/api/v1/toggles/a/events"), Some(Route::Events("a")));
        assert_eq!(of("/api/v1/toggles/a/events/"), None);
        assert_eq!(of("/api/v1/agents"), Some(Route::Agents));
        assert_eq!(of("/api/v1/agents/eu/7"), Some(Route::Agent("eu", "7")));
        assert_eq!(of("/api/v1/agents/7"), None);
        assert_eq!(of("/api/v1/agents/eu/7/"), None);
        assert_eq!(of("/config/"), None);
        assert_eq!(of("/-/reload"), Some(Route::Reload));
    }
}
