//! The HTTP client of one API.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tokio::time::timeout_at;
use url::Url;

use super::connections::{Connections, Pool};
use super::encoding::Encoding;
use super::key::{KeySource, Keyring, Secret};
use super::{Api, CaBundle, Proxies, Renewal, answer, fault, tls};
use crate::clock;
use crate::toggle::{AgentId, ApiName, Failure, Hidden, Outcome, ProgressId, Reason, Text};

/// What the exporter calls itself in requests.
pub const USER_AGENT: &str = concat!("cekura-exporter/", env!("CARGO_PKG_VERSION"));

/// The header that carries the key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-cekura-api-key");

/// The most of an answer's body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// The most of an error answer's body that is read for its detail.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The longest that an error answer's body is waited for.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause that a Retry-After can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Where the agents are below the base URL.
const AGENTS: &str = "/test_framework/v2/aiagents/";

/// Where the progress of an agent's toggle tasks is below the agent.
const PROGRESS: &str = "/toggle-mock-tools-progress/";

/// Everything but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Polls one API over kept-alive connections. Redirects are not followed.
pub struct Client {
    connections: Connections,
    /// The base URL up to the agent's id.
    agents_url: String,
    /// The same without its scheme: what a failure says of where it went.
    agents_path: String,
    timeout: Duration,
    /// The key, or why there is none.
    key: Mutex<Result<Secret, String>>,
    source: KeySource,
    /// The extra root certificates in use.
    ca: Mutex<Option<CaBundle>>,
    api: ApiName,
    keyring: Keyring,
}

/// What one poll brought, and what it cost.
pub struct Polled {
    /// The answer, or why there is none.
    pub outcome: Outcome,
    /// From connecting to the last byte; `None` if nothing was sent.
    pub took: Option<Duration>,
    /// Whether the request was sent twice.
    pub repeated: bool,
}

/// No answer came.
struct Unanswered {
    failure: Failure,
    /// The end here of the connection, if that was reset before the head of an answer was whole.
    reset: Option<SocketAddr>,
}

/// A client that cannot be built.
#[derive(Debug)]
pub struct BuildError(Box<dyn Error + Send + Sync>);

/// The base URL that was meant, where `base` ends in a part of the path that a poll adds to it.
pub fn without_endpoint(base: &Url) -> Option<String> {
    let names = |path: &'static str| path.split('/').filter(|name| !name.is_empty()).map(Some);
    // The id of an agent may be anything.
    let endpoint: Vec<Option<&str>> = names(AGENTS).chain([None]).chain(names(PROGRESS)).collect();
    let path: Vec<_> = base.path().split('/').filter(|name| !name.is_empty()).collect();
    let begins_endpoint = |part: &[&str]| {
        part.len() <= endpoint.len() && part.iter().zip(&endpoint).all(|(name, of)| of.is_none_or(|of| of == *name))
    };
    let start = (0..path.len()).find(|start| begins_endpoint(&path[*start..]))?;
    let mut meant = base.clone();
    meant.set_path(&path[..start].join("/"));
    Some(meant.as_str().trim_end_matches('/').to_owned())
}

// === impl Client ===

impl Client {
    /// A client for `api`, with its key read once if it is in a file. Blocks for that long. None of the keys in
    /// `keyring`, where it keeps its own, shows in what it brings.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(api: &Api, proxies: &Proxies, keyring: Keyring) -> Result<Self, BuildError> {
        let tls = tls::client_config(api.ca.as_ref()).map_err(BuildError::of)?;
        let proxy = proxies.of(&api.base_url).cloned();
        let base = api.base_url.as_str().trim_end_matches('/');
        let client = Self {
            connections: Connections::new(tls, proxy, api.timeout)?,
            agents_path: format!("{}{AGENTS}", base.split_once("://").map_or(base, |(_, rest)| rest)),
            agents_url: format!("{base}{AGENTS}"),
            timeout: api.timeout,
            key: Mutex::new(Err(String::new())),
            source: api.key.clone(),
            ca: Mutex::new(api.ca.clone()),
            api: api.name.clone(),
            keyring,
        };
        // What is wrong with the key is kept, and told by every poll.
        let _ = client.refresh_key();
        Ok(client)
    }

    /// Reads the key again, if it is in a file. Blocks. Says whether the usable key is another one
    /// than before, or the first.
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
            KeySource::None => Err("no key is configured: set api_key_file or api_key".to_owned()),
        };
        if let Ok(key) = &read {
            self.keyring.put(&self.api, key);
        }
        let before = std::mem::replace(&mut *self.key.lock().unwrap_or_else(PoisonError::into_inner), read.clone());
        let key = read?;
        Ok(before.ok() != Some(key))
    }

    /// Reads the extra root certificates again, if there are some. Blocks. Says whether they are others than
    /// before; then they hold for connections from here on.
    ///
    /// # Errors
    /// Why they cannot be used, as a sentence for the log. Those that there are stay in use.
    pub fn refresh_authorities(&self) -> Result<bool, String> {
        let Some(known) = self.ca.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(false) };
        let place = |what: String| format!("the ca_file {} {what}", known.path().display());
        let read = CaBundle::read(known.path()).map_err(place)?;
        if read == known {
            return Ok(false);
        }
        let tls = tls::client_config(Some(&read)).map_err(|error| place(format!("cannot be used: {error}")))?;
        self.connections.set_tls(tls);
        *self.ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok(true)
    }

    /// Whether this is in a file, which can change while the process runs.
    pub fn reads_file_of(&self, of: Renewal) -> bool {
        match of {
            Renewal::Key => matches!(self.source, KeySource::File(_)),
            Renewal::Authorities => self.ca.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// Whether anything that it has is in a file.
    pub fn reads_files(&self) -> bool {
        self.reads_file_of(Renewal::Key) || self.reads_file_of(Renewal::Authorities)
    }

    /// Asks once how the task goes. Never takes longer than the API's timeout.
    pub async fn poll(&self, agent_id: AgentId, progress_id: &ProgressId) -> Polled {
        let key = match self.key.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Ok(key) => key,
            Err(what) => {
                let failure = Failure::new(Reason::Credentials).with_detail(Text::own(&what));
                return Polled { outcome: Err(failure), took: None, repeated: false };
            }
        };
        let started = Instant::now();
        let (pool, url) = (self.connections.pool(), self.url(agent_id, progress_id));
        // Its own key beside: the ring may have a newer one by now.
        let hidden = self.keyring.hidden().key(key.expose()).query(&format!("progress_id={}", progress_id.as_str()));
        let mut asked = self.ask(&pool, &url, &key, &hidden, started + self.timeout).await;
        // A server may give up a connection that it has not used for a while, just when it is used again.
        let reset = asked.as_ref().err().and_then(|unanswered| unanswered.reset);
        let repeated = reset.is_some_and(|connection| pool.has_kept(connection));
        if repeated {
            asked = self.ask(&self.connections.fresh(&pool), &url, &key, &hidden, started + self.timeout).await;
        }
        let outcome = asked.unwrap_or_else(|unanswered| Err(unanswered.failure));
        if outcome.as_ref().is_err_and(|failure| is_of_the_way(failure.reason)) {
            self.connections.give_up(&pool);
        }
        let outcome = outcome.map_err(|failure| self.saying_where(failure, agent_id));
        Polled { outcome, took: Some(started.elapsed()), repeated }
    }

    /// Asks once over these connections.
    async fn ask(
        &self,
        pool: &Pool,
        url: &str,
        key: &Secret,
        hidden: &Hidden,
        deadline: Instant,
    ) -> Result<Outcome, Unanswered> {
        let request = pool.http().get(url).header(ACCEPT, "application/json").header(KEY_HEADER, key_header(key));
        let response = match timeout_at(deadline.into(), request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let failure = fault::failure_of(&error, hidden);
                return Err(Unanswered { reset: fault::reset_connection(&error), failure });
            }
            Err(_) => return Err(Unanswered { reset: None, failure: self.timed_out() }),
        };
        self.connections.answered(pool, &response);
        Ok(self.answer(response, hidden.clone(), deadline).await)
    }

    async fn answer(&self, response: Response, hidden: Hidden, deadline: Instant) -> Outcome {
        match Reason::of_http_status(response.status().as_u16()) {
            None => {
                let encoding = Encoding::of(response.headers())?;
                let reading = read_body(response, MAX_BODY, &hidden);
                let body = timeout_at(deadline.into(), reading).await.map_err(|_| self.timed_out())??;
                answer::decode(&encoding.decoded(body, MAX_BODY)?, hidden)
            }
            Some(_)
                if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
                    && self.connections.proxy_address().is_some() =>
            {
                Err(Failure::new(Reason::Connect).with_detail(Text::own(fault::PROXY_WANTS_A_LOGIN)))
            }
            Some(reason) => Err(error_answer(response, reason, &hidden, deadline).await),
        }
    }

    fn timed_out(&self) -> Failure {
        let detail = format!("no complete answer within {:?}", self.timeout);
        Failure::new(Reason::Timeout).with_detail(Text::own(&detail))
    }

    /// The failure with what was asked before its detail, but for the query.
    fn saying_where(&self, failure: Failure, agent_id: AgentId) -> Failure {
        let what = failure.detail.as_ref().map_or(failure.reason.as_str(), Text::as_str);
        // What a proxy does wrong would else be looked for at the API.
        let through = self.connections.proxy_address().filter(|_| is_of_getting_there(failure.reason));
        let through = through.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let detail = Text::own(&format!("{}{through}: {what}", self.place(agent_id)));
        failure.with_detail(detail)
    }

    /// What a poll asks: method, host and path, without the query.
    pub fn place(&self, agent_id: AgentId) -> String {
        format!("GET {}{agent_id}{PROGRESS}", self.agents_path)
    }

    fn url(&self, agent_id: AgentId, progress_id: &ProgressId) -> String {
        let id = utf8_percent_encode(progress_id.as_str(), QUERY_VALUE);
        format!("{}{agent_id}{PROGRESS}?progress_id={id}", self.agents_url)
    }
}

/// Whether a failure may be one of the way that the connections lead: of where the name led once, or of what
/// is behind it.
fn is_of_the_way(reason: Reason) -> bool {
    matches!(reason, Reason::Timeout | Reason::Aborted | Reason::Tls | Reason::ServerError)
}

/// Whether a failure may be one of getting to the API.
fn is_of_getting_there(reason: Reason) -> bool {
    matches!(reason, Reason::Timeout | Reason::Dns | Reason::Connect | Reason::Tls | Reason::Aborted)
}

/// Made anew for each request, so that the key stays in memory that is wiped.
fn key_header(key: &Secret) -> HeaderValue {
    // A secret has visible ASCII only, which every header value may have.
    let mut header = HeaderValue::from_str(key.expose()).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

async fn read_body(mut response: Response, limit: usize, hidden: &Hidden) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let lost = |error| fault::failure_of(&error, hidden);
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > limit {
            let detail = Text::own(&format!("the body is over {limit} bytes"));
            return Err(Failure::new(Reason::TooLarge).with_detail(detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The status alone decides the reason. The body is read for its detail only, as far as it comes
/// soon.
async fn error_answer(response: Response, reason: Reason, hidden: &Hidden, deadline: Instant) -> Failure {
    let status = response.status();
    let retry_after = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let header = response.headers().get(RETRY_AFTER);
            header.and_then(|value| retry_after(value.as_bytes(), clock::now().into()))
        }
        _ => None,
    };
    let until = deadline.min(Instant::now() + ERROR_BODY_TIMEOUT);
    let encoding = Encoding::of(response.headers());
    let body = timeout_at(until.into(), read_body(response, MAX_ERROR_BODY, hidden)).await;
    let body = body.ok().and_then(Result::ok).and_then(|body| encoding.ok()?.decoded(body, MAX_ERROR_BODY).ok());
    let said = body.and_then(|body| answer::error_detail(&body, hidden));
    let status = format!("HTTP {}", status.as_u16());
    let detail = said.map_or_else(|| status.clone(), |said| format!("{status}: {said}"));
    Failure { reason, detail: Some(Text::own(&detail)), retry_after }
}

/// A Retry-After in seconds or as an HTTP date, bounded to an hour. `None` if it asks for nothing or
/// cannot be read.
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // What overflows is absurd, and bounded as such.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    (!asked.is_zero()).then(|| asked.min(MAX_RETRY_AFTER))
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
    use std::time::UNIX_EPOCH;

    fn client(base_url: &str) -> Client {
        let api = Api {
            name: ApiName::default_api(),
            base_url: base_url.parse().unwrap(),
            key: KeySource::None,
            ca: None,
            timeout: Duration::from_secs(1),
            max_in_flight: NonZeroU32::MIN,
            requests_per_second: Rate::parse("1").unwrap(),
        };
        Client::new(&api, &Proxies::default(), Keyring::default()).unwrap()
    }

    #[test]
    fn the_url_keeps_a_path_prefix_and_encodes_any_progress_id() {
        let agent = AgentId::parse("7").unwrap();
        let id = ProgressId::parse("a b&c=/?#%é\0+").unwrap();
        let tail = "/test_framework/v2/aiagents/7/toggle-mock-tools-progress/?progress_id=a%20b%26c%3D%2F%3F%23%25%C3%A9%00%2B";
        for (base, prefix) in [
            ("http://h:1", "http://h:1"),
            ("http://h:1/", "http://h:1"),
            ("https://h/a/b", "https://h/a/b"),
            ("https://h/a/b/", "https://h/a/b"),
        ] {
            assert_eq!(client(base).url(agent, &id), format!("{prefix}{tail}"));
        }
    }

    #[test]
    fn a_base_url_that_ends_in_a_part_of_the_endpoint_is_known_with_what_was_meant() {
        for (base, meant) in [
            ("https://h/test_framework", Some("https://h")),
            ("https://h/test_framework/v2/", Some("https://h")),
            ("https://h/a/b/test_framework/v2/aiagents", Some("https://h/a/b")),
            ("https://h:1/test_framework/v2/aiagents/7/toggle-mock-tools-progress/", Some("https://h:1")),
            ("https://h", None),
            ("https://h/v2", None),
            ("https://h/test_framework/v1", None),
            ("https://h/test_framework/x", None),
            ("https://h/test_framework/v2/aiagents/7/toggle-mock-tools-progress/x", None),
        ] {
            assert_eq!(without_endpoint(&base.parse().unwrap()).as_deref(), meant, "{base}");
        }
    }

    #[test]
    fn a_key_that_comes_before_anybody_looked_again_is_new_and_the_same_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let client = Client { source: KeySource::File(KeyFile::new(path.clone())), ..client("http://h") };
        assert!(client.refresh_key().is_err());
        for (key, is_new) in [("sk-1", true), ("sk-1", false), ("sk-2", true)] {
            std::fs::write(&path, key).unwrap();
            assert_eq!(client.refresh_key(), Ok(is_new), "{key}");
        }
    }

    #[test]
    fn a_failure_says_where_it_went_without_the_query() {
        let agent = AgentId::parse("7").unwrap();
        let tail = "/test_framework/v2/aiagents/7/toggle-mock-tools-progress/";
        for (base, place) in [
            ("https://api.example", "api.example"),
            ("http://h:8080/a/b/", "h:8080/a/b"),
            ("https://[::1]:1/", "[::1]:1"),
        ] {
            let failure = Failure::new(Reason::NotFound).with_detail(Text::own("HTTP 404: no"));
            let said = client(base).saying_where(failure, agent).detail.unwrap();
            assert_eq!(said.as_str(), format!("GET {place}{tail}: HTTP 404: no"));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded_to_an_hour() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text: &str| retry_after(text.as_bytes(), now).map(|d| d.as_secs());
        assert_eq!(asked("5"), Some(5));
        assert_eq!(asked("86400"), Some(3600));
        assert_eq!(asked("99999999999999999999999"), Some(3600));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        for nothing in ["0", "", "-1", "soon", "1.5", "Sun, 06 Nov 1994 08:49:27 GMT"] {
            assert_eq!(asked(nothing), None, "{nothing}");
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
