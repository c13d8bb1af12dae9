//! The HTTP client of one API.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use tokio::time::timeout_at;
use url::Url;

use super::agents::{AgentPage, decode_agent_page, decode_mock_status};
use super::connections::{Connections, Pool};
use super::encoding::Encoding;
use super::endpoint::{Endpoints, next_page, request_line};
use super::json::not_documented;
use super::key::{KeySource, Keyring, Secret, how_to_give_key};
use super::trace::RequestPhases;
use super::{Api, Proxies, Renewal, answer, failure, response};
use crate::tls::{self, CaBundle};
use crate::toggle::{AgentId, Answer, ApiName, Failure, MockStatus, Outcome, ProgressId, Reason, Redactions, Text};

/// The `User-Agent` of the exporter.
pub const USER_AGENT: &str = concat!("cekura-exporter/", env!("CARGO_PKG_VERSION"));

/// The header that carries the key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-cekura-api-key");

/// The largest body of an answer that is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The largest page of the list of agents that is read, in bytes. Agents have long descriptions.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// Polls one API over kept-alive connections. It follows no redirects.
pub struct Client {
    connections: Connections,
    base_url: Url,
    endpoints: Endpoints,
    /// Bounds a whole request, from connecting to the last byte.
    timeout: Duration,
    /// The key, or why there is none.
    key: Mutex<Result<Secret, String>>,
    source: KeySource,
    /// The extra root certificates in use.
    ca: Mutex<Option<CaBundle>>,
    api: ApiName,
    keyring: Keyring,
}

/// The result of one request, and its cost.
pub struct Polled<T> {
    /// The answer, or why there is none.
    pub outcome: Result<T, Failure>,
    /// From connecting to the last byte; `None` if nothing was sent.
    pub took: Option<Duration>,
    /// Whether the request was sent twice.
    pub repeated: bool,
}

/// The result of a request that was traced.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedPoll {
    /// The answer, or why there is none.
    pub outcome: Outcome,
    /// From connecting to the last byte; `None` if nothing was sent.
    pub took: Option<Duration>,
    /// What it did, and how long each part took.
    pub phases: RequestPhases,
    /// The host and port of the proxy, if there is one.
    pub proxy: Option<String>,
}

/// A request to the API.
struct ApiRequest<'a> {
    url: &'a str,
    key: Secret,
    /// What its answer must not show.
    hidden: Redactions,
    /// The largest answer that is read, in bytes.
    limit: usize,
    deadline: Instant,
}

/// A request without a response.
struct RequestError {
    failure: Failure,
    /// The local address of the connection, if it was closed before the head of a response was complete.
    reset: Option<SocketAddr>,
}

/// Why a client cannot be built.
#[derive(Debug)]
pub struct BuildError(Box<dyn Error + Send + Sync>);

// === impl Client ===

impl Client {
    /// A client for `api`. Reads its key once, which blocks if it is in a file. The client adds its keys to
    /// `keyring`, and hides all keys of the keyring in its outcomes.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(api: &Api, proxies: &Proxies, keyring: Keyring) -> Result<Self, BuildError> {
        let tls = tls::client_config(api.ca.as_ref()).map_err(BuildError::of)?;
        let proxy = proxies.of(&api.base_url).cloned();
        let client = Self {
            connections: Connections::new(tls, proxy, api.timeout)?,
            base_url: api.base_url.clone(),
            endpoints: Endpoints::new(&api.base_url),
            timeout: api.timeout,
            key: Mutex::new(Err(String::new())),
            source: api.key.clone(),
            ca: Mutex::new(api.ca.clone()),
            api: api.name.clone(),
            keyring,
        };
        // A problem is kept, and every poll reports it.
        let _ = client.refresh_key();
        Ok(client)
    }

    /// Reads the key again, if it is in a file. Blocks. Returns whether it has a usable key that it did not have
    /// before.
    ///
    /// # Errors
    /// Why there is no usable key, as a sentence for the log.
    pub fn refresh_key(&self) -> Result<bool, String> {
        let read = match &self.source {
            KeySource::Given(secret) => Ok(secret.clone()),
            KeySource::File(file) => {
                file.read().map_err(|what| format!("the key file {} {what}", file.path().display()))
            }
            KeySource::Unusable(what) => Err(format!("the configured key {what}")),
            KeySource::None => Err(format!("no key is configured: {}", how_to_give_key(&self.api))),
        };
        if let Ok(key) = &read {
            self.keyring.put(&self.api, key);
        }
        let before = std::mem::replace(&mut *self.key.lock().unwrap_or_else(PoisonError::into_inner), read.clone());
        let key = read?;
        Ok(before.ok() != Some(key))
    }

    /// Reads the extra root certificates again, if there are any. Blocks. Returns whether they are others than
    /// before. New connections are verified with them.
    ///
    /// # Errors
    /// Why they cannot be used, as a sentence for the log. The old ones stay in use.
    pub fn refresh_authorities(&self) -> Result<bool, String> {
        let Some(known) = self.ca.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(false) };
        let problem = |what: String| format!("the ca_file {} {what}", known.path().display());
        let read = CaBundle::read(known.path()).map_err(problem)?;
        if read == known {
            return Ok(false);
        }
        let tls = tls::client_config(Some(&read)).map_err(|error| problem(format!("cannot be used: {error}")))?;
        self.connections.set_tls(tls);
        *self.ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok(true)
    }

    /// Whether it reads this from a file, which can change while the process runs.
    pub fn reads_file_of(&self, what: Renewal) -> bool {
        match what {
            Renewal::Key => matches!(self.source, KeySource::File(_)),
            Renewal::Authorities => self.ca.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// Whether it reads anything from a file.
    pub fn reads_files(&self) -> bool {
        self.reads_file_of(Renewal::Key) || self.reads_file_of(Renewal::Authorities)
    }

    /// Polls a task once. Never takes longer than the API's timeout.
    pub async fn poll(&self, agent_id: AgentId, progress_id: &ProgressId) -> Polled<Answer> {
        let url = self.endpoints.progress(agent_id, progress_id);
        self.get(&url, self.hidden_of(progress_id), MAX_BODY, answer::decode).await
    }

    /// What the answer to a poll of a task must not show.
    fn hidden_of(&self, progress_id: &ProgressId) -> Redactions {
        self.keyring.hidden().query(&format!("progress_id={}", progress_id.as_str()))
    }

    /// Polls a task once, over a connection of its own that is not kept, and traces the request. Never takes longer than
    /// the API's timeout.
    pub async fn traced_poll(&self, agent_id: AgentId, progress_id: &ProgressId) -> TracedPoll {
        let url = self.endpoints.progress(agent_id, progress_id);
        let proxy = self.connections.proxy_address();
        let request = match self.request(&url, self.hidden_of(progress_id), MAX_BODY) {
            Ok(request) => request,
            Err(failure) => {
                return TracedPoll { outcome: Err(failure), took: None, phases: RequestPhases::without_key(), proxy };
            }
        };
        let started = Instant::now();
        let ca = self.ca.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (outcome, phases) = match self.connections.traced_pool(&self.base_url, ca.as_ref()) {
            Ok(pool) => {
                let sent = self.send(&pool, &request, answer::decode).await;
                let outcome = sent.unwrap_or_else(|error| Err(error.failure));
                let failed = outcome.as_ref().err().map(|failure| failure.reason);
                (outcome, pool.trace().map(|trace| trace.end(failed)).unwrap_or_default())
            }
            // The same settings have worked before.
            Err(error) => {
                (Err(Failure::new(Reason::Tls).with_detail(Text::own(&error.to_string()))), RequestPhases::default())
            }
        };
        let outcome = outcome.map_err(|failure| self.with_request_line(failure, &url));
        TracedPoll { outcome, took: Some(started.elapsed()), phases, proxy }
    }

    /// Asks for the mock status of an agent once. Never takes longer than the API's timeout.
    pub async fn mock_status(&self, agent_id: AgentId) -> Polled<MockStatus> {
        let url = self.endpoints.mock_status(agent_id);
        self.get(&url, self.keyring.hidden(), MAX_BODY, |body, _| decode_mock_status(body)).await
    }

    /// Reads one page of the list of agents: the one at `url`, which is the `next` of another page, or the first one.
    /// Never takes longer than the API's timeout.
    pub async fn agents(&self, url: Option<&str>) -> Polled<AgentPage> {
        let url = url.map_or_else(|| self.endpoints.agents(), str::to_owned);
        let decode = |body: &[u8], _| {
            let page = decode_agent_page(body)?;
            let next = page.next.as_deref().map(|next| next_page(&url, next)).transpose();
            Ok(AgentPage { next: next.map_err(|what| not_documented(&what))?, ..page })
        };
        self.get(&url, self.keyring.hidden(), MAX_PAGE, decode).await
    }

    /// Sends a request, and reads its answer of up to `limit` bytes.
    async fn get<T>(
        &self,
        url: &str,
        hidden: Redactions,
        limit: usize,
        decode: impl Fn(&[u8], Redactions) -> Result<T, Failure>,
    ) -> Polled<T> {
        let request = match self.request(url, hidden, limit) {
            Ok(request) => request,
            Err(failure) => return Polled { outcome: Err(failure), took: None, repeated: false },
        };
        let started = Instant::now();
        let pool = self.connections.pool();
        let mut sent = self.send(&pool, &request, &decode).await;
        // A server may close a kept connection at the moment when it is used again.
        let reset = sent.as_ref().err().and_then(|error| error.reset);
        let repeated = reset.is_some_and(|connection| pool.has_kept(connection));
        if repeated {
            sent = self.send(&self.connections.replace(&pool), &request, &decode).await;
        }
        let outcome = sent.unwrap_or_else(|error| Err(error.failure));
        if outcome.as_ref().is_err_and(|failure| is_by_connection(failure.reason)) {
            self.connections.retire(&pool);
        }
        let outcome = outcome.map_err(|failure| self.with_request_line(failure, url));
        Polled { outcome, took: Some(started.elapsed()), repeated }
    }

    /// A request that starts now.
    ///
    /// # Errors
    /// If there is no key for it.
    fn request<'a>(&self, url: &'a str, hidden: Redactions, limit: usize) -> Result<ApiRequest<'a>, Failure> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = key.map_err(|what| Failure::new(Reason::Credentials).with_detail(Text::own(&what)))?;
        // The key of this request, too: the ring may have dropped it by the time that the answer is read.
        Ok(ApiRequest { url, hidden: hidden.key(key.expose()), key, limit, deadline: Instant::now() + self.timeout })
    }

    /// Sends the request over a connection of this pool.
    async fn send<T>(
        &self,
        pool: &Pool,
        request: &ApiRequest<'_>,
        decode: impl Fn(&[u8], Redactions) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, RequestError> {
        let ApiRequest { url, hidden, key, deadline, .. } = request;
        let sending = pool.http().get(*url).header(ACCEPT, "application/json").header(KEY_HEADER, key_header(key));
        let response = match timeout_at((*deadline).into(), sending.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let reset = failure::reset_connection(&error);
                return Err(RequestError { reset, failure: failure::of(&error, hidden) });
            }
            Err(_) => return Err(RequestError { reset: None, failure: self.timed_out() }),
        };
        self.connections.answered(pool, &response);
        Ok(self.outcome_of(response, request, decode).await)
    }

    async fn outcome_of<T>(
        &self,
        response: Response,
        request: &ApiRequest<'_>,
        decode: impl Fn(&[u8], Redactions) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let ApiRequest { hidden, limit, deadline, .. } = request;
        match Reason::of_http_status(response.status().as_u16()) {
            None => {
                let encoding = Encoding::of(response.headers())?;
                let reading = response::body(response, *limit, hidden);
                let body = timeout_at((*deadline).into(), reading).await.map_err(|_| self.timed_out())??;
                decode(&encoding.decoded(body, *limit)?, hidden.clone())
            }
            Some(_)
                if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
                    && self.connections.proxy_address().is_some() =>
            {
                Err(Failure::new(Reason::Connect).with_detail(Text::own(failure::PROXY_WANTS_A_LOGIN)))
            }
            Some(reason) => Err(response::error(response, reason, hidden, *deadline).await),
        }
    }

    fn timed_out(&self) -> Failure {
        let detail = format!("no complete answer within {:?}", self.timeout);
        Failure::new(Reason::Timeout).with_detail(Text::own(&detail))
    }

    /// The failure with the request in front of its detail, and with the proxy if that may be the cause.
    fn with_request_line(&self, failure: Failure, url: &str) -> Failure {
        let what = failure.detail.as_ref().map_or(failure.reason.as_str(), Text::as_str);
        let proxy = self.connections.proxy_address().filter(|_| may_be_by_proxy(failure.reason));
        let through = proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let detail = Text::own(&format!("{}{through}: {what}", request_line(url)));
        failure.with_detail(detail)
    }

    /// The request of a poll of a task as people read it: method, host and path, without the query.
    pub fn progress_request_line(&self, agent_id: AgentId) -> String {
        request_line(&self.endpoints.progress_of_any_task(agent_id))
    }

    /// The request for the mock status of an agent as people read it.
    pub fn mock_status_request_line(&self, agent_id: AgentId) -> String {
        request_line(&self.endpoints.mock_status(agent_id))
    }

    /// The request for the list of agents as people read it.
    pub fn agents_request_line(&self) -> String {
        request_line(&self.endpoints.agents())
    }
}

/// Whether a new connection may help: it may lead to another address, or a load balancer to another server.
fn is_by_connection(reason: Reason) -> bool {
    matches!(reason, Reason::Timeout | Reason::Aborted | Reason::Tls | Reason::ServerError)
}

/// Whether a proxy on the way may have caused the failure.
fn may_be_by_proxy(reason: Reason) -> bool {
    matches!(reason, Reason::Timeout | Reason::Dns | Reason::Connect | Reason::Tls | Reason::Aborted)
}

/// Made for each request, so that the key stays in memory that is wiped.
fn key_header(key: &Secret) -> HeaderValue {
    // A secret has visible ASCII characters only, which are valid in a header.
    let mut header = HeaderValue::from_str(key.expose()).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

// === impl BuildError ===

impl BuildError {
    pub(super) fn of(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the HTTP client could not be built: {}", self.0)
    }
}

impl Error for BuildError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cekura::{KeyFile, Rate};
    use crate::toggle::ApiName;
    use std::num::NonZeroU32;

    fn client(base_url: &str) -> Client {
        let api = Api {
            name: ApiName::default_api(),
            base_url: base_url.parse().unwrap(),
            key: KeySource::None,
            ca: None,
            timeout: Duration::from_secs(1),
            max_in_flight: NonZeroU32::MIN,
            requests_per_second: Rate::parse("1").unwrap(),
            discover_agents: false,
        };
        Client::new(&api, &Proxies::default(), Keyring::default()).unwrap()
    }

    #[test]
    fn only_another_key_than_before_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let client = Client { source: KeySource::File(KeyFile::new(path.clone())), ..client("http://h") };
        assert!(client.refresh_key().is_err());
        for (key, is_new) in [("sk-1", true), ("sk-1", false), ("sk-2", true)] {
            std::fs::write(&path, key).unwrap();
            assert_eq!(client.refresh_key(), Ok(is_new), "{key}");
        }
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_sent() {
        let polled =
            client("http://127.0.0.1:1").poll(AgentId::parse("1").unwrap(), &ProgressId::parse("p").unwrap()).await;
        assert_eq!(polled.outcome.unwrap_err().reason, Reason::Credentials);
        assert_eq!(polled.took, None);
    }
}
