//! The site: how a request is checked, dispatched to its route, answered, protected and counted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};
use tokio::sync::watch;
use tracing::{Instrument as _, debug, error_span};

use super::api::write::WriteApi;
use super::auth::Authenticator;
use super::guard;
use super::responses::answer::{HttpResponse, allow, answer, method_not_allowed, problem};
use super::responses::json_layout::JsonLayout;
use super::responses::renderings::Renderings;
use super::route::Route;
use crate::board::Board;
use crate::clock;
use crate::config::ConnectionLimits;
use crate::exposition::Metrics;
use crate::liveness::Heartbeat;
use crate::threads::Worker;
use crate::toggle::{ClockJump, Timestamp};
use crate::web::Web;

/// Answers requests, and has everything that the answers are made from.
pub struct Site {
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    pub(super) write_api: WriteApi,
    pub(super) web: watch::Receiver<Arc<Web>>,
    authenticator: Authenticator,
    pub(super) telemetry_path: String,
    pub(super) renderings: Renderings,
    /// Distinguishes the `ETag`s of this process from those of another.
    pub(super) process: u64,
    /// When this process started, and the sum of the clock's jumps by then.
    started: Timestamp,
    jumped: ClockJump,
    /// Whether every listener serves.
    listening: watch::Sender<bool>,
    refuses_readiness: AtomicBool,
    /// Whether connections are being ended.
    pub(super) draining: watch::Receiver<bool>,
}

/// The data that the site shows, and the heartbeat of the poller, which updates it.
pub struct SiteData {
    /// The state of every toggle and agent.
    pub board: Arc<Board>,
    /// The exporter's metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the poller is alive.
    pub heartbeat: Heartbeat,
}

// === impl Site ===

impl Site {
    /// A site that does not listen yet. Large answers are rendered by `renderer`. All waiting ends when
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
        let SiteData { board, metrics, heartbeat } = data;
        Ok(Self {
            board,
            metrics,
            heartbeat,
            write_api,
            web,
            authenticator: Authenticator::new()?,
            telemetry_path,
            renderings: Renderings::new(renderer),
            process: fastrand::u64(..),
            started: clock::now(),
            jumped: clock::moved(),
            listening: watch::Sender::new(false),
            refuses_readiness: AtomicBool::new(false),
            draining,
        })
    }

    /// Why the exporter should be restarted; `None` while it is healthy.
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

    /// Refuses readiness from now on.
    pub fn refuse_readiness(&self) {
        self.refuses_readiness.store(true, Ordering::Relaxed);
    }

    /// Why the exporter is not ready; `None` if it is.
    pub(super) fn unreadiness(&self) -> Option<&'static str> {
        if self.refuses_readiness.load(Ordering::Relaxed) {
            Some("draining")
        } else if *self.listening.borrow() {
            None
        } else {
            Some("starting")
        }
    }

    /// Notes that every listener serves.
    pub(super) fn set_listening(&self) {
        self.listening.send_replace(true);
    }

    /// Resolves when every listener serves.
    pub async fn serves(&self) {
        // The sender lives as long as the site.
        let _ = self.listening.subscribe().wait_for(|listening| *listening).await;
    }

    /// When this process started, by the clock as it is set now.
    pub(super) fn started(&self) -> Timestamp {
        self.started.moved(ClockJump::from_millis(clock::moved().as_millis() - self.jumped.as_millis()))
    }

    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        self.write_api.connection_limits()
    }

    /// Answers a request of a client at `peer`, and counts it.
    pub(super) async fn answer(&self, mut request: Request<Incoming>, peer: IpAddr) -> HttpResponse {
        let path = request.uri().path().to_owned();
        let route = Route::of(&path, &self.telemetry_path);
        let pattern = Route::pattern(route.as_ref());
        // The level is error, so that a log filter that shows a line never hides the line's span.
        let span = error_span!("request", method = %request.method(), path = pattern);
        let answer = async {
            let answer = self.protected_answer(route, &mut request, peer).await;
            debug!(status = answer.status().as_u16(), "request answered");
            answer
        };
        let answer = answer.instrument(span).await;
        self.metrics.count_http(pattern, answer.status().as_u16());
        answer
    }

    async fn protected_answer(
        &self,
        route: Option<Route<'_>>,
        request: &mut Request<Incoming>,
        peer: IpAddr,
    ) -> HttpResponse {
        let web = self.web.borrow().clone();
        let (layout, query) = JsonLayout::of_query(request.uri().query());
        let answer = self.authenticated_answer(route, query.as_deref(), layout, request, &web, peer).await;
        let mut answer = layout.apply(answer);
        guard::protect(answer.headers_mut(), &web.headers);
        if !request.body().is_end_stream() {
            // Otherwise the rest of the body would be taken for the next request.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn authenticated_answer(
        &self,
        route: Option<Route<'_>>,
        query: Option<&str>,
        layout: JsonLayout,
        request: &mut Request<Incoming>,
        web: &Web,
        peer: IpAddr,
    ) -> HttpResponse {
        if !has_valid_host(request) {
            return problem(StatusCode::BAD_REQUEST, "a request must have one Host header");
        }
        let is_probe = route.as_ref().is_some_and(Route::is_probe);
        if !is_probe && let Err(denied) = self.authenticator.authenticate(&web.users, request.headers(), peer).await {
            return denied.into();
        }
        // OPTIONS is allowed from any site: the answer to a preflight request permits the page nothing.
        let is_read_only = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_read_only && guard::is_cross_site(request.headers()) {
            return problem(StatusCode::FORBIDDEN, "this is not for pages of other sites");
        }
        match route {
            Some(route) => self.dispatch(&route, query, layout, request).await,
            None => problem(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    async fn dispatch(
        &self,
        route: &Route<'_>,
        query: Option<&str>,
        layout: JsonLayout,
        request: &mut Request<Incoming>,
    ) -> HttpResponse {
        match (route, request.method()) {
            (route, &Method::OPTIONS) => allow(answer(StatusCode::NO_CONTENT, None, ""), self.methods(route)),
            (Route::Toggle(name), &Method::PUT) => self.write_api.register(name, request, &self.board).await,
            (Route::Toggle(name), &Method::DELETE) => self.write_api.deregister(name, request).await,
            (Route::Agent(api, id), &Method::DELETE) => self.forget_agent(api, id).await,
            (Route::Reload, &Method::POST) => self.write_api.reload(request).await,
            (route, &(Method::GET | Method::HEAD)) => self.get(route, query, layout, request.headers()).await,
            _ => self.refuse_method(route),
        }
    }

    /// The methods that a route answers.
    fn methods(&self, route: &Route<'_>) -> &'static str {
        match route {
            Route::Toggle(_) => self.write_api.toggle_methods(),
            Route::Agent(..) => "GET, HEAD, DELETE, OPTIONS",
            Route::Reload => "POST, OPTIONS",
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
