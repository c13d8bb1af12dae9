//! The site, which handles requests: it checks access, dispatches to routes, protects responses and counts them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug, error_span};

use super::api::write::WriteApi;
use super::auth::Authenticator;
use super::guard;
use super::responses::json_layout::JsonLayout;
use super::responses::renderings::Renderings;
use super::responses::response::{HttpResponse, allow, method_not_allowed, problem, response};
use super::route::Route;
use crate::board::Board;
use crate::clock::ProcessTime;
use crate::config::ConnectionLimits;
use crate::exposition::Metrics;
use crate::intake::SourceReport;
use crate::liveness::Heartbeat;
use crate::poller::DebugPolls;
use crate::replicas::ReplicaReport;
use crate::store::DatabaseStore;
use crate::threads::Worker;
use crate::toggle::{AgentKey, Timestamp};
use crate::web::{Users, Web};

/// Handles requests, and has everything that the responses are made from.
pub struct Site {
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    pub(super) asks: mpsc::UnboundedSender<AgentKey>,
    pub(super) debug_polls: DebugPolls,
    pub(super) replica: Option<ReplicaAccess>,
    pub(super) sources: watch::Receiver<SourceReport>,
    pub(super) start: StartFacts,
    pub(super) write_api: WriteApi,
    pub(super) web: watch::Receiver<Arc<Web>>,
    authenticator: Authenticator,
    pub(super) telemetry_path: String,
    pub(super) renderings: Renderings,
    /// Distinguishes the `ETag`s of this process from those of another.
    pub(super) process: u64,
    started_at: ProcessTime,
    /// Whether every listener serves.
    listening: watch::Sender<bool>,
    refuses_readiness: AtomicBool,
    /// Whether connections are being ended.
    pub(super) draining: watch::Receiver<bool>,
}

/// The data that the site shows, and how it reaches the poller, which updates it.
pub struct SiteData {
    /// The state of every toggle and agent.
    pub board: Arc<Board>,
    /// The exporter's metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the poller is alive.
    pub heartbeat: Heartbeat,
    /// Asks for the mock status of an agent ahead of its plan.
    pub asks: mpsc::UnboundedSender<AgentKey>,
    /// Asks for polls beside the schedule.
    pub debug_polls: DebugPolls,
    /// The other replicas, if there can be any.
    pub replica: Option<ReplicaAccess>,
    /// What the sources define, and what is wrong with them.
    pub sources: watch::Receiver<SourceReport>,
    /// How the process was started.
    pub start: StartFacts,
}

/// How the process was started, for people.
#[derive(Debug, Clone, Default)]
pub struct StartFacts {
    /// The flags in force with their values, which are empty for those that take none.
    pub flags: Vec<(&'static str, String)>,
    /// Where the server listens.
    pub addresses: Vec<SocketAddr>,
}

/// How the site reaches the other replicas.
pub struct ReplicaAccess {
    /// The database that they share.
    pub database: Arc<DatabaseStore>,
    /// Whether the watches and agents of the others are known.
    pub is_synchronized: watch::Receiver<bool>,
    /// What is known of the others.
    pub report: watch::Receiver<ReplicaReport>,
}

// === impl Site ===

impl Site {
    /// A site that does not listen yet. Large responses are rendered by `renderer`. All waiting ends when
    /// `draining` turns true.
    ///
    /// # Errors
    /// If the machine gives no random bytes.
    pub fn new(
        data: SiteData,
        renderer: Worker,
        write_api: WriteApi,
        web: watch::Receiver<Arc<Web>>,
        draining: watch::Receiver<bool>,
        telemetry_path: String,
    ) -> io::Result<Self> {
        let SiteData { board, metrics, heartbeat, asks, debug_polls, replica, sources, start } = data;
        Ok(Self {
            board,
            metrics,
            heartbeat,
            asks,
            debug_polls,
            replica,
            sources,
            start,
            write_api,
            web,
            authenticator: Authenticator::new()?,
            telemetry_path,
            renderings: Renderings::new(renderer),
            process: fastrand::u64(..),
            started_at: ProcessTime::now(),
            listening: watch::Sender::new(false),
            refuses_readiness: AtomicBool::new(false),
            draining,
        })
    }

    /// Why the exporter should be restarted; `None` while it is healthy.
    pub fn unhealthy_reason(&self) -> Option<&'static str> {
        let now = Instant::now();
        if !self.heartbeat.is_alive(now) {
            Some("the poller does not move")
        } else if self.renderings.are_stuck(now.into()) {
            Some("an answer has been in the making for more than half a minute")
        } else {
            None
        }
    }

    /// Refuses readiness from now on.
    pub fn refuse_readiness(&self) {
        self.refuses_readiness.store(true, Ordering::Relaxed);
    }

    /// Why the exporter is not ready; `None` if it is.
    pub(super) fn not_ready_reason(&self) -> Option<&'static str> {
        if self.refuses_readiness.load(Ordering::Relaxed) {
            Some("draining")
        } else if !*self.listening.borrow() {
            Some("starting")
        } else if self.replica.as_ref().is_some_and(|replica| !*replica.is_synchronized.borrow()) {
            Some("starting: the database has not been read yet")
        } else {
            None
        }
    }

    /// Records that every listener serves.
    pub(super) fn set_listening(&self) {
        self.listening.send_replace(true);
    }

    /// Resolves when every listener serves.
    pub async fn wait_until_serving(&self) {
        // The sender lives as long as the site.
        let _ = self.listening.subscribe().wait_for(|listening| *listening).await;
    }

    /// When this process started, by the clock as it is set now.
    pub(super) fn started_at(&self) -> Timestamp {
        self.started_at.shown()
    }

    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        self.write_api.connection_limits()
    }

    /// Handles a request of a client at `peer`, and counts it.
    pub(super) async fn handle(&self, mut request: Request<Incoming>, peer: IpAddr) -> HttpResponse {
        let path = request.uri().path().to_owned();
        let route = Route::from_path(&path, &self.telemetry_path);
        let pattern = Route::pattern(route.as_ref());
        // The level is error, so that a log filter that shows a line never hides the line's span.
        let span = error_span!("request", method = %request.method(), path = pattern);
        let response = self.respond(route.as_ref(), &mut request, peer).instrument(span).await;
        self.metrics.count_http(pattern, response.status().as_u16());
        response
    }

    async fn respond(&self, route: Option<&Route<'_>>, request: &mut Request<Incoming>, peer: IpAddr) -> HttpResponse {
        let web = self.web.borrow().clone();
        let (layout, query) = JsonLayout::from_query(request.uri().query());
        let response = match (self.check_access(route, request, &web.users, peer).await, route) {
            (Err(refusal), _) => refusal,
            (Ok(()), None) => problem(StatusCode::NOT_FOUND, "no such path"),
            (Ok(()), Some(route)) => self.dispatch(route, query.as_deref(), layout, request).await,
        };
        let mut response = layout.apply(response);
        guard::protect(response.headers_mut(), &web.headers);
        if !request.body().is_end_stream() {
            // Otherwise the rest of the body would be taken for the next request.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        debug!(status = response.status().as_u16(), "request answered");
        response
    }

    /// Checks the Host header and the login, and that no page of another site makes a change.
    ///
    /// # Errors
    /// The response that refuses the request.
    async fn check_access(
        &self,
        route: Option<&Route<'_>>,
        request: &Request<Incoming>,
        users: &Users,
        peer: IpAddr,
    ) -> Result<(), HttpResponse> {
        if !has_valid_host(request) {
            return Err(problem(StatusCode::BAD_REQUEST, "a request must have one Host header"));
        }
        if !route.is_some_and(Route::is_probe) {
            self.authenticator.authenticate(users, request.headers(), peer).await?;
        }
        // OPTIONS is allowed from any site: the response to a preflight request permits the page nothing.
        let is_read_only = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_read_only && guard::is_cross_site(request.headers()) {
            return Err(problem(StatusCode::FORBIDDEN, "this is not for pages of other sites"));
        }
        Ok(())
    }

    async fn dispatch(
        &self,
        route: &Route<'_>,
        query: Option<&str>,
        layout: JsonLayout,
        request: &mut Request<Incoming>,
    ) -> HttpResponse {
        match (route, request.method()) {
            (route, &Method::OPTIONS) => allow(response(StatusCode::NO_CONTENT, None, ""), self.methods(route)),
            (Route::Toggle(name), &Method::PUT) => self.write_api.register(name, request, &self.board).await,
            (Route::Toggle(name), &Method::DELETE) => self.write_api.deregister(name, request).await,
            (Route::Agent(api, id), &Method::DELETE) => self.forget_agent(api, id).await,
            (Route::Reload, &Method::POST) => self.write_api.reload(request).await,
            (Route::DebugPoll, &Method::POST) => self.debug_poll(query, request.headers()).await,
            (route, &(Method::GET | Method::HEAD)) => self.get(route, query, layout, request.headers()).await,
            _ => self.refuse_method(route),
        }
    }

    /// The methods that a route accepts.
    fn methods(&self, route: &Route<'_>) -> &'static str {
        match route {
            Route::Toggle(_) => self.write_api.toggle_methods(),
            Route::Agent(..) => "GET, HEAD, DELETE, OPTIONS",
            Route::Reload | Route::DebugPoll => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    pub(super) fn refuse_method(&self, route: &Route<'_>) -> HttpResponse {
        let methods = self.methods(route);
        method_not_allowed(methods, &format!("this path answers {methods} only"))
    }
}

/// HTTP/1.1 requires one Host header. Two may be understood differently by different programs.
fn has_valid_host(request: &Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}
