//! Reading the environment variables that set keys of the configuration.
//!
//! A variable is named after the path of the key that it sets. Its value is taken as text; for a key that holds a list
//! or a map it is YAML. An element of a list is addressed by its index.

use std::ffi::OsString;

use super::merge::index_key;
use super::validate;
use crate::document::{DocumentSource, Problem, Value, ValueKind, ValueOrigin, yaml};

/// The prefix of the variables that set keys.
const PREFIX: &str = "CEKURA_EXPORTER__";

/// One variable that sets a key.
pub(super) struct Variable {
    /// Its name.
    pub(super) name: String,
    /// The path of the key that it sets; at least one key.
    pub(super) keys: Vec<String>,
    /// The value that it sets.
    pub(super) value: Value,
}

/// The variables of the environment that set keys, sorted by path: a variable that sets a whole list comes before
/// those that set its elements.
pub(super) fn variables(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Vec<Variable> {
    let mut found: Vec<_> = vars
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    found.sort_unstable();
    let parsed = found.into_iter().map(|(name, value)| Variable::parse(name, value));
    let mut variables: Vec<Variable> =
        parsed.filter_map(|variable| variable.map_err(|faults| problems.extend(faults)).ok()).collect();
    // Names that differ in case alone set the same key.
    variables.sort_unstable_by(|a, b| (&a.keys, &a.name).cmp(&(&b.keys, &b.name)));
    for pair in variables.windows(2).filter(|pair| pair[0].keys == pair[1].keys) {
        problems.push(problem(&pair[1].name, "", &format!("sets the same key as {}: keep one of them", pair[0].name)));
    }
    variables
}

/// A warning for each variable that would set a key if its levels were joined by two underscores instead of one. The
/// variables that Kubernetes sets for services are left out.
pub(super) fn misspelt_variables(variables: &[(OsString, OsString)]) -> Vec<Problem> {
    let mut names: Vec<_> = variables.iter().filter_map(|(name, _)| name.to_str()).collect();
    names.sort_unstable();
    let warning = |name: &str| {
        let path = name.strip_prefix(PREFIX.trim_end_matches('_'))?.strip_prefix('_')?;
        let meant = spelt(path).filter(|_| !path.starts_with('_') && !is_service_link(path))?;
        let what = format!("is not read, because levels are joined by two underscores: did you mean {PREFIX}{meant}?");
        Some(problem(name, "", &what))
    };
    names.into_iter().filter_map(warning).collect()
}

/// The path of a key with its levels joined by two underscores; `None` if it does not begin with a known key.
fn spelt(path: &str) -> Option<String> {
    let path = path.to_ascii_uppercase();
    let after = |key: &str| match path.strip_prefix(&key.to_ascii_uppercase())? {
        "" => Some(""),
        rest => rest.strip_prefix('_'),
    };
    let fitting = validate::KEYS.iter().filter_map(|key| Some((*key, after(key)?)));
    let (key, rest) = fitting.max_by_key(|(key, _)| key.len())?;
    if rest.contains("__") || rest.starts_with('_') {
        return Some(path);
    }
    let levels = std::iter::once(&path[..key.len()]).chain(levels_below(key, rest));
    Some(levels.filter(|level| !level.is_empty()).collect::<Vec<_>>().join("__"))
}

/// The levels of a path below a top-level key.
fn levels_below<'r>(key: &str, rest: &'r str) -> Vec<&'r str> {
    match key {
        // The name of an API may contain underscores, too; the path ends with a key of the API.
        "apis" => {
            let name = |key: &&str| rest.strip_suffix(&key.to_ascii_uppercase())?.strip_suffix('_');
            let shortest = validate::API_KEYS.iter().filter_map(name).min_by_key(|name| name.len());
            shortest.map_or_else(|| vec![rest], |name| vec![name, &rest[name.len() + 1..]])
        }
        "watches" => match rest.split_once('_') {
            Some((index, key)) => match key.strip_prefix("LABELS_") {
                Some(label) => vec![index, "LABELS", label],
                None => vec![index, key],
            },
            None => vec![rest],
        },
        "registrations" => match rest.strip_prefix("RETENTION_") {
            Some(of) => vec!["RETENTION", of],
            None => vec![rest],
        },
        _ => vec![rest],
    }
}

/// Whether Kubernetes sets such a variable for a service whose name begins with that of the exporter.
fn is_service_link(path: &str) -> bool {
    let numbered = |(_, rest): (&str, &str)| rest.starts_with(|c: char| c.is_ascii_digit());
    path.ends_with("_SERVICE_HOST")
        || path.contains("_SERVICE_PORT")
        || path.ends_with("_PORT")
        || path.split_once("_PORT_").is_some_and(numbered)
}

fn problem(name: &str, path: &str, what: &str) -> Problem {
    Problem::new(name, path, what)
}

// === impl Variable ===

impl Variable {
    fn parse(name: String, value: OsString) -> Result<Self, Vec<Problem>> {
        let one = |what: &str| Err(vec![problem(&name, "", what)]);
        let Some(keys) = keys(&name[PREFIX.len()..]) else {
            return one("does not address an element of the list by its index");
        };
        let Ok(value) = value.into_string() else {
            return one("is not UTF-8 text");
        };
        if !validate::holds_collection(&keys) {
            let value = Value { origin: ValueOrigin::Document, kind: ValueKind::Text(value.into()) };
            return Ok(Self { name, keys, value });
        }
        match yaml::parse(&value, DocumentSource::Text(&name)) {
            Ok((value, _)) if value.as_text().is_some() => one("must be a list or a map, as YAML"),
            Ok((value, problems)) if problems.is_empty() => Ok(Self { name, keys, value }),
            Ok((_, problems)) => Err(problems),
            Err(problem) => Err(vec![problem]),
        }
    }
}

/// The keys on the path; `None` if an element of a list is not addressed by its index.
fn keys(path: &str) -> Option<Vec<String>> {
    let mut keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    match &mut keys[..] {
        [list, element, ..] if validate::LISTS.contains(&list.as_str()) => {
            *element = index_key(element.parse().ok()?);
        }
        // The name of an API may contain two underscores, too.
        [apis, name @ .., key] if apis == "apis" && name.len() > 1 => {
            let (name, key) = (name.join("__"), std::mem::take(key));
            keys = vec!["apis".to_owned(), name, key];
        }
        _ => {}
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        let warnings = misspelt_variables(&[(name.into(), "sk-secret".into())]);
        warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_with_single_underscores_is_warned_of_with_a_spelling_that_is_taken() {
        for (name, meant) in [
            ("CEKURA_EXPORTER_APIS_DEFAULT_BASE_URL", "CEKURA_EXPORTER__APIS__DEFAULT__BASE_URL"),
            ("CEKURA_EXPORTER_APIS_A_B_API_KEY_FILE", "CEKURA_EXPORTER__APIS__A_B__API_KEY_FILE"),
            ("CEKURA_EXPORTER_APIS__DEFAULT__TIMEOUT", "CEKURA_EXPORTER__APIS__DEFAULT__TIMEOUT"),
            ("CEKURA_EXPORTER_polling_min_interval", "CEKURA_EXPORTER__POLLING__MIN_INTERVAL"),
            ("CEKURA_EXPORTER_WATCHES_0_PROGRESS_ID", "CEKURA_EXPORTER__WATCHES__0__PROGRESS_ID"),
            ("CEKURA_EXPORTER_WATCHES_0_LABELS_MY_TEAM", "CEKURA_EXPORTER__WATCHES__0__LABELS__MY_TEAM"),
            ("CEKURA_EXPORTER_WATCHES", "CEKURA_EXPORTER__WATCHES"),
            ("CEKURA_EXPORTER_WATCH_FILES_1", "CEKURA_EXPORTER__WATCH_FILES__1"),
            ("CEKURA_EXPORTER_REGISTRATIONS_ENABLED", "CEKURA_EXPORTER__REGISTRATIONS__ENABLED"),
            ("CEKURA_EXPORTER_REGISTRATIONS_RETENTION_FAILED", "CEKURA_EXPORTER__REGISTRATIONS__RETENTION__FAILED"),
            ("CEKURA_EXPORTER_DATABASE_URL_FILE", "CEKURA_EXPORTER__DATABASE__URL_FILE"),
            ("CEKURA_EXPORTER_STATE_FILE", "CEKURA_EXPORTER__STATE_FILE"),
            ("CEKURA_EXPORTER_WEB_MAX_CONNECTIONS", "CEKURA_EXPORTER__WEB__MAX_CONNECTIONS"),
        ] {
            let said = said(name);
            let end = format!("did you mean {meant}?");
            assert!(said.starts_with(&format!("{name}: is not read")) && said.ends_with(&end), "{said}");
        }
    }

    #[test]
    fn links_of_services_and_variables_of_others_are_not_warned_of() {
        for name in [
            "CEKURA_EXPORTER_PORT",
            "CEKURA_EXPORTER_SERVICE_HOST",
            "CEKURA_EXPORTER_SERVICE_PORT_HTTP",
            "CEKURA_EXPORTER_PORT_10058_TCP_ADDR",
            "CEKURA_EXPORTER_WEB_PORT",
            "CEKURA_EXPORTER_WEB_SERVICE_HOST",
            "CEKURA_EXPORTER_WEB_SERVICE_PORT",
            "CEKURA_EXPORTER_WEB_PORT_80_TCP",
            "CEKURA_EXPORTER_WEBSITE",
            "CEKURA_EXPORTER_",
            "CEKURA_EXPORTER__APIS__DEFAULT__TIMEOUT",
            "CEKURA_API_KEY",
        ] {
            assert_eq!(said(name), "", "{name}");
        }
    }

    #[test]
    fn every_key_that_can_be_misspelt_is_one_that_is_known() {
        let text = "{no such key at the top: x, apis: {default: {no such key: x}}}";
        let problems = crate::config::parse(text).unwrap_err().to_string();
        for known in [&validate::KEYS[..], &validate::API_KEYS] {
            let listed: Vec<_> = problems.lines().map(|line| line.rsplit("known here are ").next().unwrap()).collect();
            let sorted = |mut keys: Vec<&str>| {
                keys.sort_unstable();
                keys.join(" ")
            };
            let known = sorted(known.to_vec());
            assert!(listed.iter().any(|list| sorted(list.split(", ").collect()) == known), "{known}: {problems}");
        }
    }
}
