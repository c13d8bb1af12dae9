//! Requests that change the watch list or the configuration: registrations and reloads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Request, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};

use super::toggles;
use crate::board::Board;
use crate::config::{Config, ConnectionLimits};
use crate::http::responses::response::{HttpResponse, TEXT, method_not_allowed, ok, problem, problems, response};
use crate::intake::{ConfigSnapshot, IntakeCommand, Registered, RegistrationError, Reloader, WatchOrigin};
use crate::sources;
use crate::toggle::WatchName;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a page may wait for where its toggle comes from.
const ORIGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client is asked to wait before it tries again.
pub(crate) const TRY_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// Registers and deregisters watches, and reloads. It also gives access to the configuration in force.
pub struct WriteApi {
    commands: mpsc::Sender<IntakeCommand>,
    reloader: Arc<Reloader>,
    in_force: watch::Receiver<ConfigSnapshot>,
}

// === impl WriteApi ===

impl WriteApi {
    /// Sends commands to the intake.
    pub fn new(
        commands: mpsc::Sender<IntakeCommand>,
        reloader: Arc<Reloader>,
        in_force: watch::Receiver<ConfigSnapshot>,
    ) -> Self {
        Self { commands, reloader, in_force }
    }

    /// Reads the configuration in force.
    pub(crate) fn config(&self) -> impl Fn() -> Arc<Config> + Send + use<> {
        let in_force = self.in_force.clone();
        move || in_force.borrow().config.clone()
    }

    /// How many connections may be open.
    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        self.in_force.borrow().config.connections
    }

    /// The methods that the path of a toggle accepts.
    pub(crate) fn toggle_methods(&self) -> &'static str {
        if self.in_force.borrow().config.registrations.enabled {
            "GET, HEAD, PUT, DELETE, OPTIONS"
        } else {
            "GET, HEAD, OPTIONS"
        }
    }

    /// Registers the watch that the body defines.
    pub(crate) async fn register(&self, name: &str, request: &mut Request<Incoming>, board: &Board) -> HttpResponse {
        if !self.in_force.borrow().config.registrations.enabled {
            return self.refuse(&RegistrationError::Disabled);
        }
        if !is_json(request.headers()) {
            return not_declared_as_json();
        }
        let body = match read(request.body_mut()).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let apis = self.in_force.borrow().apis.clone();
        let watch = match sources::definition(name, &body, &apis) {
            Ok(watch) => watch,
            Err(wrong) => return problems(StatusCode::BAD_REQUEST, &wrong.to_strings()),
        };
        match self.send(|reply| IntakeCommand::Register(watch, reply)).await {
            Some(Ok(registered)) => self.registered(name, registered, board),
            Some(Err(refusal)) => self.refuse(&refusal),
            None => stopping(),
        }
    }

    /// Removes what is registered under the name.
    pub(crate) async fn deregister(&self, name: &str, request: &mut Request<Incoming>) -> HttpResponse {
        if !self.in_force.borrow().config.registrations.enabled {
            return self.refuse(&RegistrationError::Disabled);
        }
        if let Err(refused) = require_json(request).await {
            return refused;
        }
        let Ok(name) = WatchName::parse(name) else { return self.refuse(&RegistrationError::NotRegistered) };
        match self.send(|reply| IntakeCommand::Deregister(name, reply)).await {
            Some(Ok(())) => response(StatusCode::NO_CONTENT, None, ""),
            Some(Err(refusal)) => self.refuse(&refusal),
            None => stopping(),
        }
    }

    /// Reads the configuration and the watch files again.
    pub(crate) async fn reload(&self, request: &mut Request<Incoming>) -> HttpResponse {
        if let Err(refused) = require_json(request).await {
            return refused;
        }
        match self.reloader.reload().await {
            Some(Ok(())) => ok(TEXT, "reloaded\n"),
            Some(Err(wrong)) => problems(StatusCode::INTERNAL_SERVER_ERROR, &wrong.to_strings()),
            None => stopping(),
        }
    }

    /// Reads what other replicas registered, so that everything is on the board that was acknowledged before; at once if
    /// there are none.
    ///
    /// # Errors
    /// If that cannot be read: why, as a sentence.
    pub(crate) async fn catch_up(&self) -> Result<(), String> {
        if self.in_force.borrow().config.database.is_none() {
            return Ok(());
        }
        self.send(IntakeCommand::CatchUp).await.unwrap_or_else(|| Err("the exporter stops".to_owned()))
    }

    /// Where the watch of this name comes from; `None` if there is no such watch, or if the queue of commands is so long
    /// that a page should not wait for it.
    pub(crate) async fn origin_of(&self, name: &WatchName) -> Option<WatchOrigin> {
        let origin = self.send(|reply| IntakeCommand::FindOrigin(name.clone(), reply));
        tokio::time::timeout(ORIGIN_TIMEOUT, origin).await.ok()??
    }

    /// Sends a command and waits for its reply; `None` if the process ends before that.
    async fn send<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> IntakeCommand) -> Option<T> {
        let (reply, done) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        done.await.ok()
    }

    /// The response to a registration: the toggle as it is now, and its URL.
    fn registered(&self, name: &str, registered: Registered, board: &Board) -> HttpResponse {
        let Some(row) = board.row(name) else {
            return problem(StatusCode::CONFLICT, "it was registered, and removed again since");
        };
        let mut response =
            crate::http::responses::response::json(&toggles::ToggleJson::of(&row, board.owners().as_deref()));
        if registered == Registered::Created {
            *response.status_mut() = StatusCode::CREATED;
            let external_url = self.in_force.borrow().config.external_url.clone();
            let location = format!("{}/api/v1/toggles/{name}", external_url.as_deref().unwrap_or_default());
            // A name is made of characters that a URL may have.
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
        }
        response
    }

    fn refuse(&self, refusal: &RegistrationError) -> HttpResponse {
        match refusal {
            RegistrationError::Disabled => method_not_allowed(
                self.toggle_methods(),
                "registrations are not enabled: set registrations.enabled and state_file or database in the configuration",
            ),
            RegistrationError::NameTaken(source) => {
                let what = format!("the name belongs to a watch of another source ({})", source.as_str());
                problem(StatusCode::CONFLICT, &what)
            }
            RegistrationError::NotRegistered => problem(StatusCode::NOT_FOUND, "nothing is registered under that name"),
            RegistrationError::UnknownApi => {
                problems(StatusCode::BAD_REQUEST, &["api: is not under `apis` any more".to_owned()])
            }
            RegistrationError::Full(max) => {
                let what = format!(
                    "the limit of {max} registrations is reached: remove some, shorten registrations.retention, or raise \
                     registrations.max together with the memory limit"
                );
                problem(StatusCode::INSUFFICIENT_STORAGE, &what)
            }
            RegistrationError::NotStored(what) => try_again(&format!("it could not be stored: {what}")),
            RegistrationError::DiskFull(what) => {
                let what = format!("it could not be stored: {what}");
                problem(StatusCode::INSUFFICIENT_STORAGE, &what)
            }
        }
    }
}

/// A problem that may be gone when the client tries again.
pub(crate) fn try_again(what: &str) -> HttpResponse {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, what);
    response.headers_mut().insert(RETRY_AFTER, TRY_AGAIN);
    response
}

fn stopping() -> HttpResponse {
    try_again("the exporter stops")
}

fn not_declared_as_json() -> HttpResponse {
    let what = "the body must be declared as JSON: send the header content-type: application/json";
    problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
}

/// Refuses a body that is not declared as JSON. Browsers let a form on another site send such a body, but to declare
/// JSON they ask for permission first.
async fn require_json(request: &mut Request<Incoming>) -> Result<(), HttpResponse> {
    if is_json(request.headers()) || request.body().is_end_stream() {
        return Ok(());
    }
    // A chunked body may be empty.
    let in_chunks = request.body().size_hint().exact().is_none();
    if in_chunks && read(request.body_mut()).await?.is_empty() { Ok(()) } else { Err(not_declared_as_json()) }
}

/// Whether the body is declared as JSON, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// The whole body, or why it is not read.
async fn read(body: &mut Incoming) -> Result<Bytes, HttpResponse> {
    let too_large = || problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is over 64 KiB");
    // A body that is declared to be too large need not be read.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let reading = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    match reading.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(problems(StatusCode::BAD_REQUEST, &["the body ended early or is malformed".to_owned()])),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s")),
    }
}
