//! Reading the configuration: file and environment in, [`Config`] out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use zeroize::Zeroize;

use super::Config;
use super::environment::{Variable, misspelt_variables, variables};
use super::validate::{Keys, WATCHES, validate};
use crate::cekura::{KeySource, Secret, without_endpoint};
use crate::document::yaml::{Stream, SyntaxFault};
use crate::document::{Problem, Problems, locate, yaml};
use crate::input_file::{self, Content};
use crate::sources::Entries;
use crate::toggle::{ApiName, Source};

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

/// The configuration file as it was read.
struct File<'p> {
    path: &'p Path,
    tree: Dict,
    /// Those of the watch list, where it is not in the tree.
    entries: Entries<'p>,
}

/// What the environment lays over the file.
struct Environment {
    overlays: Vec<Variable>,
    key_of_default: KeySource,
    problems: Vec<Problem>,
}

/// A configuration as far as it could be read, and everything that is wrong with it.
#[derive(Debug)]
pub struct ReadConfig {
    /// What can be said of it in spite of the problems; `None` if that is nothing.
    pub config: Option<Config>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is valid but perhaps not meant.
    pub warnings: Vec<Problem>,
}

impl From<Problems> for ReadConfig {
    fn from(Problems(problems): Problems) -> Self {
        Self { config: None, problems, warnings: Vec::new() }
    }
}

/// Reads and validates the configuration in `file`, with the variables of `environment` laid over
/// it. Blocks.
///
/// # Errors
/// Every problem that there is.
pub fn load(file: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Checked, Problems> {
    let ReadConfig { config, problems, warnings } = read(file, environment);
    let config = usable(config, problems)?;
    Ok(Checked { config, warnings })
}

/// As [`load`], for those who go on in spite of problems: with what is left of the configuration. Of
/// a configuration with problems nothing is warned.
pub fn read(file: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> ReadConfig {
    let mut problems = Vec::new();
    let variables: Vec<_> = environment.into_iter().collect();
    let misspelt = misspelt_variables(&variables);
    let environment = Environment::of(variables);
    let content = content(file);
    let text = content.as_ref().map_err(Clone::clone).and_then(|content| text_of(content));
    let base = match &text {
        Ok(text) => File::parse(file, text, &environment, &mut problems, SyntaxFault::of_file),
        Err(what) => {
            problems.push(Problem::new(file.display().to_string(), "", what.clone()));
            File::empty(file)
        }
    };
    let config = assemble(base, environment, &mut problems);
    let mut warnings = match &config {
        Some(config) if problems.is_empty() => [misspelt, warnings(config, file)].concat(),
        _ => Vec::new(),
    };
    if let Ok(text) = text {
        let origin = file.display().to_string();
        locate(text, &origin, &mut problems);
        locate(text, &origin, &mut warnings);
    }
    ReadConfig { config, problems, warnings }
}

/// Validates a configuration that is in no file. Relative paths in it start at the working
/// directory.
///
/// # Errors
/// Every problem that there is.
pub fn parse(text: &str) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let environment = Environment::of(Vec::new());
    let base = File::parse(Path::new("configuration"), text, &environment, &mut problems, SyntaxFault::of_text);
    let config = assemble(base, environment, &mut problems);
    usable(config, problems)
}

fn usable(config: Option<Config>, problems: Vec<Problem>) -> Result<Config, Problems> {
    config.filter(|_| problems.is_empty()).ok_or(Problems(problems))
}

/// Lays the environment over the file, and validates. Without problems there is a configuration.
fn assemble(mut base: File<'_>, environment: Environment, problems: &mut Vec<Problem>) -> Option<Config> {
    let Environment { mut overlays, key_of_default, problems: of_variables } = environment;
    let mut keys = Keys { given: BTreeMap::new(), of_default: key_of_default };
    let readable = problems.is_empty() || !base.tree.is_empty();
    problems.extend(of_variables);
    lift_keys(&mut base.tree, &mut keys);
    for variable in &mut overlays {
        variable.lift_key(&mut keys);
        variable.replace_list_in(&mut base.tree);
    }
    if !readable {
        // What else would be said of the keys would be said without knowing them.
        return None;
    }
    let lists = base.set_lists_aside(&overlays);
    let figment = overlays.iter().fold(Figment::from(&base), Figment::merge);
    validate(&figment, lists, base.entries, base.path, &keys, problems)
}

/// The content of a configuration file, or why it cannot be read.
fn content(file: &Path) -> Result<Content, String> {
    // Then variables are all that there is.
    if file == Path::new("/dev/null") {
        return Ok(Content::default());
    }
    input_file::read(file, MAX_BYTES).map_err(|error| format!("{error}; --config.file names the configuration"))
}

fn text_of(content: &[u8]) -> Result<&str, String> {
    str::from_utf8(content).map_err(|_| "is not UTF-8 text".to_owned())
}

/// What is valid but perhaps not meant.
fn warnings(config: &Config, file: &Path) -> Vec<Problem> {
    let problem = |path: String, what: String| Problem::new(file.display().to_string(), path, what);
    let mut warnings = Vec::new();
    for api in &config.apis {
        if let Some(meant) = without_endpoint(&api.base_url) {
            let what = format!("ends in a part of the endpoint's path, which is added to it: write {meant}");
            warnings.push(problem(format!("apis.{}.base_url", api.name), what));
        }
        let (key, what) = match &api.key {
            KeySource::File(key) => match key.read() {
                Ok(_) => continue,
                Err(what) => ("api_key_file", format!("{} {what}", key.path().display())),
            },
            KeySource::Unusable(what) => ("api_key", (*what).to_owned()),
            KeySource::None => {
                warnings.push(problem(format!("apis.{}", api.name), no_key(&api.name)));
                continue;
            }
            KeySource::Given(_) => continue,
        };
        let what = format!("{what}; until that is mended, polls fail with `credentials`");
        warnings.push(problem(format!("apis.{}.{key}", api.name), what));
    }
    // Watches may come from elsewhere too.
    let alone = config.watch_files.is_empty() && !config.registrations.enabled;
    match config.watches.len() {
        0 if alone => warnings.push(problem("watches".into(), "the watch list is empty: nothing is polled".into())),
        many if many > Config::MANY_WATCHES => {
            let series = many * Config::SERIES_PER_WATCH;
            warnings.push(problem("watches".into(), format!("{many} watches are about {series} series a scrape")));
        }
        _ => {}
    }
    warnings
}

/// What is to be said of an API without any key.
fn no_key(api: &ApiName) -> String {
    let or_variable =
        if *api == ApiName::default_api() { format!(", or the variable {KEY_VARIABLE}") } else { String::new() };
    format!("has no key, so its polls fail with `credentials`: set api_key_file or api_key{or_variable}")
}

fn key_of_default(environment: &[(OsString, OsString)]) -> KeySource {
    let set = environment.iter().find(|(name, value)| name == KEY_VARIABLE && !value.is_empty());
    set.map_or(KeySource::None, |(_, value)| value.to_str().map_or(KeySource::Unusable("is not UTF-8 text"), given_key))
}

fn given_key(text: &str) -> KeySource {
    Secret::parse(text).map_or_else(KeySource::Unusable, KeySource::Given)
}

/// Takes the text of every `apis.*.api_key` out of a tree.
fn lift_keys(tree: &mut Dict, keys: &mut Keys) {
    let Some(Value::Dict(_, apis)) = tree.get_mut("apis") else { return };
    for (name, api) in apis {
        if let Value::Dict(_, api) = api
            && let Some(Value::String(_, key)) = api.get_mut("api_key")
        {
            keys.lift(name, key);
        }
    }
}

// === impl Keys ===

impl Keys {
    /// Takes over the key of an API; what stands in the tree is wiped.
    fn lift(&mut self, api: &str, key: &mut String) {
        self.given.insert(api.to_owned(), given_key(key));
        key.zeroize();
        key.push_str(LIFTED);
    }
}

// === impl Variable ===

impl Variable {
    /// Takes a key that this variable gives out of its value.
    fn lift_key(&mut self, keys: &mut Keys) {
        if let ["apis", name, "api_key"] = self.keys.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && let Value::String(_, key) = &mut self.value
        {
            keys.lift(name, key);
            return;
        }
        // What it sets may be a whole API, or all of them.
        let mut tree = self.tree().into_dict().unwrap_or_default();
        lift_keys(&mut tree, keys);
        let lifted = self.keys.iter().try_fold(Value::from(tree), |tree, key| tree.into_dict()?.remove(key));
        if let Some(lifted) = lifted {
            self.value = lifted;
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

// === impl Environment ===

impl Environment {
    fn of(variables_of_process: Vec<(OsString, OsString)>) -> Self {
        let mut problems = Vec::new();
        let key_of_default = key_of_default(&variables_of_process);
        let overlays = variables(variables_of_process, &mut problems);
        Self { overlays, key_of_default, problems }
    }

    /// Whether a variable sets this key of the top, or anything below it.
    fn touches(&self, key: &str) -> bool {
        self.overlays.iter().any(|variable| variable.keys[0] == key)
    }
}

// === impl File ===

/// The most that is read of a configuration, in bytes, as of a watch file.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

impl<'p> File<'p> {
    fn empty(path: &'p Path) -> Self {
        Self { path, tree: Dict::new(), entries: Entries::new(path, Source::Config, None) }
    }

    /// What `text` says, which is called `path`. Faults become problems by `problem_of`.
    fn parse(
        path: &'p Path,
        text: &str,
        environment: &Environment,
        problems: &mut Vec<Problem>,
        problem_of: impl Fn(SyntaxFault, &str) -> Problem,
    ) -> Self {
        let origin = path.display().to_string();
        let mut entries = Entries::new(path, Source::Config, None);
        // Where a variable is laid over the watch list, that is needed as a tree.
        let stream = (!environment.touches(WATCHES)).then_some(Stream { key: Some(WATCHES), sink: &mut entries });
        let (tree, faults) = yaml::read(text, stream).unwrap_or_else(|fault| (yaml::null(), vec![fault]));
        problems.extend(faults.into_iter().map(|fault| problem_of(fault, &origin)));
        let tree = match tree {
            Value::Dict(_, tree) => tree,
            Value::Empty(..) => Dict::new(),
            _ => {
                problems.push(Problem::new(origin, "", "must be a map of keys to values"));
                Dict::new()
            }
        };
        Self { path, tree, entries }
    }

    /// Takes out the lists that no variable lays anything over. figment copies all that it is
    /// given, twice, and the copies of a long list would be most of what the process ever holds.
    fn set_lists_aside(&mut self, overlays: &[Variable]) -> Dict {
        let untouched = |list: &&str| overlays.iter().all(|variable| variable.keys[0] != *list);
        let lists = super::validate::LISTS.iter().copied().filter(|list| untouched(list));
        lists.filter_map(|list| self.tree.remove_entry(list)).collect()
    }
}

impl Provider for File<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.display().to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(Value::Dict(Tag::Default, self.tree.clone()).into_dict().unwrap_or_default()))
    }
}
