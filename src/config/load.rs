//! Reading the configuration: file and environment in, [`Config`] out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::{Variable, variables};
use super::problem::{Problem, Problems};
use super::validate::{GivenKeys, validate};
use super::{Config, yaml};
use crate::cekura::{KeySource, Secret};

/// The variable that holds the key of the API `default`.
const KEY_VARIABLE: &str = "CEKURA_API_KEY";

/// What stands in the tree where a key was given.
const LIFTED: &str = "<secret>";

/// A configuration that can be used, and what its user should know.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What is valid but perhaps not meant.
    pub warnings: Vec<Problem>,
}

/// The tree of the configuration file.
struct File {
    path: PathBuf,
    tree: Dict,
}

/// Reads and validates the configuration in `file`, with the variables of `environment` laid over
/// it. Blocks.
///
/// # Errors
/// Every problem that there is.
pub fn load(file: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Checked, Problems> {
    let environment: Vec<_> = environment.into_iter().collect();
    let mut problems = Vec::new();
    let mut given = GivenKeys::new();
    let mut base = File::read(file, &mut problems);
    lift_keys(&mut base.tree, &mut given);
    let environment_key = environment_key(&environment, &mut problems);
    let mut overlays = variables(environment, &mut problems);
    for variable in &mut overlays {
        variable.lift_key(&mut given);
        variable.replace_list_in(&mut base.tree);
    }
    let lists = base.set_lists_aside(&overlays);
    let figment = overlays.iter().fold(Figment::from(&base), Figment::merge);
    match validate(&figment, lists, file, &given, environment_key.as_ref()) {
        Ok(config) if problems.is_empty() => {
            let warnings = warnings(&config, file);
            Ok(Checked { config, warnings })
        }
        validated => {
            problems.extend(validated.err().unwrap_or_default());
            Err(Problems(problems))
        }
    }
}

/// What is valid but perhaps not meant.
fn warnings(config: &Config, file: &Path) -> Vec<Problem> {
    const MANY: usize = 10_000;
    let problem = |path: String, what: String| Problem { origin: file.display().to_string(), path, what };
    let mut warnings = Vec::new();
    for api in &config.apis {
        if let KeySource::File(key) = &api.key
            && let Err(what) = key.read()
        {
            let what = format!("{} {what}; polls fail with `credentials` until it is there", key.path().display());
            warnings.push(problem(format!("apis.{}.api_key_file", api.name), what));
        }
    }
    match config.watches.len() {
        0 => warnings.push(problem("watches".into(), "the watch list is empty: nothing is polled".into())),
        many if many > MANY => {
            let series = many * Config::SERIES_PER_WATCH;
            warnings.push(problem("watches".into(), format!("{many} watches are about {series} series a scrape")));
        }
        _ => {}
    }
    warnings
}

fn environment_key(environment: &[(OsString, OsString)], problems: &mut Vec<Problem>) -> Option<Secret> {
    let (_, value) = environment.iter().find(|(name, value)| name == KEY_VARIABLE && !value.is_empty())?;
    let key = value.to_str().ok_or("is not UTF-8 text").and_then(Secret::parse);
    key.map_err(|what| problems.push(Problem { origin: KEY_VARIABLE.into(), path: String::new(), what: what.into() }))
        .ok()
}

/// Takes the text of every `apis.*.api_key` out of a tree.
fn lift_keys(tree: &mut Dict, given: &mut GivenKeys) {
    let Some(Value::Dict(_, apis)) = tree.get_mut("apis") else { return };
    for (name, api) in apis {
        if let Value::Dict(_, api) = api {
            lift_key(name, api, given);
        }
    }
}

fn lift_key(api_name: &str, api: &mut Dict, given: &mut GivenKeys) {
    if let Some(Value::String(_, key)) = api.get_mut("api_key") {
        given.insert(api_name.to_owned(), std::mem::replace(key, LIFTED.to_owned()));
    }
}

// === impl Variable ===

impl Variable {
    /// Takes a key that this variable gives out of its value.
    fn lift_key(&mut self, given: &mut GivenKeys) {
        let keys: Vec<_> = self.keys.iter().map(String::as_str).collect();
        match (&keys[..], &mut self.value) {
            (["apis", name, "api_key"], Value::String(_, key)) => {
                given.insert((*name).to_owned(), std::mem::replace(key, LIFTED.to_owned()));
            }
            (["apis", name], Value::Dict(_, api)) => lift_key(name, api, given),
            (["apis"], Value::Dict(_, apis)) => {
                let mut tree = Dict::from([("apis".to_owned(), Value::from(std::mem::take(apis)))]);
                lift_keys(&mut tree, given);
                *apis = tree.remove("apis").and_then(Value::into_dict).unwrap_or_default();
            }
            _ => {}
        }
    }

    /// A list that a variable sets replaces that of the file; figment would merge them.
    fn replace_list_in(&self, base: &mut Dict) {
        if let [list] = &self.keys[..]
            && super::validate::LISTS.contains(&list.as_str())
        {
            base.remove(list);
        }
    }
}

// === impl File ===

impl File {
    fn read(path: &Path, problems: &mut Vec<Problem>) -> Self {
        let origin = path.display().to_string();
        let mut note = |path: &str, what: String| {
            problems.push(Problem { origin: origin.clone(), path: path.to_owned(), what });
        };
        let text = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                note("", "is not UTF-8 text".into());
                String::new()
            }
            Err(error) => {
                note("", format!("cannot be read: {error}; name the configuration with --config.file"));
                String::new()
            }
        };
        let (tree, faults) = yaml::parse(&text);
        for fault in faults {
            note(fault.path.as_str(), fault.what);
        }
        let tree = match tree {
            Value::Dict(_, tree) => tree,
            Value::Empty(..) => Dict::new(),
            _ => {
                note("", "must be a map of keys to values".into());
                Dict::new()
            }
        };
        Self { path: path.to_owned(), tree }
    }

    /// Takes out the lists that no variable lays anything over. figment copies all that it is
    /// given, twice, and the copies of a long list would be most of what the process ever holds.
    fn set_lists_aside(&mut self, overlays: &[Variable]) -> Dict {
        let untouched = |list: &&str| overlays.iter().all(|variable| variable.keys[0] != *list);
        let lists = super::validate::LISTS.iter().copied().filter(|list| untouched(list));
        lists.filter_map(|list| self.tree.remove_entry(list)).collect()
    }
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.display().to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(Value::Dict(Tag::Default, self.tree.clone()).into_dict().unwrap_or_default()))
    }
}
