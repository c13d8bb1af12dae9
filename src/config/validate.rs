//! Every rule of the configuration: from the merged tree to a [`Config`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{Config, ConnectionLimits, Polling, Registrations, Retention, StateFile, format_duration, parse_duration};
use crate::cekura::{Api, KeyFile, KeySource, Rate};
use crate::collections::inserted;
use crate::database::{DatabaseSettings, DatabaseUrl, URL_VARIABLE, UrlSource};
use crate::document::{Node, Place, Section, Show, Value, not_empty_path, switch};
use crate::input_file;
use crate::sources::{self, WatchGlob};
use crate::tls::CaBundle;
use crate::toggle::{AgentDefinition, ApiName, Watch};

/// The top-level keys.
pub(super) const KEYS: [&str; 11] = [
    "apis",
    AGENTS,
    "polling",
    WATCHES,
    "watch_files",
    "registrations",
    DATABASE,
    "state_file",
    "external_url",
    "shutdown",
    "web",
];

/// The keys of an API.
pub(super) const API_KEYS: [&str; 8] = [
    "base_url",
    "api_key",
    "api_key_file",
    "ca_file",
    "timeout",
    "max_in_flight",
    "requests_per_second",
    "discover_agents",
];

/// The top-level keys that hold lists.
pub(super) const LISTS: [&str; 3] = [WATCHES, "watch_files", AGENTS];

/// The top-level key that holds the list of agents.
const AGENTS: &str = "agents";

/// The top-level key that holds the watch list.
pub(super) const WATCHES: &str = "watches";

/// The top-level key that says where the database is.
pub(super) const DATABASE: &str = "database";

/// The public API.
const DEFAULT_BASE_URL: &str = "https://api.cekura.ai";

const EXAMPLE_EXTERNAL_URL: &str = "https://cekura-exporter.example.com";

/// The largest `max_in_flight`: each request takes a socket.
const MAX_IN_FLIGHT: u32 = 10_000;

/// The largest limit of connections: each takes a socket.
const MAX_CONNECTIONS: u32 = 1_000_000;

/// The largest `registrations.max`: about as many fit into a machine.
const MAX_REGISTRATIONS: u32 = 1_000_000;

/// The secrets that were given as text. They do not pass through figment, which leaves copies in memory.
#[derive(Debug)]
pub(super) struct GivenSecrets {
    /// The keys that the configuration gives, by API.
    pub(super) api_keys: BTreeMap<String, KeySource>,
    /// The key of the API `default` if the configuration gives it none.
    pub(super) key_of_default: KeySource,
    /// The URL of the database that the configuration gives, or what is wrong with it.
    pub(super) database_url: Option<Result<DatabaseUrl, String>>,
    /// The URL of the database if the configuration gives none.
    pub(super) database_url_of_variable: Option<Result<DatabaseUrl, String>>,
}

/// Whether the key at this path holds a list or a map.
pub(super) fn holds_collection(keys: &[String]) -> bool {
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    matches!(
        keys[..],
        ["apis" | "agents" | "polling" | "watches" | "watch_files" | "registrations" | "database" | "shutdown" | "web"]
            | ["apis" | "agents" | "watches", _]
            | ["agents" | "watches", _, "labels"]
            | ["registrations", "retention"]
    )
}

/// Validates the document, of which the entries of the watch list were taken out, and notes every problem. What is
/// wrong is left out of the configuration.
pub(super) fn validate(document: &Node<'_>, entries: Vec<Value>, secrets: &GivenSecrets) -> Option<Config> {
    let root = document.section()?;
    let apis = apis(&root, secrets);
    let polling = polling(&root);
    let names: Option<BTreeSet<_>> = apis.as_ref().map(|apis| inserted(apis.keys().cloned()));
    let agents = agents(&root, names.as_ref());
    let watches = watches(&root, entries, names.as_ref());
    let watch_files = watch_files(&root);
    let database = database(&root, secrets);
    let state_file = state_file(&root);
    if state_file.is_some() {
        match database {
            DatabaseBlock::Set(_) => root.note(DATABASE, "is set beside state_file: keep one of them"),
            DatabaseBlock::ByVariable(_) => {
                root.note("state_file", format!("is set beside the variable {URL_VARIABLE}: keep one of them"));
            }
            DatabaseBlock::None => {}
        }
    }
    let is_durable = state_file.is_some() || !matches!(database, DatabaseBlock::None);
    let registrations = registrations(&root, is_durable);
    let external_url = external_url(&root);
    let linger = linger(&root);
    let connections = connections(&root);
    root.finish();
    let apis = apis.into_iter().flat_map(Apis::into_values).flatten().collect();
    Some(Config {
        apis,
        agents,
        polling,
        watches,
        watch_files,
        registrations,
        database: database.into_settings(),
        state_file,
        external_url,
        linger,
        connections,
    })
}

/// The APIs by name; `None` for an API with problems, so that watches may still name it.
type Apis = BTreeMap<ApiName, Option<Api>>;

/// The APIs; `None` if the block is not a map, so that their names are not known.
fn apis(root: &Section<'_>, secrets: &GivenSecrets) -> Option<Apis> {
    // An empty block counts as none.
    let Some(node) = root.take("apis").filter(|node| !node.is_empty()) else {
        let name = ApiName::default_api();
        let key = secrets.key_of_default.clone();
        let api = default_base_url().map(|url| api_with_defaults(name.clone(), url, key));
        return Some(Apis::from([(name, api)]));
    };
    let mut apis = Apis::new();
    for (key, node) in node.entries()? {
        match ApiName::parse(key) {
            Ok(name) => {
                let api = api(node, &name, secrets);
                apis.insert(name, api);
            }
            Err(what) => node.note(what),
        }
    }
    Some(apis)
}

fn api(node: Node<'_>, name: &ApiName, secrets: &GivenSecrets) -> Option<Api> {
    let section = node.section()?;
    let base_url = match section.take("base_url") {
        Some(node) => node.parsed(Show::Nothing, base_url),
        None => default_base_url(),
    };
    let key = key_source(&section, name, secrets);
    let ca = section.take("ca_file").map(|node| authorities(&node));
    // An API key may have been written to the wrong key by mistake, so no value of this block is quoted.
    let timeout = section.parse_quietly("timeout", positive_duration);
    let max_in_flight = section.parse_quietly("max_in_flight", in_flight);
    let requests_per_second = section.parse_quietly("requests_per_second", Rate::parse);
    let discover_agents = section.parse_quietly("discover_agents", switch);
    section.finish();
    let mut api = api_with_defaults(name.clone(), base_url?, key?);
    api.ca = match ca {
        Some(read) => Some(read?),
        None => None,
    };
    api.timeout = timeout.unwrap_or(api.timeout);
    api.max_in_flight = max_in_flight.unwrap_or(api.max_in_flight);
    api.requests_per_second = requests_per_second.unwrap_or(api.requests_per_second);
    api.discover_agents = discover_agents.unwrap_or(api.discover_agents);
    Some(api)
}

fn api_with_defaults(name: ApiName, base_url: Url, key: KeySource) -> Api {
    Api {
        name,
        base_url,
        key,
        ca: None,
        timeout: Duration::from_secs(10),
        max_in_flight: NonZeroU32::MIN.saturating_add(15),
        requests_per_second: Rate::DEFAULT,
        discover_agents: false,
    }
}

/// The authorities in the file that this value names.
fn authorities(node: &Node<'_>) -> Option<CaBundle> {
    let path = path(node)?;
    CaBundle::read(&path).map_err(|what| node.note(format!("{} {what}", path.display()))).ok()
}

/// The path that this value names, which may be a secret by mistake.
fn path(node: &Node<'_>) -> Option<PathBuf> {
    node.parsed(Show::Nothing, not_empty_path).map(|path| node.resolve(&path))
}

fn default_base_url() -> Option<Url> {
    DEFAULT_BASE_URL.parse().ok()
}

fn key_source(section: &Section<'_>, name: &ApiName, secrets: &GivenSecrets) -> Option<KeySource> {
    let text = section.take("api_key");
    let file = section.take("api_key_file");
    match (text, file) {
        (Some(_), Some(file)) => {
            file.note("is set beside api_key: keep one of them");
            None
        }
        (Some(text), None) => {
            text.text()?;
            secrets.api_keys.get(name.as_str()).cloned()
        }
        (None, Some(file)) => path(&file).map(|path| KeySource::File(KeyFile::new(path))),
        (None, None) if *name == ApiName::default_api() => Some(secrets.key_of_default.clone()),
        (None, None) => Some(KeySource::None),
    }
}

fn polling(root: &Section<'_>) -> Polling {
    let defaults = Polling::default();
    let Some(section) = root.take("polling").and_then(|node| node.section()) else { return defaults };
    let agent_interval = section.parse("agent_interval", positive_duration);
    let min = interval(&section, "min_interval", defaults.min_interval);
    let max = interval(&section, "max_interval", defaults.max_interval);
    let backoff = interval(&section, "backoff_max", defaults.backoff_max);
    let recheck = section.parse("recheck_finished", parse_duration);
    for (longer, name) in [(&max, "max_interval"), (&backoff, "backoff_max")] {
        if let (Some(shortest), Some(duration)) = (min.value, longer.value)
            && duration < shortest
        {
            // The problem is noted at the one that was set.
            match (&longer.set, &min.set) {
                (Some(place), _) => place.note("is below min_interval: it must be at least as long"),
                (None, Some(place)) => place.note(format!("is above {name}, which is {}", format_duration(duration))),
                (None, None) => {}
            }
        }
    }
    section.finish();
    Polling {
        agent_interval: agent_interval.unwrap_or(defaults.agent_interval),
        min_interval: min.value.unwrap_or(defaults.min_interval),
        max_interval: max.value.unwrap_or(defaults.max_interval),
        backoff_max: backoff.value.unwrap_or(defaults.backoff_max),
        recheck_finished: recheck.unwrap_or(defaults.recheck_finished),
    }
}

fn watch_files(root: &Section<'_>) -> Vec<WatchGlob> {
    let Some(node) = root.take("watch_files") else { return Vec::new() };
    let mut globs = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (index, node) in node.items().enumerate() {
        let folder = node.folder();
        let Some(glob) = node.parsed(Show::Value, |text| WatchGlob::parse(text, folder)) else { continue };
        match known.get(glob.configured()) {
            Some(first) => node.note(format!("is watch_files[{first}] again: keep one of them")),
            None => drop(known.insert(glob.configured().to_owned(), index)),
        }
        globs.push(glob);
    }
    globs
}

/// The block `database`, of which the settings are `None` if they have problems.
enum DatabaseBlock {
    Set(Option<DatabaseSettings>),
    /// The URL is that of the variable, and there is no block.
    ByVariable(Option<DatabaseSettings>),
    None,
}

fn database(root: &Section<'_>, secrets: &GivenSecrets) -> DatabaseBlock {
    // An empty block counts as none.
    match root.take(DATABASE).filter(|node| !node.is_empty()) {
        Some(node) => DatabaseBlock::Set(node.section().and_then(|section| database_settings(&section, secrets))),
        None => match &secrets.database_url_of_variable {
            Some(Ok(url)) => {
                let settings = DatabaseSettings::new(UrlSource::Given(url.clone()));
                let wrong = settings.contradiction(url).map(|(key, what)| root.note(DATABASE, format!("{key} {what}")));
                DatabaseBlock::ByVariable(wrong.is_none().then_some(settings))
            }
            Some(Err(what)) => {
                root.note(DATABASE, of_variable(what));
                DatabaseBlock::ByVariable(None)
            }
            None => DatabaseBlock::None,
        },
    }
}

fn database_settings(section: &Section<'_>, secrets: &GivenSecrets) -> Option<DatabaseSettings> {
    let url = url_source(section, secrets);
    let password_file = section.take("password_file").map(|node| path(&node));
    let ca = section.take("ca_file").map(|node| authorities(&node));
    let lease = section.parse("lease", lease);
    section.finish();
    let (source, url) = url?;
    let mut settings = DatabaseSettings::new(source);
    settings.password_file = password_file.map_or(Some(None), |path| path.map(Some))?;
    settings.ca_file = ca.map_or(Some(None), |ca| ca.map(|ca| Some(ca.path().to_owned())))?;
    settings.lease = lease.unwrap_or(settings.lease);
    if let Some((key, what)) = settings.contradiction(&url) {
        section.note(key, what);
        return None;
    }
    Some(settings)
}

/// Where the URL of the database is, and the URL itself.
fn url_source(section: &Section<'_>, secrets: &GivenSecrets) -> Option<(UrlSource, DatabaseUrl)> {
    let given = |url: &DatabaseUrl| (UrlSource::Given(url.clone()), url.clone());
    match (section.take("url"), section.take("url_file")) {
        (Some(_), Some(file)) => {
            file.note("is set beside url: keep one of them");
            None
        }
        (Some(text), None) => {
            text.text()?;
            let url = secrets.database_url.as_ref()?;
            url.as_ref().map(given).map_err(|what| text.note(what)).ok()
        }
        (None, Some(file)) => {
            let source = UrlSource::File(path(&file)?);
            let url = source.read().map_err(|what| file.note(what)).ok()?;
            Some((source, url))
        }
        (None, None) => {
            let missing = || format!("is missing: set url, url_file or the variable {URL_VARIABLE}");
            let url = secrets.database_url_of_variable.as_ref().ok_or_else(missing);
            let url = url.and_then(|url| url.as_ref().map_err(|what| of_variable(what)));
            url.map(given).map_err(|what| section.note("url", what)).ok()
        }
    }
}

/// What is wrong with the URL of the variable.
fn of_variable(what: &str) -> String {
    format!("the variable {URL_VARIABLE} {what}")
}

fn lease(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let [min, max] = [DatabaseSettings::MIN_LEASE, DatabaseSettings::MAX_LEASE];
    if (min..=max).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("is not a lease: it is from {} to {}", format_duration(min), format_duration(max)))
}

fn state_file(root: &Section<'_>) -> Option<StateFile> {
    let node = root.take("state_file")?;
    let configured = node.text().filter(|text| !text.is_empty())?.to_owned();
    if let Err(what) = input_file::plain_path(&configured) {
        node.note(what);
        return None;
    }
    if configured.ends_with('/') {
        node.note("is a folder: the path of a file is needed");
    }
    Some(StateFile { path: node.resolve(&configured), configured })
}

fn external_url(root: &Section<'_>) -> Option<Arc<str>> {
    let node = root.take("external_url")?;
    if node.text()?.is_empty() {
        return None;
    }
    // By mistake it may contain a password.
    let url = node.parsed(Show::Nothing, |text| plain_url(text, EXAMPLE_EXTERNAL_URL))?;
    Some(url.as_str().trim_end_matches('/').into())
}

fn registrations(root: &Section<'_>, is_durable: bool) -> Registrations {
    let Some(section) = root.take("registrations").and_then(|node| node.section()) else {
        return Registrations::default();
    };
    let defaults = Registrations::default();
    let enabled = section.take("enabled").and_then(|node| {
        let enabled = node.parsed(Show::Value, switch)?;
        if enabled && !is_durable {
            node.note("needs state_file or database: a registration that was answered must not be lost");
        }
        Some(enabled)
    });
    let max = section.parse("max", |text| whole_number(text, MAX_REGISTRATIONS, "registrations"));
    let retention = section.take("retention").and_then(|node| node.section().map(|section| retention(&section)));
    section.finish();
    Registrations {
        enabled: enabled.unwrap_or(defaults.enabled),
        max: max.unwrap_or(defaults.max),
        retention: retention.unwrap_or(defaults.retention),
    }
}

fn retention(section: &Section<'_>) -> Retention {
    let defaults = Retention::default();
    let retention = Retention {
        completed: section.parse("completed", positive_duration).unwrap_or(defaults.completed),
        failed: section.parse("failed", positive_duration).unwrap_or(defaults.failed),
        unfinished: section.parse("unfinished", positive_duration).unwrap_or(defaults.unfinished),
    };
    section.finish();
    retention
}

fn linger(root: &Section<'_>) -> Duration {
    let Some(section) = root.take("shutdown").and_then(|node| node.section()) else { return Duration::ZERO };
    let linger = section.parse("linger", parse_duration);
    section.finish();
    linger.unwrap_or_default()
}

fn connections(root: &Section<'_>) -> ConnectionLimits {
    let defaults = ConnectionLimits::default();
    let Some(section) = root.take("web").and_then(|node| node.section()) else { return defaults };
    let number = |text: &str| whole_number(text, MAX_CONNECTIONS, "connections");
    let total = section.parse("max_connections", number);
    let per_peer = section.parse("max_connections_per_peer", number);
    section.finish();
    ConnectionLimits { total: total.unwrap_or(defaults.total), per_peer: per_peer.unwrap_or(defaults.per_peer) }
}

// === impl DatabaseBlock ===

impl DatabaseBlock {
    fn into_settings(self) -> Option<DatabaseSettings> {
        match self {
            Self::Set(settings) | Self::ByVariable(settings) => settings,
            Self::None => None,
        }
    }
}

/// An interval, and where it was set.
struct Interval<'a> {
    /// `None` if what was set is wrong.
    value: Option<Duration>,
    set: Option<Place<'a>>,
}

fn interval<'a>(section: &'a Section<'_>, key: &'static str, default: Duration) -> Interval<'a> {
    match section.take(key) {
        Some(node) => Interval { set: Some(node.place()), value: node.parsed(Show::Value, positive_duration) },
        None => Interval { set: None, value: Some(default) },
    }
}

fn watches(root: &Section<'_>, entries: Vec<Value>, apis: Option<&BTreeSet<ApiName>>) -> Vec<Arc<Watch>> {
    let watches = root.take(WATCHES).map(|node| sources::watches(&node, entries, WATCHES, apis));
    watches.unwrap_or_default()
}

fn agents(root: &Section<'_>, apis: Option<&BTreeSet<ApiName>>) -> Vec<Arc<AgentDefinition>> {
    root.take(AGENTS).map(|node| sources::agents(&node, AGENTS, apis)).unwrap_or_default()
}

fn base_url(text: &str) -> Result<Url, String> {
    plain_url(text, DEFAULT_BASE_URL)
}

/// A URL to which a path can be appended.
fn plain_url(text: &str, example: &str) -> Result<Url, String> {
    let wrong = |what: &str| format!("{what}: write it like {example}, with a path prefix if there is one");
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    // The parser corrects what browsers correct, but the URL that was written must be the one that is polled.
    let rest = text.split_once("://").map(|(_, rest)| rest);
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if !matches!(url.scheme(), "http" | "https") {
        Err(wrong("is neither http nor https"))
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        Err(wrong("has white space or a backslash in it"))
    } else if authority.is_empty() || url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        Err(wrong("has no host or no port that can be reached"))
    } else if authority.contains('@') {
        Err(wrong("has user info, which does not belong there"))
    } else if url.query().is_some() || url.fragment().is_some() {
        Err(wrong("has a query or a fragment, which do not belong there"))
    } else {
        Ok(url)
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("is zero: it must be longer".to_owned()),
        duration => Ok(duration),
    }
}

fn in_flight(text: &str) -> Result<NonZeroU32, String> {
    whole_number(text, MAX_IN_FLIGHT, "requests")
}

/// A number of things, at least one.
fn whole_number(text: &str, most: u32, things: &str) -> Result<NonZeroU32, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<NonZeroU32>()
        .ok()
        .filter(|n| plain && n.get() <= most)
        .ok_or_else(|| format!("is not a number of {things}: a whole number from 1 to {most}"))
}
