//! Which path answers what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::IntGauge;
use serde::Serialize;

use super::body::Body;
use super::{landing, toggles};
use crate::board::Board;
use crate::exposition::{self, Exposition, Metrics};
use crate::poller::Pulse;

/// An answer to a request.
pub(super) type Answer = Response<Body>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const YAML: &str = "application/yaml";
const HTML: &str = "text/html; charset=utf-8";

/// What is served, and all that it is made from.
pub struct Site {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    pulse: Pulse,
    effective_config: Bytes,
    telemetry_path: String,
    listening: AtomicBool,
    draining: AtomicBool,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'p> {
    Metrics,
    Landing,
    Toggles,
    Toggle(&'p str),
    Healthy,
    Ready,
    Config,
}

/// A problem, as JSON.
#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
}

/// Counts a connection for as long as it lives.
pub(super) struct OpenConnection(IntGauge);

// === impl Site ===

impl Site {
    /// A site that is neither listening nor draining.
    pub fn new(
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        pulse: Pulse,
        effective_config: String,
        telemetry_path: String,
    ) -> Self {
        Self {
            board,
            metrics,
            pulse,
            effective_config: effective_config.into(),
            telemetry_path,
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Readiness is refused from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Every listener is bound.
    pub(super) fn listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    pub(super) fn connection_opened(&self) -> OpenConnection {
        self.metrics.http_connections.inc();
        OpenConnection(self.metrics.http_connections.clone())
    }

    /// Answers a request, and counts it.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let route = Route::of(path, &self.telemetry_path);
        let answer = match route {
            // A job that asks to wait must not take the answer for the end of the waiting.
            Some(Route::Toggles | Route::Toggle(_)) if request.uri().query().is_some_and(|query| !query.is_empty()) => {
                problem(StatusCode::BAD_REQUEST, "this path takes no query parameters")
            }
            None => problem(StatusCode::NOT_FOUND, "no such path"),
            Some(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this path answers GET and HEAD only");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
            Some(route) => self.get(route),
        };
        self.metrics.count_http(Route::handler(route), answer.status().as_u16());
        answer
    }

    fn get(&self, route: Route<'_>) -> Answer {
        match route {
            Route::Metrics => self.metrics(),
            Route::Landing => ok(HTML, landing::page(&self.board.rows(), &self.telemetry_path)),
            Route::Toggles => json(&toggles::List::of(&self.board.rows())),
            Route::Toggle(name) => match self.board.row(name) {
                Some(row) => json(&toggles::Shown::of(&row)),
                None => problem(StatusCode::NOT_FOUND, "no watch of that name"),
            },
            Route::Healthy if self.pulse.is_alive(Instant::now()) => ok(TEXT, "healthy\n"),
            Route::Healthy => problem(StatusCode::SERVICE_UNAVAILABLE, "the poller does not move"),
            Route::Ready if self.draining.load(Ordering::Relaxed) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
            Route::Ready if self.listening.load(Ordering::Relaxed) => ok(TEXT, "ready\n"),
            Route::Ready => problem(StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Route::Config => ok(YAML, self.effective_config.clone()),
        }
    }

    /// What is known now. It is encoded while it is sent.
    fn metrics(&self) -> Answer {
        let toggles = self.board.rows().into_iter().map(|row| (row.labels, row.toggle)).collect();
        let agents = self.board.agents().into_iter().map(|agent| (agent.labels, agent.mock)).collect();
        let exposition = Exposition::new(toggles, agents, self.metrics.gather(Instant::now()));
        let mut answer = Response::new(Body::Exposition(Box::new(exposition)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
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
            "/" => Some(Self::Landing),
            "/api/v1/toggles" => Some(Self::Toggles),
            "/-/healthy" => Some(Self::Healthy),
            "/-/ready" => Some(Self::Ready),
            "/config" => Some(Self::Config),
            // Names need no percent-encoding, so what has any names no watch.
            _ => path.strip_prefix("/api/v1/toggles/").filter(|name| !name.contains('/')).map(Self::Toggle),
        }
    }

    /// The route in labels: a closed set.
    fn handler(route: Option<Self>) -> &'static str {
        match route {
            Some(Self::Metrics) => "/metrics",
            Some(Self::Landing) => "/",
            Some(Self::Toggles) => "/api/v1/toggles",
            Some(Self::Toggle(_)) => "/api/v1/toggles/{name}",
            Some(Self::Healthy) => "/-/healthy",
            Some(Self::Ready) => "/-/ready",
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

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(StatusCode::OK, content_type, body)
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => ok(JSON, body),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded"),
    }
}

fn problem(status: StatusCode, error: &str) -> Answer {
    let body = serde_json::to_vec(&Problem { error }).unwrap_or_default();
    answer(status, JSON, body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Whole(Some(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
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
        assert_eq!(of("/"), Some(Route::Landing));
        assert_eq!(of("/api/v1/toggles"), Some(Route::Toggles));
        assert_eq!(of("/api/v1/toggles/a.b"), Some(Route::Toggle("a.b")));
        assert_eq!(of("/api/v1/toggles/a/b"), None);
        assert_eq!(of("/config/"), None);
    }
}
