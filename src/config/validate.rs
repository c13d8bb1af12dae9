//! The merged tree into a [`Config`]: every rule of the configuration is here.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};
use url::Url;

use super::problem::Problem;
use super::section::{Node, Reading, Section, Show};
use super::{Config, Polling, parse_duration};
use crate::cekura::{Api, CaBundle, KeyFile, KeySource, Rate};
use crate::toggle::{AgentId, ApiName, Expect, LabelName, Labels, ProgressId, Source, Watch, WatchName};

/// The keys at the top that hold lists.
pub(super) const LISTS: [&str; 1] = ["watches"];

/// The public API.
const DEFAULT_BASE_URL: &str = "https://api.cekura.ai";

/// The most `max_in_flight` that is taken: each takes a socket.
const MAX_IN_FLIGHT: u32 = 10_000;

/// The keys that were given as text. They never pass through figment.
#[derive(Debug)]
pub(super) struct Keys {
    /// Those of the configuration, by API.
    pub(super) given: BTreeMap<String, KeySource>,
    /// That of the API `default` where the configuration gives it none.
    pub(super) of_default: KeySource,
}

/// Whether the key at this path holds a list or a map.
pub(super) fn holds_collection(keys: &[String]) -> bool {
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    matches!(keys[..], ["apis" | "polling" | "watches"] | ["apis" | "watches", _] | ["watches", _, "labels"])
}

/// Validates the merged tree, with the `lists` of the file that need no merging.
///
/// # Errors
/// Every problem that there is.
pub(super) fn validate(
    figment: &Figment,
    lists: Dict,
    file: &std::path::Path,
    keys: &Keys,
) -> Result<Config, Vec<Problem>> {
    let reading = Reading::new(figment, file);
    let mut tree = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
    tree.extend(lists);
    let config = reading.root(Value::from(tree)).section().map(|mut root| {
        let apis = apis(&mut root, keys);
        let polling = polling(&mut root);
        let watches = watches(&mut root, &apis);
        root.finish();
        Config { apis: apis.into_values().flatten().collect(), polling, watches }
    });
    match (config, reading.into_problems()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// The APIs by name; `None` for one that is named but wrong, so that its watches are not wrong too.
type Apis = BTreeMap<ApiName, Option<Api>>;

fn apis(root: &mut Section<'_>, keys: &Keys) -> Apis {
    // An empty block says as little as none.
    let Some(node) = root.take("apis").filter(|node| !node.is_empty()) else {
        let name = ApiName::default_api();
        let key = keys.of_default.clone();
        return Apis::from([(name.clone(), default_base_url().map(|url| api_with_defaults(name, url, key)))]);
    };
    let mut apis = Apis::new();
    for (key, node) in node.entries() {
        match ApiName::parse(&key) {
            Ok(name) => {
                let api = api(node, &name, keys);
                apis.insert(name, api);
            }
            Err(what) => node.note(what),
        }
    }
    apis
}

fn api(node: Node<'_>, name: &ApiName, keys: &Keys) -> Option<Api> {
    let mut section = node.section()?;
    let base_url = match section.take("base_url") {
        Some(node) => node.parsed(Show::Nothing, base_url),
        None => default_base_url(),
    };
    let key = key_source(&mut section, name, keys);
    let ca = section.take("ca_file").map(|node| {
        let path = node.resolve(node.text()?);
        CaBundle::read(&path).map_err(|what| node.note(format!("{} {what}", path.display()))).ok()
    });
    let timeout = section.parse("timeout", positive_duration);
    let max_in_flight = section.parse("max_in_flight", in_flight);
    let requests_per_second = section.parse("requests_per_second", Rate::parse);
    section.finish();
    let mut api = api_with_defaults(name.clone(), base_url?, key?);
    api.ca = match ca {
        Some(read) => Some(read?),
        None => None,
    };
    api.timeout = timeout.unwrap_or(api.timeout);
    api.max_in_flight = max_in_flight.unwrap_or(api.max_in_flight);
    api.requests_per_second = requests_per_second.unwrap_or(api.requests_per_second);
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
    }
}

fn default_base_url() -> Option<Url> {
    DEFAULT_BASE_URL.parse().ok()
}

fn key_source(section: &mut Section<'_>, name: &ApiName, keys: &Keys) -> Option<KeySource> {
    let text = section.take("api_key");
    let file = section.take("api_key_file");
    match (text, file) {
        (Some(_), Some(file)) => {
            file.note("is set beside api_key: keep one of them");
            None
        }
        (Some(text), None) => {
            text.text()?;
            keys.given.get(name.as_str()).cloned()
        }
        (None, Some(file)) => match file.text()? {
            "" => {
                file.note("is empty: the path of a file is needed");
                None
            }
            path => Some(KeySource::File(KeyFile::new(file.resolve(path)))),
        },
        (None, None) if *name == ApiName::default_api() => Some(keys.of_default.clone()),
        (None, None) => Some(KeySource::None),
    }
}

fn polling(root: &mut Section<'_>) -> Polling {
    let mut polling = Polling::default();
    let Some(node) = root.take("polling") else { return polling };
    let Some(mut section) = node.section() else { return polling };
    let fields = [
        ("min_interval", &mut polling.min_interval),
        ("max_interval", &mut polling.max_interval),
        ("backoff_max", &mut polling.backoff_max),
    ];
    let mut all_good = true;
    for (key, field) in fields {
        let set = section.take(key).map(|node| node.parsed(Show::Value, positive_duration));
        all_good &= set.is_none_or(|set| set.map(|set| *field = set).is_some());
    }
    if let Some(recheck) = section.parse("recheck_finished", parse_duration) {
        polling.recheck_finished = recheck;
    }
    if all_good && polling.max_interval < polling.min_interval {
        section.note("max_interval", "is below min_interval: it must be at least as long");
    }
    if all_good && polling.backoff_max < polling.min_interval {
        section.note("backoff_max", "is below min_interval: it must be at least as long");
    }
    section.finish();
    polling
}

fn watches(root: &mut Section<'_>, apis: &Apis) -> Vec<Watch> {
    let Some(node) = root.take("watches") else { return Vec::new() };
    let mut watches = Vec::new();
    let mut names: HashMap<WatchName, usize> = HashMap::new();
    for (index, node) in node.items().into_iter().enumerate() {
        let origin = node.place();
        let Some(watch) = watch(node, apis) else { continue };
        if let Some(first) = names.get(&watch.name) {
            let name = &watch.name;
            origin.note(format!("the name `{name}` is taken by watches[{first}]: give each watch a name of its own"));
        } else {
            names.insert(watch.name.clone(), index);
            watches.push(watch);
        }
    }
    watches
}

fn watch(node: Node<'_>, apis: &Apis) -> Option<Watch> {
    let mut section = node.section()?;
    let agent_id = section.require("agent_id", AgentId::parse);
    let progress_id = section.require("progress_id", ProgressId::parse);
    let name = match section.take("name") {
        Some(node) => node.parsed(Show::Value, WatchName::parse),
        None => agent_id.map(WatchName::of_agent),
    };
    let expect = section.take("expect").map(|node| node.parsed(Show::Value, Expect::parse));
    let api = match section.take("api") {
        Some(node) => node.parsed(Show::Value, |api| known_api(api, apis)),
        None => known_api(ApiName::default_api().as_str(), apis)
            .map_err(|what| section.note("api", format!("is missing, and the API `default` {what}")))
            .ok(),
    };
    let labels = match section.take("labels") {
        Some(node) => labels(node),
        None => Some(Labels::new()),
    };
    section.finish();
    Some(Watch {
        name: name?,
        api: api?,
        agent_id: agent_id?,
        progress_id: progress_id?,
        expect: match expect {
            Some(parsed) => Some(parsed?),
            None => None,
        },
        labels: labels?,
        source: Source::Config,
    })
}

/// The name of a configured API, shared with all of its watches.
fn known_api(name: &str, apis: &Apis) -> Result<ApiName, String> {
    apis.keys().find(|known| known.as_str() == name).cloned().ok_or_else(|| {
        let known: Vec<_> = apis.keys().map(ApiName::as_str).collect();
        format!("is not under `apis`; known are: {}", known.join(", "))
    })
}

fn labels(node: Node<'_>) -> Option<Labels> {
    let parsed = node.entries().into_iter().map(|(name, node)| {
        let name = LabelName::parse(&name).map_err(|what| node.note(what)).ok();
        let value = node.text().map(Box::from);
        name.zip(value)
    });
    // All are read before one that is wrong decides, so that every problem is noted.
    parsed.collect::<Vec<_>>().into_iter().collect()
}

fn base_url(text: &str) -> Result<Url, String> {
    let wrong = |what: &str| format!("{what}: write it like {DEFAULT_BASE_URL}, with a path prefix if there is one");
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        Err(wrong("is neither http nor https"))
    } else if url.host_str().is_none_or(str::is_empty) {
        Err(wrong("has no host"))
    } else if !url.username().is_empty() || url.password().is_some() {
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
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<NonZeroU32>()
        .ok()
        .filter(|n| plain && n.get() <= MAX_IN_FLIGHT)
        .ok_or_else(|| format!("is not a number of requests: a whole number from 1 to {MAX_IN_FLIGHT}"))
}
